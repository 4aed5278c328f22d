//! The command line: what `veneur` was asked to do.

pub mod emit;
pub mod explain;
pub mod munin;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use crate::config::Program;

/// What `veneur --help` prints.
pub const HELP: &str = "\
veneur: a DogStatsD aggregating daemon

  veneur [-f FILE]                run; without FILE on built-in defaults
  veneur proxy -f FILE            pass on what other nodes forward, to the node it belongs to
  veneur gatherer -f FILE         poll what others count of themselves, for munin
  veneur gatherer --init DIR --address HOST:PORT    make a directory for one
  veneur explain [--json] LINE    how a line would be treated, and why
  veneur emit ...                 send metrics, events and service checks

  -f, --config FILE               the configuration (YAML)
      --takeover                  take over from the running daemon, if there is one, without loss
      --validate-config           check it and exit
      --validate-config-strict    unknown keys are errors
      --print-config              print what is in effect, secrets hidden, and exit
  -h, --help                      this text; also after explain and emit
  -V, --version                   the version

Every key can be set in the environment: VENEUR_INTERVAL=5s, VENEUR_HTTP__CONFIG=true.
SIGHUP reloads the configuration; SIGTERM and SIGINT flush what there is and end.
";

/// Veneur's flags, as Go writes them, beside our spelling.
const GO_FLAGS: [(&str, &str); 4] = [
    ("-config", "--config"),
    ("-validate-config", "--validate-config"),
    ("-validate-config-strict", "--validate-config-strict"),
    ("-version", "--version"),
];

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Run the daemon or the proxy, or check its configuration.
    Run(RunArguments),
    /// Make a directory for a gatherer that listens at this address.
    InitGatherer(PathBuf, String),
    /// `veneur explain`, with the arguments behind it.
    Explain(Parser),
    /// `veneur emit`, with the arguments behind it.
    Emit(Parser),
}

/// How to run the daemon or the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArguments {
    /// Which of them.
    pub program: Program,
    /// The configuration file; `None`: built-in defaults.
    pub config: Option<PathBuf>,
    /// Take over from the running daemon, if there is one.
    pub takeover: bool,
    /// Check the configuration and exit.
    pub validate: bool,
    /// Unknown keys are errors.
    pub strict: bool,
    /// Print the effective configuration and exit.
    pub print_config: bool,
}

/// Reads the arguments, the first of which is the program's name.
///
/// # Errors
/// An argument nobody knows, or one without its value.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let go_flag = |argument: OsString| match GO_FLAGS.iter().find(|(go, _)| argument == *go) {
        Some((_, ours)) => OsString::from(ours),
        None => argument,
    };
    let mut parser = Parser::from_iter(arguments.into_iter().map(go_flag));
    let mut run = RunArguments::default();
    let (mut init, mut address) = (None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('f') | Arg::Long("config") => run.config = Some(parser.value()?.into()),
            Arg::Long("takeover") => run.takeover = true,
            Arg::Long("validate-config") => run.validate = true,
            Arg::Long("validate-config-strict") => (run.validate, run.strict) = (true, true),
            Arg::Long("print-config") => run.print_config = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version),
            Arg::Value(word) if word == "explain" => return Ok(Command::Explain(parser)),
            Arg::Value(word) if word == "proxy" => run.program = Program::Proxy,
            Arg::Value(word) if word == "gatherer" => run.program = Program::Gatherer,
            Arg::Long("init") if run.program == Program::Gatherer => init = Some(parser.value()?),
            Arg::Long("address") if run.program == Program::Gatherer => {
                address = Some(parser.value()?.string()?);
            }
            Arg::Value(word) if word == "emit" => return Ok(Command::Emit(parser)),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    match (init, address) {
        (None, None) => Ok(Command::Run(run)),
        (Some(directory), Some(address)) => Ok(Command::InitGatherer(directory.into(), address)),
        (Some(_), None) => Err("--init needs --address HOST:PORT, where providers find it".into()),
        (None, Some(_)) => Err("--address goes with --init DIR".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Command, lexopt::Error> {
        parse(
            ["veneur"]
                .into_iter()
                .chain(words.split(' '))
                .filter(|w| !w.is_empty())
                .map(OsString::from),
        )
    }

    #[test]
    fn the_daemon_is_told_what_to_do() {
        let config = Some(PathBuf::from("a.yaml"));
        let plain = RunArguments::default;
        for (words, wanted) in [
            ("", plain()),
            ("-f a.yaml", RunArguments { config: config.clone(), ..plain() }),
            (
                "proxy -f a.yaml",
                RunArguments { program: Program::Proxy, config: config.clone(), ..plain() },
            ),
            ("-f a.yaml -validate-config", RunArguments { config, validate: true, ..plain() }),
            ("--validate-config-strict", RunArguments { validate: true, strict: true, ..plain() }),
            ("--takeover", RunArguments { takeover: true, ..plain() }),
            ("--print-config", RunArguments { print_config: true, ..plain() }),
        ] {
            match parse_words(words) {
                Ok(Command::Run(arguments)) => assert_eq!(arguments, wanted, "{words}"),
                other => panic!("{words}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for words in ["-x", "--frob", "run", "-f"] {
            assert!(parse_words(words).is_err(), "{words}");
        }
    }
}
