//! Importing while the process ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use serde_json::json;

use crate::fake_intake::FakeIntake;
use crate::support::Daemon;

const SENDERS: usize = 4;
/// `m.c` = 3, as Veneur 1.1 writes it.
const BODY: &str = r#"[{"name":"m.c","type":"counter","tagstring":"","value":"AwAAAAAAAAA="}]"#;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_answered_with_yes_is_in_the_last_flush() {
    let intake = FakeIntake::start().await;
    let config = json!({
        "interval": "60s",
        "api_hostname": intake.url(),
        "key": "0123456789abcdef",
        "http_address": "127.0.0.1:0",
    });
    let sent = tokio::task::spawn_blocking(move || {
        let mut daemon = Daemon::start(&config.to_string());
        let (yes, unanswered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let under_way = Arc::new(Barrier::new(SENDERS + 1));
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let (to, under_way) = (daemon.http.clone(), Arc::clone(&under_way));
                let (yes, unanswered) = (Arc::clone(&yes), Arc::clone(&unanswered));
                thread::spawn(move || {
                    let mut posted = 0;
                    loop {
                        match post(&to) {
                            Some(202) => yes.fetch_add(1, Ordering::Relaxed),
                            // It has said that nothing was merged, or is gone.
                            Some(503) => return,
                            Some(other) => panic!("answered {other}"),
                            None => {
                                unanswered.fetch_add(1, Ordering::Relaxed);
                                return;
                            }
                        };
                        posted += 1;
                        if posted == 20 {
                            under_way.wait();
                        }
                    }
                })
            })
            .collect();
        under_way.wait();
        daemon.stop();
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        (yes.load(Ordering::Relaxed), unanswered.load(Ordering::Relaxed))
    });
    let (yes, unanswered) = sent.await.expect("no panic");
    let series = intake.series();
    let points = series.iter().filter(|one| one["metric"] == "m.c");
    let total: f64 = points
        .map(|one| {
            let rate = one["points"][0][1].as_f64().expect("a number");
            (rate * one["interval"].as_f64().unwrap_or(1.0)).round()
        })
        .sum();
    assert!(yes >= 20 * SENDERS as u64, "{yes}");
    let (least, most) = (3 * yes, 3 * (yes + unanswered));
    assert!((least as f64..=most as f64).contains(&total), "{least} to {most}, not {total}");
}

/// The status of the answer; `None` if there is none.
fn post(to: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(to).ok()?;
    let head = "POST /import HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: ";
    stream.write_all(format!("{head}{}\r\n\r\n{BODY}", BODY.len()).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
