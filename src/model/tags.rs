//! Tags in canonical form, and the tags that mean something to us.

use std::fmt;
use std::sync::Arc;

use super::{Scope, text};

const LOCAL_ONLY: &str = "veneurlocalonly";
const GLOBAL_ONLY: &str = "veneurglobalonly";

/// The tags that identify a series: sorted by bytes (but see [`TagSet::as_given`]), without
/// duplicates or empty tags, joined with `,`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagSet(Arc<str>);

impl TagSet {
    /// No tags.
    pub fn empty() -> TagSet {
        TagSet(Arc::from(""))
    }

    /// The canonical form of `tags`, whatever their order.
    pub fn canonical<'a>(tags: impl IntoIterator<Item = &'a str>) -> TagSet {
        let mut tags: Vec<&str> = tags.into_iter().filter(|tag| !tag.is_empty()).collect();
        tags.sort_unstable();
        tags.dedup();
        TagSet(Arc::from(tags.join(",")))
    }

    /// `tags` in the order given, but for empty ones: a classic dialect's, where the order is
    /// part of what a series is.
    pub fn as_given(tags: impl IntoIterator<Item = String>) -> TagSet {
        let tags: Vec<String> = tags.into_iter().filter(|tag| !tag.is_empty()).collect();
        TagSet(Arc::from(tags.join(",")))
    }

    /// Reads a tag section as received (`env:prod,veneurlocalonly,az:1`, no leading `#`):
    /// takes the scope tag out and lays `extend` over the rest.
    pub fn from_section(section: &[u8], extend: &ExtendTags) -> (TagSet, Scope) {
        let section = text::lossy(section);
        let (scope, scope_tag) = scope_of(&section);
        let tags = split(&section)
            .enumerate()
            .filter(|(index, tag)| Some(*index) != scope_tag && !extend.overrides(tag))
            .map(|(_, tag)| tag)
            .chain(extend.iter());
        (TagSet::canonical(tags), scope)
    }

    /// The tags joined with `,`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tags, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        split(&self.0)
    }
}

impl fmt::Debug for TagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Tags laid over those of every metric (`extend_tags`): each replaces tags of the same key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendTags(Vec<String>);

impl ExtendTags {
    /// From `key:value` or bare tags.
    pub fn new(tags: Vec<String>) -> ExtendTags {
        ExtendTags(tags)
    }

    /// The tags.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Tags in their order, with these instead of those that they replace.
    pub fn laid_over(&self, tags: TagSet) -> TagSet {
        if self.0.is_empty() {
            return tags;
        }
        let kept = tags.iter().filter(|tag| !self.overrides(tag));
        TagSet::as_given(kept.chain(self.iter()).map(str::to_owned))
    }

    /// Whether one of them replaces `tag`: same text before the first `:`.
    pub fn overrides(&self, tag: &str) -> bool {
        self.iter().any(|own| key_of(own) == key_of(tag))
    }
}

/// The part of a tag before its first `:`.
pub fn key_of(tag: &str) -> &str {
    tag.split_once(':').map_or(tag, |(key, _)| key)
}

/// The tags of a section, empty ones left out.
pub fn split(section: &str) -> impl Iterator<Item = &str> {
    section.split(',').filter(|tag| !tag.is_empty())
}

/// The scope a tag section asks for, and the place among [`split`]'s tags of the one tag that
/// asks for it.
///
/// `veneurglobalonly` wins over `veneurlocalonly`, and only one tag is taken out, as in
/// v1.1.0; a tag with a value (`veneurlocalonly:true`) counts too, as since v6.
pub fn scope_of(section: &str) -> (Scope, Option<usize>) {
    let place = |word: &str| split(section).position(|tag| key_of(tag) == word);
    // Cheap way out: nearly no section has a scope tag.
    if !section.contains("only") {
        return (Scope::Mixed, None);
    }
    if let Some(index) = place(GLOBAL_ONLY) {
        return (Scope::GlobalOnly, Some(index));
    }
    match place(LOCAL_ONLY) {
        Some(index) => (Scope::LocalOnly, Some(index)),
        None => (Scope::Mixed, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(section: &str) -> (String, Scope) {
        let (tags, scope) = TagSet::from_section(section.as_bytes(), &ExtendTags::default());
        (tags.as_str().to_owned(), scope)
    }

    #[test]
    fn a_section_is_sorted_deduplicated_and_freed_of_its_scope_tag() {
        for (section, tags, scope) in [
            ("", "", Scope::Mixed),
            (",", "", Scope::Mixed),
            ("b:2,a:1,B:0,a", "B:0,a,a:1,b:2", Scope::Mixed),
            ("x,,y,x", "x,y", Scope::Mixed),
            ("x:y,veneurglobalonly", "x:y", Scope::GlobalOnly),
            ("veneurlocalonly", "", Scope::LocalOnly),
            ("veneurlocalonly,veneurglobalonly", "veneurlocalonly", Scope::GlobalOnly),
            ("veneurlocalonly,veneurlocalonly", "veneurlocalonly", Scope::LocalOnly),
            ("veneurlocalonly:true,x", "x", Scope::LocalOnly),
            ("VeneurGlobalOnly", "VeneurGlobalOnly", Scope::Mixed),
            (" veneurlocalonly", " veneurlocalonly", Scope::Mixed),
        ] {
            assert_eq!(read(section), (tags.to_owned(), scope), "{section:?}");
        }
    }

    #[test]
    fn extend_tags_replace_tags_of_the_same_key() {
        let extend = ExtendTags::new(vec!["env:prod".into(), "canary".into()]);
        let (tags, _) = TagSet::from_section(b"env:dev,env,az:1,canary:no", &extend);
        assert_eq!(tags.as_str(), "az:1,canary,env:prod");
    }
}
