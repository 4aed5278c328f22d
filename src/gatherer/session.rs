//! The connection of one provider.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::House;
use super::roll::Poll;
use super::store::{Entry, Gathered};
use crate::net::bearer;
use crate::provider::is_id;
use crate::provider::wire::{
    self, FromGatherer, FromProvider, LineReader, MAX_FIRST_LINE_BYTES, MAX_LINE_BYTES, VERSION,
};
use crate::telemetry::names;

/// Who connects says who it is within this time.
const FIRST_LINE_WITHIN: Duration = Duration::from_secs(5);
const MAX_NICKNAME_BYTES: usize = 128;
/// So many questions in a row without an answer end a connection.
const STRIKES: u32 = 3;

/// Why a connection has ended that nobody ended in order.
const LOST: &str = "lost";

/// What a provider sends.
type Message = FromProvider<Gathered>;

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, house: Arc<House>) {
    // Questions and answers are single lines: nothing to wait for.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &house.tls else { return talk(stream, peer, house).await };
    let shaken = timeout(FIRST_LINE_WITHIN, tls.accept(stream)).await;
    match shaken {
        Ok(Ok(stream)) => talk(stream, peer, house).await,
        Ok(Err(error)) => {
            debug!(%peer, %error, "TLS handshake failed");
            house.refused(peer, "no TLS");
        }
        Err(_) => house.refused(peer, "silent"),
    }
}

async fn talk(stream: impl Stream, peer: SocketAddr, house: Arc<House>) {
    let (from, to) = split(stream);
    let from = LineReader::new(BufReader::new(from));
    let mut connection = Connection { from, to, patience: house.poll_timeout };
    let first = timeout(FIRST_LINE_WITHIN, connection.from.next(MAX_FIRST_LINE_BYTES)).await;
    let provider = match first {
        Ok(Ok(Some(message))) => match admit(message, peer, &house) {
            Ok(provider) => provider,
            Err(reason) => {
                house.refused(peer, reason);
                let reason = reason.to_owned();
                // It may be gone.
                let _ = connection.send(&FromGatherer::Error { reason }).await;
                return;
            }
        },
        // A port scan, or a health check of a load balancer.
        Ok(Ok(None)) => return debug!(%peer, "a connection said nothing"),
        Ok(Err(error)) => {
            debug!(%peer, %error, "a connection is closed");
            return house.refused(peer, "no message");
        }
        Err(_) => return house.refused(peer, "silent"),
    };
    let id = provider.id.clone();
    let (polls, asked) = mpsc::channel(1);
    let Some(ticket) = house.roll().enter(&id, polls) else {
        let reason = "too many providers";
        house.refused(peer, reason);
        let _ = connection.send(&FromGatherer::Error { reason: reason.to_owned() }).await;
        return;
    };
    info!(id, nickname = provider.nickname, %peer, "a provider has registered");
    let mut session = Session { connection, provider, house, strikes: 0, seq: 0 };
    let ended = session.run(asked).await;
    session.house.roll().remove(&id, ticket);
    match ended {
        Ok(why) => info!(id, why, "a provider is gone"),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            warn!(id, %error, "a provider is let go of");
        }
        // That connections break is normal life.
        Err(error) => info!(id, why = LOST, %error, "a provider is gone"),
    }
}

/// Who a provider is.
#[derive(Debug)]
struct Provider {
    id: String,
    nickname: String,
    epoch: u64,
    address: String,
}

/// Looks at a first message.
fn admit(message: Message, peer: SocketAddr, house: &House) -> Result<Provider, &'static str> {
    let FromProvider::Provide { v, id, epoch, nickname, token } = message else {
        return Err("unsupported version");
    };
    // The token first: who has none learns nothing else.
    if !bearer::is_equal(token.as_bytes(), house.token.reveal().as_bytes()) {
        return Err("bad token");
    }
    if v != VERSION {
        return Err("unsupported version");
    }
    if !is_id(&id) {
        return Err("bad id");
    }
    let nickname = nickname_of(&nickname);
    let address = peer.ip().to_canonical().to_string();
    Ok(Provider { id, nickname, epoch, address })
}

/// Cut between two characters, and without those that would disturb a log or a label.
fn nickname_of(text: &str) -> String {
    let fits = |end: &usize| *end <= MAX_NICKNAME_BYTES;
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let cut = ends.take_while(fits).last().unwrap_or(0);
    text[..cut].chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct Connection<S> {
    from: LineReader<BufReader<ReadHalf<S>>>,
    to: WriteHalf<S>,
    patience: Duration,
}

impl<S: Stream> Connection<S> {
    async fn send(&mut self, message: &FromGatherer) -> io::Result<()> {
        let sent = timeout(self.patience, wire::write(&mut self.to, message)).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

struct Session<S> {
    connection: Connection<S>,
    provider: Provider,
    house: Arc<House>,
    strikes: u32,
    seq: u64,
}

/// What became of a question, or a connection.
enum Step {
    GoesOn,
    Ends(&'static str),
}

impl<S: Stream> Session<S> {
    /// Asks at once, and then whenever a round wants to know, until the connection ends.
    async fn run(&mut self, mut polls: mpsc::Receiver<Poll>) -> io::Result<&'static str> {
        let interval = self.house.poll_interval.as_millis();
        let poll_interval_ms = u64::try_from(interval).unwrap_or(u64::MAX);
        self.connection.send(&FromGatherer::Provided { poll_interval_ms }).await?;
        let mut step = self.ask().await?;
        self.house.changed.notify_one();
        loop {
            if let Step::Ends(why) = step {
                return Ok(why);
            }
            step = tokio::select! {
                poll = polls.recv() => match poll {
                    // Dropped when it is done.
                    Some(_poll) => self.ask().await?,
                    None => Step::Ends("replaced"),
                },
                message = self.connection.from.next::<Message>(MAX_LINE_BYTES) => match message? {
                    None => Step::Ends(LOST),
                    Some(FromProvider::Leave) => Step::Ends("left"),
                    // An answer that comes too late, or what we do not know.
                    Some(_) => Step::GoesOn,
                },
            };
        }
    }

    /// One question.
    async fn ask(&mut self) -> io::Result<Step> {
        self.seq += 1;
        self.house.telemetry.count(names::GATHERER_POLLS_TOTAL, "", 1);
        let question = FromGatherer::GetStats { seq: self.seq };
        if let Err(error) = self.connection.send(&question).await {
            self.house.failed("lost");
            return Err(error);
        }
        let Ok(answered) = timeout(self.house.poll_timeout, self.answer()).await else {
            self.strikes += 1;
            self.house.failed("timeout");
            let (id, strikes) = (&self.provider.id, self.strikes);
            warn!(id, strikes, "a provider does not answer");
            let is_out = self.strikes == STRIKES;
            return Ok(if is_out { Step::Ends("it does not answer") } else { Step::GoesOn });
        };
        if matches!(answered, Err(_) | Ok(Step::Ends(LOST))) {
            self.house.failed("lost");
        }
        self.strikes = 0;
        answered
    }

    async fn answer(&mut self) -> io::Result<Step> {
        let seq = self.seq;
        loop {
            match self.connection.from.next::<Message>(MAX_LINE_BYTES).await? {
                None => return Ok(Step::Ends(LOST)),
                Some(FromProvider::Leave) => return Ok(Step::Ends("left")),
                Some(FromProvider::Stats { seq: of, stats }) if of == seq => {
                    self.house.note(&self.provider, stats);
                    return Ok(Step::GoesOn);
                }
                Some(FromProvider::Failed { seq: of, reason }) if of == seq => {
                    self.house.failed("failed");
                    let (id, reason) = (&self.provider.id, reason.escape_debug().to_string());
                    warn!(id, reason, "a provider could not answer");
                    return Ok(Step::GoesOn);
                }
                Some(_) => {}
            }
        }
    }
}

impl House {
    fn note(&self, provider: &Provider, stats: Gathered) {
        let Provider { id, nickname, epoch, address } = provider;
        let entry = Entry {
            timestamp: now(),
            nickname: nickname.clone(),
            stats,
            epoch: Some(*epoch),
            address: Some(address.clone()),
        };
        self.note_entry(id, entry);
    }

    /// Keeps what was heard.
    pub(super) fn note_entry(&self, id: &str, entry: Entry) {
        if let Some(id) = self.roll().note(id, entry) {
            warn!(id, "too many providers: the one that has been gone for longest is forgotten");
        }
    }

    /// Counts a question without an answer.
    pub(super) fn failed(&self, cause: &str) {
        self.telemetry.count(names::GATHERER_POLL_ERRORS_TOTAL, &format!("cause:{cause}"), 1);
    }
}

/// Seconds since 1970, to the millisecond.
pub(super) fn now() -> f64 {
    UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nickname_is_cut_between_characters_and_disturbs_nothing() {
        assert_eq!(nickname_of("web\n1\u{1b}[2J"), "web_1_[2J");
        let long = "ä".repeat(100);
        assert_eq!(nickname_of(&long), "ä".repeat(64));
        assert_eq!(nickname_of(&format!("x{long}")), format!("x{}", "ä".repeat(63)));
    }
}
