//! `veneur emit`: a client, for scripts and for trying things out.
//!
//! It sends metrics, an event and a service check, whatever of them the command line describes,
//! over any transport the daemon listens on, or a span with samples, and can time a command. What it would send is
//! first read by the daemon's own parser, so that a mistake is an error here and not a counter
//! over there.
//!
//! Source: veneur-emit of Veneur 14, whose option names these are, with two dashes.

mod line;
mod send;
mod span;

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, UNIX_EPOCH};

use lexopt::prelude::*;
use rustls::pki_types::pem;

use self::line::{Message, timing};
use self::send::{Credentials, Destination};
use self::span::Span;
use crate::protocol::{Refusal, dogstatsd};

/// What `veneur emit --help` prints.
pub const USAGE: &str = "\
usage: veneur emit [--hostport ADDRESS] --name NAME --count 1 [--tag K:V]...
       veneur emit [--hostport ADDRESS] --name NAME [--tag K:V]... --command PROGRAM [ARG]...
       veneur emit [--hostport ADDRESS] --e_title TITLE --e_text TEXT
       veneur emit [--hostport ADDRESS] --sc_name NAME --sc_status 0
       veneur emit [--hostport ADDRESS] --ssf --name NAME --trace_id N ...

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

spans, to udp:// or unix:// addresses of ssf_listen_addresses; the metrics go with them:
  --ssf                  send SSF; with a trace id a span, without one only the metrics
  --trace_id N           the trace (default: VENEUR_EMIT_TRACE_ID; with --command, a new one)
  --parent_span_id N     the span it is part of (default: VENEUR_EMIT_PARENT_SPAN_ID)
  --span_service NAME --span_tags K:V[,K:V]... --indicator --error
  --span_starttime T --span_endtime T
                         seconds since 1970, fractions too (default: now; with --command, when
                         it began and ended, and the program has the two variables above)

tls://, files in PEM:
  --cacert FILE          whom to trust (required)
  --cert FILE --key FILE what to show, if the daemon asks clients for a certificate
";

/// Where a program that is timed finds its trace and the span it is part of.
const TRACE_ID: &str = "VENEUR_EMIT_TRACE_ID";
const PARENT_SPAN_ID: &str = "VENEUR_EMIT_PARENT_SPAN_ID";

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
    /// With `--ssf`.
    span: Option<Span>,
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
    if let Some(span) = &mut request.span
        && span.trace_id == 0
    {
        span.trace_id = new_id();
    }
    packet(&request)?;
    let start = now();
    let (took, code) = time(&program, &args, request.span.as_ref())?;
    request.message.metric.values.pop();
    request.message.metric.values.push(timing(took));
    if let Some(span) = &mut request.span {
        (span.start, span.end) = (start, start + took);
        span.error |= code != ExitCode::SUCCESS;
    }
    if let Err(error) = deliver(&request) {
        eprintln!("veneur emit: {error}");
    }
    Ok(code)
}

fn deliver(request: &Request) -> Result<(), EmitError> {
    match packet(request)? {
        Packet::Lines(lines) => request.destination.send(&lines, &request.credentials),
        Packet::Ssf(message) => request.destination.send_ssf(&message),
    }
}

/// What is sent.
enum Packet {
    Lines(Vec<String>),
    Ssf(Vec<u8>),
}

/// What a request says, which the daemon can read.
fn packet(request: &Request) -> Result<Packet, EmitError> {
    let Message { tags, metric, event, check } = &request.message;
    match &request.span {
        None => readable(&request.message).map(Packet::Lines),
        Some(_) if *event != Default::default() || *check != Default::default() => {
            Err(lexopt::Error::from("--ssf sends neither events nor service checks").into())
        }
        Some(span) => Ok(Packet::Ssf(span::message(metric, tags, span)?)),
    }
}

fn now() -> Duration {
    UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// A random number for a span or a trace, above 0.
fn new_id() -> i64 {
    // Each `RandomState` has its own random keys, so the hash of nothing is a random number.
    i64::try_from(RandomState::new().build_hasher().finish() >> 1 | 1).unwrap_or(1)
}

/// A number from the environment, as a program that runs us with `--command` has it.
fn from_environment(name: &str) -> i64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
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
fn time(
    program: &OsString,
    args: &[OsString],
    span: Option<&Span>,
) -> Result<(Duration, ExitCode), EmitError> {
    let ids = span
        .map(|span| [(TRACE_ID, span.trace_id.to_string()), (PARENT_SPAN_ID, span.id.to_string())]);
    let start = Instant::now();
    let status =
        Command::new(program).args(args).envs(ids.into_iter().flatten()).status().map_err(
            |cause| EmitError::Program { program: program.display().to_string(), cause },
        )?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok((start.elapsed(), ExitCode::from(u8::try_from(code).unwrap_or(1))))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// `None` if help is asked for.
fn read_args(args: &mut lexopt::Parser) -> Result<Option<Request>, EmitError> {
    let mut hostport = "udp://127.0.0.1:8126".to_owned();
    let mut credentials = Credentials::default();
    let mut message = Message::default();
    let mut program = None;
    let mut is_ssf = false;
    let mut span = Span {
        trace_id: from_environment(TRACE_ID),
        parent_id: from_environment(PARENT_SPAN_ID),
        id: new_id(),
        start: now(),
        end: now(),
        ..Span::default()
    };
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

            Long("ssf") => is_ssf = true,
            Long("trace_id") => span.trace_id = args.value()?.parse()?,
            Long("parent_span_id") => span.parent_id = args.value()?.parse()?,
            Long("span_service") => span.service = args.value()?.string()?,
            Long("span_tags") => span.tags.push(args.value()?.string()?),
            Long("span_starttime") => span.start = args.value()?.parse_with(seconds)?,
            Long("span_endtime") => span.end = args.value()?.parse_with(seconds)?,
            Long("indicator") => span.indicator = true,
            Long("error") => span.error = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let destination = Destination::parse(&hostport)
        .map_err(|wrong| lexopt::Error::from(format!("--hostport {hostport}: {wrong}")))?;
    let span = is_ssf.then_some(span);
    Ok(Some(Request { destination, credentials, message, span, program }))
}
