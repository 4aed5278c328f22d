//! Text as the type its key wants.

use std::time::Duration;

use super::duration;
use super::problem::{Place, Report, Source};
use super::raw::Quote;
use super::secret::redact_url;
use super::tree::{Node, Value};

/// A value somebody wrote, and where.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    /// The value.
    pub(super) value: T,
    /// Where it comes from.
    pub(super) source: Source,
}

/// What a scalar can be read as.
pub(super) trait Typed: Sized {
    /// What is accepted, for messages.
    const ACCEPTED: &'static str;
    /// What is accepted as a list of it.
    const LIST: &'static str = "a list";

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(text: &str) -> Result<Self, &'static str>;
}

impl Typed for String {
    const ACCEPTED: &'static str = "text";
    const LIST: &'static str = "a list such as [one, two]";

    fn read(text: &str) -> Result<String, &'static str> {
        Ok(text.to_owned())
    }
}

/// The words of YAML 1.1, as Go's YAML reader takes them.
impl Typed for bool {
    const ACCEPTED: &'static str = "true or false";

    fn read(text: &str) -> Result<bool, &'static str> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => Ok(true),
            "false" | "no" | "off" | "n" | "0" => Ok(false),
            _ => Err("not a boolean"),
        }
    }
}

/// Decimal, `1_000` included; also `0x1F`. A leading zero is refused: to Go it means octal.
impl Typed for u64 {
    const ACCEPTED: &'static str = "a whole number such as 4";

    fn read(text: &str) -> Result<u64, &'static str> {
        let (digits, radix) = match text.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (text, 10),
        };
        if radix == 10 && digits.len() > 1 && digits.starts_with('0') {
            return Err("a number with a leading zero");
        }
        if digits.starts_with(['_', '+', '-']) {
            return Err("not a whole number");
        }
        u64::from_str_radix(&digits.replace('_', ""), radix).map_err(|_| "not a whole number")
    }
}

impl Typed for f64 {
    const ACCEPTED: &'static str = "a number such as 0.99";
    const LIST: &'static str = "a list such as [0.5, 0.99]";

    fn read(text: &str) -> Result<f64, &'static str> {
        // Only digits and what joins them: `inf` and `nan` parse, too.
        let numeric = text.bytes().all(|byte| b"0123456789.eE+-".contains(&byte));
        let number = numeric.then(|| text.parse::<f64>().ok()).flatten();
        number.filter(|number| number.is_finite()).ok_or("not a number")
    }
}

impl Typed for Duration {
    const ACCEPTED: &'static str = duration::EXAMPLES;

    fn read(text: &str) -> Result<Duration, &'static str> {
        duration::parse(text)
    }
}

/// The value of one key on its way to its field.
pub(super) struct Reading<'a> {
    /// How messages may quote its value.
    pub(super) quote: Quote,
    /// Whether unknown and repeated keys within it are problems.
    pub(super) strict: bool,
    /// The name or alias it was written by.
    pub(super) key: &'static str,
    /// Where.
    pub(super) place: Place,
    /// What was written.
    pub(super) node: &'a Node,
    /// Where problems go.
    pub(super) report: &'a mut Report,
}

impl Reading<'_> {
    /// One scalar. `None` if it is not one: that is reported.
    pub(super) fn one<T: Typed>(&mut self) -> Option<Given<T>> {
        let text = match &self.node.value {
            Value::Text(text) => text,
            Value::Null => "",
            Value::List(_) => return self.refuse("a list where one value belongs", T::ACCEPTED),
            Value::Map(_) => return self.refuse("a mapping where one value belongs", T::ACCEPTED),
        };
        self.read(text, self.place.clone())
    }

    /// The items of a list that can be read, the others reported; in an environment variable,
    /// they are separated by commas. `None` if it is no list: that is reported, too.
    pub(super) fn many<T: Typed>(&mut self) -> Option<Vec<Given<T>>> {
        match (&self.node.value, self.place.clone()) {
            (Value::Text(text), place @ Place::Variable(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(items.filter_map(|item| self.read(item, place.clone())).collect())
            }
            (Value::List(items), place) => {
                let mut read = Vec::new();
                for item in items {
                    match &item.value {
                        Value::Text(text) => read.extend(self.read(text, place.at_line(item.line))),
                        Value::Null | Value::List(_) | Value::Map(_) => {
                            self.refuse::<T>("an item that is not one value", T::LIST);
                        }
                    }
                }
                Some(read)
            }
            (Value::Null, _) => Some(Vec::new()),
            (Value::Text(_), _) => self.refuse("not a list", T::LIST),
            (Value::Map(_), _) => self.refuse("a mapping where a list belongs", T::LIST),
        }
    }

    /// One scalar, or a list as in [`Reading::many`].
    pub(super) fn one_or_many<T: Typed>(&mut self) -> Option<Vec<Given<T>>> {
        match (&self.node.value, &self.place) {
            (Value::Text(_), Place::File(_) | Place::Line(..) | Place::BuiltIn) => {
                self.one().map(|given| vec![given])
            }
            (Value::Text(_), Place::Variable(_))
            | (Value::Null | Value::List(_) | Value::Map(_), _) => self.many(),
        }
    }

    fn read<T: Typed>(&mut self, text: &str, place: Place) -> Option<Given<T>> {
        let source = Source { place, key: self.key, shown: self.quote.show(text) };
        match T::read(text) {
            Ok(value) => Some(Given { value, source }),
            Err(what) => {
                self.report.refuse(&source, what, T::ACCEPTED);
                None
            }
        }
    }

    fn refuse<T>(&mut self, what: &str, accepted: &str) -> Option<T> {
        self.report.refuse(&self.source(), what, accepted);
        None
    }

    /// The key and its place.
    pub(super) fn source(&self) -> Source {
        let shown = match &self.node.value {
            Value::Text(text) => self.quote.show(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        };
        Source { place: self.place.clone(), key: self.key, shown }
    }
}

impl Quote {
    /// `text` as a message may quote it.
    fn show(self, text: &str) -> Option<String> {
        const MOST: usize = 60;
        let shown = match self {
            Quote::Never => return None,
            Quote::Url => redact_url(text),
            Quote::Whole => text.to_owned(),
        };
        let cut: String = shown.chars().take(MOST).collect();
        let dots = if cut.len() < shown.len() { "..." } else { "" };
        Some(format!("{cut:?}{dots}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_a_yaml_boolean() {
        for (text, value) in [
            ("true", Ok(true)),
            ("Yes", Ok(true)),
            ("on", Ok(true)),
            ("FALSE", Ok(false)),
            ("n", Ok(false)),
            ("0", Ok(false)),
            ("", Err("not a boolean")),
            ("2", Err("not a boolean")),
            ("maybe", Err("not a boolean")),
        ] {
            assert_eq!(bool::read(text), value, "{text}");
        }
    }

    #[test]
    fn a_whole_number_is() {
        for (text, value) in [
            ("0", Ok(0)),
            ("4", Ok(4)),
            ("1_000", Ok(1_000)),
            ("0x1F", Ok(31)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err("not a whole number")),
            ("007", Err("a number with a leading zero")),
            ("-1", Err("not a whole number")),
            ("+1", Err("not a whole number")),
            ("1.0", Err("not a whole number")),
            ("1e3", Err("not a whole number")),
            ("_1", Err("not a whole number")),
            ("0x", Err("not a whole number")),
            ("", Err("not a whole number")),
        ] {
            assert_eq!(u64::read(text), value, "{text}");
        }
    }

    #[test]
    fn a_number_is_finite() {
        for (text, value) in [
            ("0.5", Ok(0.5)),
            (".5", Ok(0.5)),
            ("1", Ok(1.0)),
            ("5e-1", Ok(0.5)),
            ("-1", Ok(-1.0)),
            ("1e999", Err("not a number")),
            ("nan", Err("not a number")),
            (".inf", Err("not a number")),
            ("", Err("not a number")),
        ] {
            assert_eq!(f64::read(text), value, "{text}");
        }
    }

    #[test]
    fn a_message_quotes_a_value_cut_and_without_credentials() {
        assert_eq!(Quote::Never.show("secret"), None);
        assert_eq!(Quote::Whole.show("a\nb").as_deref(), Some("\"a\\nb\""));
        let url = Quote::Url.show("http://u:p@h?k=v");
        assert_eq!(url.as_deref(), Some("\"http://REDACTED@h?REDACTED\""));
        let long = Quote::Whole.show(&"ä".repeat(61)).expect("only secrets are not shown");
        assert_eq!(long, format!("\"{}\"...", "ä".repeat(60)));
    }
}
