//! What it costs to parse a line, next to the floor: finding the end of it.
//!
//! `cargo bench --bench parse`. Every figure is per line; each line differs from the one before
//! it (names, tags, kinds, values), so branches are as unpredictable as in traffic.

use std::hint::black_box;

use divan::Bencher;
use memchr::memchr;
use veneur::protocol::dogstatsd::{self, Message};

fn main() {
    divan::main();
}

/// Lines to a sample: enough that none is learnt by heart, few enough to stay in the
/// second-level cache, and long enough for the timer.
const LINES: u32 = 2048;

/// A small generator of numbers (xorshift), the same in every run.
struct Random(u32);

impl Random {
    /// A number below `limit`.
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % limit
    }

    fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len() as u32) as usize]
    }
}

fn name(random: &mut Random) -> String {
    let service = random.one_of(&["api", "checkout", "search", "auth-gateway"]);
    let verb = random.one_of(&["request", "db.query", "cache.hit", "queue.depth", "gc"]);
    format!("{service}.{verb}.{}", random.below(100))
}

fn counter(random: &mut Random) -> String {
    format!("{}|c", 1 + random.below(12))
}

/// Half counters with small numbers, half of the others with decimals.
fn any_kind(random: &mut Random) -> String {
    let whole = random.below(1000);
    match random.below(20) {
        0..10 => counter(random),
        10..13 => format!("{whole}|ms"),
        13..15 => format!("{whole}.{:03}|ms", random.below(1000)),
        15..18 => format!("{whole}.{:02}|h", random.below(100)),
        18 => format!("{whole}|g"),
        _ => format!("user-{whole}|s"),
    }
}

/// Five tags; the last is as long as it takes to make the line 107 bytes.
fn line_of_107_bytes(random: &mut Random, value: fn(&mut Random) -> String) -> String {
    let mut line = format!(
        "{}:{}|#env:{},region:{},version:1.{}.0,shard:{},pod:",
        name(random),
        value(random),
        random.one_of(&["prod", "staging", "dev"]),
        random.one_of(&["eu-west-1", "us-east-2", "ap-south-1"]),
        random.below(50),
        random.below(64),
    );
    while line.len() < 107 {
        line.push(char::from(b'a' + random.below(26) as u8));
    }
    line
}

fn lines(make: impl Fn(&mut Random) -> String) -> Vec<Vec<u8>> {
    let mut random = Random(0x9e37_79b9);
    (0..LINES).map(|_| make(&mut random).into_bytes()).collect()
}

/// Measures `work` on one line after the other.
fn per_line(bencher: Bencher<'_, '_>, lines: &[Vec<u8>], work: impl Fn(&[u8])) {
    let mut next = lines.iter().map(Vec::as_slice).cycle();
    bencher.with_inputs(|| next.next().expect("a cycle has no end")).bench_local_values(work);
}

fn parse(line: &[u8]) {
    let parsed = dogstatsd::parse(line);
    assert!(matches!(black_box(&parsed), Ok(Message::Metric(_))));
}

#[divan::bench(sample_size = LINES, sample_count = 300)]
fn floor_end_of_107_bytes(bencher: Bencher) {
    per_line(bencher, &lines(|random| line_of_107_bytes(random, any_kind)), |line| {
        black_box(memchr(b'\n', line));
    });
}

#[divan::bench(sample_size = LINES, sample_count = 300)]
fn tagged_107_bytes(bencher: Bencher) {
    per_line(bencher, &lines(|random| line_of_107_bytes(random, any_kind)), parse);
}

/// What the processor can foresee: one kind, small integers.
#[divan::bench(sample_size = LINES, sample_count = 300)]
fn tagged_107_bytes_counters_only(bencher: Bencher) {
    per_line(bencher, &lines(|random| line_of_107_bytes(random, counter)), parse);
}

#[divan::bench(sample_size = LINES, sample_count = 300)]
fn tagged_and_sampled(bencher: Bencher) {
    let sampled =
        |random: &mut Random| line_of_107_bytes(random, any_kind).replacen("|#", "|@0.1|#", 1);
    per_line(bencher, &lines(sampled), parse);
}

#[divan::bench(sample_size = LINES, sample_count = 300)]
fn short_counter(bencher: Bencher) {
    let short = |random: &mut Random| format!("{}:{}", name(random), counter(random));
    per_line(bencher, &lines(short), parse);
}

#[divan::bench(sample_size = LINES, sample_count = 300)]
fn packed_with_eight_values(bencher: Bencher) {
    let packed = |random: &mut Random| {
        let values: Vec<String> = (0..8).map(|_| random.below(1000).to_string()).collect();
        format!("{}:{}|d|#env:prod", name(random), values.join(":"))
    };
    per_line(bencher, &lines(packed), parse);
}

#[divan::bench(sample_size = LINES, sample_count = 300)]
fn set(bencher: Bencher) {
    let set = |random: &mut Random| {
        format!("{}:user-{}|s|#env:prod", name(random), random.below(100_000))
    };
    per_line(bencher, &lines(set), parse);
}

#[divan::bench(sample_size = LINES, sample_count = 300)]
fn refused(bencher: Bencher) {
    let refused = |random: &mut Random| format!("{}:1,5|g|#env:prod", name(random));
    per_line(bencher, &lines(refused), |line| {
        let _ = black_box(dogstatsd::parse(line));
    });
}
