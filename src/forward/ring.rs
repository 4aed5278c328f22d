//! Which upstream a series goes to: a consistent-hash ring over the names of the members.
//!
//! Every sender that has the same members sends a series to the same one, whoever the sender
//! is; a member that comes or goes moves its own share only. The ring is that of veneur-proxy,
//! so that both may stand before the same globals:
//!
//! - each member has 20 points: CRC-32 (IEEE) of `<index><member>`, index 0 to 19 in decimal;
//! - the place of a series is CRC-32 of its name, type and tags joined with `,`, with nothing
//!   in between;
//! - it goes to the first point *strictly* greater than its place, and round the end.
//!
//! Source: veneur-proxy 14.2.0, whose ring is `stathat.com/c/consistent`.

use std::sync::Arc;

use crate::model::{MetricKey, MetricKind, TagMatcher};

/// Points of one member.
const REPLICAS: u32 = 20;

/// Some members, and which of them has which share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Ascending and without duplicates; the number is an index into `members`.
    points: Vec<(u32, usize)>,
    members: Vec<Arc<str>>,
}

/// Where a series stands on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u32);

impl Ring {
    /// The ring of these members; their order makes no difference.
    pub fn new(members: impl IntoIterator<Item = Arc<str>>) -> Ring {
        let mut members: Vec<Arc<str>> = members.into_iter().collect();
        members.sort();
        members.dedup();
        let points_of = |(index, member): (usize, &Arc<str>)| {
            let member = Arc::clone(member);
            (0..REPLICAS).map(move |replica| (crc32(&[&replica.to_string(), &member]), index))
        };
        let mut points: Vec<_> = members.iter().enumerate().flat_map(points_of).collect();
        points.sort_unstable();
        points.dedup_by_key(|(point, _)| *point);
        Ring { points, members }
    }

    /// The members, in byte order.
    pub fn members(&self) -> &[Arc<str>] {
        &self.members
    }

    /// The index of the member that has this place; `None` if there is no member.
    pub fn member_at(&self, place: Place) -> Option<usize> {
        let next = self.points.partition_point(|(point, _)| *point <= place.0);
        let (_, member) = self.points.get(next).or(self.points.first())?;
        Some(*member)
    }
}

impl Place {
    /// The place of a series. Its scope plays no part.
    pub fn of(key: &MetricKey) -> Place {
        Place(crc32(&[&key.name, type_word(key.kind), key.tags.as_str()]))
    }

    /// The place of a series without the tags that are ignored: series that differ in nothing
    /// else stand in one place.
    pub fn ignoring(key: &MetricKey, ignored: &[TagMatcher]) -> Place {
        if ignored.is_empty() {
            return Place::of(key);
        }
        let counts = |tag: &&str| !ignored.iter().any(|matcher| matcher.matches(tag));
        let tags: Vec<&str> = key.tags.iter().filter(counts).collect();
        Place(crc32(&[&key.name, type_word(key.kind), &tags.join(",")]))
    }
}

/// A kind as Veneur writes it. A distribution travels as a histogram, so it must stand where
/// any proxy on the way would put it.
fn type_word(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Distribution => MetricKind::Histogram.as_str(),
        MetricKind::Counter
        | MetricKind::Gauge
        | MetricKind::Histogram
        | MetricKind::Timer
        | MetricKind::Set => kind.as_str(),
    }
}

/// CRC-32 (IEEE) of all parts one after the other, eight bytes at a time. That of zlib-rs takes
/// ten times as long for so few bytes, which was half of what a small digest took.
fn crc32(parts: &[&str]) -> u32 {
    let base = &CRC_TABLES[7];
    !parts.iter().fold(u32::MAX, |crc, part| {
        let (eights, rest) = part.as_bytes().as_chunks::<8>();
        let crc = eights.iter().fold(crc, |crc, eight| {
            let bytes = (u64::from_le_bytes(*eight) ^ u64::from(crc)).to_le_bytes();
            let remainders = bytes.iter().zip(&CRC_TABLES);
            remainders.fold(0, |crc, (byte, table)| crc ^ table[usize::from(*byte)])
        });
        rest.iter().fold(crc, |crc, byte| base[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
    })
}

/// The remainder of each byte with 7 bytes behind it, with 6, and so on to none.
static CRC_TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut behind = 0;
    while behind < 8 {
        let mut byte = 0;
        while byte < 256 {
            let mut crc = match behind {
                0 => byte as u32,
                _ => tables[8 - behind][byte],
            };
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
                bit += 1;
            }
            tables[7 - behind][byte] = crc;
            byte += 1;
        }
        behind += 1;
    }
    tables
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Dialect, Scope, TagSet};

    fn ring(members: &[&str]) -> Ring {
        Ring::new(members.iter().map(|&member| Arc::from(member)))
    }

    fn key(kind: MetricKind, name: &str, tags: &[&str]) -> MetricKey {
        let tags = TagSet::canonical(tags.iter().copied());
        MetricKey {
            name: name.into(),
            tags,
            kind,
            scope: Scope::Mixed,
            dialect: Dialect::DogStatsD,
        }
    }

    fn member_of<'a>(ring: &'a Ring, key: &MetricKey) -> &'a str {
        &ring.members()[ring.member_at(Place::of(key)).expect("the ring has members")]
    }

    /// CRC-32 bit by bit, from its definition, and veneur-proxy's ring by trying every point.
    fn by_the_definition<'a>(members: &[&'a str], key: &str) -> &'a str {
        let crc = |text: &str| {
            !text.bytes().fold(u32::MAX, |crc, byte| {
                (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                    (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
                })
            })
        };
        assert_eq!(crc("123456789"), 0xcbf4_3926, "the check value of the standard");
        let place = crc(key);
        let points = members
            .iter()
            .flat_map(|member| (0..20).map(move |i| (crc(&format!("{i}{member}")), *member)));
        // A point behind the place is nearer than any that is reached by going round.
        let nearest = points.min_by_key(|(point, _)| (*point <= place, *point));
        nearest.expect("there are members").1
    }

    /// CRCs by Python's zlib; the points of the three members are theirs as well.
    #[test]
    fn series_stand_where_veneur_proxy_puts_them() {
        use MetricKind::{Counter, Distribution, Gauge, Histogram, Set, Timer};
        let members = ["http://a:8127", "http://b:8127", "http://c:8127"];
        let ring = ring(&members);
        for (kind, name, tags, text, place, member) in [
            (Counter, "page.views", &["env:prod"][..], "page.viewscounterenv:prod", 0x39e0_da2b, 2),
            (Histogram, "latency", &[], "latencyhistogram", 0xab24_f629, 2),
            (Distribution, "latency", &[], "latencyhistogram", 0xab24_f629, 2),
            (Timer, "latency", &["env:prod", "az:1"], "latencytimeraz:1,env:prod", 0xba5b_d9ab, 2),
            (Set, "users", &[], "usersset", 0xe7e6_54d1, 0),
            (Gauge, "queue.depth", &[], "queue.depthgauge", 0x102e_eda9, 0),
        ] {
            let key = key(kind, name, tags);
            assert_eq!(Place::of(&key), Place(place), "{text}");
            assert_eq!(member_of(&ring, &key), members[member], "{text}");
            assert_eq!(by_the_definition(&members, text), members[member], "{text}");
        }
    }

    #[test]
    fn series_that_differ_in_ignored_tags_alone_stand_in_one_place() {
        let ignored = [TagMatcher::Prefix("host:".to_owned()), TagMatcher::Exact("b".to_owned())];
        let place = |tags: &[&str]| Place::ignoring(&key(MetricKind::Counter, "m", tags), &ignored);
        let plain = Place::of(&key(MetricKind::Counter, "m", &["a:1", "z:1"]));
        assert_eq!(place(&["a:1", "z:1"]), plain);
        assert_eq!(place(&["a:1", "b", "host:x", "z:1"]), plain);
        assert_ne!(place(&["a:1"]), plain);
    }

    #[test]
    fn a_place_on_a_point_belongs_to_the_next_one_and_the_last_to_the_first() {
        let ring = ring(&["http://a:8127", "http://b:8127", "http://c:8127"]);
        let (first, last) = (ring.points[0], ring.points[ring.points.len() - 1]);
        assert_eq!((first.0, last.0), (0x004b_b2b6, 0xfabe_e5c3));
        let at = |place| ring.member_at(Place(place));
        assert_eq!(at(first.0 - 1), Some(first.1));
        assert_eq!(at(first.0), Some(ring.points[1].1));
        assert_eq!(at(last.0), Some(first.1));
        assert_eq!(at(u32::MAX), Some(first.1));
    }

    #[test]
    fn an_empty_ring_has_no_member_and_a_single_one_has_everything() {
        assert_eq!(ring(&[]).member_at(Place(7)), None);
        assert_eq!(ring(&["a", "a"]).member_at(Place(7)), Some(0));
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::btree_set("[a-z]{1,8}(:[0-9]{4})?", 1..8)
            .prop_map(|names| names.into_iter().collect())
    }

    proptest! {
        /// For all members and keys: the ring agrees with its definition, in any order.
        #[test]
        fn the_ring_is_what_it_is_defined_to_be(
            members in names(),
            name in "[a-z.]{1,20}",
            rotation in 0usize..8,
        ) {
            let mut members: Vec<&str> = members.iter().map(String::as_str).collect();
            let expected = by_the_definition(&members, &format!("{name}counter"));
            let middle = rotation % members.len();
            members.rotate_left(middle);
            let key = key(MetricKind::Counter, &name, &[]);
            let ring = ring(&members);
            prop_assert_eq!(member_of(&ring, &key), expected);
        }

        /// Taking one member out moves its own series and no other.
        #[test]
        fn a_member_that_goes_moves_its_own_share_only(members in names(), gone in 0usize..8) {
            prop_assume!(members.len() > 1);
            let gone = gone % members.len();
            let all: Vec<&str> = members.iter().map(String::as_str).collect();
            let mut left = all.clone();
            left.remove(gone);
            let (before, after) = (ring(&all), ring(&left));
            for n in 0..200 {
                let key = key(MetricKind::Set, &format!("series.{n}"), &[]);
                let owner = member_of(&before, &key);
                if owner != all[gone] {
                    prop_assert_eq!(member_of(&after, &key), owner);
                }
            }
        }
    }
}
