//! HTTP clients of ours: connections kept, no redirect followed, no secret told.

use std::error::Error;
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{ClientBuilder, Response, Url};
use tokio::time::timeout;

use super::{Outcome, retry_after};
use crate::config::secret::{REDACTED, Secret};

/// Connecting, TLS included, may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// So much of an answer is read, for the log and to be able to use the connection again.
const ANSWER_BYTES: usize = 16 << 10;
/// Reading it may take this long; the status is what counts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// So much of it is shown: its beginning and its end.
const SHOWN_CHARS: usize = 200;
const SHOWN_AT_THE_END: usize = 50;

/// A client for one host. Proxies are taken from the environment (`HTTPS_PROXY` and so on),
/// but for loopback addresses, which no proxy can reach for us.
pub fn client_for(url: &Url) -> ClientBuilder {
    let client = reqwest::Client::builder()
        .user_agent(concat!("veneur/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT);
    if is_loopback(url) { client.no_proxy() } else { client }
}

/// What an answer says, its text without `secret`.
pub async fn outcome_of(mut response: Response, secret: Option<&Secret>) -> Outcome {
    let status = response.status();
    let answer = beginning_of(&mut response).await;
    if status.is_success() {
        return Outcome::Taken;
    }
    Outcome::Refused {
        status: status.as_u16(),
        retry_after: asked_wait(response.headers()),
        answer: shown(&answer, secret),
    }
}

/// What it means that there is no answer.
pub fn outcome_of_error(error: reqwest::Error) -> Outcome {
    // Connecting has a time limit of its own.
    if error.is_connect() {
        return Outcome::Unreachable(causes(&error.without_url()));
    }
    if error.is_timeout() {
        return Outcome::TimedOut;
    }
    let may_be_sent = !was_never_sent(&error);
    let why = causes(&error.without_url());
    match may_be_sent && !is_about_our_certificate(&why) {
        true => Outcome::Failed(why),
        false => Outcome::Unreachable(why),
    }
}

/// Whether the connection was closed before the request was written to it, which is all that
/// hyper calls cancelled.
fn was_never_sent(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether the other side has ended the handshake because it does not like our certificate, or
/// misses one. With TLS 1.3 that comes after our request, which it has not read.
///
/// HTTP/2 keeps of an error only what rustls says of it.
fn is_about_our_certificate(why: &str) -> bool {
    const ALERT: &str = "received fatal alert: ";
    const NAMES: [&str; 8] = [
        "CertificateRequired",
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "UnknownCA",
        "AccessDenied",
    ];
    why.split(ALERT).skip(1).any(|alert| NAMES.iter().any(|name| alert.starts_with(name)))
}

/// How long an answer asks us to stay away.
pub fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER)?.to_str().ok()?;
    retry_after(header, SystemTime::now())
}

/// An answer as text without `secret`, without its middle if it is long.
pub fn shown(answer: &[u8], secret: Option<&Secret>) -> String {
    let mut text = String::from_utf8_lossy(answer).into_owned();
    // Masking an empty text would mask everything.
    if let Some(secret) = secret.filter(|secret| !secret.reveal().is_empty()) {
        text = text.replace(secret.reveal(), REDACTED);
    }
    let text = text.trim();
    let length = text.chars().count();
    if length <= SHOWN_CHARS {
        return text.to_owned();
    }
    const GAP: &str = "...";
    let beginning = text.chars().take(SHOWN_CHARS - GAP.len() - SHOWN_AT_THE_END);
    let end = text.chars().skip(length - SHOWN_AT_THE_END);
    beginning.chain(GAP.chars()).chain(end).collect()
}

async fn beginning_of(response: &mut Response) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = async {
        while answer.len() < ANSWER_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            answer.extend_from_slice(&chunk);
        }
    };
    // What came in time is what there is to show.
    let _ = timeout(ANSWER_TIMEOUT, read).await;
    answer
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    }
}

/// An error and what caused it, outermost first.
pub fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::AlertDescription;

    use super::*;

    #[test]
    fn loopback_addresses_need_no_proxy() {
        for (url, loopback) in [
            ("http://127.0.0.1:8080", true),
            ("http://127.1.2.3", true),
            ("http://[::1]:8080", true),
            ("http://localhost", true),
            ("https://app.datadoghq.com", false),
            ("http://10.0.0.1", false),
        ] {
            let url = Url::parse(url).expect("the table holds good URLs");
            assert_eq!(is_loopback(&url), loopback, "{url}");
        }
    }

    #[test]
    fn an_alert_about_our_certificate_means_that_nothing_was_read() {
        for (alert, is_about_it) in [
            (AlertDescription::CertificateRequired, true),
            (AlertDescription::UnknownCA, true),
            (AlertDescription::BadCertificate, true),
            (AlertDescription::CertificateExpired, true),
            (AlertDescription::InternalError, false),
            (AlertDescription::BadRecordMac, false),
        ] {
            let error = rustls::Error::AlertReceived(alert);
            let why = format!("sending failed: {}", io::Error::other(error));
            assert_eq!(is_about_our_certificate(&why), is_about_it, "{why}");
        }
    }

    #[test]
    fn an_answer_is_shown_cut_and_without_the_secret() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(shown(b" no hunter2 here\xff\n", Some(&secret)), "no REDACTED here\u{fffd}");
        assert_eq!(shown(b"no", Some(&Secret::new(String::new()))), "no");
        let long = shown(&[&[b'x'; 1000][..], b"end"].concat(), None);
        assert_eq!((long.len(), long.ends_with("xend"), long.contains("x...x")), (200, true, true));
    }
}
