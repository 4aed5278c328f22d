//! Listeners on free ports whose threads tell a channel what they take.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use veneur::config::listen::{Listener, StatsdAddress};
use veneur::config::machine::Machine;
use veneur::config::settings::{IntakeSettings, SpanSettings};
use veneur::ingest::{BindError, Certificates, Inherited, Listeners, Receive, Running};
use veneur::telemetry::Telemetry;
use veneur::telemetry::registry::Total;

/// A test that waits longer than this for anything has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a [`Recorder`] may keep a datagram.
const DUE_AFTER: Duration = Duration::from_millis(5);

/// Limits that let everything through, for `listeners`.
pub(crate) fn settings(listeners: &[StatsdAddress]) -> IntakeSettings {
    IntakeSettings {
        dialect: veneur::model::Dialect::DogStatsD,
        repeat_to: Vec::new(),
        listeners: listeners.iter().cloned().map(Listener::from).collect(),
        num_readers: NonZeroUsize::MIN,
        metric_max_length: 100,
        read_buffer_bytes: 1 << 20,
        tls: None,
        max_connections: 100,
        idle_timeout: PATIENCE,
        handshake_timeout: PATIENCE,
        spans: SpanSettings::default(),
    }
}

/// Limits that let everything through, for one listener as the configuration has it.
pub(crate) fn listener(text: &str) -> IntakeSettings {
    let listener =
        Listener::<StatsdAddress>::parse(text, &Machine::this()).expect("a good address");
    IntakeSettings { listeners: vec![listener], ..settings(&[]) }
}

pub(crate) fn udp(address: &str) -> StatsdAddress {
    StatsdAddress::Udp(address.parse().expect("an address in a test"))
}

/// What a thread did with its [`Receive`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Heard {
    Took(Vec<u8>),
    TooLong,
    NotAllowed,
    HandedOver,
    HandedOverAll,
}

impl Heard {
    pub(crate) fn took(bytes: impl AsRef<[u8]>) -> Heard {
        Heard::Took(bytes.as_ref().to_vec())
    }
}

/// Tells what it is given.
pub(crate) struct Recorder {
    tell: Sender<Heard>,
    oldest: Option<Instant>,
    gate: Arc<Gate>,
}

impl Receive for Recorder {
    fn read<'a>(&mut self, _: &'a [u8], packets: impl Iterator<Item = &'a [u8]>) {
        for packet in packets {
            self.gate.pass();
            self.oldest.get_or_insert_with(Instant::now);
            // A test that has heard enough may be gone.
            let _ = self.tell.send(Heard::took(packet));
        }
    }

    fn too_long(&mut self) {
        let _ = self.tell.send(Heard::TooLong);
    }

    fn not_allowed(&mut self) {
        let _ = self.tell.send(Heard::NotAllowed);
    }

    fn until_due(&self, now: Instant) -> Option<Duration> {
        self.oldest.map(|oldest| (oldest + DUE_AFTER).saturating_duration_since(now))
    }

    fn hand_over_due(&mut self, now: Instant) {
        if self.oldest.is_some_and(|oldest| oldest + DUE_AFTER <= now) {
            self.oldest = None;
            let _ = self.tell.send(Heard::HandedOver);
        }
    }

    fn hand_over_all(&mut self) {
        let _ = self.tell.send(Heard::HandedOverAll);
    }
}

/// Holds recorders up while it is closed.
#[derive(Default)]
pub(crate) struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.closed.lock().expect("no test panics with it") = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.lock().expect("no test panics with it") = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().expect("no test panics with it");
        let waited = self.opened.wait_timeout_while(closed, PATIENCE, |closed| *closed);
        let (_closed, wait) = waited.expect("no test panics with it");
        assert!(!wait.timed_out(), "nobody opened the gate");
    }
}

/// Binds where nothing is inherited.
pub(crate) fn bind(settings: &IntakeSettings) -> Result<Listeners, BindError> {
    let certificates = Certificates::new(settings.tls.as_ref(), None)?;
    Listeners::bind(settings, &certificates, &mut Inherited::default())
}

/// Listeners at work, and what they hear.
pub(crate) struct Daemon {
    pub(crate) addresses: Vec<StatsdAddress>,
    pub(crate) gate: Arc<Gate>,
    telemetry: Telemetry,
    running: Running,
    heard: Receiver<Heard>,
}

impl Daemon {
    pub(crate) fn start(listeners: Listeners) -> Daemon {
        Daemon::try_start(listeners).expect("threads are to be had")
    }

    pub(crate) fn try_start(listeners: Listeners) -> io::Result<Daemon> {
        let addresses = listeners.addresses();
        let gate = Arc::new(Gate::default());
        let telemetry = Telemetry::default();
        let (tell, heard) = mpsc::channel();
        let running = listeners.start(&telemetry, |_| Recorder {
            tell: tell.clone(),
            oldest: None,
            gate: Arc::clone(&gate),
        })?;
        Ok(Daemon { addresses, gate, telemetry, running, heard })
    }

    pub(crate) fn listen(settings: &IntakeSettings) -> Daemon {
        Daemon::start(bind(settings).expect("the address is free"))
    }

    /// The IP address and port of the only listener.
    pub(crate) fn inet(&self) -> std::net::SocketAddr {
        match self.addresses[..] {
            [StatsdAddress::Udp(address) | StatsdAddress::Tcp(address)] => address,
            _ => panic!("not one IP listener: {:?}", self.addresses),
        }
    }

    /// The next thing a thread takes or refuses.
    pub(crate) fn hears(&self) -> Heard {
        loop {
            match self.next() {
                Heard::HandedOver => {}
                other => return other,
            }
        }
    }

    /// The next `count` things taken.
    pub(crate) fn takes(&self, count: usize) -> Vec<Vec<u8>> {
        taken((0..count).map(|_| self.hears()))
    }

    /// The next thing a thread does at all.
    pub(crate) fn next(&self) -> Heard {
        self.heard.recv_timeout(PATIENCE).expect("a listener does something in time")
    }

    /// Drains, and returns what is taken meanwhile.
    pub(crate) fn drain(self) -> Vec<Heard> {
        assert_eq!(self.running.drain(PATIENCE), Vec::<String>::new());
        self.heard.iter().filter(|heard| *heard != Heard::HandedOver).collect()
    }

    /// Drains, and returns the threads that did not end in time.
    pub(crate) fn drain_within(self, within: Duration) -> Vec<String> {
        self.running.drain(within)
    }

    /// Drains; returns what is taken meanwhile, and what was counted.
    pub(crate) fn drain_and_count(self) -> (Vec<Heard>, Vec<String>) {
        let telemetry = self.telemetry.clone();
        let heard = self.drain();
        (heard, counted(&telemetry))
    }

    /// Drains; nothing more is taken meanwhile, and this is what was counted.
    #[track_caller]
    pub(crate) fn ends_having_counted(self, counts: &[&str]) {
        let (heard, counted) = self.drain_and_count();
        assert_eq!(heard, [Heard::HandedOverAll]);
        assert_eq!(counted, counts);
    }

    /// What has been counted until now.
    pub(crate) fn counted(&self) -> Vec<String> {
        counted(&self.telemetry)
    }
}

/// Own counters, as `name{tags} total`.
fn counted(telemetry: &Telemetry) -> Vec<String> {
    let counters = telemetry.totals().into_iter().map(|series| match series.value {
        Total::Count(total) => format!("{}{{{}}} {total}", series.name, series.tags),
        other => panic!("listeners only count: {other:?}"),
    });
    counters.collect()
}

/// The bytes in `heard`, which has nothing but them and ends of threads.
pub(crate) fn taken(heard: impl IntoIterator<Item = Heard>) -> Vec<Vec<u8>> {
    let heard = heard.into_iter().filter(|heard| *heard != Heard::HandedOverAll);
    heard
        .map(|heard| match heard {
            Heard::Took(bytes) => bytes,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// A directory of its own for each test that asks, gone with it.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("veneur-listeners-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("temporary directories can be made");
        Directory(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left is in the temporary directory of the system.
        let _ = fs::remove_dir_all(&self.0);
    }
}
