//! What intakes and networks do to a daemon: whatever it is, the ledger adds up, and fresh data
//! flows again afterwards.

use serde_json::json;

use crate::bad_network::{Front, Weather};
use crate::fake_intake::{FakeIntake, Fault};
use crate::node::{Node, taken, taken_at_least_once};

/// Sends through bad weather and then through fair; everything arrives, once for each second.
/// `cause` is that of the failed requests.
async fn everything_arrives_after(weather: Weather, cause: &'static str) {
    let intake = FakeIntake::start().await;
    let front = Front::start(&intake.url(), weather);
    let node = Node::start(&intake, json!({"api_hostname": front.url()})).await;
    let failed = move |node: &Node| {
        let page = node.page();
        let label = format!("cause:{cause}").replace(':', "=\"");
        page.sum("veneur_spool_records", "datadog") >= 2
            && page.sum("veneur_flush_error_total", &label) >= 2
    };
    let (node, sent_before) = node.send_until("hits:1|c", failed).await;
    assert!(front.spoilt() >= 2);
    front.becomes(Weather::Fair);
    let delivered = |node: &Node| node.total("veneur_spool_records", "datadog") == 0;
    let (node, sent_after) = node.send_until("hits:1|c", delivered).await;
    let node = node.settle().await;
    assert_eq!(node.total("veneur_sink_metrics_dropped_total", ""), 0);
    node.stop().await;
    assert_eq!(taken(&intake, "hits").0, sent_before + sent_after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_that_resets_connections_costs_nothing() {
    everything_arrives_after(Weather::Reset, "io").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_that_never_answers_costs_nothing() {
    everything_arrives_after(Weather::Silence, "timeout").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_that_closes_its_half_costs_nothing() {
    everything_arrives_after(Weather::HalfClosed, "io").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_that_answers_garbage_costs_nothing() {
    everything_arrives_after(Weather::Garbage, "io").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_that_answers_a_byte_a_second_costs_nothing() {
    everything_arrives_after(Weather::Trickle, "timeout").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_that_closes_amid_its_answer_costs_nothing() {
    everything_arrives_after(Weather::CutShort, "io").await;
}

/// A backend keeps one value of a series for a second, so what comes twice must be the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_whose_answer_is_lost_come_again_with_the_same_time_and_value() {
    let intake = FakeIntake::start().await;
    let front = Front::start(&intake.url(), Weather::AnswerLost);
    let node = Node::start(&intake, json!({"api_hostname": front.url()})).await;
    let failed = |node: &Node| node.total("veneur_spool_records", "datadog") >= 2;
    let (node, sent) = node.send_until("hits:1|c", failed).await;
    front.becomes(Weather::Fair);
    node.settle().await.stop().await;
    assert_eq!(taken_at_least_once(&intake, "hits"), sent);
}

/// Statuses after which the same body may be taken: all of it arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_in_trouble_is_sent_everything_again() {
    for fault in [
        Fault::Status(500),
        Fault::RetryAfter(429, "2".to_owned()),
        Fault::RetryAfter(503, "never".to_owned()),
    ] {
        let intake = FakeIntake::start().await;
        intake.fail_always(Some(fault.clone()));
        let node = Node::start(&intake, json!({})).await;
        let failed = |node: &Node| node.total("veneur_spool_records", "datadog") >= 2;
        let (node, sent_before) = node.send_until("hits:1|c", failed).await;
        intake.fail_always(None);
        let delivered = |node: &Node| node.total("veneur_spool_records", "datadog") == 0;
        let (node, sent_after) = node.send_until("hits:1|c", delivered).await;
        let node = node.settle().await;
        assert_eq!(node.total("veneur_sink_metrics_dropped_total", ""), 0, "{fault:?}");
        node.stop().await;
        assert_eq!(taken(&intake, "hits").0, sent_before + sent_after, "{fault:?}");
    }
}

/// Statuses that no repetition mends: what they cost is counted to the point, with the status as
/// reason, and nothing of it is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_that_refuses_costs_what_is_counted_and_no_more() {
    for (status, reason) in [(403, "403"), (413, "too_large"), (400, "400")] {
        let intake = FakeIntake::start().await;
        intake.fail_always(Some(Fault::Status(status)));
        let node = Node::start(&intake, json!({})).await;
        let label = format!("reason=\"{reason}\"");
        let dropped = {
            let label = label.clone();
            move |node: &Node| node.total("veneur_sink_metrics_dropped_total", &label) >= 2
        };
        let (node, _) = node.send_until("hits:1|c", dropped).await;
        let node = node.settle().await;
        intake.fail_always(None);
        let before = node.page();
        assert_eq!(before.sum("veneur_spool_items", ""), 0, "{status}");
        let flows = |node: &Node| node.total("veneur_sink_metrics_flushed_total", "") >= 2;
        let (node, _) = node.send_until("hits:1|c", flows).await;
        let node = node.settle().await;
        let after = node.page();
        let of = |family| after.sum(family, "sink=\"datadog\"");
        let (flushed, lost) =
            (of("veneur_sink_metrics_flushed_total"), of("veneur_sink_metrics_dropped_total"));
        assert_eq!(flushed + lost, of("veneur_sink_metrics_offered_total"), "{status}");
        assert_eq!(lost, after.sum("veneur_sink_metrics_dropped_total", &label), "{status}");
        assert_eq!(taken(&intake, "hits").1.len() as u64, flushed, "{status}");
        node.stop().await;
    }
}
