//! Values that must not be shown.

use std::fmt;

use super::listen;
use super::raw::{Quote, ROWS};
use super::sinks::{self, KINDS};

/// What a base URL looks like, in words.
pub(super) const BASE_URL_FORMS: &str = "http://HOST:PORT or https://HOST";

/// What stands for a secret wherever configuration is shown.
pub const REDACTED: &str = "REDACTED";

/// A value that is only ever shown as [`REDACTED`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `value` from now on.
    pub fn new(value: String) -> Secret {
        Secret(value)
    }

    /// The value itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// An `http://` or `https://` URL to put a path behind: no trailing slash, query or fragment.
///
/// It may carry a user and password. Those are shown as [`REDACTED`]; only
/// [`BaseUrl::reveal`] has them.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// From the text of a configuration; one trailing slash is removed.
    ///
    /// # Errors
    /// What the text should have been.
    pub fn parse(text: &str) -> Result<BaseUrl, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or(BASE_URL_FORMS)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(BASE_URL_FORMS);
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("a URL without spaces");
        }
        if rest.contains(['?', '#']) {
            return Err("a URL without a query or fragment");
        }
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if !is_host_with_optional_port(host) {
            return Err(BASE_URL_FORMS);
        }
        Ok(BaseUrl(text.strip_suffix('/').unwrap_or(text).to_owned()))
    }

    /// The whole URL, for the one place that connects to it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The URL with user and password hidden, for logs and for people.
    pub fn redacted(&self) -> String {
        redact_url(&self.0)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// `text` without what may be secret in a URL: user and password, and the query.
pub fn redact_url(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, format!("?{REDACTED}")),
        None => (rest, String::new()),
    };
    // The last `@` ends the user part even if the password has slashes in it.
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{REDACTED}@{host}{query}"),
        None => format!("{scheme}{rest}{query}"),
    }
}

/// A setting whose value is not shown as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confidential {
    /// The kind of sink it is of, in `sinks`; `None`: it is a key of its own.
    pub sink: Option<&'static str>,
    /// Its name; `section.key` inside a section.
    pub key: &'static str,
    /// It is a URL, of which user, password and query are not shown; else nothing of it is.
    pub is_url: bool,
}

/// Every setting whose value is not shown as it is: what a check that nothing shows them needs.
pub fn confidential() -> impl Iterator<Item = Confidential> {
    let keys = ROWS.iter().map(|row| (None, row.name, row.quote));
    let of_sinks = KINDS
        .iter()
        .flat_map(|kind| sinks::rows_of(kind).map(|row| (Some(kind.name), row.name, row.quote)));
    keys.chain(of_sinks)
        .filter(|(.., quote)| *quote != Quote::Whole)
        .map(|(sink, key, quote)| Confidential { sink, key, is_url: quote == Quote::Url })
}

fn is_host_with_optional_port(text: &str) -> bool {
    let has_port = match text.rsplit_once(']') {
        Some((_, behind)) => !behind.is_empty(),
        None => text.contains(':'),
    };
    let full = if has_port { text.to_owned() } else { format!("{text}:80") };
    listen::split_host_port(&full).is_ok_and(|(host, port)| !host.is_empty() && port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_loses_one_trailing_slash() {
        for (text, kept) in [
            ("https://app.datadoghq.com", "https://app.datadoghq.com"),
            ("https://app.datadoghq.com/", "https://app.datadoghq.com"),
            ("http://127.0.0.1:8127/a/b/", "http://127.0.0.1:8127/a/b"),
            ("HTTP://[::1]:80", "HTTP://[::1]:80"),
            ("http://user:pass@host", "http://user:pass@host"),
        ] {
            let url = BaseUrl::parse(text).expect("the table holds good URLs");
            assert_eq!(url.reveal(), kept);
        }
    }

    #[test]
    fn a_base_url_is_refused_when() {
        for text in [
            "",
            "app.datadoghq.com",
            "ftp://host",
            "http://",
            "http:///path",
            "http://:80",
            "http://host:port",
            "http://host:0",
            "http://host:70000",
            "http://[::1",
            "http://[::1]80",
            "http://ho st",
            "http://host?api_key=k",
            "http://host/#top",
        ] {
            assert!(BaseUrl::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn user_password_and_query_of_a_url_are_not_shown() {
        for (text, shown) in [
            ("http://host/path", "http://host/path"),
            ("http://user:pass@host/path", "http://REDACTED@host/path"),
            ("http://u:p/@ss@host", "http://REDACTED@host"),
            ("https://host/?api_key=abc", "https://host/?REDACTED"),
            ("user:pass@host", "REDACTED@host"),
        ] {
            assert_eq!(redact_url(text), shown);
        }
        let url = BaseUrl::parse("http://user:pass@host").expect("a good URL");
        assert_eq!(format!("{url:?}"), "http://REDACTED@host");
    }
}
