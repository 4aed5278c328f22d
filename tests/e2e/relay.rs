//! A relay between two nodes that misbehaves on request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Behaviour {
    /// It gets there and is answered, but the answer is lost.
    LoseAnswer,
    /// It is answered with 503 and gets nowhere.
    Refuse,
    /// Its connection is closed unread.
    Close,
}

/// Relays HTTP to one address. Each connection carries one request.
pub(crate) struct Relay {
    address: SocketAddr,
    misbehaved: Arc<AtomicUsize>,
    behaviours: Arc<Mutex<VecDeque<Behaviour>>>,
}

impl Relay {
    /// Starts it; the first requests meet `behaviours`, one each, the others pass.
    pub(crate) async fn start(to: &str, behaviours: impl IntoIterator<Item = Behaviour>) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let behaviours: VecDeque<Behaviour> = behaviours.into_iter().collect();
        let behaviours = Arc::new(Mutex::new(behaviours));
        let misbehaved = Arc::new(AtomicUsize::new(0));
        let (to, counter) = (to.to_owned(), Arc::clone(&misbehaved));
        let asked = Arc::clone(&behaviours);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, behaviours) = (to.clone(), Arc::clone(&behaviours));
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    // A broken connection is what the test is about.
                    let _ = relay(client, &to, &behaviours, &counter).await;
                });
            }
        });
        Relay { address, misbehaved, behaviours: asked }
    }

    /// The next requests meet these.
    pub(crate) fn misbehave(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.behaviours.lock().expect("nobody panics with it").extend(behaviours);
    }

    /// From now on all requests pass.
    pub(crate) fn behave(&self) {
        self.behaviours.lock().expect("nobody panics with it").clear();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that met a misbehaviour so far.
    pub(crate) fn misbehaved(&self) -> usize {
        self.misbehaved.load(Ordering::Relaxed)
    }
}

async fn relay(
    mut client: TcpStream,
    to: &str,
    behaviours: &Mutex<VecDeque<Behaviour>>,
    misbehaved: &AtomicUsize,
) -> std::io::Result<()> {
    while let Some(request) = read_message(&mut client).await? {
        // Probes of a node's health pass: it is healthy.
        let is_import = request.starts_with(b"POST /import");
        let behaviour = match is_import {
            true => behaviours.lock().expect("nobody panics with it").pop_front(),
            false => None,
        };
        misbehaved.fetch_add(usize::from(behaviour.is_some()), Ordering::Relaxed);
        match behaviour {
            Some(Behaviour::Close) => return Ok(()),
            Some(Behaviour::Refuse) => {
                let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
                client.write_all(answer).await?;
            }
            Some(Behaviour::LoseAnswer) | None => {
                let mut server = TcpStream::connect(to).await?;
                server.write_all(&request).await?;
                let answer = read_message(&mut server).await?.unwrap_or_default();
                if behaviour.is_some() {
                    return Ok(());
                }
                client.write_all(&answer).await?;
            }
        }
    }
    Ok(())
}

/// One HTTP message with a `content-length` (or none): head and body; `None` at the end.
async fn read_message(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some(head) = message.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&message[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.and_then(|length| length.trim().parse::<usize>().ok()).unwrap_or(0);
            if message.len() >= head + 4 + length {
                return Ok(Some(message));
            }
        }
        match stream.read(&mut chunk).await? {
            0 => return Ok(None),
            n => message.extend_from_slice(&chunk[..n]),
        }
    }
}
