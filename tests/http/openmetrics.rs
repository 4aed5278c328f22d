//! A reader of OpenMetrics text that accepts nothing doubtful: the rules of the format, for the
//! metric types we use, as a checker.
//!
//! Source: OpenMetrics 1.0.0, "Text format" and "Metric types".

use std::collections::{BTreeMap, BTreeSet};

/// Every sample of a valid page: its name with labels as written, and its value.
///
/// # Errors
/// The first rule the page breaks.
pub(crate) fn check(page: &str) -> Result<BTreeMap<String, f64>, String> {
    let body = page.strip_suffix("# EOF\n").ok_or("does not end with # EOF and a newline")?;
    let mut checker = Checker::default();
    for line in body.split_terminator('\n') {
        checker.line(line).map_err(|error| format!("{error}: {line}"))?;
    }
    Ok(checker.samples)
}

#[derive(Default)]
struct Checker {
    /// Families seen, the present one included.
    families: BTreeSet<String>,
    /// Metadata of the present family: `TYPE`, `UNIT`, `HELP`.
    family: String,
    metadata: BTreeMap<String, String>,
    has_samples: bool,
    samples: BTreeMap<String, f64>,
    /// Label sets of the present family in order, without `quantile`: they must not interleave.
    metrics: Vec<String>,
}

impl Checker {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(metadata) = line.strip_prefix("# ") {
            return self.metadata(metadata);
        }
        if line.is_empty() || line.starts_with('#') || line != line.trim() {
            return Err("neither metadata nor a sample".into());
        }
        self.sample(line)
    }

    fn metadata(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.splitn(3, ' ');
        let (Some(word), Some(family), Some(text)) = (words.next(), words.next(), words.next())
        else {
            return Err("metadata without text".into());
        };
        if !is_name(family, true) {
            return Err("bad family name".into());
        }
        if family != self.family {
            if !self.families.insert(family.to_owned()) {
                return Err("the family is in two places".into());
            }
            self.family = family.to_owned();
            self.metadata.clear();
            self.metrics.clear();
            self.has_samples = false;
        }
        if self.has_samples {
            return Err("metadata behind samples".into());
        }
        match word {
            "TYPE" if ["counter", "gauge", "summary", "info"].contains(&text) => {}
            "UNIT" if family.ends_with(&format!("_{text}")) => {}
            "HELP" => drop(unescape(text)?),
            _ => return Err("unknown or wrong metadata".into()),
        }
        match self.metadata.insert(word.to_owned(), text.to_owned()) {
            Some(_) => Err("metadata given twice".into()),
            None => Ok(()),
        }
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        self.has_samples = true;
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').ok_or("labels do not end")?),
            None => (series, ""),
        };
        let labels = parse_labels(labels)?;
        let suffix = name.strip_prefix(self.family.as_str()).ok_or("not of this family")?;
        let number = parse_number(value)?;
        self.check_value(suffix, &labels, value, number)?;
        let metric: Vec<String> = labels
            .iter()
            .filter(|(name, _)| name != "quantile")
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        let metric = metric.join(",");
        if self.metrics.last() != Some(&metric) {
            if self.metrics.contains(&metric) {
                return Err("samples of two metrics interleave".into());
            }
            self.metrics.push(metric);
        }
        match self.samples.insert(series.to_owned(), number) {
            Some(_) => Err("a series twice".into()),
            None => Ok(()),
        }
    }

    fn check_value(
        &self,
        suffix: &str,
        labels: &[(String, String)],
        text: &str,
        value: f64,
    ) -> Result<(), String> {
        let kind = self.metadata.get("TYPE").ok_or("a family without a type")?;
        let quantile = labels.iter().find(|(name, _)| name == "quantile");
        let is_amount = value.is_finite() && value >= 0.0;
        let fits = match (kind.as_str(), suffix) {
            ("counter", "_total") | ("summary", "_sum") => is_amount && quantile.is_none(),
            ("summary", "_count") => text.parse::<u64>().is_ok() && quantile.is_none(),
            ("summary", "") => quantile.is_some_and(|(_, quantile)| {
                quantile.parse::<f64>().is_ok_and(|q| (0.0..=1.0).contains(&q))
                    && (value.is_nan() || value >= 0.0)
            }),
            ("gauge", "") => quantile.is_none(),
            ("info", "_info") => value == 1.0,
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("no such sample of a {kind}")) }
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, for metrics also `:`.
fn is_name(name: &str, colon: bool) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    !name.is_empty() && name.chars().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn parse_labels(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut labels: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, behind) = rest.split_once("=\"").ok_or("a label without a value")?;
        let mut escaped = false;
        let end = behind.find(|c: char| match c {
            '\\' if !escaped => {
                escaped = true;
                false
            }
            '"' if !escaped => true,
            _ => {
                escaped = false;
                false
            }
        });
        let end = end.ok_or("a label value that does not end")?;
        if !is_name(name, false) || labels.iter().any(|(known, _)| known == name) {
            return Err(format!("bad or repeated label {name}"));
        }
        labels.push((name.to_owned(), unescape(&behind[..end])?));
        rest = &behind[end + 1..];
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').ok_or("no comma between labels")?;
            if rest.is_empty() {
                return Err("a comma behind the last label".into());
            }
        }
    }
    Ok(labels)
}

fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(c @ ('\\' | '"')) => c,
                _ => return Err("unknown escape".into()),
            },
            c => c,
        });
    }
    Ok(plain)
}

fn parse_number(text: &str) -> Result<f64, String> {
    match text {
        "NaN" => Ok(f64::NAN),
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            text.parse().map_err(|_| format!("{text} is no number"))
        }
        _ => Err(format!("{text} is no number")),
    }
}

#[test]
fn the_checker_finds_what_is_wrong() {
    for (page, wrong) in [
        ("", "# EOF"),
        ("# TYPE a counter\na_total 1\n", "# EOF"),
        ("\n# EOF\n", "neither"),
        ("a 1\n# EOF\n", "without a type"),
        ("# TYPE a counter\na 1\n# EOF\n", "no such sample"),
        ("# TYPE a counter\na_total -1\n# EOF\n", "no such sample"),
        ("# TYPE a counter\na_total 1\na_total 1\n# EOF\n", "twice"),
        ("# TYPE a counter\n# TYPE a counter\n# EOF\n", "twice"),
        ("# TYPE a_ns gauge\n# UNIT a_ns seconds\n# EOF\n", "wrong metadata"),
        ("# TYPE a gauge\na 1\n# HELP a b\n# EOF\n", "behind samples"),
        ("# TYPE a gauge\n# TYPE b gauge\n# TYPE a gauge\n# EOF\n", "two places"),
        ("# TYPE a gauge\na{b=\"1\",b=\"2\"} 1\n# EOF\n", "repeated label"),
        ("# TYPE a gauge\na{9=\"1\"} 1\n# EOF\n", "bad or repeated"),
        ("# TYPE a gauge\na{b=\"\\x\"} 1\n# EOF\n", "unknown escape"),
        ("# TYPE a gauge\na{b=\"1\",} 1\n# EOF\n", "behind the last"),
        ("# TYPE a gauge\na{b=\"} 1\n# EOF\n", "does not end"),
        ("# TYPE a gauge\na inf\n# EOF\n", "no number"),
        ("# TYPE a summary\na{quantile=\"2\"} 1\n# EOF\n", "no such sample"),
        ("# TYPE a summary\na_count 1.5\n# EOF\n", "no such sample"),
        (
            "# TYPE a summary\na_count{b=\"1\"} 1\na_count{b=\"2\"} 1\na_sum{b=\"1\"} 1\n# EOF\n",
            "interleave",
        ),
    ] {
        let error = check(page).expect_err(page);
        assert!(error.contains(wrong), "{page}: {error}");
    }
    let page = "# TYPE a summary\n# HELP a b \\n c\na{x=\"a,b=\\\"}\",quantile=\"0.5\"} 1e-3\n\
                a_count{x=\"a,b=\\\"}\"} 3\na_sum{x=\"a,b=\\\"}\"} 1.5\n# EOF\n";
    assert_eq!(check(page).map(|samples| samples.len()), Ok(3));
}
