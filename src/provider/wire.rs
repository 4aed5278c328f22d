//! What providers and gatherers say to each other: one JSON object a line, over a connection
//! that the provider opens and keeps.
//!
//! ```text
//! provider ──► {"op":"provide","v":1,"id":"…","epoch":N,"nickname":"…","token":"…"}
//!          ◄── {"op":"provided","poll_interval_ms":60000}      or error, and the end
//!          ◄── {"op":"get_stats","seq":7}
//!          ──► {"op":"stats","seq":7,"stats":{"counters":{…},"stats":{…}}}      or failed
//!          ──► {"op":"leave"}
//! ```
//!
//! Unknown keys and operations are ignored. A line that is too long, or no JSON object, ends the
//! connection.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

use super::Statistics;

/// The version of all this.
pub const VERSION: u64 = 1;
/// Longest line before a provider is accepted.
pub const MAX_FIRST_LINE_BYTES: usize = 4 << 10;
/// Longest line then.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// From a provider. `S` is what it takes for statistics: what a gatherer reads may be of any
/// provider, and have numbers of other kinds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum FromProvider<S = Statistics> {
    /// First of all: who it is.
    Provide {
        /// [`VERSION`].
        v: u64,
        /// Its id.
        id: String,
        /// When it started, in milliseconds since 1970.
        #[serde(default)]
        epoch: u64,
        /// For people.
        #[serde(default)]
        nickname: String,
        /// What the gatherer wants to be shown.
        #[serde(default)]
        token: String,
    },
    /// An answer.
    Stats {
        /// Of the question.
        seq: u64,
        /// What was asked for.
        stats: S,
    },
    /// No answer.
    Failed {
        /// Of the question.
        seq: u64,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// It ends in order.
    Leave,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// From a gatherer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum FromGatherer {
    /// The provider is accepted.
    Provided {
        /// How often it will be asked.
        poll_interval_ms: u64,
    },
    /// It is not.
    Error {
        /// Why.
        reason: String,
    },
    /// A question.
    GetStats {
        /// To be repeated in the answer.
        seq: u64,
    },
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// Reads lines from the other side.
#[derive(Debug)]
pub struct LineReader<R> {
    from: R,
    line: Vec<u8>,
    is_read: bool,
}

impl<R: AsyncBufRead + Unpin> LineReader<R> {
    /// Reads from this.
    pub fn new(from: R) -> LineReader<R> {
        LineReader { from, line: Vec::new(), is_read: false }
    }

    /// The next message, `None` at the end. May be cancelled and called again.
    ///
    /// # Errors
    /// Of the connection, or the line is longer than `max_bytes` or no message.
    pub async fn next<T: for<'de> Deserialize<'de>>(
        &mut self,
        max_bytes: usize,
    ) -> io::Result<Option<T>> {
        if !self.next_line(max_bytes).await? {
            return Ok(None);
        }
        // serde would also take an array for an object.
        if self.line.trim_ascii_start().first() != Some(&b'{') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a JSON object"));
        }
        serde_json::from_slice(&self.line).map(Some).map_err(|error| {
            // Not what the line says: it may be a secret.
            let what = if error.is_data() { "a message of another form" } else { "not JSON" };
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }

    /// Reads into `self.line`; what is there is kept when this is cancelled.
    async fn next_line(&mut self, max_bytes: usize) -> io::Result<bool> {
        if std::mem::take(&mut self.is_read) {
            self.line.clear();
        }
        loop {
            let available = self.from.fill_buf().await?;
            if available.is_empty() {
                return Ok(false);
            }
            let newline = memchr::memchr(b'\n', available);
            let taken = newline.unwrap_or(available.len());
            if self.line.len() + taken > max_bytes {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line that is too long"));
            }
            self.line.extend_from_slice(&available[..taken]);
            self.from.consume(taken + usize::from(newline.is_some()));
            if newline.is_some() {
                self.is_read = true;
                return Ok(true);
            }
        }
    }
}

/// Writes one message.
///
/// # Errors
/// Of the connection.
pub async fn write<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::BufReader;

    use super::*;

    fn read_all(bytes: &[u8], max_bytes: usize) -> (Vec<FromProvider>, Option<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut reader = LineReader::new(BufReader::with_capacity(3, bytes));
            let mut read = Vec::new();
            loop {
                match reader.next(max_bytes).await {
                    Ok(Some(message)) => read.push(message),
                    Ok(None) => return (read, None),
                    Err(error) => return (read, Some(error.to_string())),
                }
            }
        })
    }

    #[test]
    fn messages_are_lines_and_what_is_not_known_is_ignored() {
        let lines = br#"{"op":"provide","v":1,"id":"a","epoch":5,"token":"t","later":[1]}
{"op":"dance"}
{"seq":7,"op":"stats","stats":{"counters":{"c":1},"stats":{"s":null,"t":0.5}}}
{"op":"leave"}
"#;
        let (read, error) = read_all(lines, 100);
        assert_eq!(error, None);
        let counters = [("c".to_owned(), 1)].into();
        let stats = [("s".to_owned(), None), ("t".to_owned(), Some(0.5))].into();
        let provide = FromProvider::Provide {
            v: 1,
            id: "a".to_owned(),
            epoch: 5,
            nickname: String::new(),
            token: "t".to_owned(),
        };
        let stats = FromProvider::Stats { seq: 7, stats: Statistics { counters, stats } };
        assert_eq!(read, [provide, FromProvider::Unknown, stats, FromProvider::Leave]);
    }

    #[test]
    fn a_connection_ends_at_a_line_that_is() {
        for (lines, why) in [
            (&b"{\"op\":\"leave\"}\n[\"leave\"]\n"[..], "not a JSON object"),
            (b"{\"op\":\"leave\"}\n{\"op\":7}\n", "a message of another form"),
            (b"{\"op\":\"leave\"}\n{hunter2}\n", "not JSON"),
            (b"{\"op\":\"leave\"}\n\n", "not a JSON object"),
            (b"{\"op\":\"leave\"}\n{\"op\":\"leave\"       }\n", "a line that is too long"),
        ] {
            let (read, error) = read_all(lines, 20);
            assert_eq!((read.len(), error.as_deref()), (1, Some(why)));
        }
    }

    proptest! {
        /// Whatever arrives, reading ends, and no line within the limit is called too long.
        #[test]
        fn any_bytes_are_read_to_an_end(bytes: Vec<u8>) {
            let (_, error) = read_all(&bytes, bytes.len());
            prop_assert_ne!(error.as_deref(), Some("a line that is too long"));
        }
    }
}
