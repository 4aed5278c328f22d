//! From what the command line describes to DogStatsD lines; pure.
//!
//! Values, rates and times stay as they were written: whether they are good is for the daemon's
//! parser to say. Here only what would make a line mean something else is refused.
//!
//! Source: the DogStatsD datagram format, protocol v1.3.

use std::time::Duration;

use lexopt::Error;

use crate::model::{AlertType, Priority};

/// Everything to be sent.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// Of all of it.
    pub(super) tags: Vec<String>,
    pub(super) metric: Metric,
    pub(super) event: Event,
    pub(super) check: Check,
}

impl Message {
    /// A line for each value, for the event and for the check.
    ///
    /// # Errors
    /// Nothing is described, or not enough of it, or with characters that separate.
    pub(super) fn lines(&self) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        if self.metric != Metric::default() {
            lines.extend(self.metric.lines(&self.tags)?);
        }
        if self.event != Event::default() {
            lines.push(self.event.line(&self.tags)?);
        }
        if self.check != Check::default() {
            lines.push(self.check.line(&self.tags)?);
        }
        if lines.is_empty() {
            return Err("there is nothing to send".into());
        }
        Ok(lines)
    }
}

/// Values of one name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Metric {
    pub(super) name: Option<String>,
    /// Each with its type as on the wire.
    pub(super) values: Vec<(&'static str, String)>,
    pub(super) rate: Option<String>,
    pub(super) timestamp: Option<String>,
}

impl Metric {
    fn lines(&self, tags: &[String]) -> Result<Vec<String>, Error> {
        let name = clean("--name", required("--name", &self.name)?)?;
        if name.contains(':') {
            return Err("--name must not contain ':'".into());
        }
        if self.values.is_empty() {
            return Err("--name is given without a value".into());
        }
        let lines = self.values.iter().map(|(kind, value)| {
            let mut line = Line(format!("{name}:{}|{kind}", clean("a value", value)?));
            line.section("@", "--rate", &self.rate)?;
            line.tags(tags)?;
            line.section("T", "--timestamp", &self.timestamp)?;
            Ok(line.0)
        });
        lines.collect()
    }
}

/// How long something took, as a value of [`Metric`].
pub(super) fn timing(took: Duration) -> (&'static str, String) {
    ("ms", (took.as_nanos() as f64 / 1e6).to_string())
}

/// Milliseconds, from a number of them or from a number with a unit.
///
/// # Errors
/// A unit without a number.
pub(super) fn milliseconds(text: &str) -> Result<String, Error> {
    // Nanoseconds per unit. Of units that end alike the longer come first.
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
    ];
    let with_unit = UNITS.iter().find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, ns)));
    let Some((number, nanoseconds)) = with_unit else {
        return Ok(text.to_owned());
    };
    match number.parse::<f64>() {
        Ok(number) => Ok((number * nanoseconds / 1e6).to_string()),
        Err(_) => Err(format!("--timing {text} is not one number and a unit").into()),
    }
}

/// `_e{TITLE LENGTH,TEXT LENGTH}:TITLE|TEXT` and sections.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Event {
    pub(super) title: Option<String>,
    pub(super) text: Option<String>,
    pub(super) time: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) aggregation_key: Option<String>,
    pub(super) priority: Option<String>,
    pub(super) source_type: Option<String>,
    pub(super) alert_type: Option<String>,
    pub(super) tags: Vec<String>,
}

impl Event {
    fn line(&self, tags: &[String]) -> Result<String, Error> {
        let title = escape(required("--e_title", &self.title)?);
        let text = escape(self.text.as_deref().unwrap_or_default());
        // The daemon ignores words it does not know.
        let priorities = [Priority::Normal, Priority::Low].map(Priority::as_str);
        one_of("--e_priority", &self.priority, &priorities)?;
        let alert_types =
            [AlertType::Info, AlertType::Success, AlertType::Warning, AlertType::Error];
        one_of("--e_alert_type", &self.alert_type, &alert_types.map(AlertType::as_str))?;

        // Lengths are in bytes of the text as sent, escapes included.
        let mut line = Line(format!("_e{{{},{}}}:{title}|{text}", title.len(), text.len()));
        line.section("d:", "--e_time", &self.time)?;
        line.section("h:", "--e_hostname", &self.hostname)?;
        line.section("k:", "--e_aggr_key", &self.aggregation_key)?;
        line.section("p:", "--e_priority", &self.priority)?;
        line.section("s:", "--e_source_type", &self.source_type)?;
        line.section("t:", "--e_alert_type", &self.alert_type)?;
        line.tags(&[tags, &self.tags].concat())?;
        Ok(line.0)
    }
}

/// `_sc|NAME|STATUS` and sections.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Check {
    pub(super) name: Option<String>,
    pub(super) status: Option<String>,
    pub(super) time: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) message: Option<String>,
    pub(super) tags: Vec<String>,
}

impl Check {
    fn line(&self, tags: &[String]) -> Result<String, Error> {
        let name = clean("--sc_name", required("--sc_name", &self.name)?)?;
        let status = clean("--sc_status", required("--sc_status", &self.status)?)?;
        let mut line = Line(format!("_sc|{name}|{status}"));
        line.section("d:", "--sc_time", &self.time)?;
        line.section("h:", "--sc_hostname", &self.hostname)?;
        line.tags(&[tags, &self.tags].concat())?;
        line.section("m:", "--sc_msg", &self.message.as_deref().map(escape))?;
        Ok(line.0)
    }
}

/// A line to which sections are added.
struct Line(String);

impl Line {
    fn section(&mut self, prefix: &str, option: &str, value: &Option<String>) -> Result<(), Error> {
        if let Some(value) = value {
            self.0 += "|";
            self.0 += prefix;
            self.0 += clean(option, value)?;
        }
        Ok(())
    }

    fn tags(&mut self, tags: &[String]) -> Result<(), Error> {
        let tags = (!tags.is_empty()).then(|| tags.join(","));
        self.section("#", "--tag", &tags)
    }
}

fn required<'a>(option: &str, value: &'a Option<String>) -> Result<&'a str, Error> {
    value.as_deref().ok_or_else(|| format!("{option} is missing").into())
}

/// `value`, if it cannot be mistaken for the end of a section or line.
fn clean<'a>(what: &str, value: &'a str) -> Result<&'a str, Error> {
    match value.find(['|', '\n']) {
        None => Ok(value),
        Some(_) => Err(format!("{what} must not contain '|' or a newline").into()),
    }
}

fn one_of(option: &str, value: &Option<String>, words: &[&str]) -> Result<(), Error> {
    match value.as_deref() {
        Some(value) if !words.contains(&value) => {
            Err(format!("{option} {value} is not one of {}", words.join(", ")).into())
        }
        _ => Ok(()),
    }
}

/// Newlines as the two characters that stand for them.
fn escape(text: &str) -> String {
    text.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn lines(message: &Message) -> Result<Vec<String>, String> {
        message.lines().map_err(|error| error.to_string())
    }

    fn metric(name: &str, values: &[(&'static str, &str)]) -> Metric {
        let values = values.iter().map(|(kind, value)| (*kind, (*value).to_owned())).collect();
        Metric { name: some(name), values, ..Metric::default() }
    }

    #[test]
    fn each_value_becomes_a_line() {
        let mut message = Message {
            metric: metric("a.b", &[("c", "3"), ("s", "x:y"), ("ms", "120.5")]),
            ..Message::default()
        };
        assert_eq!(
            lines(&message),
            Ok(vec!["a.b:3|c".into(), "a.b:x:y|s".into(), "a.b:120.5|ms".into()])
        );

        message.metric.values.truncate(1);
        message.metric.rate = some("0.5");
        message.metric.timestamp = some("1700000000");
        message.tags = vec!["x:y,z:".to_owned(), "env:prod".to_owned()];
        assert_eq!(lines(&message), Ok(vec!["a.b:3|c|@0.5|#x:y,z:,env:prod|T1700000000".into()]));
    }

    #[test]
    fn lengths_of_an_event_count_bytes_as_sent() {
        let mut message = Message::default();
        message.event.title = some("größe");
        message.event.text = some("a\nb|c");
        assert_eq!(lines(&message), Ok(vec!["_e{7,6}:größe|a\\nb|c".into()]));
    }

    #[test]
    fn an_event_and_a_check_carry_all_their_sections() {
        let message = Message {
            tags: vec!["a:b".to_owned()],
            event: Event {
                title: some("t"),
                text: None,
                time: some("9"),
                hostname: some("h"),
                aggregation_key: some("k"),
                priority: some("low"),
                source_type: some("s"),
                alert_type: some("error"),
                tags: vec!["c".to_owned()],
            },
            check: Check {
                name: some("n"),
                status: some("1"),
                time: some("9"),
                hostname: some("h"),
                message: some("m\nn"),
                tags: vec![],
            },
            ..Message::default()
        };
        assert_eq!(
            lines(&message),
            Ok(vec![
                "_e{1,0}:t||d:9|h:h|k:k|p:low|s:s|t:error|#a:b,c".into(),
                "_sc|n|1|d:9|h:h|#a:b|m:m\\nn".into(),
            ])
        );
    }

    #[test]
    fn times_are_in_milliseconds_or_have_a_unit() {
        for (text, milliseconds) in [
            ("120", "120"),
            ("1.5", "1.5"),
            ("120ms", "120"),
            ("1.5s", "1500"),
            ("2m", "120000"),
            ("1h", "3600000"),
            ("300us", "0.3"),
            ("300µs", "0.3"),
            ("5ns", "0.000005"),
            // For the daemon's parser to refuse.
            ("soon", "soon"),
        ] {
            assert_eq!(super::milliseconds(text).expect(text), milliseconds);
        }
        let error = super::milliseconds("1m30s").expect_err("two numbers");
        assert_eq!(error.to_string(), "--timing 1m30s is not one number and a unit");
        assert_eq!(timing(Duration::from_micros(1234)), ("ms", "1.234".to_owned()));
    }

    #[test]
    fn a_message_is_refused_because() {
        let of = |change: &dyn Fn(&mut Message)| {
            let mut message = Message::default();
            change(&mut message);
            lines(&message).expect_err("it is refused")
        };
        for (error, why) in [
            (of(&|_| {}), "there is nothing to send"),
            (of(&|m| m.metric = metric("a", &[])), "--name is given without a value"),
            (of(&|m| m.metric.rate = some("1")), "--name is missing"),
            (of(&|m| m.metric = metric("a:b", &[("c", "1")])), "--name must not contain ':'"),
            (
                of(&|m| m.metric = metric("a", &[("c", "1|c\nb:1")])),
                "a value must not contain '|' or a newline",
            ),
            (
                of(&|m| {
                    m.metric = metric("a", &[("c", "1")]);
                    m.tags.push("a|b".to_owned());
                }),
                "--tag must not contain '|' or a newline",
            ),
            (of(&|m| m.event.text = some("x")), "--e_title is missing"),
            (
                of(&|m| {
                    m.event.title = some("x");
                    m.event.priority = some("high");
                }),
                "--e_priority high is not one of normal, low",
            ),
            (of(&|m| m.check.status = some("1")), "--sc_name is missing"),
            (of(&|m| m.check.name = some("n")), "--sc_status is missing"),
        ] {
            assert_eq!(error, why);
        }
    }
}
