//! No page, log line or printed configuration shows a secret.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::{Map, Value, json};
use veneur::config::secret::{Confidential, confidential};

use crate::access::page;
use crate::authority::Authority;
use crate::support::{Daemon, scratch_directory};

/// One ring takes everything, and one sink the spans, so of these only half can be set at once.
const LEFT_OUT: [[&str; 2]; 2] = [
    ["forward_address", "trace_api_address"],
    ["grpc_forward_address", "datadog_trace_api_address"],
];

/// Refuses every request with an answer that repeats it. Returns where.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut stream, mut request) = (stream.expect("it is connected"), [0; 4096]);
                let length = stream.read(&mut request).unwrap_or_default();
                let head = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
                // Whoever asked may be gone.
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&request[..length]);
            });
        }
    });
    address
}

/// Sets `key`, which may be one of a section.
fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(config.insert(key.to_owned(), value)),
        Some((section, key)) => {
            let section = config.entry(section).or_insert_with(|| json!({}));
            section[key] = value;
        }
    }
}

/// A configuration with every confidential setting there is but `but`, and what must not be seen.
fn config(authority: &Authority, directory: &Path, but: [&str; 2]) -> (Value, Vec<String>) {
    let mut config = json!({
        "interval": "200ms",
        "debug": true,
        "udp_address": "127.0.0.1:0",
        "tcp_address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "grpc_address": "127.0.0.1:0",
        "stats_address": "127.0.0.1:9",
        "influx_db_name": "d",
        "http": {"config": true},
        "gatherer": {"directory": directory, "address": "127.0.0.1:0"},
        "forward_format": if but == LEFT_OUT[0] { "grpc" } else { "protobuf" },
    });
    let (fields, elsewhere) = (config.as_object_mut().expect("an object"), echo());
    let (mut secrets, mut sinks) = (Vec::new(), Map::new());
    for (n, Confidential { sink, key, is_url }) in confidential().enumerate() {
        if but.contains(&key) {
            continue;
        }
        let secret = format!("hunter{n}hunter{n}");
        let value = if is_url {
            format!("http://user:{secret}@{elsewhere}")
        } else if key == "sentry_dsn" {
            format!("https://{secret}@127.0.0.1:9/1")
        } else if key == "gatherer.reference" {
            format!("gather://{secret}@127.0.0.1:9")
        } else if key.ends_with("tls_key") {
            let identity = authority.server();
            let certificate = key.replace("tls_key", "tls_certificate");
            set(fields, &certificate, json!(identity.certificate));
            // Each line of it is unmistakable.
            let lines = identity.key.lines().filter(|line| !line.starts_with("-----"));
            secrets.extend(lines.map(str::to_owned));
            identity.key
        } else {
            secret.clone()
        };
        secrets.push(secret);
        match sink {
            // It takes a list alone.
            None if key == "gatherer.urls" => set(fields, key, json!([value])),
            None => set(fields, key, json!(value)),
            Some(kind) => {
                let name = format!("{kind}-too");
                let sink = sinks.entry(kind).or_insert_with(|| json!({"kind": kind, "name": name}));
                sink[key] = json!(value);
                if kind == "influxdb" {
                    sink["database"] = json!("d");
                    sink["user"] = json!("u");
                }
            }
        }
    }
    set(fields, "sinks", sinks.into_iter().map(|(_, sink)| sink).collect());
    (config, secrets)
}

fn assert_hidden(secrets: &[String], place: &str, text: &str) {
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} in {place}:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_can_be_looked_at_shows_a_secret() {
    let authority = Authority::new("ours");
    for but in LEFT_OUT {
        let directory = scratch_directory();
        let (config, secrets) = config(&authority, &directory, but);
        assert!(secrets.len() > 20, "{secrets:?}");
        let (yaml, token) = (config.to_string(), config["http"]["token"].clone());
        let token = token.as_str().expect("it is confidential, and set above").to_owned();
        let file = directory.join("veneur.yaml");
        fs::write(&file, &yaml).expect("the scratch directory can be written");
        for argument in ["--print-config", "--validate-config"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_veneur"));
            let output = command.args([argument, "-f"]).arg(&file).output().expect("it runs");
            let text =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{text}");
            assert_hidden(&secrets, argument, &text);
        }

        let daemon = tokio::task::spawn_blocking(move || {
            let mut daemon = Daemon::start(&yaml);
            daemon.send([&b"visits:3|c|#veneurglobalonly\nhere:1|c"[..]]);
            daemon.wait_for_log("did not take a batch");
            daemon
        });
        let mut daemon = daemon.await.expect("it starts");
        for path in [
            "/",
            "/healthcheck",
            "/healthcheck/tracing",
            "/ready",
            "/version",
            "/builddate",
            "/metrics",
            "/config",
            "/config/json",
            "/config/yaml",
            "/import",
            "/quitquitquit",
        ] {
            let (status, text) = page(&daemon, path, &authority, &token).await;
            assert_hidden(&secrets, path, &text);
            if path.starts_with("/config/") {
                assert_eq!((status, text.contains("REDACTED")), (200, true), "{text}");
            }
        }
        let (log, output) = tokio::task::spawn_blocking(move || {
            daemon.signal("HUP");
            daemon.wait_for_log("the new configuration is in use");
            daemon.stop();
            (daemon.whole_log(), daemon.rest_of_output())
        })
        .await
        .expect("it stops");
        assert_hidden(&secrets, "the log", &log);
        assert_hidden(&secrets, "standard output", &output);
        fs::remove_dir_all(&directory).expect("it is ours");
    }
}
