//! Own metrics as an OpenMetrics page: what `/metrics` answers.
//!
//! Counters count since the start. Durations and sizes are summaries: count and sum since the
//! start, quantiles over the last minutes ([`super::distribution`]). Times are in seconds.
//!
//! Source: OpenMetrics 1.0.0, text format.

use std::fmt::{self, Write};

use super::Telemetry;
use super::distribution::Summary;
use super::names::{self, Unit};
use super::registry::{Series, Total};

/// `Content-Type` of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The page of everything `telemetry` has, `version` being the daemon's.
pub fn page(telemetry: &Telemetry, version: &str) -> String {
    let mut page = String::new();
    write_page(&mut page, &telemetry.totals(), version).expect("writing to a String cannot fail");
    page
}

fn write_page(page: &mut String, totals: &[Series<Total>], version: &str) -> fmt::Result {
    writeln!(page, "# TYPE veneur_build info\n# HELP veneur_build The running program.")?;
    let version = [("version".to_owned(), version.to_owned())];
    writeln!(page, "veneur_build_info{} 1", Labels(&version))?;
    for family in totals.chunk_by(|a, b| a.name == b.name) {
        write_family(page, family)?;
    }
    page.write_str("# EOF\n")
}

/// `series`, all of one name.
fn write_family(page: &mut String, series: &[Series<Total>]) -> fmt::Result {
    let Some(first) = series.first() else { return Ok(()) };
    let metric = names::find(first.name);
    let unit = metric.map_or_else(|| unit_of(first.name), |metric| metric.unit);
    let family = names::openmetrics_family(first.name, unit);
    let kind = match first.value {
        Total::Count(_) => "counter",
        Total::Gauge(_) => "gauge",
        Total::Durations(_) | Total::Amounts(_) => "summary",
    };
    writeln!(page, "# TYPE {family} {kind}")?;
    match unit {
        Unit::One => {}
        Unit::Nanoseconds => writeln!(page, "# UNIT {family} seconds")?,
        Unit::Bytes => writeln!(page, "# UNIT {family} bytes")?,
    }
    if let Some(metric) = metric {
        writeln!(page, "# HELP {family} {}", Escaped(metric.help.trim()))?;
    }
    for series in series {
        let labels = labels_of(&series.tags);
        match &series.value {
            Total::Count(total) if unit == Unit::Nanoseconds => {
                let seconds = Number(seconds(*total as f64));
                writeln!(page, "{family}_total{} {seconds}", Labels(&labels))?;
            }
            Total::Count(total) => writeln!(page, "{family}_total{} {total}", Labels(&labels))?,
            Total::Gauge(value) => {
                let value = Number(in_base_unit(*value, unit));
                writeln!(page, "{family}{} {value}", Labels(&labels))?;
            }
            Total::Durations(summary) | Total::Amounts(summary) => {
                write_summary(page, &family, unit, &labels, summary)?;
            }
        }
    }
    Ok(())
}

fn write_summary(
    page: &mut String,
    family: &str,
    unit: Unit,
    labels: &[(String, String)],
    summary: &Summary,
) -> fmt::Result {
    for &(quantile, value) in &summary.quantiles {
        let mut labels = labels.to_vec();
        labels.push(("quantile".to_owned(), quantile.to_string()));
        let value = Number(in_base_unit(value, unit));
        writeln!(page, "{family}{} {value}", Labels(&labels))?;
    }
    let sum = Number(in_base_unit(summary.sum, unit));
    writeln!(page, "{family}_count{} {}", Labels(labels), summary.count)?;
    writeln!(page, "{family}_sum{} {sum}", Labels(labels))
}

/// The unit of a name that is not in the table.
fn unit_of(name: &str) -> Unit {
    match name.strip_suffix("_total").unwrap_or(name).ends_with("_ns") {
        true => Unit::Nanoseconds,
        false => Unit::One,
    }
}

fn in_base_unit(value: f64, unit: Unit) -> f64 {
    match unit {
        Unit::One | Unit::Bytes => value,
        Unit::Nanoseconds => seconds(value),
    }
}

fn seconds(nanoseconds: f64) -> f64 {
    // Divided, not multiplied by 1e-9, which is not exact.
    nanoseconds / 1e9
}

/// Tags as label names and values. A bare tag says `true`; of tags with the same key, which
/// labels cannot have, the values are joined.
fn labels_of(tags: &str) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = Vec::new();
    for tag in tags.split(',').filter(|tag| !tag.is_empty()) {
        let (key, value) = tag.split_once(':').unwrap_or((tag, "true"));
        let name = label_name(key);
        match labels.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                values.push(',');
                values.push_str(value);
            }
            None => labels.push((name, value.to_owned())),
        }
    }
    labels
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`
fn label_name(key: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = key.chars().map(legal).collect();
    match name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        true => format!("_{name}"),
        false => name,
    }
}

/// `{name="value",..}`, or nothing.
struct Labels<'a>(&'a [(String, String)]);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "{" } else { "," })?;
            write!(f, "{name}=\"{}\"", Escaped(value))?;
        }
        f.write_str(if self.0.is_empty() { "" } else { "}" })
    }
}

/// Text with backslash, quote and newline escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A number as OpenMetrics writes it.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            value => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::names::{
        FLUSH_CONTENT_LENGTH_BYTES, FLUSH_FLUSH_TIMESTAMP_NS, FLUSH_TOTAL_DURATION_NS,
        PACKET_ERROR_TOTAL, ROUTER_BLOCKED_NS_TOTAL, TCP_CONNECTS,
    };

    #[test]
    fn the_page_shows_each_kind_by_its_rules() {
        let telemetry = Telemetry::default();
        telemetry.count(PACKET_ERROR_TOTAL, "packet_type:metric,reason:bad_value", 3);
        telemetry.count(PACKET_ERROR_TOTAL, "packet_type:event,reason:empty_title", 1);
        telemetry.count(TCP_CONNECTS, "", 2);
        telemetry.count(ROUTER_BLOCKED_NS_TOTAL, "", 1_500_000_000);
        telemetry.gauge(FLUSH_FLUSH_TIMESTAMP_NS, "", 1_700_000_000_000_000_000.0);
        // 2 ms, in a bucket of hdrhistogram that ends at 2007039 ns.
        telemetry.duration(FLUSH_TOTAL_DURATION_NS, "part:gather", Duration::from_millis(2));
        telemetry.histogram(FLUSH_CONTENT_LENGTH_BYTES, "", 200.0);
        let expected = r##"# TYPE veneur_build info
# HELP veneur_build The running program.
veneur_build_info{version="0.1.0"} 1
# TYPE veneur_flush_content_length_bytes summary
# UNIT veneur_flush_content_length_bytes bytes
# HELP veneur_flush_content_length_bytes Size of one body of series, compressed.
veneur_flush_content_length_bytes{quantile="0.5"} 200
veneur_flush_content_length_bytes{quantile="0.9"} 200
veneur_flush_content_length_bytes{quantile="0.99"} 200
veneur_flush_content_length_bytes_count 1
veneur_flush_content_length_bytes_sum 200
# TYPE veneur_flush_flush_timestamp_seconds gauge
# UNIT veneur_flush_flush_timestamp_seconds seconds
# HELP veneur_flush_flush_timestamp_seconds When the last flush began, since 1970.
veneur_flush_flush_timestamp_seconds 1700000000
# TYPE veneur_flush_total_duration_seconds summary
# UNIT veneur_flush_total_duration_seconds seconds
# HELP veneur_flush_total_duration_seconds Time of the parts of a flush (`part` gather, combine, post).
veneur_flush_total_duration_seconds{part="gather",quantile="0.5"} 0.002007039
veneur_flush_total_duration_seconds{part="gather",quantile="0.9"} 0.002007039
veneur_flush_total_duration_seconds{part="gather",quantile="0.99"} 0.002007039
veneur_flush_total_duration_seconds_count{part="gather"} 1
veneur_flush_total_duration_seconds_sum{part="gather"} 0.002
# TYPE veneur_packet_error counter
# HELP veneur_packet_error Lines, datagrams and frames refused (`packet_type`, `reason`).
veneur_packet_error_total{packet_type="event",reason="empty_title"} 1
veneur_packet_error_total{packet_type="metric",reason="bad_value"} 3
# TYPE veneur_router_blocked_seconds counter
# UNIT veneur_router_blocked_seconds seconds
# HELP veneur_router_blocked_seconds Time readers stood still because a worker's inbox was full.
veneur_router_blocked_seconds_total 1.5
# TYPE veneur_tcp_connects counter
# HELP veneur_tcp_connects Stream connections accepted.
veneur_tcp_connects_total 2
# EOF
"##;
        assert_eq!(page(&telemetry, "0.1.0"), expected);
    }

    #[test]
    fn tags_become_legal_labels() {
        for (tags, labels) in [
            ("", ""),
            ("a:1,b:2", r#"{a="1",b="2"}"#),
            ("bare", r#"{bare="true"}"#),
            ("a:udp://[::1]:8126", r#"{a="udp://[::1]:8126"}"#),
            ("no-dash.é:1", r#"{no_dash__="1"}"#),
            ("9lives:1,:2", r#"{_9lives="1",_="2"}"#),
            ("a:1,a:2", r#"{a="1,2"}"#),
            ("a:say \"hi\"\\\n", r#"{a="say \"hi\"\\\n"}"#),
        ] {
            assert_eq!(Labels(&labels_of(tags)).to_string(), labels, "{tags}");
        }
    }

    #[test]
    fn numbers_that_are_none_have_names() {
        let written = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5, 1e21]
            .map(|value| Number(value).to_string());
        assert_eq!(written, ["NaN", "+Inf", "-Inf", "0.5", "1000000000000000000000"]);
    }
}
