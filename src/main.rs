//! The `veneur` program: arguments, configuration, run, exit codes.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use veneur::cli::emit::{self, EmitError};
use veneur::cli::explain::{self, ExplainError};
use veneur::cli::munin;
use veneur::cli::{self, Command, RunArguments};
use veneur::config::settings::SinkSettings;
use veneur::config::{self, Loaded, Problems, Program};
use veneur::gatherer::init;
use veneur::server::sandbox::{self, Sandbox};
use veneur::server::{Server, panics};
use veneur::telemetry::sentry::{self, Reporter};
use veneur::telemetry::{Telemetry, logging};

/// The configuration or the arguments are wrong (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    // Named once for the whole process: no other cryptography is in it.
    let _only_one = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next().as_deref().and_then(munin::plugin_of) {
        return plugin(&name, &arguments.collect::<Vec<_>>());
    }
    match cli::parse(std::env::args_os()) {
        Ok(Command::Help) => print(cli::HELP),
        Ok(Command::Version) => print(concat!("veneur ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Explain(mut arguments)) => {
            let ran = explain::run(&mut arguments, io::stdin().lock(), io::stdout().lock());
            match ran {
                Ok(outcome) => outcome.into(),
                Err(error @ (ExplainError::Usage(_) | ExplainError::Mapping(_))) => {
                    fail(&error.to_string(), EXIT_USAGE)
                }
                Err(error @ ExplainError::Io(_)) => fail(&error.to_string(), 1),
            }
        }
        Ok(Command::Emit(mut arguments)) => match emit::run(&mut arguments, io::stdout().lock()) {
            Ok(code) => code,
            Err(error @ EmitError::Usage(_)) => fail(&error.to_string(), EXIT_USAGE),
            Err(error) => fail(&error.to_string(), 1),
        },
        Ok(Command::InitGatherer(directory, address)) => match init(&directory, &address) {
            Ok(reference) => print(&format!("{}\n", reference.reveal())),
            Err(error) => fail(&error.to_string(), 1),
        },
        Ok(Command::Run(arguments)) => check_or_run(&arguments),
        Err(error) => fail(&format!("{error}; see veneur --help"), EXIT_USAGE),
    }
}

/// Is a munin plugin.
fn plugin(name: &str, arguments: &[OsString]) -> ExitCode {
    let environment = munin::Environment::read(|name| std::env::var(name).ok());
    let environment = match environment {
        Ok(environment) => environment,
        Err(error) => return fail(&error, 2),
    };
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
    let said = munin::run(name, arguments, &environment, now);
    if !said.stderr.is_empty() {
        say(said.stderr.trim_end());
    }
    match said.code {
        0 => print(&said.stdout),
        code => ExitCode::from(code),
    }
}

fn load(arguments: &RunArguments) -> Result<Loaded, Problems> {
    let load = match arguments.program {
        Program::Daemon => config::load,
        Program::Proxy => config::load_proxy,
        Program::Gatherer => config::load_gatherer,
    };
    load(arguments.config.as_deref(), std::env::vars_os(), arguments.strict)
}

fn check_or_run(arguments: &RunArguments) -> ExitCode {
    let loaded = match load(arguments) {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&problems.to_string(), EXIT_USAGE),
    };
    if arguments.print_config {
        return print(&loaded.settings.effective_yaml());
    }
    if arguments.validate {
        loaded.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
        return print(&loaded.settings.sinks.iter().map(sink).collect::<String>());
    }
    if arguments.takeover && loaded.settings.takeover_socket.is_none() {
        return fail("--takeover needs takeover_socket in the configuration", EXIT_USAGE);
    }
    match run(loaded, arguments.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), 1),
    }
}

fn run(loaded: Loaded, arguments: RunArguments) -> Result<(), Box<dyn Error>> {
    let settings = &loaded.settings;
    let telemetry = Telemetry::default();
    panics::end_process();
    // Before there is any other thread.
    let sandbox = settings.sandbox.then(|| sandbox::enter(&loaded, arguments.config.as_deref()));
    let hostname = settings.hostname.as_deref();
    let reporter = sentry::start(settings.sentry_dsn.as_ref(), hostname, &telemetry)?;
    let logs = logging::init(settings.debug, reporter.as_ref().map(Reporter::errors))?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    sandbox.iter().for_each(Sandbox::report);
    let ended = Server::build(loaded, arguments.takeover, telemetry, logs.clone())
        .and_then(|server| server.run(Box::new(move || load(&arguments))));
    if let Some(reporter) = reporter {
        reporter.flush();
    }
    logs.flush(logging::AT_THE_END);
    Ok(ended?)
}

/// A sink that would run, on a line.
fn sink(sink: &SinkSettings) -> String {
    let SinkSettings { name, kind, .. } = sink;
    format!("sink {name}: {}, {}\n", kind.as_str(), kind.place())
}

/// Writes to standard output; a reader that has gone away is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&format!("cannot write to standard output: {error}"), 1)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    say(&format!("veneur: {message}"));
    ExitCode::from(code)
}

/// Writes a line to standard error, if there is one.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
