//! Names of fields, and the text of labels.

use std::collections::{BTreeMap, HashSet};

/// A field for each provider, given its id and nickname in the order of the ids: the nickname,
/// `_`, and the beginning of the id. No two are equal, and none depends on a later id.
pub(super) fn fields<'a>(
    providers: impl Iterator<Item = (&'a str, &'a str)>,
    id_length: usize,
) -> BTreeMap<String, &'a str> {
    let mut taken = HashSet::new();
    let mut fields = BTreeMap::new();
    for (id, nickname) in providers {
        // Of two that would be equal the later takes more of its id; ids that only differ in
        // what a field cannot have are told apart by a number.
        let longer = (id_length.min(id.len())..=id.len()).map(|length| field(nickname, id, length));
        let whole = field(nickname, id, id.len());
        let numbered = (2u64..).map(|number| format!("{whole}_{number}"));
        let free = longer.chain(numbered).find(|field| !taken.contains(field));
        let free = free.expect("there is no end to numbers");
        taken.insert(free.clone());
        fields.insert(free, id);
    }
    fields
}

/// Munin's rule: letters, digits and `_`, and no digit first.
fn field(nickname: &str, id: &str, length: usize) -> String {
    let bytes = nickname.bytes().chain([b'_']).chain(id.bytes().take(length));
    let legal = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte) } else { '_' };
    let name: String = bytes.map(legal).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// Text that stays within its line.
pub(super) fn label(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '\\' { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_field_is_the_nickname_and_the_beginning_of_the_id() {
        for (id, nickname, name) in [
            ("k2vq7m", "web-1", "web_1_k2vq"),
            ("zzzz", "9old", "_9old_zzzz"),
            ("ab", "n", "n_ab"),
            ("a.b-c", "", "_a_b_"),
            ("abcd", "é", "___abcd"),
        ] {
            let fields = fields([(id, nickname)].into_iter(), 4);
            assert_eq!(fields.keys().collect::<Vec<_>>(), [name], "{nickname} {id}");
        }
    }

    #[test]
    fn ids_that_cannot_be_told_apart_get_numbers() {
        let fields = fields([("a-b", "n"), ("a.b", "n"), ("a_b", "n")].into_iter(), 2);
        let fields: Vec<_> = fields.into_iter().collect();
        let expected = [("n_a_", "a-b"), ("n_a_b", "a.b"), ("n_a_b_2", "a_b")];
        assert_eq!(fields, expected.map(|(field, id)| (field.to_owned(), id)));
    }

    proptest! {
        /// Whatever providers call themselves: each has one field, which munin takes, and the
        /// fields of the first ones are the same without the others.
        #[test]
        fn every_provider_has_a_field_of_its_own(
            providers: BTreeMap<String, String>,
            similar in proptest::collection::btree_map("[a._-]{1,4}", "[x. ]{0,1}", 0..20),
            length in 0usize..6,
        ) {
            for providers in [providers, similar] {
                let named = || providers.iter().map(|(id, name)| (id.as_str(), name.as_str()));
                let all = fields(named(), length);
                prop_assert_eq!(all.len(), providers.len());
                for field in all.keys() {
                    let mut bytes = field.bytes();
                    let first = bytes.next().expect("a field has a name");
                    prop_assert!(first.is_ascii_alphabetic() || first == b'_', "{}", field);
                    prop_assert!(bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{}", field);
                }
                let half = fields(named().take(providers.len() / 2), length);
                prop_assert!(half.iter().all(|(field, id)| all.get(field) == Some(id)));
            }
        }

        /// A label is one line.
        #[test]
        fn a_label_stays_within_its_line(text: String) {
            prop_assert!(!label(&text).contains(|c: char| c.is_control() || c == '\\'));
        }
    }
}
