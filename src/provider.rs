//! What a process tells of itself when somebody asks: counters of work done, and present stats.
//!
//! ```text
//! producers ──► Provider::statistics ──► GET /statistics
//!                                   └──► a gatherer that we registered with
//! ```
//!
//! A *producer* is a function that tells counters and stats. It is asked when somebody asks the
//! [`Provider`], and never otherwise, so that nobody pays for numbers nobody reads. Producers
//! are foreign code as far as this module is concerned: each is asked in a thread of its own, and
//! one that panics or hangs is left out of the answer.
//!
//! The daemon's own numbers are those of [`crate::telemetry`] under the same names
//! ([`telemetry`]); a program that links this crate has them under an identity of its own:
//!
//! ```
//! use veneur::provider::{Identity, Provider};
//!
//! let provider = Provider::new(Identity::new("web-1", "web-1.example.com"));
//! provider.count("orders.accepted_total", 1);
//! let _while_it_lives = provider.register("queue", |facts| facts.stat("queue.depth", Some(3.0)));
//! assert_eq!(provider.statistics().stats["queue.depth"], Some(3.0));
//! ```
//!
//! Source: Tahoe-LAFS's stats provider, whose shape of an answer this is.

mod file;
mod identity;
mod page;
mod pinned;
pub mod process;
pub mod registration;
pub mod telemetry;
pub mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::{trace, warn};

pub(crate) use file::replace_file;
pub(crate) use identity::random_id;
pub use identity::{Identity, IdentityError, is_id};
pub(crate) use page::INSTANCE_HEADER;
pub use page::router;
pub(crate) use pinned::acceptor;

/// A producer that takes longer is left out of an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A longer name is none.
const MAX_NAME_BYTES: usize = 200;

/// Producers that were left out, because they panicked, hung or still did.
const PRODUCER_ERRORS: &str = "status.producer_errors_total";
/// Names that were left out, because they were none.
const BAD_NAMES: &str = "status.bad_names_total";
/// 1 if two producers told the same name; the later registered won.
const DUPLICATE_NAMES: &str = "status.duplicate_names";

/// What a process tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Work done: zero at the start, never falling while the process lives.
    pub counters: BTreeMap<String, u64>,
    /// Present state; `None` where there were too few observations.
    pub stats: BTreeMap<String, Option<f64>>,
}

/// What one producer tells.
#[derive(Debug, Default)]
pub struct Facts(Statistics);

impl Facts {
    /// Work done since the start, which never falls.
    pub fn counter(&mut self, name: impl Into<String>, total: u64) {
        self.0.counters.insert(name.into(), total);
    }

    /// A present state. `None`, and what is no finite number, means: not enough observations.
    pub fn stat(&mut self, name: impl Into<String>, value: Option<f64>) {
        self.0.stats.insert(name.into(), value.filter(|value| value.is_finite()));
    }
}

type Tell = dyn Fn(&mut Facts) + Send + Sync;

/// Gathers what producers tell. Cloning shares.
#[derive(Clone)]
pub struct Provider(Arc<Shared>);

struct Shared {
    identity: Identity,
    /// Locked for as long as an addition or a copy takes, by whoever counts or asks.
    counters: Mutex<BTreeMap<String, u64>>,
    /// In the order of their registration; locked to add, remove or copy.
    producers: Mutex<Vec<Arc<Producer>>>,
}

struct Producer {
    label: String,
    tell: Box<Tell>,
    /// Being asked: one that hangs is not asked again before it has answered, so that it holds
    /// one thread and not one for each who asks.
    is_busy: AtomicBool,
}

/// Unregisters its producer when dropped.
#[must_use = "dropping it unregisters the producer"]
pub struct Registered {
    provider: Provider,
    producer: Arc<Producer>,
}

impl Provider {
    /// One without producers.
    pub fn new(identity: Identity) -> Provider {
        Provider(Arc::new(Shared {
            identity,
            counters: Mutex::default(),
            producers: Mutex::default(),
        }))
    }

    /// Whose statistics they are.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Adds `delta` to a counter, which begins at 0.
    pub fn count(&self, name: &str, delta: u64) {
        let mut counters = lock(&self.0.counters);
        match counters.get_mut(name) {
            Some(counter) => *counter = counter.saturating_add(delta),
            None => drop(counters.insert(name.to_owned(), delta)),
        }
    }

    /// Adds a producer, for as long as the guard lives. `label` is for the log.
    ///
    /// Of two that tell the same name the later registered wins.
    pub fn register(
        &self,
        label: &str,
        tell: impl Fn(&mut Facts) + Send + Sync + 'static,
    ) -> Registered {
        let is_busy = AtomicBool::new(false);
        let producer = Producer { label: label.to_owned(), tell: Box::new(tell), is_busy };
        let producer = Arc::new(producer);
        lock(&self.0.producers).push(Arc::clone(&producer));
        Registered { provider: self.clone(), producer }
    }

    /// Asks every producer. Blocks, for a second at most.
    pub fn statistics(&self) -> Statistics {
        let producers = lock(&self.0.producers).clone();
        let (answer, answers) = mpsc::channel();
        let mut is_asked = vec![false; producers.len()];
        for (index, producer) in producers.iter().enumerate() {
            match ask(index, Arc::clone(producer), answer.clone()) {
                Ok(()) => is_asked[index] = true,
                Err(why) => self.leave_out(producer, why),
            }
        }
        drop(answer);
        let mut told: Vec<Option<Statistics>> = vec![None; producers.len()];
        let deadline = Instant::now() + ANSWER_WITHIN;
        let left = || deadline.saturating_duration_since(Instant::now());
        // Each thread lets go of its end when it ends, also by a panic.
        while let Ok((index, facts)) = answers.recv_timeout(left()) {
            told[index] = Some(facts);
        }
        let mut statistics = Statistics::default();
        let (mut bad_names, mut has_duplicates) = (0, false);
        for ((producer, told), is_asked) in producers.iter().zip(told).zip(is_asked) {
            let Some(Statistics { counters, stats }) = told else {
                if is_asked {
                    self.leave_out(producer, "it panicked, or does not answer");
                }
                continue;
            };
            for (name, total) in counters {
                match is_name(&name) {
                    true => has_duplicates |= statistics.counters.insert(name, total).is_some(),
                    false => bad_names += 1,
                }
            }
            for (name, value) in stats {
                match is_name(&name) {
                    true => has_duplicates |= statistics.stats.insert(name, value).is_some(),
                    false => bad_names += 1,
                }
            }
        }
        self.count(PRODUCER_ERRORS, 0);
        self.count(BAD_NAMES, bad_names);
        for (name, total) in lock(&self.0.counters).clone() {
            // What was counted here and told by a producer, too, is the producer's.
            has_duplicates |= statistics.counters.contains_key(&name);
            statistics.counters.entry(name).or_insert(total);
        }
        let duplicates = f64::from(u8::from(has_duplicates));
        statistics.stats.insert(DUPLICATE_NAMES.to_owned(), Some(duplicates));
        trace!(?statistics, "asked for statistics");
        statistics
    }

    fn leave_out(&self, producer: &Producer, why: &str) {
        self.count(PRODUCER_ERRORS, 1);
        warn!(producer = producer.label, why, "a producer is left out");
    }
}

/// Has a thread ask it. What it tells comes with its `index`.
fn ask(
    index: usize,
    producer: Arc<Producer>,
    answer: mpsc::Sender<(usize, Statistics)>,
) -> Result<(), &'static str> {
    if producer.is_busy.swap(true, Ordering::AcqRel) {
        return Err("it still does not answer");
    }
    let asked = Arc::clone(&producer);
    let name = format!("producer-{}", producer.label);
    let thread = thread::Builder::new().name(name).spawn(move || {
        // Also when it panics: then the next to ask finds out whether it does so again.
        let free = FreeWhenDropped(asked);
        let mut facts = Facts::default();
        (free.0.tell)(&mut facts);
        drop(free);
        // Nobody waits any more.
        let _ = answer.send((index, facts.0));
    });
    thread.map(drop).map_err(|_| {
        producer.is_busy.store(false, Ordering::Release);
        "there is no thread to be had"
    })
}

struct FreeWhenDropped(Arc<Producer>);

impl Drop for FreeWhenDropped {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Release);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.provider.0.producers).retain(|it| !Arc::ptr_eq(it, &self.producer));
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registered({:?})", self.producer.label)
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider({:?})", self.0.identity)
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after a panic elsewhere: nothing that is locked here is left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> Provider {
        Provider::new(Identity::new("a", "a"))
    }

    #[test]
    fn producers_are_asked_when_somebody_asks_and_only_while_registered() {
        let provider = provider();
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let registered = provider.register("it", move |facts| {
            *lock(&count) += 1;
            facts.counter("c.total", 7);
            facts.stat("s", Some(0.5));
            facts.stat("too_few", None);
            facts.stat("not_finite", Some(f64::NAN));
        });
        assert_eq!(*lock(&asked), 0);
        let told = provider.statistics();
        assert_eq!(told.counters["c.total"], 7);
        assert_eq!(told.stats["s"], Some(0.5));
        assert_eq!((told.stats["too_few"], told.stats["not_finite"]), (None, None));
        drop(registered);
        assert!(!provider.statistics().counters.contains_key("c.total"));
        assert_eq!(*lock(&asked), 1);
    }

    #[test]
    fn an_answer_has_the_shape_gatherers_know() {
        let provider = provider();
        provider.count("a.b_total", 2);
        provider.count("a.b_total", 1);
        let _nothing = provider.register("it", |facts| facts.stat("x", None));
        let text = serde_json::to_string(&provider.statistics()).expect("it is plain data");
        assert_eq!(
            text,
            r#"{"counters":{"a.b_total":3,"status.bad_names_total":0,"status.producer_errors_total":0},"stats":{"status.duplicate_names":0.0,"x":null}}"#
        );
    }

    #[test]
    fn of_two_with_one_name_the_later_wins_and_it_shows() {
        let provider = provider();
        let _first = provider.register("first", |facts| facts.stat("x", Some(1.0)));
        let _second = provider.register("second", |facts| facts.stat("x", Some(2.0)));
        let told = provider.statistics();
        assert_eq!(told.stats["x"], Some(2.0));
        assert_eq!(told.stats[DUPLICATE_NAMES], Some(1.0));
    }

    #[test]
    fn names_that_are_none_are_left_out_and_counted() {
        let provider = provider();
        let _it = provider.register("it", |facts| {
            for name in ["", "a\nb", &"x".repeat(201), &"x".repeat(200)] {
                facts.counter(name, 1);
                facts.stat(name, Some(1.0));
            }
        });
        let told = provider.statistics();
        assert_eq!(told.counters[BAD_NAMES], 6);
        assert_eq!(told.counters.len(), 3);
        assert!(told.stats.contains_key(&"x".repeat(200)));
    }

    #[test]
    fn one_that_panics_and_one_that_hangs_leave_the_others_whole() {
        let provider = provider();
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let _bad = provider.register("bad", |_| panic!("as the test wants"));
        let _slow = provider.register("slow", move |facts| {
            // Ends when the test lets go of the other end.
            let _ = lock(&held).recv();
            facts.stat("slow", Some(1.0));
        });
        let _good = provider.register("good", |facts| facts.stat("good", Some(1.0)));
        for asked in 1..=2 {
            let told = provider.statistics();
            assert_eq!(told.stats["good"], Some(1.0));
            assert!(!told.stats.contains_key("slow"));
            assert_eq!(told.counters[PRODUCER_ERRORS], 2 * asked);
        }
        drop(release);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !provider.statistics().stats.contains_key("slow") {
            assert!(Instant::now() < deadline, "it is asked again once it has answered");
        }
    }
}
