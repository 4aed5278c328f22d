//! What stands between the daemon and a receiver, and does to its connections what networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// What happens to every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Bytes go both ways.
    Fair,
    /// It is accepted and reset at once.
    Reset,
    /// Requests are read, and there is no answer ever.
    Silence,
    /// Our half is closed when the request has come: there will be no answer.
    HalfClosed,
    /// The answer is no HTTP.
    Garbage,
    /// The answer comes one byte a second.
    Trickle,
    /// The answer ends in the middle of its first line.
    CutShort,
    /// The request gets through, and its answer does not.
    AnswerLost,
}

/// A relay in front of a receiver.
pub(crate) struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    weather: Mutex<Weather>,
    /// Connections that are open: cut when the weather changes.
    open: Mutex<Vec<TcpStream>>,
    /// Connections that had bad weather.
    spoilt: AtomicUsize,
}

impl Front {
    /// In front of the receiver at this URL.
    pub(crate) fn start(url: &str, weather: Weather) -> Front {
        let to = url.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            to,
            weather: Mutex::new(weather),
            open: Mutex::default(),
            spoilt: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                // Failures are the weather's.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Front { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All connections, those there are and those to come.
    pub(crate) fn becomes(&self, weather: Weather) {
        *self.shared.weather() = weather;
        for stream in self.shared.open().drain(..) {
            // It may have ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Connections that had bad weather.
    pub(crate) fn spoilt(&self) -> usize {
        self.shared.spoilt.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn weather(&self) -> std::sync::MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let weather = *self.weather();
        self.open().push(stream.try_clone()?);
        if weather != Weather::Fair {
            self.spoilt.fetch_add(1, Ordering::Relaxed);
        }
        match weather {
            Weather::Fair => self.relay(stream),
            Weather::Reset => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                // The other handle would keep it open.
                self.open().retain(|open| open.peer_addr().ok() != stream.peer_addr().ok());
                Ok(())
            }
            Weather::Silence => read_to_the_end(&mut stream),
            Weather::HalfClosed => {
                read_some(&mut stream)?;
                stream.shutdown(Shutdown::Write)?;
                read_to_the_end(&mut stream)
            }
            Weather::Garbage => {
                read_some(&mut stream)?;
                stream.write_all(b"\x16\x03\x01\x00\xff\xfe no HTTP \r\n\r\n\x00")?;
                read_to_the_end(&mut stream)
            }
            Weather::Trickle => {
                read_some(&mut stream)?;
                for byte in b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n" {
                    stream.write_all(&[*byte])?;
                    thread::sleep(Duration::from_secs(1));
                }
                Ok(())
            }
            Weather::CutShort => {
                read_some(&mut stream)?;
                stream.write_all(b"HTTP/1.1 202 Acc")?;
                stream.shutdown(Shutdown::Both)
            }
            Weather::AnswerLost => {
                let mut receiver = TcpStream::connect(self.to)?;
                let mut upward = (stream.try_clone()?, receiver.try_clone()?);
                thread::spawn(move || std::io::copy(&mut upward.0, &mut upward.1));
                // The receiver has taken the request when it answers.
                read_some(&mut receiver)?;
                stream.shutdown(Shutdown::Both)
            }
        }
    }

    fn relay(&self, stream: TcpStream) -> std::io::Result<()> {
        let receiver = TcpStream::connect(self.to)?;
        let (mut from, mut to) = (stream.try_clone()?, receiver.try_clone()?);
        thread::spawn(move || {
            // Either side may go away.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let (mut from, mut to) = (receiver, stream);
        let relayed = std::io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Both)?;
        relayed.map(|_| ())
    }
}

fn read_some(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.read(&mut [0; 65_536]).map(|_| ())
}

fn read_to_the_end(stream: &mut TcpStream) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink()).map(|_| ())
}
