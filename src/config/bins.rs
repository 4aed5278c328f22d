//! `etsy.histogram`: which timers have which bins, a list of mappings.

use super::problem::Source;
use super::reading::{Given, Reading};
use super::tree::{Node, Value};
use crate::model::Bins;

const ACCEPTED: &str = "a list such as [{metric: render, bins: [10, 100, inf]}], bins ascending";
const MOST_BINS: usize = 100;

/// The entries that can be read, the others reported; `None` if it is no list: that is reported,
/// too.
pub(super) fn read(read: &mut Reading<'_>) -> Option<Vec<Given<Bins>>> {
    let Value::List(items) = &read.node.value else {
        read.report.refuse(&read.source(), "not a list", ACCEPTED);
        return None;
    };
    let mut all = Vec::new();
    for item in items {
        let place = read.place.at_line(item.line);
        let source = Source { place, key: read.key, shown: None };
        match bins(item) {
            Ok(value) => all.push(Given { value, source }),
            Err(what) => read.report.refuse(&source, what, ACCEPTED),
        }
    }
    Some(all)
}

fn bins(item: &Node) -> Result<Bins, &'static str> {
    let Value::Map(entries) = &item.value else { return Err("an item that is not a mapping") };
    let mut bins = Bins { metric: String::new(), limits: Vec::new() };
    for entry in entries {
        match (entry.key.as_str(), &entry.node.value) {
            ("metric", Value::Text(text)) => bins.metric.clone_from(text),
            ("bins", Value::List(limits)) => {
                bins.limits = limits.iter().map(limit).collect::<Result<_, _>>()?;
            }
            (_, Value::Null) => {}
            _ => return Err("an item with something else than metric and bins"),
        }
    }
    if !bins.limits.is_sorted_by(|one, next| one < next) {
        return Err("bins that do not ascend");
    }
    match bins.limits.len() {
        ..=MOST_BINS => Ok(bins),
        _ => Err("more than 100 bins"),
    }
}

fn limit(node: &Node) -> Result<f64, &'static str> {
    let Value::Text(text) = &node.value else { return Err("a bin that is not a number") };
    if text == "inf" {
        return Ok(f64::INFINITY);
    }
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or("a bin that is not a number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    #[test]
    fn an_item_is_a_mapping_of_metric_and_bins() {
        let read = |text| bins(&tree::parse(text).expect("the tests write YAML"));
        let of = |metric: &str, limits: &[f64]| {
            Ok(Bins { metric: metric.to_owned(), limits: limits.to_vec() })
        };
        for (text, bins) in [
            ("{metric: render, bins: [1, 10.5, inf]}", of("render", &[1.0, 10.5, f64::INFINITY])),
            ("{metric: '', bins: [-1]}", of("", &[-1.0])),
            ("{metric: off, bins: []}", of("off", &[])),
            ("{metric: a, bins: [2, 1]}", Err("bins that do not ascend")),
            ("{metric: a, bins: [inf, inf]}", Err("bins that do not ascend")),
            ("{metric: a, bins: [x]}", Err("a bin that is not a number")),
            ("{metric: a, bins: [nan]}", Err("a bin that is not a number")),
            ("{metric: a, bins: 1}", Err("an item with something else than metric and bins")),
            ("render", Err("an item that is not a mapping")),
        ] {
            assert_eq!(read(text), bins, "{text}");
        }
    }
}
