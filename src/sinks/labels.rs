//! Tags as keys and values, for sinks whose other side has no other: each key once, in the order
//! of their bytes.
//!
//! A tag without a value gets `true`. Of a key with several values these are joined by `__`. The
//! node's host and tags count where the series has no such key.

use super::Node;
use crate::model::MetricKey;

/// The value of a tag that has none.
const BARE: &str = "true";
/// Between the values of one key.
const AND: &[u8] = b"__";

/// How a sink writes keys and values.
pub trait Spelling {
    /// Appends a key.
    fn push_key(out: &mut Vec<u8>, key: &str);

    /// Appends a value.
    fn push_value(out: &mut Vec<u8>, value: &str);
}

/// The labels of one series; used again for the next one, so that it allocates no more.
#[derive(Debug, Default)]
pub struct Labels {
    pairs: Vec<Pair>,
    used: usize,
}

#[derive(Debug, Default)]
struct Pair {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Labels {
    /// Takes those of another series.
    pub fn describe<S: Spelling>(&mut self, key: &MetricKey, node: &Node) {
        self.used = 0;
        self.add_own::<S>(key);
        if let Some(host) = &node.host {
            self.add_pair::<S>("host", host, false);
        }
        self.add_of::<S>(node);
        self.pairs[..self.used].sort_unstable_by(|a, b| a.key.cmp(&b.key));
    }

    /// The same without the host, and in the order in which the series has them, before the
    /// node's tags.
    pub fn describe_as_sent<S: Spelling>(&mut self, key: &MetricKey, node: &Node) {
        self.used = 0;
        self.add_own::<S>(key);
        self.add_of::<S>(node);
    }

    fn add_own<S: Spelling>(&mut self, key: &MetricKey) {
        for tag in key.tags.iter() {
            self.add::<S>(tag, true);
        }
    }

    fn add_of<S: Spelling>(&mut self, node: &Node) {
        for tag in &node.tags {
            self.add::<S>(tag, false);
        }
    }

    /// Keys and values as they are written; none is empty.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs[..self.used].iter().map(|pair| (&pair.key[..], &pair.value[..]))
    }

    fn add<S: Spelling>(&mut self, tag: &str, joins: bool) {
        let (key, value) = tag.split_once(':').unwrap_or((tag, BARE));
        self.add_pair::<S>(key, value, joins);
    }

    /// Adds a value; behind those of the same key if it joins them, else only if there is none.
    fn add_pair<S: Spelling>(&mut self, key: &str, value: &str, joins: bool) {
        if self.used == self.pairs.len() {
            self.pairs.push(Pair::default());
        }
        let (known, free) = self.pairs.split_at_mut(self.used);
        let new = &mut free[0];
        new.key.clear();
        new.value.clear();
        S::push_key(&mut new.key, key);
        S::push_value(&mut new.value, value);
        if new.key.is_empty() || new.value.is_empty() {
            return;
        }
        match known.iter_mut().find(|pair| pair.key == new.key) {
            None => self.used += 1,
            Some(pair) if joins && pair.value != new.value => {
                pair.value.extend_from_slice(AND);
                pair.value.extend_from_slice(&new.value);
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Dialect, MetricKind, Scope, TagSet};

    struct Plain;

    impl Spelling for Plain {
        fn push_key(out: &mut Vec<u8>, key: &str) {
            out.extend_from_slice(key.replace('-', "_").as_bytes());
        }

        fn push_value(out: &mut Vec<u8>, value: &str) {
            out.extend_from_slice(value.as_bytes());
        }
    }

    #[test]
    fn each_key_is_there_once() {
        let node = Node { host: Some("n".into()), tags: vec!["env:node".into(), "az:1".into()] };
        let mut labels = Labels::default();
        for (tags, wanted) in [
            ("", "az=1 env=node host=n"),
            ("env:a,host:h", "az=1 env=a host=h"),
            ("b:1,a:2,canary", "a=2 az=1 b=1 canary=true env=node host=n"),
            ("x-y:3,x_y:2,x_y:1", "az=1 env=node host=n x_y=3__1__2"),
            ("env:b,env:a,env:a", "az=1 env=a__b host=n"),
            ("env:,:v,u:a:b", "az=1 env=node host=n u=a:b"),
        ] {
            let key = MetricKey {
                name: "m".into(),
                tags: TagSet::canonical(tags.split(',')),
                kind: MetricKind::Gauge,
                scope: Scope::Mixed,
                dialect: Dialect::DogStatsD,
            };
            labels.describe::<Plain>(&key, &node);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let shown: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{}={}", text(key), text(value)))
                .collect();
            assert_eq!(shown.join(" "), wanted, "{tags}");
        }
    }
}
