//! Names and label values with references to what a match has caught.

/// Text with references.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(Box<str>),
    Group(usize),
}

impl Template {
    /// As a rule with a glob of so many stars writes it: `$1` or `${1}` is what the first one
    /// stands for. Also gives the references that stand for nothing.
    pub fn of_glob(text: &str, stars: usize) -> (Template, Vec<String>) {
        read(text, |rest| {
            let (digits, written) = match rest.strip_prefix('{') {
                Some(inside) => {
                    let (digits, _) = inside.split_once('}')?;
                    (digits, digits.len() + 2)
                }
                None => {
                    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                    (&rest[..end], end)
                }
            };
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| {
                let group = digits.parse().ok().filter(|group| (1..=stars).contains(group));
                (Reference::Group(group), written)
            })
        })
    }

    /// As a rule with a regular expression writes it, in the way of Go: `$name` is as long as it
    /// can be, so that `$1_x` is the group `1_x`; `$$` is a dollar sign; `$0` is everything that
    /// was found. `names` are those of the groups.
    pub fn of_regex(text: &str, names: &[Option<&str>]) -> (Template, Vec<String>) {
        read(text, |rest| {
            if rest.starts_with('$') {
                return Some((Reference::Dollar, 1));
            }
            let (name, written) = match rest.strip_prefix('{') {
                Some(inside) => {
                    let (name, _) = inside.split_once('}')?;
                    (name, name.len() + 2)
                }
                None => {
                    let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
                    let end = rest.find(is_end).unwrap_or(rest.len());
                    (&rest[..end], end)
                }
            };
            (!name.is_empty()).then(|| {
                let number = name.parse().ok().filter(|number| *number < names.len());
                let named = || names.iter().position(|known| *known == Some(name));
                (Reference::Group(number.or_else(named)), written)
            })
        })
    }

    /// The text, with what was caught; first comes the whole of it.
    pub fn expand(&self, groups: &[&str]) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Group(group) => groups.get(*group).copied().unwrap_or(""),
        });
        pieces.collect()
    }

    /// The text between references.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(&**text),
            Piece::Group(_) => None,
        })
    }

    /// Whether it begins with a reference.
    pub fn begins_with_group(&self) -> bool {
        matches!(self.0.first(), Some(Piece::Group(_)))
    }

    /// Whether nothing can come of it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

enum Reference {
    /// A group, if there is such a one.
    Group(Option<usize>),
    Dollar,
}

/// `reference` reads what is behind a dollar sign, and says how long that is; `None` leaves the
/// sign as it is.
fn read(
    text: &str,
    reference: impl Fn(&str) -> Option<(Reference, usize)>,
) -> (Template, Vec<String>) {
    let (mut pieces, mut lost) = (Vec::new(), Vec::new());
    let (mut plain, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        match reference(behind) {
            None => {
                plain.push('$');
                rest = behind;
            }
            Some((Reference::Dollar, written)) => {
                plain.push('$');
                rest = &behind[written..];
            }
            Some((Reference::Group(group), written)) => {
                match group {
                    Some(group) => {
                        if !plain.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
                        }
                        pieces.push(Piece::Group(group));
                    }
                    None => lost.push(format!("${}", &behind[..written])),
                }
                rest = &behind[written..];
            }
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.into()));
    }
    (Template(pieces), lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_stands_for_what_was_caught() {
        let groups = ["a.b", "a", "b"];
        for (text, glob, regex) in [
            ("x", "x", "x"),
            ("$1", "a", "a"),
            ("$1$2", "ab", "ab"),
            ("${1}_x", "a_x", "a_x"),
            // Go's regular expressions take the longest name.
            ("$1_x", "a_x", ""),
            ("$0", "", "a.b"),
            ("$3.", ".", "."),
            ("$$1", "$a", "$1"),
            ("${x}", "${x}", "b"),
            ("a$", "a$", "a$"),
            ("${1", "${1", "${1"),
            ("$-", "$-", "$-"),
        ] {
            assert_eq!(Template::of_glob(text, 2).0.expand(&groups), glob, "{text}");
            let names = [None, None, Some("x")];
            assert_eq!(Template::of_regex(text, &names).0.expand(&groups), regex, "{text}");
        }
        assert_eq!(Template::of_glob("${3}$1$0", 2).1, ["${3}", "$0"]);
        assert_eq!(Template::of_regex("$1_x", &[None, None]).1, ["$1_x"]);
    }
}
