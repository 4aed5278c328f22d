//! Tokens that a client shows: `Authorization: Bearer TOKEN` (RFC 6750).

use reqwest::header::{AUTHORIZATION, HeaderMap};

use crate::config::Secret;

/// Whether `headers` show `token`.
pub fn shows(headers: &HeaderMap, token: &Secret) -> bool {
    let shown = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    match shown.split_at_checked("Bearer ".len()) {
        Some((scheme, shown)) => {
            scheme.eq_ignore_ascii_case(b"Bearer ") && is_equal(shown, token.reveal().as_bytes())
        }
        None => false,
    }
}

/// Whether two secrets are equal, in a time that tells nothing but whether they are as long.
pub fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_shown_by_its_bearer() {
        let token = Secret::new("open sesame".to_owned());
        for (header, is_shown) in [
            ("Bearer open sesame", true),
            ("bearer open sesame", true),
            ("Bearer open sesam", false),
            ("Bearer open sesame ", false),
            ("Bearer ", false),
            ("Basic open sesame", false),
            ("open sesame", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(header);
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            assert_eq!(shows(&headers, &token), is_shown, "{header:?}");
        }
        assert!(!shows(&HeaderMap::new(), &token));
    }
}
