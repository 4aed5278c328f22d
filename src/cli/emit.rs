//! `veneur emit`: a client, for scripts and for trying things out.
//!
//! It sends metrics, an event and a service check, whatever of them the command line describes,
//! over any transport the daemon listens on, and can time a command. What it would send is
//! first read by the daemon's own parser, so that a mistake is an error here and not a counter
//! over there.
//!
//! Source: veneur-emit of Veneur 14, whose option names these are, with two dashes.

mod line;
mod send;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use lexopt::prelude::*;
use rustls::pki_types::pem;

use self::line::{Message, timing};
use self::send::{Credentials, Destination};
use crate::protocol::{Refusal, dogstatsd};

/// What `veneur emit --help` prints.
pub const USAGE: &str = "\
usage: veneur emit [--hostport ADDRESS] --name NAME --count 1 [--tag K:V]...
       veneur emit [--hostport ADDRESS] --name NAME [--tag K:V]... --command PROGRAM [ARG]...
       veneur emit [--hostport ADDRESS] --e_title TITLE --e_text TEXT
       veneur emit [--hostport ADDRESS] --sc_name NAME --sc_status 0

Sends metrics, an event or a service check to a daemon.

  --hostport ADDRESS     where to: HOST:PORT or udp://HOST:PORT, tcp://HOST:PORT,
                         tls://HOST:PORT, unixgram:///PATH, unix:///PATH, or @NAME in place
                         of /PATH (default udp://127.0.0.1:8126)
  --tag K:V[,K:V]...     tags of everything sent; may be repeated

metrics, all of one name; each option may be repeated:
  --name NAME            the name
  --count N --gauge N --histogram N --distribution N --set MEMBER
  --timing T             milliseconds, or with a unit: 1.5s, 20ms, 300us, 5ns, 2m, 1h
  --rate R               sample rate, 0 < R <= 1
  --timestamp T          when it was, in seconds since 1970
  --command PROGRAM ...  run a program with the arguments that follow, send how long it took
                         and exit with its status

event:
  --e_title TITLE --e_text TEXT --e_time SECONDS --e_hostname HOST --e_aggr_key KEY
  --e_priority normal|low --e_source_type TYPE --e_alert_type info|success|warning|error
  --e_event_tags K:V[,K:V]...

service check:
  --sc_name NAME --sc_status 0|1|2|3 --sc_time SECONDS --sc_hostname HOST --sc_msg TEXT
  --sc_tags K:V[,K:V]...

tls://, files in PEM:
  --cacert FILE          whom to trust (required)
  --cert FILE --key FILE what to show, if the daemon asks clients for a certificate
";

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// The command line is wrong.
    #[error("{0}; see veneur emit --help")]
    Usage(#[from] lexopt::Error),
    /// The daemon would not take it.
    #[error("the daemon would refuse {line:?}: {refusal}")]
    Refused {
        /// What would have been sent.
        line: String,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// The program to time cannot be started.
    #[error("cannot run {program}: {cause}")]
    Program {
        /// As given.
        program: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// A file for TLS cannot be used.
    #[error("{option} cannot be used: {cause}")]
    Pem {
        /// The option that names it.
        option: &'static str,
        /// What is wrong with it.
        #[source]
        cause: pem::Error,
    },
    /// The files for TLS do not go together, or are not what they should be.
    #[error("cannot use TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// It did not get there.
    #[error("cannot send to {to}: {cause}")]
    Send {
        /// The address as given.
        to: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Help could not be printed.
    #[error("cannot print: {0}")]
    Print(#[source] io::Error),
}

/// What the command line asks for.
struct Request {
    destination: Destination,
    credentials: Credentials,
    message: Message,
    program: Option<(OsString, Vec<OsString>)>,
}

/// Runs the subcommand; `args` holds what follows the word `emit`.
///
/// Succeeds when everything was sent; with `--command`, ends as the program ended, and a failure
/// to send is only told on standard error.
///
/// # Errors
/// On a wrong command line, or if something cannot be sent.
pub fn run(args: &mut lexopt::Parser, mut output: impl Write) -> Result<ExitCode, EmitError> {
    let Some(mut request) = read_args(args)? else {
        output.write_all(USAGE.as_bytes()).map_err(EmitError::Print)?;
        return Ok(ExitCode::SUCCESS);
    };
    let Some((program, args)) = request.program.take() else {
        deliver(&request)?;
        return Ok(ExitCode::SUCCESS);
    };
    // A mistake in what is to be sent should not wait for the program to end.
    request.message.metric.values.push(timing(Duration::ZERO));
    readable(&request.message)?;
    let (took, code) = time(&program, &args)?;
    request.message.metric.values.pop();
    request.message.metric.values.push(timing(took));
    if let Err(error) = deliver(&request) {
        eprintln!("veneur emit: {error}");
    }
    Ok(code)
}

fn deliver(request: &Request) -> Result<(), EmitError> {
    let lines = readable(&request.message)?;
    request.destination.send(&lines, &request.credentials)
}

/// The lines of a message, each of which the daemon can read.
fn readable(message: &Message) -> Result<Vec<String>, EmitError> {
    let lines = message.lines()?;
    for line in &lines {
        if let Err(refusal) = dogstatsd::parse(line.as_bytes()) {
            return Err(EmitError::Refused { line: line.clone(), refusal });
        }
    }
    Ok(lines)
}

/// Runs a program; how long it took, and what to exit with: its own status, or as shells do
/// 128 and the number of the signal that ended it.
fn time(program: &OsString, args: &[OsString]) -> Result<(Duration, ExitCode), EmitError> {
    let start = Instant::now();
    let status = Command::new(program)
        .args(args)
        .status()
        .map_err(|cause| EmitError::Program { program: program.display().to_string(), cause })?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok((start.elapsed(), ExitCode::from(u8::try_from(code).unwrap_or(1))))
}

/// `None` if help is asked for.
fn read_args(args: &mut lexopt::Parser) -> Result<Option<Request>, EmitError> {
    let mut hostport = "udp://127.0.0.1:8126".to_owned();
    let mut credentials = Credentials::default();
    let mut message = Message::default();
    let mut program = None;
    let Message { tags, metric, event, check } = &mut message;
    while let Some(arg) = args.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(None),
            Long("hostport") => hostport = args.value()?.string()?,
            Long("cacert") => credentials.authority = Some(args.value()?.into()),
            Long("cert") => credentials.certificate = Some(args.value()?.into()),
            Long("key") => credentials.key = Some(args.value()?.into()),
            Long("tag") => tags.push(args.value()?.string()?),

            Long("name") => metric.name = Some(args.value()?.string()?),
            Long("count") => metric.values.push(("c", args.value()?.string()?)),
            Long("gauge") => metric.values.push(("g", args.value()?.string()?)),
            Long("histogram") => metric.values.push(("h", args.value()?.string()?)),
            Long("distribution") => metric.values.push(("d", args.value()?.string()?)),
            Long("set") => metric.values.push(("s", args.value()?.string()?)),
            Long("timing") => {
                metric.values.push(("ms", args.value()?.parse_with(line::milliseconds)?));
            }
            Long("rate") => metric.rate = Some(args.value()?.string()?),
            Long("timestamp") => metric.timestamp = Some(args.value()?.string()?),
            Long("command") => {
                let mut named = args.value()?;
                let mut rest = args.raw_args()?;
                // Out of habit: `--command -- sleep 1`.
                if named == "--"
                    && let Some(next) = rest.next()
                {
                    named = next;
                }
                program = Some((named, rest.collect()));
            }

            Long("e_title") => event.title = Some(args.value()?.string()?),
            Long("e_text") => event.text = Some(args.value()?.string()?),
            Long("e_time") => event.time = Some(args.value()?.string()?),
            Long("e_hostname") => event.hostname = Some(args.value()?.string()?),
            Long("e_aggr_key") => event.aggregation_key = Some(args.value()?.string()?),
            Long("e_priority") => event.priority = Some(args.value()?.string()?),
            Long("e_source_type") => event.source_type = Some(args.value()?.string()?),
            Long("e_alert_type") => event.alert_type = Some(args.value()?.string()?),
            Long("e_event_tags") => event.tags.push(args.value()?.string()?),

            Long("sc_name") => check.name = Some(args.value()?.string()?),
            Long("sc_status") => check.status = Some(args.value()?.string()?),
            Long("sc_time") => check.time = Some(args.value()?.string()?),
            Long("sc_hostname") => check.hostname = Some(args.value()?.string()?),
            Long("sc_tags") => check.tags.push(args.value()?.string()?),
            Long("sc_msg") => check.message = Some(args.value()?.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let destination = Destination::parse(&hostport)
        .map_err(|wrong| lexopt::Error::from(format!("--hostport {hostport}: {wrong}")))?;
    Ok(Some(Request { destination, credentials, message, program }))
}
