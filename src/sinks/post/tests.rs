use std::collections::VecDeque;
use std::sync::Mutex;

use proptest::prelude::*;
use reqwest::header::HeaderMap;

use super::*;
use crate::config::BaseUrl;
use crate::telemetry::registry::Total;

/// What the other side of a test does with one request.
#[derive(Clone, Debug)]
enum Turn {
    Answer(u16),
    AnswerRetryAfter(u16, u64),
    Hang,
    Reset,
}

/// Plays its turns in the order requests come, then takes everything.
struct Script {
    turns: Mutex<VecDeque<Turn>>,
    /// A body of more items is answered with 413.
    max_items: usize,
    taken: Mutex<Vec<usize>>,
    /// When each request came.
    requests: Mutex<Vec<Instant>>,
}

impl Script {
    fn new(turns: impl IntoIterator<Item = Turn>) -> Script {
        Script {
            turns: Mutex::new(turns.into_iter().collect()),
            max_items: usize::MAX,
            taken: Mutex::default(),
            requests: Mutex::default(),
        }
    }

    fn next(&self, body: &Bytes) -> Turn {
        self.requests.lock().expect("no test panics here").push(Instant::now());
        let items = items_of(body);
        if items.len() > self.max_items {
            return Turn::Answer(413);
        }
        let turn = self.turns.lock().expect("no test panics here").pop_front();
        let turn = turn.unwrap_or(Turn::Answer(202));
        if matches!(turn, Turn::Answer(200..300)) {
            self.taken.lock().expect("no test panics here").extend(items);
        }
        turn
    }
}

impl Transport for Script {
    type Target = Target;

    async fn post(&self, _target: &Target, body: Bytes) -> Outcome {
        let refused = |status, after: Option<u64>| Outcome::Refused {
            status,
            retry_after: after.map(Duration::from_secs),
            answer: "no".to_owned(),
        };
        match self.next(&body) {
            Turn::Answer(200..300) => Outcome::Taken,
            Turn::Answer(status) => refused(status, None),
            Turn::AnswerRetryAfter(status, seconds) => refused(status, Some(seconds)),
            Turn::Hang => std::future::pending().await,
            Turn::Reset => Outcome::Failed("connection reset".to_owned()),
        }
    }
}

/// Items are numbers, each on a line of its own.
fn encode(items: Range<usize>) -> Result<Body, Reason> {
    let limits = Limits { plain_bytes: 1 << 20, wire_bytes: 1 << 20 };
    let mut body = BodyWriter::new(Encoding::Identity, limits);
    for item in items {
        body.text().extend_from_slice(format!("{item}\n").as_bytes());
        body.end_item()?;
    }
    body.finish()
}

fn items_of(body: &Bytes) -> Vec<usize> {
    let text = std::str::from_utf8(body).expect("items are digits");
    text.lines().map(|line| line.parse().expect("items are digits")).collect()
}

const DEADLINE: Duration = Duration::from_secs(10);

struct Delivery {
    posted: Posted,
    script: Arc<Poster<Script>>,
    took: Duration,
}

impl Delivery {
    fn taken(&self) -> Vec<usize> {
        let mut taken = self.script.transport.taken.lock().expect("no test panics here").clone();
        taken.sort_unstable();
        taken
    }

    fn requests(&self) -> Vec<Instant> {
        self.script.transport.requests.lock().expect("no test panics here").clone()
    }

    fn counted(&self, name: &str) -> Vec<(String, u64)> {
        let totals = self.script.telemetry.totals().into_iter();
        let counts = totals.filter(|series| series.name == name).map(|series| {
            let Total::Count(n) = series.value else { panic!("{name} is no counter") };
            (series.tags.into_string(), n)
        });
        counts.collect()
    }
}

async fn deliver(script: Script, items: usize, max_per_body: usize) -> Delivery {
    deliver_encoded(script, items, max_per_body, encode).await
}

async fn deliver_encoded<E>(script: Script, n: usize, max_per_body: usize, encode: E) -> Delivery
where
    E: Fn(Range<usize>) -> Result<Body, Reason> + Clone + Send + Sync + 'static,
{
    let base = BaseUrl::parse("http://intake").expect("a good URL");
    let route = Arc::new(Route {
        class: Class::Points,
        target: Target::new(&base, "/items", HeaderMap::new()).expect("a good URL"),
        tag: String::new(),
        duration_ns: names::FLUSH_DURATION_NS,
        content_length_bytes: names::FLUSH_CONTENT_LENGTH_BYTES,
        error_total: names::FLUSH_ERROR_TOTAL,
        partial: never_partial,
    });
    let interval = Interval::new(DEADLINE).expect("not zero");
    let poster = Arc::new(Poster::new(script, "test", interval, Telemetry::default()));
    let started = Instant::now();
    let posted = poster.deliver(&route, n, max_per_body, encode, started + DEADLINE).await;
    Delivery { posted, script: poster, took: started.elapsed() }
}

#[test]
fn bodies_are_few_and_even() {
    for (n, limit, sizes) in [
        (0, 4, vec![]),
        (1, 4, vec![1]),
        (4, 4, vec![4]),
        (10, 4, vec![4, 4, 2]),
        (10, 3, vec![3, 3, 3, 1]),
        (4, 3, vec![2, 2]),
        (5, 1, vec![1; 5]),
    ] {
        let ranges: Vec<Range<usize>> = chunks(n, limit).collect();
        assert_eq!(ranges.iter().map(Range::len).collect::<Vec<_>>(), sizes, "{n} by {limit}");
        assert!(ranges.into_iter().flatten().eq(0..n), "{n} by {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_to_say_is_no_request() {
    let delivery = deliver(Script::new([]), 0, 10).await;
    assert_eq!((delivery.requests().len(), delivery.posted), (0, Posted::default()));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_tried_again() {
    use Turn::{Answer, Hang, Reset};
    for turn in [Answer(500), Answer(503), Answer(429), Answer(408), Reset, Hang] {
        let delivery = deliver(Script::new([turn.clone()]), 3, 10).await;
        assert_eq!(delivery.posted.tally, Tally::new(3, 0), "{turn:?}");
        assert_eq!(delivery.taken(), [0, 1, 2], "{turn:?}");
        assert_eq!(delivery.requests().len(), 2, "{turn:?}");
        assert_eq!(delivery.counted("sink.retries_total"), [("sink:test".to_owned(), 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_stays_is_not_tried_again() {
    for (status, reason) in [(400, "400"), (403, "403"), (404, "404"), (301, "301")] {
        let delivery = deliver(Script::new([Turn::Answer(status)]), 3, 10).await;
        assert_eq!(delivery.posted.tally, Tally::lost(Reason::Status(status), 3));
        assert_eq!(delivery.posted.failure, Some(format!("/items answered {status}: no")));
        assert_eq!(delivery.requests().len(), 1);
        assert_eq!(delivery.counted("flush.error_total"), [(format!("cause:{reason}"), 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_is_waited_for() {
    let delivery = deliver(Script::new([Turn::AnswerRetryAfter(429, 7)]), 1, 1).await;
    assert_eq!(delivery.posted.tally, Tally::new(1, 0));
    let requests = delivery.requests();
    assert_eq!(requests[1] - requests[0], Duration::from_secs(7));

    let delivery = deliver(Script::new([Turn::AnswerRetryAfter(429, 60)]), 1, 1).await;
    assert_eq!(delivery.posted.tally, Tally::lost(Reason::Status(429), 1));
    assert_eq!(delivery.took, Duration::ZERO, "nobody waits for what comes too late");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_costs_one_interval() {
    let delivery = deliver(Script::new(vec![Turn::Hang; 100]), 40, 4).await;
    assert_eq!(delivery.posted.tally, Tally::lost(Reason::Timeout, 40));
    assert_eq!(delivery.took, DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_split_until_it_fits() {
    let script = Script { max_items: 3, ..Script::new([]) };
    let delivery = deliver(script, 20, 10).await;
    assert_eq!(delivery.posted.tally, Tally::new(20, 0));
    assert_eq!(delivery.taken(), (0..20).collect::<Vec<_>>());
    // 10 is refused, and so are 5 and 5; 2 and 3 are taken: 7 requests for each half.
    assert_eq!(delivery.requests().len(), 14);
}

#[tokio::test(start_paused = true)]
async fn one_item_that_is_too_large_is_dropped_alone() {
    let picky = |items: Range<usize>| {
        if items.contains(&6) { Err(Reason::TooLarge) } else { encode(items) }
    };
    let delivery = deliver_encoded(Script::new([]), 10, 10, picky).await;
    let mut expected = Tally::new(9, 0);
    expected.lose(Reason::TooLarge, 1);
    assert_eq!(delivery.posted.tally, expected);
    assert_eq!(delivery.taken(), [0, 1, 2, 3, 4, 5, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_finds_everything_too_large_is_not_asked_for_ever() {
    let script = Script { max_items: 0, ..Script::new([]) };
    let delivery = deliver(script, 25_000, 25_000).await;
    assert_eq!(delivery.posted.tally, Tally::lost(Reason::TooLarge, 25_000));
    assert_eq!(delivery.requests().len(), 1 + 2 * MAX_SPLITS as usize);
}

#[tokio::test(start_paused = true)]
async fn an_encoder_that_panics_loses_its_own_body_only() {
    let clumsy = |items: Range<usize>| {
        assert!(!items.contains(&0), "the test wants it");
        encode(items)
    };
    let delivery = deliver_encoded(Script::new([]), 10, 5, clumsy).await;
    let mut expected = Tally::new(5, 0);
    expected.lose(Reason::Encode, 5);
    assert_eq!(delivery.posted.tally, expected);
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        3 => Just(Turn::Answer(202)),
        1 => prop::sample::select(vec![200, 301, 400, 403, 408, 413, 429, 500, 503])
            .prop_map(Turn::Answer),
        1 => (0u64..20).prop_map(|seconds| Turn::AnswerRetryAfter(429, seconds)),
        1 => Just(Turn::Hang),
        1 => Just(Turn::Reset),
    ];
    prop::collection::vec(turn, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever goes wrong: every item is accounted for, sent means taken exactly once, and
    /// it is over by the deadline.
    #[test]
    fn the_ledger_adds_up(turns in turns(), n in 0usize..60, max_per_body in 1usize..20) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing");
        let delivery = runtime.block_on(deliver(Script::new(turns), n, max_per_body));
        let tally = &delivery.posted.tally;
        prop_assert_eq!(tally.total(), n as u64);
        prop_assert_eq!(tally.sent, delivery.taken().len() as u64);
        prop_assert!(delivery.taken().windows(2).all(|pair| pair[0] != pair[1]));
        prop_assert!(delivery.took <= DEADLINE, "{:?}", delivery.took);
        prop_assert_eq!(delivery.posted.failure.is_some(), tally.dropped() > 0);
    }
}
