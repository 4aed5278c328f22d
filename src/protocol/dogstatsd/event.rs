//! Events: `_e{<title bytes>,<text bytes>}:title|text[|d:..][|h:..][|k:..][|p:..][|s:..][|t:..][|#..]`.
//!
//! Both lengths count the bytes as sent, where a newline is written `\n` and counts two; title
//! and text may therefore hold any `|` and `:`. The lengths must fit the line exactly: where they do
//! not, text would be cut in the middle (clients that count characters). Optional fields
//! that make no sense are ignored and never cost the event, as in the Datadog Agent.

use memchr::memchr;

use super::fields::{Fields, owned, unescaped};
use super::{number, refuse, sections};
use crate::model::{AlertType, Event, Priority};
use crate::protocol::{PacketType, Reason, Refusal};

/// Reads a line that starts with `_e{`.
pub(super) fn parse(line: &[u8]) -> Result<Event, Refusal> {
    let refuse = |reason, part: &[u8]| refuse(PacketType::Event, reason, line, part);

    let header = &line[b"_e{".len()..];
    let Some(((title_bytes, text_bytes), body)) = split_header(header) else {
        return Err(refuse(Reason::BadEventHeader, header));
    };
    if title_bytes == 0 {
        return Err(refuse(Reason::EmptyTitle, body));
    }
    let end = &line[line.len()..];
    let Some((title, rest)) = body.split_at_checked(title_bytes) else {
        return Err(refuse(Reason::EventTruncated, end));
    };
    let [b'|', rest @ ..] = rest else {
        return Err(refuse(Reason::EventTruncated, rest));
    };
    let Some((text, rest)) = rest.split_at_checked(text_bytes) else {
        return Err(refuse(Reason::EventTruncated, end));
    };
    if !matches!(rest, [] | [b'|', ..]) {
        return Err(refuse(Reason::BadEventHeader, rest));
    }

    let mut event = Event { title: unescaped(title), text: unescaped(text), ..Event::default() };
    let mut fields = Fields::default();
    for section in sections(rest) {
        match section {
            [b'k', b':', key @ ..] => event.aggregation_key = owned(key),
            [b's', b':', source @ ..] => event.source_type = owned(source),
            [b'p', b':', word @ ..] => event.priority = priority(word).unwrap_or(event.priority),
            [b't', b':', word @ ..] => {
                event.alert_type = alert_type(word).unwrap_or(event.alert_type);
            }
            section => fields.read(section),
        }
    }
    let Fields { timestamp, hostname, tags, origin } = fields;
    Ok(Event { timestamp, hostname, tags, origin, ..event })
}

/// `5,9}:rest` as both lengths and the rest.
fn split_header(header: &[u8]) -> Option<((usize, usize), &[u8])> {
    let (lengths, rest) = header.split_at_checked(memchr(b'}', header)?)?;
    let rest = rest.strip_prefix(b"}:")?;
    let comma = memchr(b',', lengths)?;
    let length = |text| usize::try_from(number::whole(text)?).ok();
    Some(((length(&lengths[..comma])?, length(&lengths[comma + 1..])?), rest))
}

fn priority(word: &[u8]) -> Option<Priority> {
    [Priority::Normal, Priority::Low].into_iter().find(|known| known.as_str().as_bytes() == word)
}

fn alert_type(word: &[u8]) -> Option<AlertType> {
    [AlertType::Info, AlertType::Success, AlertType::Warning, AlertType::Error]
        .into_iter()
        .find(|known| known.as_str().as_bytes() == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, UnixSeconds};
    use Reason::{BadEventHeader, EmptyTitle, EventTruncated};

    fn plain() -> Event {
        Event { title: "Hi".into(), text: "there".into(), ..Event::default() }
    }

    #[test]
    fn an_event_becomes_its_parts() {
        for (line, event) in [
            ("_e{2,5}:Hi|there", plain()),
            ("_e{02,5}:Hi|there||", plain()),
            ("_e{3,0}:a|b|", Event { title: "a|b".into(), ..Event::default() }),
            (r"_e{3,4}:\nb|\n\n", Event { title: "\nb".into(), text: "\n\n".into(), ..plain() }),
            ("_e{2,5}:Hi|there|d:-5", Event { timestamp: Some(UnixSeconds(-5)), ..plain() }),
            ("_e{2,5}:Hi|there|d:7|d:x", Event { timestamp: Some(UnixSeconds(7)), ..plain() }),
            ("_e{2,5}:Hi|there|h:", plain()),
            ("_e{2,5}:Hi|there|h:a|h:b", Event { hostname: Some("b".into()), ..plain() }),
            ("_e{2,5}:Hi|there|k:disk", Event { aggregation_key: Some("disk".into()), ..plain() }),
            ("_e{2,5}:Hi|there|s:cron", Event { source_type: Some("cron".into()), ..plain() }),
            ("_e{2,5}:Hi|there|p:low|p:high", Event { priority: Priority::Low, ..plain() }),
            ("_e{2,5}:Hi|there|t:error", Event { alert_type: AlertType::Error, ..plain() }),
            ("_e{2,5}:Hi|there|t:fatal|z:1|zz", plain()),
            ("_e{2,5}:Hi|there|#z,,a", Event { tags: vec!["z".into(), "a".into()], ..plain() }),
            (
                "_e{2,5}:Hi|there|c:in-1|e:it-true|card:None",
                Event {
                    origin: Origin {
                        container_id: Some("in-1".into()),
                        external_data: Some("it-true".into()),
                        cardinality: Some("none".into()),
                    },
                    ..plain()
                },
            ),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(event), "{line}");
        }
    }

    #[test]
    fn an_event_is_refused_for_the_first_rule_it_breaks_and_the_place_is_told() {
        for (line, reason, at) in [
            ("_e{", BadEventHeader, 3),
            ("_e{2,5}", BadEventHeader, 3),
            ("_e{25}:Hi|there", BadEventHeader, 3),
            ("_e{2,5:Hi|there", BadEventHeader, 3),
            ("_e{2,5}Hi|there", BadEventHeader, 3),
            ("_e{+2,5}:Hi|there", BadEventHeader, 3),
            ("_e{2,-5}:Hi|there", BadEventHeader, 3),
            ("_e{2,}:Hi|there", BadEventHeader, 3),
            ("_e{2,5,1}:Hi|there", BadEventHeader, 3),
            ("_e{2,99999999999999999999}:Hi|there", BadEventHeader, 3),
            ("_e{0,5}:|there", EmptyTitle, 8),
            ("_e{2,3}:Hi|there", BadEventHeader, 14),
            ("_e{1,5}:Hi|there", EventTruncated, 9),
            ("_e{4,5}:größ|there", EventTruncated, 12),
            ("_e{2,6}:Hi|there", EventTruncated, 16),
            ("_e{9,1}:Hi|there", EventTruncated, 16),
            ("_e{18446744073709551615,18446744073709551615}:a|b", EventTruncated, 49),
            ("_e{2,0}:Hi", EventTruncated, 10),
        ] {
            let refusal = Refusal { packet: PacketType::Event, reason, at };
            assert_eq!(parse(line.as_bytes()), Err(refusal), "{line}");
        }
    }
}
