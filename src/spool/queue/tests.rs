use proptest::prelude::*;

use super::*;

const LIMITS: QueueLimits = QueueLimits { memory_bytes: 3_000, max_age_ms: 10_000 };

fn record(lane: &str, since_ms: u64, bytes: usize) -> Record {
    Record { kind: 1, lane: lane.into(), items: 1, since_ms, body: vec![7; bytes].into() }
}

fn ready(claim: Claim) -> Claimed {
    let Claim::Ready(claimed) = claim else { panic!("not {claim:?}") };
    claimed
}

fn causes(queue: &mut Queue) -> Vec<(Cause, u64)> {
    queue.take_lost().into_iter().map(|lost| (lost.cause, lost.bytes)).collect()
}

#[test]
fn a_lane_is_delivered_oldest_first_and_lanes_do_not_wait_for_each_other() {
    let mut queue = Queue::new(LIMITS);
    for (lane, since_ms) in [("a", 3), ("b", 1), ("a", 2)] {
        queue.put(record(lane, since_ms, 1), false);
    }
    let first = ready(queue.claim("a", Which::Any));
    assert_eq!(first.record.since_ms, 2);
    assert_eq!(ready(queue.claim("a", Which::Any)).record.since_ms, 3);
    assert_eq!(queue.claim("a", Which::Any), Claim::Nothing);
    assert_eq!(ready(queue.claim("b", Which::Any)).record.since_ms, 1);
    queue.release(first.id, false, false);
    assert_eq!(ready(queue.claim("a", Which::Any)).id, first.id);
    queue.finish(first.id);
    assert_eq!(queue.level().records, 2);
}

#[test]
fn one_that_fails_alone_goes_behind_the_others() {
    let mut queue = Queue::new(LIMITS);
    (0..3).for_each(|since_ms| queue.put(record("", since_ms, 1), false));
    let first = ready(queue.claim("", Which::Any));
    queue.release(first.id, false, true);
    let order: Vec<u64> =
        (0..3).map(|_| ready(queue.claim("", Which::Any)).record.since_ms).collect();
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn without_room_the_oldest_that_nobody_has_claimed_is_dropped() {
    let mut queue = Queue::new(LIMITS);
    // Each takes 200 bytes beside its body.
    queue.put(record("", 1, 800), false);
    let claimed = ready(queue.claim("", Which::Any));
    queue.put(record("", 2, 801), false);
    queue.put(record("", 3, 799), false);
    assert_eq!(causes(&mut queue), []);
    assert!(!queue.has_room(0));
    queue.put(record("", 4, 1), false);
    assert_eq!(causes(&mut queue), [(Cause::MemoryFull, 801)]);
    queue.release(claimed.id, false, false);
    queue.put(record("", 5, 2_000), false);
    assert_eq!(causes(&mut queue), [(Cause::MemoryFull, 800), (Cause::MemoryFull, 799)]);
}

#[test]
fn what_is_too_old_is_dropped_unless_it_is_being_delivered() {
    let mut queue = Queue::new(LIMITS);
    (1..4).for_each(|since_ms| queue.put(record("", since_ms, 1), false));
    let claimed = ready(queue.claim("", Which::Any));
    assert_eq!(queue.next_event_ms(0), Some(10_001));
    queue.expire(10_002);
    assert_eq!(causes(&mut queue), [(Cause::Age, 1)]);
    queue.release(claimed.id, false, false);
    queue.expire(10_002);
    assert_eq!(causes(&mut queue), [(Cause::Age, 1)]);
    assert_eq!(queue.level().records, 1);
}

#[test]
fn a_disk_that_fails_rests_and_what_waits_stays_in_memory() {
    let mut queue = Queue::new(LIMITS);
    queue.put(record("", 1, 1), false);
    assert!(queue.next_work(0).is_none(), "there is no disk yet");
    queue.open_disk(Vec::new(), Vec::new());
    let Some(Work::Write(records)) = queue.next_work(0) else { panic!("it is to be written") };
    assert_eq!(queue.claim("", Which::Any), Claim::Nothing, "not while it is being written");
    queue.finish_work(Done::Failed(records.into_iter().map(|(id, ..)| id).collect()), 0);
    assert!(queue.next_work(999).is_none());
    assert_eq!(queue.next_event_ms(999), Some(1_000));
    assert!(queue.next_work(1_000).is_some());
}

#[test]
fn the_end_loses_what_is_in_memory() {
    let mut queue = Queue::new(LIMITS);
    queue.put(record("", 1, 5), false);
    queue.stop();
    assert_eq!(causes(&mut queue), [(Cause::Stopped, 5)]);
    assert_eq!(queue.level(), Level::default());
}

proptest! {
    /// Whatever is put in, claimed, given back and finished: what is in it, what was finished
    /// and what was lost is what was put in, and memory keeps its bound but for what is claimed.
    #[test]
    fn everything_is_accounted_for(
        steps in prop::collection::vec((0u8..5, 0usize..1_500, any::<bool>()), 1..80),
    ) {
        let mut queue = Queue::new(LIMITS);
        let (mut put, mut finished, mut lost) = (0u64, 0, 0);
        let mut claimed: Vec<Claimed> = Vec::new();
        for (now, (step, bytes, flag)) in (0u64..).map(|n| n * 200).zip(steps) {
            match step {
                0 | 1 => {
                    let lane = if flag { "a" } else { "b" };
                    queue.put(record(lane, now, bytes), flag);
                    put += 1;
                }
                2 => {
                    let lane = if flag { "a" } else { "b" };
                    if let Claim::Ready(one) = queue.claim(lane, Which::Bound) {
                        claimed.push(one);
                    }
                }
                3 => if let Some(one) = claimed.pop() {
                    queue.release(one.id, one.is_unsure, flag);
                },
                _ => if let Some(one) = claimed.pop() {
                    queue.finish(one.id);
                    finished += 1;
                },
            }
            queue.expire(now);
            lost += queue.take_lost().len() as u64;
            prop_assert_eq!(queue.level().records + finished + lost, put);
            prop_assert_eq!(queue.level().items, queue.level().records);
        }
        for one in claimed {
            queue.finish(one.id);
            finished += 1;
        }
        queue.put(record("a", 1 << 40, 0), false);
        lost += queue.take_lost().len() as u64;
        prop_assert!(queue.level().memory_bytes <= LIMITS.memory_bytes as u64);
        queue.stop();
        lost += queue.take_lost().len() as u64;
        prop_assert_eq!(finished + lost, put + 1);
    }
}
