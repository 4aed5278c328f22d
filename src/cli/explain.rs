//! `veneur explain`: how the daemon reads a line, by the daemon's own parser.
//!
//! For people it takes lines as arguments and tells what they become, or why they are refused.
//! For programs it takes datagrams as JSON lines and answers in JSON.

mod classic;
mod json;
mod people;

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use lexopt::prelude::*;

use crate::config::{self, Problems};
use crate::mapping::Mapping;
use crate::model::{Dialect, MetricKind, Scope, tags, text};
use crate::protocol::Reason;
use crate::protocol::dogstatsd::Line;

pub use classic::explain_classic;
pub use json::explain_json;
pub use people::explain_text;

/// What `veneur explain --help` prints.
pub const USAGE: &str = "\
usage: veneur explain [--dialect DIALECT] [--mapping FILE] LINE...
       veneur explain --json < PACKETS

Shows how the daemon reads what a client sends: what a line becomes at flush, in which
series, on a local and on a global node; or why it is refused, and where.

  LINE                 a metric, event or service check, as 'page.views:1|c|#env:prod'
  --json               read {\"packet\": TEXT} or {\"packet_b64\": BASE64} lines, one datagram
                       each, from standard input, and answer each with a line of JSON
  --dialect DIALECT    how to read them: dogstatsd, etsy or brubeck; without --json
  --mapping FILE       a mapping file of statsd_exporter: show the rule that a name hits, and
                       what it makes of it; without --json

A metric with a timestamp that is no counter or gauge can be read, but is not aggregated:
--json lists its line under \"refused_at_intake\", too, which is absent if there is none.

Exits with 1 if a line is refused, or with --json if an input line is not as above.
";

/// What came of it, as the exit code tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was accepted.
    Accepted,
    /// A line was refused; with `--json`, an input line was malformed.
    Refused,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        match outcome {
            Outcome::Accepted => ExitCode::SUCCESS,
            Outcome::Refused => ExitCode::FAILURE,
        }
    }
}

/// Why nothing, or not everything, could be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The command line is wrong.
    #[error("{0}; see veneur explain --help")]
    Usage(#[from] lexopt::Error),
    /// The mapping file cannot be used.
    #[error("{0}")]
    Mapping(#[from] Problems),
    /// Input or output failed.
    #[error("cannot go on: {0}")]
    Io(#[from] io::Error),
}

/// What the command line asks for.
enum Request {
    Help,
    Json,
    Lines(Dialect, Option<PathBuf>, Vec<OsString>),
}

/// Runs the subcommand; `args` holds what follows the word `explain`.
///
/// # Errors
/// On a wrong command line, and if `input` or `output` fails; that nobody reads `output` to its
/// end is no failure.
pub fn run(
    args: &mut lexopt::Parser,
    input: impl BufRead,
    output: impl Write,
) -> Result<Outcome, ExplainError> {
    let request = read_args(args)?;
    let mapping = match &request {
        Request::Lines(_, Some(path), _) => Some(config::mapping::load_here(path)?.0),
        _ => None,
    };
    match answer(request, mapping.map(Arc::new), input, output) {
        // Who reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::Accepted),
        answered => Ok(answered?),
    }
}

fn answer(
    request: Request,
    mapping: Option<Arc<Mapping>>,
    input: impl BufRead,
    mut output: impl Write,
) -> io::Result<Outcome> {
    match request {
        Request::Help => {
            output.write_all(USAGE.as_bytes())?;
            Ok(Outcome::Accepted)
        }
        Request::Json => json::answer(input, output),
        Request::Lines(dialect, _, lines) => {
            let mut outcome = Outcome::Accepted;
            for (index, line) in lines.into_iter().enumerate() {
                if index > 0 {
                    writeln!(output)?;
                }
                let line = line.into_vec();
                let (text, one) = match dialect {
                    Dialect::DogStatsD => people::explain_mapped(&line, mapping.as_deref()),
                    Dialect::Etsy | Dialect::Brubeck => {
                        classic::explain_mapped(dialect, &line, mapping.clone())
                    }
                };
                output.write_all(text.as_bytes())?;
                outcome = if one == Outcome::Refused { one } else { outcome };
            }
            Ok(outcome)
        }
    }
}

fn read_args(args: &mut lexopt::Parser) -> Result<Request, lexopt::Error> {
    let mut json = false;
    let mut dialect = Dialect::DogStatsD;
    let mut mapping = None;
    let mut lines = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Long("json") => json = true,
            Long("dialect") => {
                let word = args.value()?;
                dialect = word.to_str().and_then(Dialect::from_name).ok_or_else(|| {
                    let known = Dialect::ALL.map(Dialect::as_str).join(", ");
                    format!("dialect {} is none of {known}", word.display())
                })?;
            }
            Long("mapping") => mapping = Some(args.value()?.into()),
            Short('h') | Long("help") => return Ok(Request::Help),
            Value(line) => lines.push(line),
            other => return Err(other.unexpected()),
        }
    }
    if json && dialect != Dialect::DogStatsD {
        return Err("with --json, the dialect is dogstatsd".into());
    }
    if json && mapping.is_some() {
        return Err("with --json, there is no mapping".into());
    }
    match (json, lines.is_empty()) {
        (true, true) => Ok(Request::Json),
        (true, false) => Err("with --json, packets come from standard input".into()),
        (false, false) => Ok(Request::Lines(dialect, mapping, lines)),
        (false, true) => Err("there is no line to explain".into()),
    }
}

/// Why a line that can be read is refused before it is aggregated: only counters and gauges
/// may say when they were.
fn refused_at_intake(line: &Line<'_>) -> Option<Reason> {
    line.timestamp?;
    match line.kind {
        MetricKind::Counter | MetricKind::Gauge => None,
        MetricKind::Histogram | MetricKind::Timer | MetricKind::Distribution | MetricKind::Set => {
            Some(Reason::TimestampUnsupported)
        }
    }
}

/// The tags in the order given, without the one that asks for a scope; and that scope.
fn tags_and_scope(section: &[u8]) -> (Vec<String>, Scope) {
    let section = text::lossy(section);
    let (scope, place) = tags::scope_of(&section);
    let others = tags::split(&section).enumerate().filter(|(index, _)| Some(*index) != place);
    (others.map(|(_, tag)| tag.to_owned()).collect(), scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_with(args: &[&str], input: &str) -> Result<(String, Outcome), String> {
        let mut output = Vec::new();
        let mut args = lexopt::Parser::from_args(args);
        let outcome = run(&mut args, input.as_bytes(), &mut output).map_err(|e| e.to_string())?;
        Ok((String::from_utf8(output).expect("output is text"), outcome))
    }

    #[test]
    fn a_wrong_command_line_is_told_in_a_sentence() {
        for (args, error) in [
            (&[][..], "there is no line to explain"),
            (&["--json", "a:1|c"], "with --json, packets come from standard input"),
            (
                &["--dialect", "statsite", "a:1|c"],
                "dialect statsite is none of dogstatsd, etsy, brubeck",
            ),
            (&["--dialect", "etsy", "--json"], "with --json, the dialect is dogstatsd"),
            (&["--jsn"], "invalid option '--jsn'"),
        ] {
            let expected = format!("{error}; see veneur explain --help");
            assert_eq!(run_with(args, ""), Err(expected), "{args:?}");
        }
    }

    #[test]
    fn lines_are_explained_one_by_one_and_a_refused_one_decides_the_exit_code() {
        let (text, outcome) = run_with(&["a:1|x", "b:1|c"], "").expect("both can be explained");
        assert_eq!(outcome, Outcome::Refused);
        assert!(text.contains("unknown_type") && text.contains("\n\ncounter b\n"), "{text}");

        let (_, outcome) = run_with(&["--dialect=dogstatsd", "b:1|c"], "").expect("a good line");
        assert_eq!(outcome, Outcome::Accepted);
    }

    /// A pipe that has been closed at the other end.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_has_seen_enough_may_close_the_output() {
        for args in [&["--json"][..], &["a:1|c"]] {
            let mut args = lexopt::Parser::from_args(args);
            let outcome = run(&mut args, &b"{\"packet\": \"a:1|c\"}\n"[..], Closed);
            assert_eq!(outcome.map_err(|error| error.to_string()), Ok(Outcome::Accepted));
        }
    }

    #[test]
    fn help_is_printed_on_request() {
        assert_eq!(run_with(&["--help"], ""), Ok((USAGE.to_owned(), Outcome::Accepted)));
    }
}
