//! A carbon that keeps what it reads, and fails as a test wants.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    /// It is read to the end and closed.
    Good,
    /// It is read to the end and stays open.
    StaysOpen,
    /// A part of it is read, then it is reset.
    Resets,
    /// Nothing is read.
    Hangs,
}

/// A running carbon. It listens for as long as the process lives.
pub(crate) struct FakeCarbon {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    manner: Manner,
    /// What was read of each connection that was not reset.
    bodies: Vec<Vec<u8>>,
    connections: usize,
    open: Vec<TcpStream>,
}

impl FakeCarbon {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start() -> FakeCarbon {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let shared =
            Shared { manner: Manner::Good, bodies: Vec::new(), connections: 0, open: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        FakeCarbon { address, shared }
    }

    /// `HOST:PORT`
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on.
    pub(crate) fn behave(&self, manner: Manner) {
        let mut shared = lock(&self.shared);
        shared.manner = manner;
        shared.open.clear();
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.shared).connections
    }

    /// What was read of each connection.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        lock(&self.shared).bodies.clone()
    }

    /// All lines so far, without their times, sorted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.bodies().concat()).expect("lines are UTF-8");
        let without_time =
            |line: &str| line.rsplit_once(' ').map_or("", |(line, _)| line).to_owned();
        let mut lines: Vec<String> = text.lines().map(without_time).collect();
        lines.sort();
        lines
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, shared: &Mutex<Shared>) {
    let manner = {
        let mut shared = lock(shared);
        shared.connections += 1;
        shared.manner
    };
    let mut body = Vec::new();
    match manner {
        Manner::Good | Manner::StaysOpen => {
            // A test that ends cuts it off.
            let _ = stream.read_to_end(&mut body);
            let mut shared = lock(shared);
            shared.bodies.push(body);
            if manner == Manner::StaysOpen {
                shared.open.push(stream);
            }
        }
        Manner::Resets => {
            let _ = stream.read(&mut [0; 10]);
            let socket = socket2::Socket::from(stream);
            socket.set_linger(Some(Duration::ZERO)).expect("a TCP socket can be reset");
        }
        Manner::Hangs => lock(shared).open.push(stream),
    }
}
