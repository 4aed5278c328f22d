//! Where a gatherer is, and what it wants to be shown.

use std::fmt;

use super::listen::split_host_port;
use super::secret::{REDACTED, Secret};

/// What a reference looks like, for messages.
pub(super) const REFERENCE_FORM: &str =
    "gather://TOKEN@HOST:PORT or gathers://TOKEN@HOST:PORT?fp=sha256:HEX";
/// What a token looks like, for messages.
pub(super) const TOKEN_FORM: &str = "1 to 128 letters, digits, dots, dashes and underscores";

const PLAIN: &str = "gather://";
const TLS: &str = "gathers://";
/// Before the fingerprint.
const FINGERPRINT: &str = "?fp=sha256:";
const MAX_TOKEN_BYTES: usize = 128;

/// `gather://TOKEN@HOST:PORT`, or `gathers://TOKEN@HOST:PORT?fp=sha256:HEX` over TLS: all a
/// provider needs to know of its gatherer. Whoever has it may register, so it is shown without
/// its token.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference {
    token: Secret,
    /// `HOST:PORT`, as written.
    address: String,
    fingerprint: Option<Fingerprint>,
}

/// SHA-256 of a certificate (DER): the one that the gatherer shows, whoever has signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Fingerprint> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Reference {
    /// From its parts.
    ///
    /// # Errors
    /// What is wrong with them, as a phrase.
    pub fn new(
        token: Secret,
        address: &str,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Reference, String> {
        if !is_token(token.reveal()) {
            return Err("no token before the @".to_owned());
        }
        let (host, port) = split_host_port(address)?;
        if host.is_empty() || port == 0 {
            return Err("no host or port to connect to".to_owned());
        }
        Ok(Reference { token, address: address.to_owned(), fingerprint })
    }

    /// From its text.
    ///
    /// # Errors
    /// What is wrong with it, as a phrase without the token.
    pub fn parse(text: &str) -> Result<Reference, String> {
        let (rest, fingerprint) = match (text.strip_prefix(PLAIN), text.strip_prefix(TLS)) {
            (Some(rest), _) => (rest, None),
            (None, Some(rest)) => {
                let parts = rest.split_once(FINGERPRINT);
                let (rest, fingerprint) = parts.ok_or("no ?fp=sha256: behind the address")?;
                let fingerprint = Fingerprint::parse(fingerprint);
                (rest, Some(fingerprint.ok_or("not 64 hexadecimal digits behind sha256:")?))
            }
            (None, None) => return Err("not a reference of a gatherer".to_owned()),
        };
        let (token, address) = rest.split_once('@').ok_or("no token before the @")?;
        Reference::new(Secret::new(token.to_owned()), address, fingerprint)
    }

    /// What the gatherer wants to be shown.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The certificate that it must show; `None`: it speaks without TLS.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// The whole text, for the file that hands it on.
    pub fn reveal(&self) -> String {
        self.text(self.token.reveal())
    }

    fn text(&self, token: &str) -> String {
        let address = &self.address;
        match self.fingerprint {
            None => format!("{PLAIN}{token}@{address}"),
            Some(fingerprint) => format!("{TLS}{token}@{address}{FINGERPRINT}{fingerprint}"),
        }
    }
}

/// As people may see it.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(REDACTED))
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
        let pinned = format!("gathers://s3cret@h:1?fp=sha256:{}", "0123456789abcdef".repeat(4));
        for text in ["gather://s3cret@127.0.0.1:8131", "gather://a.b-c_d@[::1]:1", &pinned] {
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
            ("gathers://a@h:1", "no ?fp=sha256: behind the address"),
            ("gathers://a@h:1?fp=sha256:00", "not 64 hexadecimal digits behind sha256:"),
            ("gather://a@h", "no port"),
            ("gather://a@:1", "no host or port to connect to"),
            ("gather://a@h:0", "no host or port to connect to"),
        ] {
            assert_eq!(Reference::parse(text).map_err(|why| why.to_owned()), Err(why.to_owned()));
        }
    }
}
