use std::collections::VecDeque;
use std::sync::Mutex;

use reqwest::header::HeaderMap;

use super::*;
use crate::config::BaseUrl;
use crate::config::settings::SpoolSettings;
use crate::model::Interval;
use crate::sinks::post::{Body, BodyWriter, Encoding, Limits, Target, never_partial};
use crate::spool::Turn;
use crate::telemetry::names;
use crate::telemetry::registry::Total;

const SECOND: Duration = Duration::from_secs(1);

/// Gives its answers in the order requests come, then takes everything.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Outcome>>,
    /// Path and body of each request, and when it came.
    requests: Mutex<Vec<(String, Bytes, Instant)>>,
}

impl Transport for Arc<Script> {
    type Target = Target;

    async fn post(&self, target: &Target, body: Bytes) -> Outcome {
        let mut requests = self.requests.lock().expect("no test panics here");
        requests.push((target.path().to_owned(), body, Instant::now()));
        let next = self.answers.lock().expect("no test panics here").pop_front();
        next.unwrap_or(Outcome::Taken)
    }
}

impl Script {
    fn bodies(&self) -> Vec<Bytes> {
        let requests = self.requests.lock().expect("no test panics here");
        requests.iter().map(|(_, body, _)| body.clone()).collect()
    }
}

fn refused(status: u16) -> Outcome {
    Outcome::Refused { status, retry_after: None, answer: "no".to_owned() }
}

struct Rig {
    backlog: Backlog,
    telemetry: Telemetry,
    script: Arc<Script>,
}

impl Rig {
    fn new(answers: impl IntoIterator<Item = Outcome>) -> Rig {
        let telemetry = Telemetry::default();
        let settings = SpoolSettings {
            directory: None,
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(3600),
            sync: true,
            checkpoint: None,
        };
        let spool = Spool::start("test", &settings, &Turn::now(), telemetry.clone())
            .expect("it needs nothing");
        let backlog = Backlog::start("test", spool, Arc::new(Semaphore::new(1)), telemetry.clone());
        let script = Arc::new(Script::default());
        script.answers.lock().expect("no test panics here").extend(answers);
        Rig { backlog, telemetry, script }
    }

    /// Lets the sink of `base` send from now on.
    fn send_to(&self, base: &str) {
        let base = BaseUrl::parse(base).expect("a good URL");
        let route = |class, path| Route {
            class,
            target: Target::new(&base, path, HeaderMap::new()).expect("a good URL"),
            tag: String::new(),
            duration_ns: names::FLUSH_DURATION_NS,
            content_length_bytes: names::FLUSH_CONTENT_LENGTH_BYTES,
            error_total: names::FLUSH_ERROR_TOTAL,
            partial: never_partial,
        };
        let interval = Interval::new(10 * SECOND).expect("not zero");
        let script = Arc::clone(&self.script);
        let poster = Poster::new(script, "test", interval, self.telemetry.clone());
        let routes = [route(Class::Points, "/points"), route(Class::Events, "/events")];
        let routes = routes.map(Arc::new).to_vec();
        self.backlog.send_by(Courier { poster: Arc::new(poster), routes, format: "" });
    }

    /// Keeps bodies that are their own texts, each of as many points as its length.
    fn keep(&self, bodies: &[&'static str]) {
        for body in bodies {
            let body = Bytes::from_static(body.as_bytes());
            self.backlog.keep().put("", Class::Points, body.len() as u64, Instant::now(), body);
        }
    }

    async fn wait_for_requests(&self, n: usize) {
        while self.script.bodies().len() < n {
            tokio::time::sleep(SECOND / 100).await;
        }
    }

    /// Ends it within a second; what the books say.
    async fn finish(self) -> Vec<(String, u64)> {
        self.backlog.finish(Instant::now() + SECOND).await;
        let totals = self.telemetry.totals().into_iter();
        let counts = totals.filter_map(|series| match series.value {
            Total::Count(n) if n > 0 && series.name.starts_with("sink.") => {
                Some((format!("{}#{}", series.name, series.tags), n))
            }
            Total::Count(_) | Total::Gauge(_) | Total::Durations(_) | Total::Amounts(_) => None,
        });
        counts.collect()
    }
}

fn count(name: &str, n: u64) -> (String, u64) {
    (name.to_owned(), n)
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_sent_one_after_the_other_oldest_first() {
    let rig = Rig::new([]);
    rig.keep(&["a", "bb", "ccc"]);
    rig.send_to("http://intake");
    rig.wait_for_requests(3).await;
    assert_eq!(rig.script.bodies(), ["a", "bb", "ccc"]);
    assert_eq!(rig.finish().await, [count("sink.metrics_flushed_total#sink:test", 6)]);
}

#[tokio::test(start_paused = true)]
async fn while_the_other_side_fails_the_oldest_is_tried_after_rests_that_grow() {
    let rig = Rig::new(std::iter::repeat_n(refused(503), 8));
    rig.keep(&["a", "bb"]);
    rig.send_to("http://intake");
    rig.wait_for_requests(10).await;
    let bodies = rig.script.bodies();
    assert!(bodies[..9].iter().all(|body| body == "a"), "{bodies:?}");
    assert_eq!(bodies[9], "bb");
    assert_eq!(rig.finish().await, [count("sink.metrics_flushed_total#sink:test", 3)]);
}

/// One item, a letter.
fn encode(items: std::ops::Range<usize>) -> Result<Body, Reason> {
    let limits = Limits { plain_bytes: 100, wire_bytes: 100 };
    let mut body = BodyWriter::new(Encoding::Identity, limits);
    for _ in items {
        body.text().push(b'x');
        body.end_item()?;
    }
    body.finish()
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_fails_is_kept_and_the_next_one_is_tried_once() {
    let rig = Rig::new(std::iter::repeat_n(refused(500), 1_000));
    let interval = Interval::new(10 * SECOND).expect("not zero");
    let poster = Poster::new(Arc::clone(&rig.script), "test", interval, Telemetry::default());
    let poster = Arc::new(poster.keeping(Arc::clone(rig.backlog.keep()), ""));
    let base = BaseUrl::parse("http://intake").expect("a good URL");
    let route = Arc::new(Route {
        class: Class::Points,
        target: Target::new(&base, "/points", HeaderMap::new()).expect("a good URL"),
        tag: String::new(),
        duration_ns: names::FLUSH_DURATION_NS,
        content_length_bytes: names::FLUSH_CONTENT_LENGTH_BYTES,
        error_total: names::FLUSH_ERROR_TOTAL,
        partial: never_partial,
    });
    let flush = || poster.deliver(&route, 7, 7, encode, Instant::now() + 10 * SECOND);
    let started = Instant::now();
    let posted = flush().await;
    assert_eq!((posted.tally.kept, posted.tally.total()), (7, 7));
    assert!(posted.failure.is_some());
    assert!(started.elapsed() > 5 * SECOND, "it is tried for as long as there is time");
    let before = rig.script.bodies().len();
    assert!(before > 2);
    let posted = flush().await;
    assert_eq!(posted.tally.kept, 7);
    assert_eq!(rig.script.bodies().len(), before + 1);
    // One that cannot be sent any more is kept, too.
    let posted = poster.deliver(&route, 7, 7, encode, Instant::now()).await;
    assert_eq!(posted.tally.kept, 7);
    assert_eq!(rig.script.bodies().len(), before + 1);
    rig.script.answers.lock().expect("no test panics here").clear();
    rig.send_to("http://intake");
    rig.wait_for_requests(before + 4).await;
    assert_eq!(rig.finish().await, [count("sink.metrics_flushed_total#sink:test", 21)]);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_success_ends_the_rest() {
    let asks =
        Outcome::Refused { status: 429, retry_after: Some(300 * SECOND), answer: String::new() };
    let rig = Rig::new([asks]);
    rig.keep(&["a"]);
    rig.send_to("http://intake");
    rig.wait_for_requests(1).await;
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(rig.script.bodies().len(), 1, "it rests");
    rig.backlog.keep().took_one();
    rig.wait_for_requests(2).await;
    assert_eq!(rig.finish().await, [count("sink.metrics_flushed_total#sink:test", 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_counted_and_the_others_go_on() {
    let rig = Rig::new([refused(403), refused(413)]);
    rig.keep(&["a", "bb", "ccc"]);
    rig.send_to("http://intake");
    rig.wait_for_requests(3).await;
    assert_eq!(
        rig.finish().await,
        [
            count("sink.metrics_dropped_total#sink:test,reason:403", 1),
            count("sink.metrics_dropped_total#sink:test,reason:too_large", 2),
            count("sink.metrics_flushed_total#sink:test", 3),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_sends_what_waits_to_the_new_address() {
    let rig = Rig::new([Outcome::Unreachable("gone".to_owned())]);
    rig.keep(&["a"]);
    rig.send_to("http://old/base");
    rig.wait_for_requests(1).await;
    rig.send_to("http://new/other");
    rig.wait_for_requests(2).await;
    let paths: Vec<String> = {
        let requests = rig.script.requests.lock().expect("no test panics here");
        requests.iter().map(|(path, ..)| path.clone()).collect()
    };
    assert_eq!(paths, ["/base/points", "/other/points"]);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_directory_the_end_is_the_end() {
    let rig = Rig::new(std::iter::repeat_n(Outcome::TimedOut, 1_000));
    rig.keep(&["a", "bb"]);
    rig.send_to("http://intake");
    let started = Instant::now();
    assert_eq!(
        rig.finish().await,
        [count("sink.metrics_dropped_total#sink:test,reason:stopped", 3)]
    );
    assert!(started.elapsed() >= SECOND, "it is tried to the end");
}
