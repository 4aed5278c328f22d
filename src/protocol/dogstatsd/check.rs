//! Service checks: `_sc|name|status[|d:..][|h:..][|#..][|m:..]`, status 0 to 3.
//!
//! The message ends at the next `|`, and fields may follow it, as today's clients write them.
//! Backslash and `n` in it become a newline: Veneur's way; the Datadog Agent keeps them.

use memchr::memchr;

use super::fields::{Fields, owned, unescaped};
use super::{refuse, sections};
use crate::model::{ServiceCheck, ServiceStatus};
use crate::protocol::{PacketType, Reason, Refusal};

/// Reads a line that starts with `_sc|`.
pub(super) fn parse(line: &[u8]) -> Result<ServiceCheck, Refusal> {
    let refuse = |reason, part: &[u8]| refuse(PacketType::ServiceCheck, reason, line, part);

    let rest = &line[b"_sc|".len()..];
    let Some(bar) = memchr(b'|', rest) else {
        return Err(refuse(Reason::BadServiceCheck, &rest[rest.len()..]));
    };
    let Some(name) = owned(&rest[..bar]) else {
        return Err(refuse(Reason::EmptyName, rest));
    };
    let rest = &rest[bar + 1..];
    let (status, rest) = rest.split_at(memchr(b'|', rest).unwrap_or(rest.len()));
    let status = match status {
        b"0" => ServiceStatus::Ok,
        b"1" => ServiceStatus::Warning,
        b"2" => ServiceStatus::Critical,
        b"3" => ServiceStatus::Unknown,
        _ => return Err(refuse(Reason::BadStatus, status)),
    };

    let mut message = None;
    let mut fields = Fields::default();
    for section in sections(rest) {
        match section {
            [b'm', b':', text @ ..] => message = (!text.is_empty()).then(|| unescaped(text)),
            section => fields.read(section),
        }
    }
    let Fields { timestamp, hostname, tags, origin } = fields;
    Ok(ServiceCheck { name, status, timestamp, hostname, message, tags, origin })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, UnixSeconds};
    use Reason::{BadServiceCheck, BadStatus, EmptyName};

    fn plain() -> ServiceCheck {
        ServiceCheck::new("db.up", ServiceStatus::Ok)
    }

    #[test]
    fn a_check_becomes_its_parts() {
        let container = |id: &str| Origin { container_id: Some(id.into()), ..Origin::default() };
        for (line, check) in [
            ("_sc|db.up|0", plain()),
            ("_sc|db.up|0||x:1|", plain()),
            ("_sc|db up|1", ServiceCheck::new("db up", ServiceStatus::Warning)),
            ("_sc|db.up|2", ServiceCheck { status: ServiceStatus::Critical, ..plain() }),
            ("_sc|db.up|3", ServiceCheck { status: ServiceStatus::Unknown, ..plain() }),
            ("_sc|db.up|0|d:6|d:1.5", ServiceCheck { timestamp: Some(UnixSeconds(6)), ..plain() }),
            ("_sc|db.up|0|h:a|h:b", ServiceCheck { hostname: Some("b".into()), ..plain() }),
            ("_sc|db.up|0|#b,a", ServiceCheck { tags: vec!["b".into(), "a".into()], ..plain() }),
            ("_sc|db.up|0|m:", plain()),
            (r"_sc|db.up|0|m:a: 1\nb", ServiceCheck { message: Some("a: 1\nb".into()), ..plain() }),
            (
                "_sc|db.up|0|m:slow|c:in-1",
                ServiceCheck { message: Some("slow".into()), origin: container("in-1"), ..plain() },
            ),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(check), "{line}");
        }
    }

    #[test]
    fn a_check_is_refused_for_the_first_rule_it_breaks_and_the_place_is_told() {
        for (line, reason, at) in [
            ("_sc|", BadServiceCheck, 4),
            ("_sc|db.up", BadServiceCheck, 9),
            ("_sc||0", EmptyName, 4),
            ("_sc|db.up|", BadStatus, 10),
            ("_sc|db.up|4", BadStatus, 10),
            ("_sc|db.up|OK|h:a", BadStatus, 10),
            ("_sc|db.up|00", BadStatus, 10),
        ] {
            let refusal = Refusal { packet: PacketType::ServiceCheck, reason, at };
            assert_eq!(parse(line.as_bytes()), Err(refusal), "{line}");
        }
    }
}
