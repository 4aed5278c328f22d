//! Environment variables, laid over the file.
//!
//! `VENEUR_<KEY>` sets a key whatever the file says. Case and underscores do not matter, so
//! that our `VENEUR_DATADOG__KEY_IN_QUERY` and `VENEUR_FLUSH_MAX_PER_BODY` and Veneur 14's
//! `VENEUR_DATADOGAPIHOSTNAME` all find their key. Lists are separated by commas. An empty
//! variable is an empty text or list, which for most keys means off. To a proxy, Veneur 14's
//! `VENEUR_PROXY_<KEY>` says the same, and counts before `VENEUR_<KEY>`.

use std::ffi::OsString;

use super::problem::{Place, Problem};
use super::raw;
use super::reader::Reader;
use super::settings::Program;
use super::tree::{Node, Value};
use super::unknown;

const PREFIX: &str = "VENEUR_";
const PROXY_PREFIX: &str = "VENEUR_PROXY_";

/// Reads those of `variables` that are ours, in the order of their names.
pub(super) fn lay(
    reader: &mut Reader<'_>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) {
    let mut ours: Vec<(String, OsString)> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    let is_proxy = reader.program == Program::Proxy;
    let of_a_proxy = |name: &str| is_proxy && name.starts_with(PROXY_PREFIX);
    ours.sort_by(|(a, _), (b, _)| (of_a_proxy(a), a).cmp(&(of_a_proxy(b), b)));
    for (name, value) in ours {
        let prefix = if of_a_proxy(&name) { PROXY_PREFIX } else { PREFIX };
        let written = &name[prefix.len()..];
        let place = Place::Variable(name.as_str().into());
        let known = raw::names().find(|(_, key)| squeezed(key) == squeezed(written));
        let Some((row, key)) = known else {
            if !is_service_link(written) {
                let key = written.to_lowercase().replace("__", ".");
                let what = unknown::remark(&key, raw::names().map(|(_, name)| name));
                // A warning even if strict: the environment may not be the operator's own.
                reader.report.warnings.push(Problem::new(place, what));
            }
            continue;
        };
        match value.into_string() {
            Ok(text) => reader.set(row, key, place, &Node { line: 0, value: Value::Text(text) }),
            Err(_) => reader
                .report
                .problems
                .push(Problem { key: Some(key.to_owned()), ..Problem::new(place, "not UTF-8") }),
        }
    }
}

fn squeezed(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '.')).flat_map(char::to_lowercase).collect()
}

/// Whether Kubernetes put the variable there, for a service whose name starts with `veneur`:
/// `VENEUR_SERVICE_HOST`, `VENEUR_PORT_8126_UDP_ADDR`.
///
/// Source: Kubernetes, "Accessing the Service", environment variables.
fn is_service_link(written: &str) -> bool {
    let words: Vec<&str> = written.split('_').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    words.iter().enumerate().any(|(at, word)| match *word {
        "SERVICE" => matches!(words.get(at + 1), Some(&"HOST" | &"PORT")),
        "PORT" => words.get(at + 1).is_none_or(|next| is_number(next)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Report;
    use crate::config::raw::Raw;
    use std::os::unix::ffi::OsStringExt;

    fn read(variables: &[(&str, &str)]) -> (Raw, Report) {
        let (mut raw, mut report) = (Raw::default(), Report::default());
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        lay(&mut Reader::new(Program::Daemon, &mut raw, &mut report, true), variables);
        (raw, report)
    }

    #[test]
    fn a_variable_finds_its_key_whatever_its_underscores() {
        for name in [
            "VENEUR_API_HOSTNAME",
            "VENEUR_DATADOG_API_HOSTNAME",
            "VENEUR_DATADOGAPIHOSTNAME",
            "VENEUR_api_hostname",
        ] {
            let (raw, report) = read(&[(name, "http://h")]);
            assert_eq!(raw.api_hostname.expect(name).value, "http://h");
            assert!(report.warnings.is_empty(), "{name}");
        }
        for name in ["VENEUR_HTTP__CONFIG", "VENEUR_HTTP_CONFIG", "VENEUR_HTTPCONFIG"] {
            assert!(read(&[(name, "true")]).0.http_config.expect(name).value);
        }
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let (raw, _) = read(&[("VENEUR_TAGS", "a:1, b,"), ("VENEUR_PERCENTILES", "")]);
        let tags: Vec<_> = raw.tags.expect("it is set").into_iter().map(|tag| tag.value).collect();
        assert_eq!(tags, ["a:1", "b"]);
        assert_eq!(raw.percentiles.expect("it is set, to nothing").len(), 0);
    }

    #[test]
    fn a_bad_value_is_reported_with_its_variable() {
        let (_, report) = read(&[("VENEUR_INTERVAL", "10"), ("VENEUR_PERCENTILES", "0.5,x")]);
        let lines: Vec<_> = report.problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            lines,
            [
                "environment variable VENEUR_INTERVAL: interval: \"10\": no unit behind the \
                 number; accepted: a duration such as 10s, 500ms or 1m30s",
                "environment variable VENEUR_PERCENTILES: percentiles: \"x\": not a number; \
                 accepted: a number such as 0.99",
            ]
        );
    }

    #[test]
    fn unknown_variables_warn_but_for_those_kubernetes_makes() {
        let (_, report) = read(&[
            ("HOME", "/"),
            ("VENEUR_INTERVALL", "hunter2"),
            ("VENEUR_SERVICE_HOST", "10.0.0.1"),
            ("VENEUR_GLOBAL_SERVICE_PORT_STATSD", "8126"),
            ("VENEUR_PORT", "udp://10.0.0.1:8126"),
            ("VENEUR_PORT_8126_UDP_ADDR", "10.0.0.1"),
        ]);
        let lines: Vec<_> = report.warnings.iter().map(Problem::to_string).collect();
        assert_eq!(
            lines,
            ["environment variable VENEUR_INTERVALL: unknown key, it has no effect; did you mean \
              interval?"]
        );
        assert!(report.problems.is_empty());
    }

    #[test]
    fn what_is_not_utf8_is_refused_without_being_shown() {
        let (mut raw, mut report) = (Raw::default(), Report::default());
        let variable = ("VENEUR_KEY".into(), OsString::from_vec(b"hunter2\xff".to_vec()));
        lay(&mut Reader::new(Program::Daemon, &mut raw, &mut report, false), [variable]);
        assert_eq!(
            report.problems.iter().map(Problem::to_string).collect::<Vec<_>>(),
            ["environment variable VENEUR_KEY: key: not UTF-8"]
        );
    }
}
