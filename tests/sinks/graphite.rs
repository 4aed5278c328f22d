//! The Graphite sink against a fake carbon.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use veneur::config::settings::{
    EtsyNames, GraphiteAddress, GraphiteLayout, GraphiteProtocol, GraphiteSettings,
};
use veneur::model::FlushBatch;
use veneur::sinks::graphite::Graphite;
use veneur::sinks::{Delivered, MetricSink, Node, Tally};
use veneur::telemetry::Telemetry;

use crate::batches::{counts, gauges, interval, mixed};
use crate::fake_carbon::{FakeCarbon, Manner};
use crate::golden::assert_golden;

fn settings(address: GraphiteAddress, protocol: GraphiteProtocol) -> GraphiteSettings {
    let (layout, prefix) = (GraphiteLayout::Veneur, "p".to_owned());
    GraphiteSettings { address, protocol, layout, prefix, names: EtsyNames::default() }
}

fn node() -> Node {
    Node { host: Some("testhost".into()), tags: vec!["env:test".into()] }
}

struct Rig {
    carbon: FakeCarbon,
    telemetry: Telemetry,
    sink: Graphite,
}

impl Rig {
    fn new(protocol: GraphiteProtocol) -> Rig {
        let (carbon, telemetry) = (FakeCarbon::start(), Telemetry::default());
        let settings = settings(GraphiteAddress::Tcp(carbon.address()), protocol);
        let sink = Graphite::new("g", &settings, node(), interval(), telemetry.clone(), None);
        Rig { carbon, telemetry, sink }
    }

    async fn flush(&mut self, batch: FlushBatch, within: Duration) -> Delivered {
        self.sink.flush(Arc::new(batch), (Instant::now() + within).into()).await
    }
}

const ENOUGH: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_flush_is_lines_and_exact() {
    let mut rig = Rig::new(GraphiteProtocol::Plaintext);
    let delivered = rig.flush(mixed(), ENOUGH).await;
    let sent = delivered.points.sent;
    assert_eq!(delivered.points, Tally::new(sent, 0));
    assert_eq!((delivered.events.sent, delivered.checks.sent), (0, 0));
    assert!(delivered.events.skipped > 0 && delivered.checks.skipped > 0);
    assert_golden("graphite_lines.txt", &rig.carbon.bodies().concat());
}

#[tokio::test]
async fn a_flush_is_pickles_and_exact() {
    let mut rig = Rig::new(GraphiteProtocol::Pickle);
    let delivered = rig.flush(mixed(), ENOUGH).await;
    assert_eq!(delivered.points.dropped(), 0);
    assert_golden("graphite_pickle.bin", &rig.carbon.bodies().concat());
}

#[tokio::test]
async fn a_large_flush_goes_in_pieces_and_whole() {
    let mut rig = Rig::new(GraphiteProtocol::Plaintext);
    let delivered = rig.flush(gauges(25_000), ENOUGH).await;
    assert_eq!(delivered.points, Tally::new(25_000, 0));
    assert_eq!((rig.carbon.lines().len(), rig.carbon.connections()), (25_000, 3));
}

#[tokio::test]
async fn what_a_reset_may_have_lost_is_sent_again() {
    let mut rig = Rig::new(GraphiteProtocol::Plaintext);
    rig.carbon.behave(Manner::Resets);
    let carbon = &rig.carbon;
    let mend = async {
        while carbon.connections() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        carbon.behave(Manner::Good);
    };
    let batch = Arc::new(gauges(1_000));
    let deadline = (Instant::now() + Duration::from_secs(60)).into();
    let (delivered, ()) = tokio::join!(rig.sink.flush(batch, deadline), mend);
    assert_eq!(delivered.points, Tally::new(1_000, 0));
    assert_eq!(rig.carbon.lines().len(), 1_000);
}

#[tokio::test]
async fn a_carbon_that_stays_away_costs_an_interval_and_is_counted() {
    let (mut rig, second) = (Rig::new(GraphiteProtocol::Plaintext), Duration::from_secs(1));
    rig.carbon.behave(Manner::Hangs);
    let started = Instant::now();
    // More than the sockets' buffers hold.
    let delivered = rig.flush(gauges(400_000), second).await;
    assert_eq!((delivered.points.total(), delivered.points.sent), (400_000, 0));
    assert!(delivered.failure.is_some() && started.elapsed() < ENOUGH);
}

#[tokio::test]
async fn a_carbon_that_does_not_close_is_served_and_that_is_counted() {
    let mut rig = Rig::new(GraphiteProtocol::Plaintext);
    rig.carbon.behave(Manner::StaysOpen);
    let delivered = rig.flush(gauges(3), ENOUGH).await;
    assert_eq!(delivered.points, Tally::new(3, 0));
    let unconfirmed = counts(&rig.telemetry, "sink.unconfirmed_total");
    assert_eq!(unconfirmed, [("sink:g".to_owned(), 1)]);
}

#[tokio::test]
async fn datagrams_hold_whole_lines() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = socket.local_addr().expect("it is bound").to_string();
    let settings = settings(GraphiteAddress::Udp(address), GraphiteProtocol::Plaintext);
    let mut sink = Graphite::new("g", &settings, node(), interval(), Telemetry::default(), None);
    let deadline = (Instant::now() + ENOUGH).into();
    let delivered = sink.flush(Arc::new(gauges(100)), deadline).await;
    assert_eq!(delivered.points, Tally::new(100, 0));
    socket.set_nonblocking(true).expect("it can be");
    let (mut buffer, mut lines) = ([0; 2_000], 0);
    while let Ok(length) = socket.recv(&mut buffer) {
        assert!(buffer[..length].ends_with(b"\n"));
        lines += buffer[..length].iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(lines, 100);
}
