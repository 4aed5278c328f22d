//! Which tags are meant: one of `ignore_tags`, or of a sink's `strip_tags`.

use super::Glob;

/// A rule that some tags fulfil. It looks at the whole tag, `key:value`.
///
/// Source: Veneur 14's tag matchers; their `regex` is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagMatcher {
    /// Every tag.
    Any,
    /// This tag.
    Exact(String),
    /// Tags that begin so.
    Prefix(String),
    /// Tags that contain this.
    Substring(String),
    /// Tags that fit, or whose part before the `:` does.
    Glob(Glob),
}

impl TagMatcher {
    /// Whether a tag fulfils it.
    pub fn matches(&self, tag: &str) -> bool {
        match self {
            TagMatcher::Any => true,
            TagMatcher::Exact(text) => tag == text,
            TagMatcher::Prefix(text) => tag.starts_with(text),
            TagMatcher::Substring(text) => tag.contains(text),
            TagMatcher::Glob(glob) => glob.matches_tag(tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_fulfils_a_rule_when() {
        let host = || "host:".to_owned();
        for (matcher, tags, not) in [
            (TagMatcher::Any, &["", "host:a"][..], &[][..]),
            (TagMatcher::Exact(host()), &["host:"], &["host:a", "host"]),
            (TagMatcher::Prefix(host()), &["host:", "host:a"], &["ahost:a", "host"]),
            (TagMatcher::Substring(host()), &["host:", "ahost:a"], &["host"]),
            (TagMatcher::Glob(Glob::new("ho?t")), &["host", "hott:a"], &["ahost", "hosts:a"]),
            (TagMatcher::Glob(Glob::new("host:a*")), &["host:a", "host:ab"], &["host", "host:b"]),
        ] {
            assert!(tags.iter().all(|tag| matcher.matches(tag)), "{matcher:?}");
            assert!(!not.iter().any(|tag| matcher.matches(tag)), "{matcher:?}");
        }
    }
}
