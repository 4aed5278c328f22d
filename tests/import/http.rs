//! `POST /import`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use veneur::forward::import::Import;
use veneur::http::{self, Limits};
use veneur::model::Role;
use veneur::pipeline::Importer;
use veneur::pipeline::worker::Work;
use veneur::telemetry::Telemetry;

use crate::support::{DEADLINE, Node, answer, counters, points, post, send_head, settings};

const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";
/// `m.c` = 3, as Veneur 1.1 writes it.
const JSON: &[u8] = br#"[{"name":"m.c","type":"counter","tagstring":"","value":"AwAAAAAAAAA="}]"#;

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory takes everything")
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory takes everything")
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).expect("memory takes everything")
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_taken_in_every_format_and_encoding() {
    let node = Node::global().await;
    let list = counters(&[("m.c", 3.0)]);
    for (headers, body) in [
        ("", JSON.to_vec()),
        ("Content-Encoding: deflate\r\n", zlib(JSON)),
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", gzip(JSON)),
        ("Content-Type: text/plain\r\nContent-Encoding: zstd\r\n", zstd(JSON)),
        (PROTOBUF, list.clone()),
        ("Content-Type: application/x-protobuf\r\nContent-Encoding: zstd\r\n", zstd(&list)),
        ("Content-Type: Application/Protobuf; a=b\r\nContent-Encoding: DEFLATE\r\n", zlib(&list)),
    ] {
        let answer = post(node.http, headers, &body);
        assert_eq!((answer.status, answer.body.as_str()), (202, ""), "{headers}");
        // It is there as soon as the answer is.
        assert_eq!(node.points(), points([("m.c#", 3.0)]), "{headers}");
    }
    assert_eq!(node.count("import.metrics_total", ""), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_body_is_refused_with_a_reason_and_nothing_of_it_is_merged() {
    let node = Node::start(
        Role::Global,
        &settings("max_body_bytes: 2000, max_plain_bytes: 5000, max_entries_per_body: 5"),
    )
    .await;
    let good = counters(&[("good", 1.0)]);
    let with = |tail: &[u8]| [&good, tail].concat();
    let many: Vec<u8> = good.repeat(6);
    let nan = counters(&[("bad", f64::NAN)]);
    let json =
        |tail: &str| format!(r#"[{{"name":"good","type":"counter","value":"AQAAAAAAAAA="}}{tail}"#);
    for (headers, body, status, cause, said) in [
        ("", b"".to_vec(), 400, "json", "not the JSON of an import, at line 1"),
        ("", b"[]".to_vec(), 400, "empty", "no metrics in the body"),
        ("", b"{}".to_vec(), 400, "json", "not the JSON of an import, at line 1"),
        ("", json("").into_bytes(), 400, "json", "entry 1: not the JSON of an import"),
        (
            "",
            json(r#",{"name":"s","type":"set","value":"AQ=="}]"#).into_bytes(),
            400,
            "set",
            "entry 1: ",
        ),
        (
            "",
            json(r#",{"name":"h","type":"histogram","value":"AQ=="}]"#).into_bytes(),
            400,
            "gob",
            "entry 1: ",
        ),
        (PROTOBUF, b"".to_vec(), 400, "empty", "no metrics in the body"),
        (PROTOBUF, with(&[0x0a, 9]), 400, "protobuf", "entry 1: not the protobuf of an import"),
        (PROTOBUF, with(&nan), 400, "non_finite", "entry 1: value is not finite"),
        (PROTOBUF, many, 413, "too_many_entries", "too many metrics in the body"),
        ("Content-Encoding: deflate\r\n", JSON.to_vec(), 400, "deflate", "deflate: invalid header"),
        ("Content-Encoding: gzip\r\n", zlib(JSON), 400, "gzip", "gzip: "),
        ("Content-Encoding: zstd\r\n", JSON.to_vec(), 400, "zstd", "zstd: "),
        ("Content-Encoding: br\r\n", JSON.to_vec(), 415, "unknown_content_encoding", "br"),
        ("", vec![b' '; 2001], 413, "too_long", "body is longer than 2000 bytes"),
        (
            "Content-Encoding: zstd\r\n",
            zstd(&[b' '; 5001]),
            413,
            "too_long",
            "body is longer than 5000 bytes when decompressed",
        ),
        ("X-Veneur-Batch: 1\r\n", JSON.to_vec(), 400, "identity", "not a batch identity"),
    ] {
        let before = node.refused(cause);
        let answer = post(node.http, headers, &body);
        let what = format!("{headers}{}", body.escape_ascii());
        assert_eq!(answer.status, status, "{what}");
        assert!(answer.body.starts_with(said) && answer.body.ends_with('\n'), "{what} {answer:?}");
        assert_eq!(node.refused(cause), before + 1, "{what}");
    }
    assert_eq!(node.points(), points([]));
    assert_eq!(node.count("import.metrics_total", ""), 0);
    let answer = post(node.http, "", JSON);
    assert_eq!(answer.status, 202, "and the next good one is taken: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_another_precision_costs_its_neighbours_nothing() {
    let node = Node::global().await;
    let body = crate::support::fixture("import_v110/mixed.deflate");
    assert_eq!(post(node.http, "Content-Encoding: deflate\r\n", &body).status, 202);
    assert_eq!(node.refused("set_precision"), 1);
    let points = node.points();
    assert_eq!(points.get("m.c#k:v"), Some(&3.0));
    assert!(points.keys().all(|name| !name.starts_with("m.s")), "{points:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused() {
    let node = Node::start(Role::Global, &settings("max_plain_bytes: 1000000")).await;
    let zeros = vec![b' '; 10_000_000];
    for (headers, bomb) in [
        ("Content-Encoding: zstd\r\n", zstd(&zeros)),
        ("Content-Encoding: deflate\r\n", zlib(&zeros)),
    ] {
        assert!(bomb.len() < 1_000_000, "{}", bomb.len());
        assert_eq!(post(node.http, headers, &bomb).status, 413, "{headers}");
    }
    assert_eq!(node.refused("too_long"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_announced_as_too_long_is_not_waited_for() {
    let node = Node::start(Role::Global, &settings("max_body_bytes: 1000")).await;
    let refused = answer(send_head(node.http, "Content-Length: 1001\r\n"));
    assert_eq!(refused.status, 413);
    let mut chunked = send_head(node.http, "Transfer-Encoding: chunked\r\n");
    for _ in 0..3 {
        chunked.write_all(format!("200\r\n{}\r\n", " ".repeat(512)).as_bytes()).expect("connected");
    }
    assert_eq!(answer(chunked).status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_merged_once_however_often_it_comes() {
    let node = Node::global().await;
    let body = counters(&[("c", 1.0)]);
    let headers = |n: u64| format!("{PROTOBUF}X-Veneur-Batch: 00000000000000aa/1/{n}\r\n");
    for n in [0, 1, 0, 0, 1] {
        let answer = post(node.http, &headers(n), &body);
        assert_eq!(answer.status, 202);
        let echo = format!("x-veneur-batch: 00000000000000aa/1/{n}\r\n");
        assert!(format!("{}\r\n", answer.headers).contains(&echo), "{answer:?}");
    }
    assert_eq!(node.points(), points([("c#", 2.0)]));
    assert_eq!(node.count("import.repeated_total", ""), 3);

    let all_at_once = (0..20).map(|_| {
        let (to, headers, body) = (node.http, headers(7), body.clone());
        spawn_blocking(move || post(to, &headers, &body).status)
    });
    for status in all_at_once.collect::<Vec<_>>() {
        assert_eq!(status.await.expect("posting does not panic"), 202);
    }
    assert_eq!(node.points(), points([("c#", 1.0)]));

    let refused = post(node.http, &headers(8), b"\xff");
    assert_eq!((refused.status, refused.headers.contains("aa/1/8")), (400, true), "{refused:?}");
    assert_eq!(post(node.http, &headers(8), &body).status, 202, "it was not merged before");
    assert_eq!(node.points(), points([("c#", 1.0)]));

    assert_eq!(post(node.http, &headers(20_000), &body).status, 202);
    let forgotten = post(node.http, &headers(2), &body);
    assert_eq!((forgotten.status, node.refused("forgotten")), (409, 1), "{forgotten:?}");
}

/// A hundred hosts behind slow links send at the same second.
#[tokio::test(flavor = "multi_thread")]
async fn short_bodies_do_not_wait_for_one_another() {
    let limits = settings("in_flight: 1, max_body_bytes: 102400, timeout: 30s");
    let node = Node::start(Role::Global, &limits).await;
    let head = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", JSON.len());
    let asked = |_| {
        let mut stream = send_head(node.http, &head);
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).expect("the body is asked for");
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    };
    let streams: Vec<TcpStream> = (0..100).map(asked).collect();
    for mut stream in streams {
        stream.write_all(JSON).expect("connected");
        assert_eq!(answer(stream).status, 202);
    }
    assert_eq!(node.points(), points([("m.c#", 300.0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_too_slowly_is_given_up() {
    let limits = settings("in_flight: 1, max_body_bytes: 1024, timeout: 100ms");
    let node = Node::start(Role::Global, &limits).await;
    let mut slow = send_head(node.http, "Content-Length: 1000\r\n");
    slow.write_all(b"[").expect("connected");
    let given_up = answer(slow);
    assert_eq!((given_up.status, node.refused("timeout")), (408, 1), "{given_up:?}");
    assert_eq!(post(node.http, "", JSON).status, 202, "and its room is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_all_taken() {
    let node = Node::start(Role::Global, &settings("in_flight: 2")).await;
    let body = counters(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]);
    let posts = (0..64).map(|_| {
        let (to, body) = (node.http, body.clone());
        spawn_blocking(move || post(to, PROTOBUF, &body).status)
    });
    for status in posts.collect::<Vec<_>>() {
        assert_eq!(status.await.expect("posting does not panic"), 202);
    }
    assert_eq!(node.points(), points([("a#", 64.0), ("b#", 128.0), ("c#", 192.0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_must_be_shown_if_there_is_one() {
    let node = Node::start(Role::Global, &settings("token: s3cret")).await;
    for headers in [
        "",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer s3cres\r\n",
        "Authorization: Bearer s3cret2\r\n",
        "Authorization: Basic s3cret\r\n",
    ] {
        let answer = post(node.http, headers, JSON);
        assert_eq!((answer.status, answer.body.as_str()), (401, "missing or wrong token\n"));
        assert!(answer.headers.contains("www-authenticate: bearer"), "{answer:?}");
    }
    assert_eq!(node.refused("token"), 5);
    assert_eq!(post(node.http, "Authorization: bearer s3cret\r\n", JSON).status, 202);
    assert_eq!(node.points(), points([("m.c#", 3.0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_about_to_end_asks_to_come_again() {
    let node = Node::global().await;
    assert_eq!(post(node.http, "", JSON).status, 202);
    let import = node.import.clone();
    spawn_blocking(move || import.close()).await.expect("closing does not panic");
    let refused = post(node.http, "", JSON);
    assert_eq!((refused.status, refused.body.as_str()), (503, "shutting down\n"));
    assert_eq!(node.points(), points([("m.c#", 3.0)]), "what was taken is in the last flush");
}

/// The page of a node whose worker is the test: it takes from the inbox what it wants to.
async fn page_before(inbox: SyncSender<Work>, yaml: &str) -> SocketAddr {
    let telemetry = Telemetry::default();
    let import = Import::new(Importer::new(vec![inbox]), &settings(yaml), telemetry.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (router, never) = (import.router(), std::future::pending());
    tokio::spawn(http::serve(listener, router, Limits::default(), telemetry, never));
    address
}

async fn wait_for(worker: &Arc<Mutex<Receiver<Work>>>) -> Work {
    let worker = Arc::clone(worker);
    let work = spawn_blocking(move || worker.lock().expect("no panic").recv_timeout(DEADLINE));
    work.await.expect("no panic").expect("something comes")
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_workers_do_not_keep_up_nothing_is_merged() {
    let (inbox, worker) = sync_channel(1);
    inbox.send(Work::Flush(sync_channel(1).0)).expect("there is room");
    let worker = Arc::new(Mutex::new(worker));
    let page = page_before(inbox, "timeout: 100ms").await;
    let id = "X-Veneur-Batch: 00000000000000aa/1/0\r\n";
    let refused = post(page, id, JSON);
    assert_eq!((refused.status, refused.body.as_str()), (503, "all workers are busy\n"));
    assert!(refused.headers.contains("retry-after: 1"), "{refused:?}");
    assert!(matches!(wait_for(&worker).await, Work::Flush(_)));

    // Nothing came after the samples, and the batch is not taken for one that was merged.
    let again = spawn_blocking(move || post(page, id, JSON).status);
    let merge = wait_for(&worker).await;
    assert!(matches!(merge, Work::Import(_)), "{merge:?}");
    drop(merge);
    assert_eq!(again.await.expect("no panic"), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_being_merged_holds_its_turn_and_others_do_not_wait_for_ever() {
    let (inbox, worker) = sync_channel(1);
    let worker = Arc::new(Mutex::new(worker));
    let page = page_before(inbox, "in_flight: 1, timeout: 100ms").await;
    let first = spawn_blocking(move || post(page, "", JSON).status);
    let merge = wait_for(&worker).await;
    let second = spawn_blocking(move || post(page, "", JSON)).await.expect("no panic");
    assert_eq!((second.status, second.body.as_str()), (503, "too many imports at once\n"));
    assert!(second.headers.contains("retry-after: 1"), "{second:?}");
    drop(merge);
    assert_eq!(first.await.expect("no panic"), 202, "what has begun is carried through");
}
