//! Where a gatherer is, and what it wants to be shown.

use std::fmt;

use super::listen::split_host_port;
use super::secret::{REDACTED, Secret};

/// What a reference looks like, for messages.
pub(super) const REFERENCE_FORM: &str = "gather://TOKEN@HOST:PORT";
/// What a token looks like, for messages.
pub(super) const TOKEN_FORM: &str = "1 to 128 letters, digits, dots, dashes and underscores";

const SCHEME: &str = "gather://";
const MAX_TOKEN_BYTES: usize = 128;

/// `gather://TOKEN@HOST:PORT`: all a provider needs to know of its gatherer. Whoever has it may
/// register, so it is shown without its token.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference {
    token: Secret,
    /// `HOST:PORT`, as written.
    address: String,
}

impl Reference {
    /// From its parts.
    ///
    /// # Errors
    /// What is wrong with them, as a phrase.
    pub fn new(token: Secret, address: &str) -> Result<Reference, String> {
        if !is_token(token.reveal()) {
            return Err("no token before the @".to_owned());
        }
        let (host, port) = split_host_port(address)?;
        if host.is_empty() || port == 0 {
            return Err("no host or port to connect to".to_owned());
        }
        Ok(Reference { token, address: address.to_owned() })
    }

    /// From its text.
    ///
    /// # Errors
    /// What is wrong with it, as a phrase without the token.
    pub fn parse(text: &str) -> Result<Reference, String> {
        let rest = text.strip_prefix(SCHEME).ok_or("not a reference of a gatherer")?;
        let (token, address) = rest.split_once('@').ok_or("no token before the @")?;
        Reference::new(Secret::new(token.to_owned()), address)
    }

    /// What the gatherer wants to be shown.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The whole text, for the file that hands it on.
    pub fn reveal(&self) -> String {
        format!("{SCHEME}{}@{}", self.token.reveal(), self.address)
    }
}

/// As people may see it.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{REDACTED}@{}", self.address)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `text` can stand before the `@` as it is.
pub(crate) fn is_token(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_TOKEN_BYTES).contains(&text.len()) && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_and_hides_its_token() {
        for text in ["gather://s3cret@127.0.0.1:8131", "gather://a.b-c_d@[::1]:1"] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(reference.reveal(), text);
            let shown = format!("{reference} {reference:?}");
            assert!(!shown.contains(reference.token().reveal()), "{shown}");
        }
    }

    #[test]
    fn a_reference_is_refused_because() {
        for (text, why) in [
            ("", "not a reference of a gatherer"),
            ("http://s3cret@h:1", "not a reference of a gatherer"),
            ("gather://h:1", "no token before the @"),
            ("gather://@h:1", "no token before the @"),
            ("gather://a b@h:1", "no token before the @"),
            ("gather://a@h", "no port"),
            ("gather://a@:1", "no host or port to connect to"),
            ("gather://a@h:0", "no host or port to connect to"),
        ] {
            assert_eq!(Reference::parse(text).map_err(|why| why.to_owned()), Err(why.to_owned()));
        }
    }
}
