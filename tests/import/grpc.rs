//! Veneur 14's gRPC service.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::BufMut;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use veneur::model::Role;

use crate::support::{DEADLINE, Node, counters, fixture, points, settings};

/// Sends bytes, and takes an empty message.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        assert!(!bytes::Buf::has_remaining(message), "Empty has no bytes");
        Ok(Some(()))
    }
}

pub(crate) async fn connect(to: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).expect("a good address");
    endpoint.connect().await.expect("it listens")
}

/// A request with this metadata.
fn request<T>(message: T, metadata: &[(&'static str, &'static str)]) -> Request<T> {
    let mut request = Request::new(message);
    for &(name, value) in metadata {
        request.metadata_mut().insert(name, AsciiMetadataValue::from_static(value));
    }
    request
}

/// `SendMetrics`. An answer is the identity it repeats.
pub(crate) async fn send(
    to: SocketAddr,
    metadata: &[(&'static str, &'static str)],
    list: Vec<u8>,
) -> Result<Option<String>, Status> {
    let mut client = Grpc::new(connect(to).await);
    client.ready().await.expect("it is connected");
    let path = "/forwardrpc.Forward/SendMetrics".parse().expect("a path");
    let answer = client.unary(request(list, metadata), path, Raw).await?;
    let batch = answer.metadata().get("x-veneur-batch");
    Ok(batch.map(|batch| batch.to_str().expect("text").to_owned()))
}

/// `SendMetricsV2`, with messages that come from a channel.
pub(crate) async fn stream(
    to: SocketAddr,
    metadata: &[(&'static str, &'static str)],
) -> (mpsc::Sender<Vec<u8>>, tokio::task::JoinHandle<Result<(), Status>>) {
    let mut client = Grpc::new(connect(to).await);
    client.ready().await.expect("it is connected");
    let (sender, receiver) = mpsc::channel(1);
    let messages = ReceiverStream::new(receiver);
    let request = request(messages, metadata);
    let path = "/forwardrpc.Forward/SendMetricsV2".parse().expect("a path");
    let call = async move { client.client_streaming(request, path, Raw).await.map(drop) };
    (sender, tokio::spawn(call))
}

async fn send_each(
    to: SocketAddr,
    metadata: &[(&'static str, &'static str)],
    messages: Vec<Vec<u8>>,
) -> Result<(), Status> {
    let (sender, call) = stream(to, metadata).await;
    for message in messages {
        if sender.send(message).await.is_err() {
            break;
        }
    }
    drop(sender);
    call.await.expect("the call does not panic")
}

/// One metric, without the tag and length it has in a list.
pub(crate) fn metric(name: &str, sum: f64) -> Vec<u8> {
    let list = counters(&[(name, sum)]);
    assert!(list.len() < 128, "the length is one byte");
    list[2..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_merged_before_the_answer() {
    let node = Node::global().await;
    let list = counters(&[("a", 1.0), ("b", 2.5)]);
    assert_eq!(send(node.grpc, &[], list).await.expect("a good list"), None);
    assert_eq!(node.points(), points([("a#", 1.0), ("b#", 2.5)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_list_is_refused_with_a_reason_and_nothing_of_it_is_merged() {
    let node = Node::start(
        Role::Global,
        &settings("max_body_bytes: 1000, max_entries_per_body: 5, token: s3cret"),
    )
    .await;
    let token = ("authorization", "Bearer s3cret");
    let good = counters(&[("good", 1.0)]);
    let nan = [good.clone(), counters(&[("bad", f64::NAN)])].concat();
    for (metadata, list, code, cause, said) in [
        (&[token][..], nan, Code::InvalidArgument, "non_finite", "entry 1: value is not finite"),
        (&[token], b"".to_vec(), Code::InvalidArgument, "empty", "no metrics in the body"),
        (&[token], b"\xff".to_vec(), Code::InvalidArgument, "protobuf", "entry 0: not the"),
        (&[token], good.repeat(6), Code::ResourceExhausted, "too_many_entries", "too many metrics"),
        (&[token], vec![0; 1001], Code::ResourceExhausted, "too_long", "body is longer than 1000"),
        (&[], good.clone(), Code::Unauthenticated, "token", "missing or wrong token"),
        (
            &[token, ("x-veneur-batch", "1")],
            good.clone(),
            Code::InvalidArgument,
            "identity",
            "not a batch identity",
        ),
    ] {
        let status = send(node.grpc, metadata, list).await.expect_err(cause);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(said), "{status}");
        assert_eq!(node.refused(cause), 1, "{cause}");
    }
    assert_eq!(node.points(), points([]));
    send(node.grpc, &[token], good).await.expect("and the next good one is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_merged_once_however_often_it_comes() {
    let node = Node::global().await;
    let id = "00000000000000aa/1/0";
    let batch = [("x-veneur-batch", id)];
    let list = || counters(&[("c", 1.0)]);
    for _ in 0..2 {
        let repeated = send(node.grpc, &batch, list()).await.expect("a good list");
        assert_eq!(repeated.as_deref(), Some(id));
    }
    // Whichever way it comes.
    send_each(node.grpc, &batch, vec![metric("c", 1.0)]).await.expect("a good stream");
    let headers = format!("Content-Type: application/x-protobuf\r\nX-Veneur-Batch: {id}\r\n");
    assert_eq!(crate::support::post(node.http, &headers, &list()).status, 202);
    assert_eq!(node.points(), points([("c#", 1.0)]));
    assert_eq!(node.count("import.repeated_total", ""), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_a_batch_is_merged_whole_or_not_at_all() {
    let node = Node::start(Role::Global, &settings("max_body_bytes: 1000")).await;
    let good: Vec<_> = ["a", "b", "c"].map(|name| metric(name, 1.0)).into();
    let bad = [good.clone(), vec![b"\xff".to_vec()]].concat();
    let refused = send_each(node.grpc, &[("x-veneur-batch", "00000000000000aa/1/0")], bad).await;
    let status = refused.expect_err("one metric is bad");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("entry 3: "), "{status}");
    assert_eq!(node.points(), points([]));

    send_each(node.grpc, &[("x-veneur-batch", "00000000000000aa/1/0")], good.clone())
        .await
        .expect("a good stream");
    assert_eq!(node.points(), points([("a#", 1.0), ("b#", 1.0), ("c#", 1.0)]));

    let batch = [("x-veneur-batch", "00000000000000aa/1/1")];
    let status =
        send_each(node.grpc, &batch, vec![metric("a", 1.0); 300]).await.expect_err("too long");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(node.points(), points([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_identity_is_merged_while_it_goes_on() {
    let node = Node::global().await;
    let (sender, call) = stream(node.grpc, &[]).await;
    let mut merged = points([]);
    for round in 0..3 {
        sender.send(metric("a", 1.0)).await.expect("the call is open");
        sender.send(b"\xff".to_vec()).await.expect("the call is open");
        sender.send(metric("b", 2.0)).await.expect("the call is open");
        let start = Instant::now();
        while merged.len() < 2 {
            merged.append(&mut node.points());
            assert!(start.elapsed() < DEADLINE, "round {round}: {merged:?}");
            tokio::task::yield_now().await;
        }
        assert_eq!(merged, points([("a#", 1.0), ("b#", 2.0)]), "round {round}");
        merged.clear();
    }
    assert_eq!(node.refused("protobuf"), 3, "a bad metric costs its neighbours nothing");
    sender.send(metric("c", 3.0)).await.expect("the call is open");
    drop(sender);
    call.await.expect("no panic").expect("a stream that ends is answered");
    assert_eq!(node.points(), points([("c#", 3.0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_node_and_what_came_is_merged() {
    let mut node = Node::global().await;
    let (sender, call) = stream(node.grpc, &[]).await;
    sender.send(metric("a", 1.0)).await.expect("the call is open");
    let start = Instant::now();
    while node.count("import.metrics_total", "") == 0 {
        assert!(start.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
    sender.send(metric("b", 2.0)).await.expect("the call is open");
    let import = node.import.clone();
    tokio::task::spawn_blocking(move || import.close()).await.expect("closing does not panic");
    call.await.expect("no panic").expect("it is told that it went well");
    let mut client = HealthClient::new(connect(node.grpc).await);
    let request = || HealthCheckRequest { service: "forwardrpc.Forward".to_owned() };
    let mut health = client.watch(request()).await.expect("the service is known").into_inner();
    let told = async {
        while let Some(status) = health.message().await.expect("it is connected") {
            if status.status().as_str_name() == "NOT_SERVING" {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, told).await.expect("whoever checks is told");
    let (_sender, refused) = stream(node.grpc, &[]).await;
    let status = refused.await.expect("no panic").expect_err("nothing more is taken");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    drop(health);
    node.stop();
    for server in node.servers.drain(..) {
        server.await.expect("the server ends");
    }
    assert_eq!(node.points().get("a#"), Some(&1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_metrics_of_one_stream_all_arrive() {
    let node = Node::global().await;
    let metrics = (0..5_000).map(|n| metric(&format!("c{}", n % 10), 1.0)).collect();
    send_each(node.grpc, &[], metrics).await.expect("a good stream");
    let points = node.points();
    assert_eq!((points.len(), points.values().sum::<f64>()), (10, 5_000.0), "{points:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_are_answered() {
    let node = Node::global().await;
    let mut client = HealthClient::new(connect(node.grpc).await);
    for service in ["", "forwardrpc.Forward"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = client.check(request).await.expect("the service is known").into_inner();
        assert_eq!(status.status().as_str_name(), "SERVING", "{service:?}");
    }
    let request = HealthCheckRequest { service: "ssf.SSFGRPC".to_owned() };
    assert_eq!(client.check(request).await.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_the_services_and_their_messages() {
    let node = Node::global().await;
    let mut client = ServerReflectionClient::new(connect(node.grpc).await);
    let mut ask = async |question: MessageRequest| {
        let host = String::new();
        let request = ServerReflectionRequest { host, message_request: Some(question) };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.expect("there is reflection").into_inner().message().await;
        let answer = answer.expect("the question is good").expect("there is an answer");
        answer.message_response.expect("the answer says something")
    };
    let MessageResponse::ListServicesResponse(list) =
        ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("asked for services");
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["forwardrpc.Forward", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for symbol in [
        "forwardrpc.Forward",
        "forwardrpc.MetricList",
        "metricpb.Metric",
        "tdigest.MergingDigestData",
        "google.protobuf.Empty",
    ] {
        let answer = ask(MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
        let MessageResponse::FileDescriptorResponse(file) = answer else { panic!("{symbol}") };
        assert_eq!(file.file_descriptor_proto.len(), 1, "{symbol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_method_is_unimplemented() {
    let node = Node::global().await;
    let mut client = Grpc::new(connect(node.grpc).await);
    client.ready().await.expect("it is connected");
    let path = "/ssf.SSFGRPC/SendSpan".parse().expect("a path");
    let status = client.unary(Request::new(Vec::new()), path, Raw).await.map(drop);
    assert_eq!(status.expect_err("not there").code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_captured_stream_of_a_veneur_14_is_taken() {
    let node = Node::global().await;
    let metrics = (0..10).map(|n| fixture(&format!("forward_v14/mixed_stream.{n}.bin"))).collect();
    send_each(node.grpc, &[], metrics).await.expect("a good stream");
    let list = Node::global().await;
    send(list.grpc, &[], fixture("forward_v14/mixed_single.bin")).await.expect("a good list");
    assert_eq!(node.points(), list.points(), "both ways say the same");
}
