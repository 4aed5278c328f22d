//! The optional fields that events and service checks share: `d: h: # c: e: card:`.

use super::{cardinality, number};
use crate::model::{Origin, UnixSeconds, tags, text};

/// What both kinds of message may say about themselves. Of a repeated field the last counts;
/// an empty one says nothing.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) timestamp: Option<UnixSeconds>,
    pub(super) hostname: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) origin: Origin,
}

impl Fields {
    /// Takes one section, if it is one of these; a date that is none is ignored.
    pub(super) fn read(&mut self, section: &[u8]) {
        match section {
            [b'#', section @ ..] => {
                self.tags = tags::split(&text::lossy(section)).map(str::to_owned).collect();
            }
            [b'd', b':', date @ ..] => self.timestamp = timestamp(date).or(self.timestamp),
            [b'h', b':', host @ ..] => self.hostname = owned(host),
            [b'c', b':', id @ ..] => self.origin.container_id = owned(id),
            [b'e', b':', external @ ..] => self.origin.external_data = owned(external),
            [b'c', b'a', b'r', b'd', b':', word @ ..] => {
                self.origin.cardinality = cardinality(word).map(str::to_owned);
            }
            _ => {}
        }
    }
}

/// Text of a field; `None` if empty.
pub(super) fn owned(field: &[u8]) -> Option<String> {
    (!field.is_empty()).then(|| text::lossy(field).into_owned())
}

/// Text in which clients write a newline as backslash and `n`.
pub(super) fn unescaped(field: &[u8]) -> String {
    text::lossy(field).replace("\\n", "\n")
}

/// Whole seconds, also before 1970.
fn timestamp(date: &[u8]) -> Option<UnixSeconds> {
    let (negative, digits) = match date {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let seconds = i64::try_from(number::whole(digits)?).ok()?;
    Some(UnixSeconds(if negative { -seconds } else { seconds }))
}
