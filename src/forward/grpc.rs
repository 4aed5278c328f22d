//! The answers of gRPC calls.
//!
//! A call is an HTTP/2 request whose body is framed messages ([`super::pack`]), so the client of
//! the other formats makes it, too: one way of connecting, of TLS and of telling what was sent.
//! What is left is here: the status, which is in the headers if there is no message, and in the
//! trailers otherwise.
//!
//! A server of Veneur 14 ends a stream without a message but with status 0: that is a success.
//!
//! Sources: gRPC over HTTP/2 (`PROTOCOL-HTTP2.md`), and the HTTP statuses that
//! `google/rpc/code.proto` gives to each code.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use hyper::body::Body;
use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};

use crate::config::Secret;
use crate::net::Outcome;
use crate::net::http::{asked_wait, outcome_of, shown};

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
/// An answer is an empty message; one that says more than so is not read.
const ANSWER_BYTES: usize = 16 << 10;

/// What the answer to a call says, its text without `secret`. Reads it to its end.
pub(super) async fn outcome_of_call(response: Response, secret: Option<&Secret>) -> Outcome {
    if response.status() != StatusCode::OK {
        return outcome_of(response, secret).await;
    }
    let wait = asked_wait(response.headers());
    if let Some(outcome) = outcome_in(response.headers(), wait, secret) {
        return outcome;
    }
    match trailers_of(response).await {
        Ok(trailers) => {
            let wait = asked_wait(&trailers).or(wait);
            let missing = || Outcome::Failed("the answer has no status".to_owned());
            outcome_in(&trailers, wait, secret).unwrap_or_else(missing)
        }
        Err(why) => Outcome::Failed(why),
    }
}

async fn trailers_of(response: Response) -> Result<HeaderMap, String> {
    let mut body = pin!(reqwest::Body::from(response));
    let mut bytes = 0;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|error| error.to_string())?;
        let data = match frame.into_trailers() {
            Ok(trailers) => return Ok(trailers),
            Err(frame) => frame.into_data().unwrap_or_default(),
        };
        bytes += data.len();
        if bytes > ANSWER_BYTES {
            return Err("the answer is too long".to_owned());
        }
    }
    Ok(HeaderMap::new())
}

/// What headers or trailers say; `None` if there is no status among them.
fn outcome_in(
    headers: &HeaderMap,
    retry_after: Option<Duration>,
    secret: Option<&Secret>,
) -> Option<Outcome> {
    let code = headers.get(STATUS)?.to_str().ok()?;
    if code == "0" {
        return Some(Outcome::Taken);
    }
    let message = headers.get(MESSAGE).map_or(&b""[..], |message| message.as_bytes());
    let answer = format!("gRPC status {code}: {}", shown(&percent_decoded(message), secret));
    let code = code.parse().unwrap_or(u8::MAX);
    Some(Outcome::Refused { status: http_status(code), retry_after, answer })
}

/// The HTTP status of the same meaning.
fn http_status(code: u8) -> u16 {
    match code {
        1 => 499,      // cancelled
        3 | 9 => 400,  // invalid argument, failed precondition
        4 => 504,      // deadline exceeded
        5 => 404,      // not found
        6 | 10 => 409, // already exists, aborted
        7 => 403,      // permission denied
        // Resource exhausted is what Go's servers say of a message that is too long, and out of
        // range what tonic says; a server that is merely busy is unavailable.
        8 | 11 => 413,
        12 => 501, // unimplemented
        14 => 503, // unavailable
        16 => 401, // unauthenticated
        _ => 500,  // unknown, internal, data loss, and what nobody has heard of
    }
}

/// `%41` is `A`: how gRPC writes bytes that a header cannot hold.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let escaped = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) if first == b'%' => {
                decoded.push(byte);
                rest = &behind[2..];
            }
            Some(_) | None => {
                decoded.push(first);
                rest = behind;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |&(name, value): &(&'static str, &'static str)| {
            (name.parse().expect("a name"), value.parse().expect("a value"))
        };
        pairs.iter().map(header).collect()
    }

    #[test]
    fn a_status_is_read_as_the_http_status_of_the_same_meaning() {
        for (code, status) in [
            ("1", 499),
            ("2", 500),
            ("3", 400),
            ("4", 504),
            ("5", 404),
            ("6", 409),
            ("7", 403),
            ("8", 413),
            ("9", 400),
            ("10", 409),
            ("11", 413),
            ("12", 501),
            ("13", 500),
            ("14", 503),
            ("15", 500),
            ("16", 401),
            ("17", 500),
            ("what", 500),
        ] {
            let outcome = outcome_in(&headers(&[("grpc-status", code)]), None, None);
            let answer = format!("gRPC status {code}: ");
            assert_eq!(outcome, Some(Outcome::Refused { status, retry_after: None, answer }));
        }
        assert_eq!(outcome_in(&headers(&[("grpc-status", "0")]), None, None), Some(Outcome::Taken));
        assert_eq!(outcome_in(&headers(&[]), None, None), None);
    }

    #[test]
    fn a_message_is_decoded_and_keeps_no_secret() {
        let told = headers(&[("grpc-status", "3"), ("grpc-message", "bad%20%C3%A4 hunter2 100%")]);
        let secret = Secret::new("hunter2".to_owned());
        let Some(Outcome::Refused { answer, .. }) = outcome_in(&told, None, Some(&secret)) else {
            panic!("it is refused")
        };
        assert_eq!(answer, "gRPC status 3: bad ä REDACTED 100%");
    }
}
