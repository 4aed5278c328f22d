//! From what was written to [`Settings`]: defaults, bounds, and what must fit together.
//!
//! Every check reports and goes on with a stand-in, so that one run finds all problems; the
//! settings are used only if there were none.

mod classic;
pub(super) mod datadog;
mod delivery;
pub(super) mod file;
mod forward;
mod gatherer;
pub(super) mod graphite;
mod import;
pub(super) mod influxdb;
mod intake;
mod limits;
mod mapping;
mod sinks;
mod spans;
mod spool;
pub(super) mod traces;
mod upstreams;

use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::duration;
use super::machine::Machine;
use super::problem::{Place, Problem, Report, Source};
use super::raw::{Many, One, Raw};
use super::reading::Given;
use super::settings::{Program, Settings, SinkKind};
use crate::model::{ExtendTags, Interval, Percentile, Statistic};

/// As Veneur 14 does; v1.1.0 had no default.
const INTERVAL: Duration = Duration::from_secs(10);
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
const MOST_THREADS: u64 = 1024;
/// Each is a series of every histogram.
const MOST_PERCENTILES: usize = 100;

/// The settings that `raw` asks for, or stand-ins where `report` got problems.
pub(super) fn settings(
    program: Program,
    raw: &Raw,
    machine: &Machine,
    report: &mut Report,
) -> Settings {
    let mut intake = intake::intake(raw, machine, report);
    if program != Program::Daemon {
        intake.listeners.clear();
    }
    let http = delivery::http(program, raw, machine, report);
    let import = import::import(raw, http.token.as_ref(), machine, report);
    let interval = interval(&raw.interval, report);
    let forward = forward::forward(raw, interval, machine, report);
    let classic = classic::classic(raw, interval, report);
    let mut sinks = match program {
        Program::Daemon => sinks::sinks(raw, report),
        Program::Proxy | Program::Gatherer => Vec::new(),
    };
    for sink in &mut sinks {
        if let SinkKind::Graphite(graphite) = &mut sink.kind {
            graphite.names = classic.names.clone();
        }
    }
    let takeover_socket = match program {
        Program::Daemon => intake::takeover_socket(raw, report),
        Program::Proxy | Program::Gatherer => None,
    };
    let settings = Settings {
        program,
        interval,
        synchronize_with_interval: flag(&raw.synchronize_with_interval, false),
        flush_watchdog_missed_flushes: watchdog(&raw.flush_watchdog_missed_flushes, report),
        hostname: hostname(&raw.hostname, &raw.omit_empty_hostname, machine, report),
        tags: tags(&raw.tags, report),
        extend_tags: ExtendTags::new(tags(&raw.extend_tags, report)),
        percentiles: percentiles(&raw.percentiles, report),
        aggregates: aggregates(&raw.aggregates, report),
        intake,
        classic,
        mapping: mapping::mapping(program, raw, machine, report),
        num_workers: threads(&raw.num_workers, machine, report),
        limits: limits::limits(raw, report),
        http,
        import,
        forward,
        identity: gatherer::identity(raw, report),
        reference: gatherer::reference(raw, machine, report),
        gatherer: gatherer::gatherer(program, raw, machine, report),
        takeover_socket,
        sandbox: flag(&raw.sandbox, false),
        stats_address: delivery::stats_address(&raw.stats_address, report),
        sinks,
        spool: spool::spool(raw, report),
        sentry_dsn: delivery::sentry_dsn(&raw.sentry_dsn, report),
        debug: flag(&raw.debug, false),
    };
    if let Some(given) = &raw.flush_on_shutdown
        && !given.value
    {
        report.warn(&given.source, "the open interval is always flushed on shutdown");
    }
    settings
}

/// What a program with these settings cannot do without. `file` is its file.
pub(super) fn lacks(settings: &Settings, file: &Arc<str>) -> Vec<Problem> {
    let lacks = |what, accepted: &str| Problem {
        accepted: Some(accepted.to_owned()),
        ..Problem::new(Place::File(Arc::clone(file)), what)
    };
    let mut problems = Vec::new();
    match settings.program {
        Program::Daemon => return problems,
        Program::Gatherer => {
            if settings.gatherer.as_ref().is_none_or(|it| it.directory.as_os_str().is_empty()) {
                problems.push(lacks("a gatherer without a directory", "gatherer.directory"));
            }
            return problems;
        }
        Program::Proxy => {}
    }
    if settings.forward.is_none() {
        problems.push(lacks(
            "a proxy without an upstream node",
            "forward_address, grpc_forward_address, consul_forward_service_name or \
             consul_forward_grpc_service_name",
        ));
    }
    if settings.http.address.is_none() && settings.import.grpc_address.is_none() {
        problems.push(lacks("a proxy that listens nowhere", "http_address or grpc_address"));
    }
    problems
}

fn flag(given: &One<bool>, default: bool) -> bool {
    given.as_ref().map_or(default, |given| given.value)
}

/// The one of `all` whose word was written, or the first if none was.
fn choice<T: Copy>(
    given: &One<String>,
    all: &[T],
    word: fn(T) -> &'static str,
    report: &mut Report,
) -> T {
    let Some(given) = filled(given) else { return all[0] };
    let known = all.iter().find(|one| word(**one) == given.value);
    *known.unwrap_or_else(|| {
        let accepted: Vec<&str> = all.iter().map(|one| word(*one)).collect();
        report.refuse(&given.source, "not one of the known ones", accepted.join(", "));
        &all[0]
    })
}

/// A number within `range`, or `default` if none is given. As in Veneur 14, 0 is none unless it
/// is within the range.
fn number(
    given: &One<u64>,
    range: RangeInclusive<u64>,
    default: u64,
    report: &mut Report,
) -> usize {
    let value = match given {
        Some(given) if range.contains(&given.value) => given.value,
        Some(given) if given.value > 0 => {
            let accepted = format!("{} to {}", range.start(), range.end());
            report.refuse(&given.source, "out of range", accepted);
            default
        }
        Some(_) | None => default,
    };
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A duration within `range`, or `default` if none is given.
fn length(
    given: &One<Duration>,
    range: &RangeInclusive<Duration>,
    default: Duration,
    report: &mut Report,
) -> Duration {
    let Some(given) = given else { return default };
    if !range.contains(&given.value) {
        let (least, most) = (duration::show(*range.start()), duration::show(*range.end()));
        report.refuse(&given.source, "out of range", format!("{least} to {most}"));
        return default;
    }
    given.value
}

/// A text, if one is given that is not empty.
fn filled(given: &One<String>) -> Option<&Given<String>> {
    given.as_ref().filter(|given| !given.value.is_empty())
}

fn interval(given: &One<Duration>, report: &mut Report) -> Interval {
    let chosen = length(given, &INTERVALS, INTERVAL, report);
    if let Some(given) = given
        && chosen < Duration::from_secs(1)
    {
        report.warn(&given.source, "below 1s: points carry whole seconds, so several share a time");
    } else if let Some(given) = given
        && chosen.subsec_nanos() != 0
    {
        let why = "not whole seconds: Datadog is told the whole ones, and works out wrong counts";
        report.warn(&given.source, why);
    }
    Interval::new(chosen).expect("the range starts above zero")
}

fn watchdog(given: &One<u64>, report: &mut Report) -> Option<NonZeroU32> {
    let flushes = number(given, 0..=u64::from(u32::MAX), 0, report);
    NonZeroU32::new(u32::try_from(flushes).unwrap_or(u32::MAX))
}

/// Threads of one kind; one for each 16 cores, if 0 or nothing is given: one takes ten million
/// packed samples a second, and each more costs every sample a copy.
fn threads(given: &One<u64>, machine: &Machine, report: &mut Report) -> NonZeroUsize {
    let by_cores = NonZeroUsize::new(machine.cores / 16).unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(number(given, 0..=MOST_THREADS, 0, report)).unwrap_or(by_cores)
}

/// `None` only if that was asked for, or the host has no name.
fn hostname(
    given: &One<String>,
    omit_empty: &One<bool>,
    machine: &Machine,
    report: &mut Report,
) -> Option<String> {
    if let Some(given) = filled(given) {
        return Some(given.value.clone());
    }
    if flag(omit_empty, false) {
        return None;
    }
    let name = (machine.hostname)();
    if name.is_none() {
        report.warn(&Source::built_in("hostname"), "this host has no name; points carry none");
    }
    name
}

fn tags(given: &Many<String>, report: &mut Report) -> Vec<String> {
    let mut tags = Vec::new();
    // Veneur's examples list one empty tag where none is meant.
    let given = given.as_deref().unwrap_or_default().iter().filter(|tag| !tag.value.is_empty());
    for tag in given {
        if tag.value.contains([',', '|', '\n']) {
            report.refuse(&tag.source, "not one tag", "key:value or a word, without , and |");
        }
        tags.push(tag.value.clone());
    }
    tags
}

fn percentiles(given: &Many<f64>, report: &mut Report) -> Vec<Percentile> {
    let Some(given) = given else {
        return Percentile::DEFAULT.to_vec();
    };
    let mut chosen: Vec<Percentile> = Vec::new();
    for quantile in given {
        let Some(percentile) = Percentile::new(quantile.value) else {
            report.refuse(&quantile.source, "out of range", "0 to 1, such as 0.99");
            continue;
        };
        // Percentiles that would share a name are one.
        if chosen.iter().any(|known| known.suffix() == percentile.suffix()) {
            report.warn(&quantile.source, "listed twice; it counts once");
            continue;
        }
        if chosen.len() == MOST_PERCENTILES {
            report.refuse(&quantile.source, "too many", format!("{MOST_PERCENTILES} at most"));
            break;
        }
        chosen.push(percentile);
    }
    chosen
}

fn aggregates(given: &Many<String>, report: &mut Report) -> Vec<Statistic> {
    let given = given.as_deref().unwrap_or_default();
    // As in v1.1.0, nothing listed is the default, not nothing.
    if given.is_empty() {
        return Statistic::DEFAULT.to_vec();
    }
    let mut chosen: Vec<Statistic> = Vec::new();
    for name in given {
        match Statistic::ALL.into_iter().find(|statistic| statistic.as_str() == name.value) {
            Some(statistic) if chosen.contains(&statistic) => {
                report.warn(&name.source, "listed twice; it counts once");
            }
            Some(statistic) => chosen.push(statistic),
            None => {
                let accepted = Statistic::ALL.map(Statistic::as_str).join(", ");
                report.refuse(&name.source, "unknown aggregate", accepted);
            }
        }
    }
    chosen.sort_by_key(|statistic| Statistic::ALL.iter().position(|known| known == statistic));
    chosen
}
