//! `veneur emit` to real listeners.

use std::fs;
use std::net::UdpSocket;
use std::process::ExitCode;

use veneur::cli::emit::{self, EmitError};
use veneur::config::listen::{StatsdAddress, UnixAddress};

use crate::authority::Authority;
use crate::support::{Daemon, Directory, Heard, settings, udp};
use crate::tls::listener;

fn run(args: &[&str]) -> Result<ExitCode, EmitError> {
    emit::run(&mut lexopt::Parser::from_args(args), Vec::new())
}

/// What the daemon hears of a counter and a gauge sent to `to`.
const TO_SEND: [&str; 8] = ["--name", "a.b", "--count", "3", "--gauge", "-1.5", "--tag", "x:y,z:"];
const COUNTER: &str = "a.b:3|c|#x:y,z:";
const GAUGE: &str = "a.b:-1.5|g|#x:y,z:";

fn emit_to(to: &str) {
    let mut args = vec!["--hostport", to];
    args.extend(TO_SEND);
    run(&args).expect("a daemon listens there");
}

#[test]
fn a_datagram_holds_all_lines() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let named = format!("veneur-emit-{}", std::process::id());
    for address in [
        udp("127.0.0.1:0"),
        udp("[::1]:0"),
        StatsdAddress::Unixgram(UnixAddress::Path(path.clone())),
        StatsdAddress::Unixgram(UnixAddress::Abstract(named.into_bytes())),
    ] {
        let daemon = Daemon::listen(&settings(&[address]));
        emit_to(&daemon.addresses[0].to_string());
        assert_eq!(daemon.hears(), Heard::took([COUNTER, GAUGE].join("\n")));
    }
}

#[test]
fn an_address_without_a_scheme_is_udp() {
    let daemon = Daemon::listen(&settings(&[udp("127.0.0.1:0")]));
    emit_to(&daemon.inet().to_string());
    assert_eq!(daemon.hears(), Heard::took([COUNTER, GAUGE].join("\n")));
}

#[test]
fn a_unix_stream_gets_one_frame() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let named = format!("veneur-emit-{}-stream", std::process::id());
    for address in [UnixAddress::Path(path), UnixAddress::Abstract(named.into_bytes())] {
        let daemon = Daemon::listen(&settings(&[StatsdAddress::UnixStream(address)]));
        emit_to(&daemon.addresses[0].to_string());
        assert_eq!(daemon.hears(), Heard::took([COUNTER, GAUGE].join("\n")));
    }
}

#[test]
fn tcp_gets_lines() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let address = StatsdAddress::Tcp(address.parse().expect("an address"));
        let daemon = Daemon::listen(&settings(&[address]));
        emit_to(&daemon.addresses[0].to_string());
        assert_eq!(daemon.hears(), Heard::took(COUNTER));
        assert_eq!(daemon.hears(), Heard::took(GAUGE));
    }
}

#[test]
fn tls_gets_lines_if_both_sides_trust_each_other() {
    let directory = Directory::new();
    let authority = Authority::new("ours");
    let client = authority.client();
    let file = |name: &str, pem: &str| {
        let path = directory.join(name);
        fs::write(&path, pem).expect("the directory is ours");
        path.display().to_string()
    };
    let authority_file = file("ca.pem", &authority.certificate());
    let certificate = file("client.pem", &client.certificate);
    let key = file("client.key", &client.key);

    let daemon = Daemon::listen(&listener(&authority.server(), Some(&authority)));
    let to = format!("tls://localhost:{}", daemon.inet().port());
    let mut args = vec!["--hostport", &to, "--cacert", &authority_file];
    args.extend(TO_SEND);
    let error = run(&args).expect_err("the daemon wants a certificate");
    assert!(error.to_string().starts_with("cannot send to tls://127.0.0.1:"), "{error}");

    args.extend(["--cert", &certificate, "--key", &key]);
    run(&args).expect("they trust each other");
    assert_eq!(daemon.hears(), Heard::took(COUNTER));
    assert_eq!(daemon.hears(), Heard::took(GAUGE));

    let stranger = file("stranger.pem", &Authority::new("theirs").certificate());
    args[3] = &stranger;
    let error = run(&args).expect_err("we do not trust the daemon").to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[test]
fn events_and_checks_arrive_with_what_was_said() {
    let daemon = Daemon::listen(&settings(&[udp("127.0.0.1:0")]));
    let to = daemon.inet().to_string();
    run(&["--hostport", &to, "--e_title", "größe", "--e_text", "a\nb", "--e_priority", "low"])
        .expect("it is sent");
    assert_eq!(daemon.hears(), Heard::took("_e{7,4}:größe|a\\nb|p:low"));
    run(&["--hostport", &to, "--sc_name", "n", "--sc_status", "2", "--sc_msg", "down"])
        .expect("it is sent");
    assert_eq!(daemon.hears(), Heard::took("_sc|n|2|m:down"));
}

#[test]
fn a_command_is_timed_and_its_status_passed_on() {
    let daemon = Daemon::listen(&settings(&[udp("127.0.0.1:0")]));
    let to = daemon.inet().to_string();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 128 + 9)] {
        let args = ["--hostport", &to, "--name", "took", "--command", "--", "sh", "-c", script];
        let exit = run(&args).expect("there is a shell");
        assert_eq!(format!("{exit:?}"), format!("{:?}", ExitCode::from(code)));
        let Heard::Took(line) = daemon.hears() else { panic!("it is a good line") };
        let line = String::from_utf8(line).expect("a line is text");
        let took = line.strip_prefix("took:").and_then(|line| line.strip_suffix("|ms"));
        let took: f64 = took.expect(&line).parse().expect("a number");
        assert!(took > 0.0, "{line}");
    }
}

#[test]
fn nothing_is_sent_and_the_reason_told_if() {
    let closed = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let nobody = closed.local_addr().expect("it is bound").to_string();
    drop(closed);
    let sent_to_nobody =
        format!("cannot send to udp://{nobody}: Connection refused (os error 111)");
    for (args, error) in [
        (&["--hostport", &nobody, "--name", "a", "--count", "1"][..], sent_to_nobody.as_str()),
        (
            &["--name", "a", "--gauge", "NaN"],
            "the daemon would refuse \"a:NaN|g\": non_finite at byte 2",
        ),
        (
            &["--name", "a", "--count", "1", "--rate", "2"],
            "the daemon would refuse \"a:1|c|@2\": bad_sample_rate at byte 7",
        ),
        (&[], "there is nothing to send; see veneur emit --help"),
        (&["--cuont", "1"], "invalid option '--cuont'; see veneur emit --help"),
        (
            &["--hostport", "http://a:1", "--count", "1"],
            "--hostport http://a:1: unknown scheme; see veneur emit --help",
        ),
        (
            &["--hostport", "tls://127.0.0.1:1", "--name", "a", "--count", "1"],
            "tls:// needs --cacert, the authority that signed the daemon's certificate; \
             see veneur emit --help",
        ),
        (
            &["--name", "a", "--command", "/no/such/program"],
            "cannot run /no/such/program: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(run(args).expect_err("it fails").to_string(), error);
    }
}
