use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use veneur::config::Secret;
use veneur::config::listen::StatsdAddress;
use veneur::config::settings::{IntakeSettings, TlsSettings};

use crate::authority::{Authority, Identity};
use crate::support::{Daemon, Heard, PATIENCE, bind, settings};

fn expired_client(authority: &Authority) -> Identity {
    authority.sign(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    })
}

pub(crate) fn listener(server: &Identity, clients: Option<&Authority>) -> IntakeSettings {
    let tls = TlsSettings {
        certificate: server.certificate.clone(),
        key: Secret::new(server.key.clone()),
        client_authority: clients.map(Authority::certificate),
    };
    let address = StatsdAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    IntakeSettings { tls: Some(tls), ..settings(&[address]) }
}

/// A client that trusts `trusted` and shows `identity`, connected but yet to shake hands.
fn client(
    address: SocketAddr,
    trusted: &Authority,
    identity: Option<&Identity>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(trusted.certificate().as_bytes());
    roots.add(root.expect("it is PEM")).expect("it is an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring can do them")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("it is PEM");
            builder
                .with_client_auth_cert(vec![certificate.expect("it is PEM")], key)
                .expect("they belong together")
        }
    };
    let name = ServerName::try_from("localhost").expect("a good name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a good configuration");
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a fresh socket");
    StreamOwned::new(connection, stream)
}

/// Sends a line and closes in order, which takes a handshake; waits until the daemon has closed.
fn send(mut client: StreamOwned<ClientConnection, TcpStream>) -> io::Result<()> {
    client.write_all(b"a:1|c\n")?;
    client.conn.send_close_notify();
    client.flush()?;
    client.sock.shutdown(Shutdown::Write)?;
    client.read_to_end(&mut Vec::new())?;
    Ok(())
}

#[test]
fn lines_arrive_over_tls() {
    let authority = Authority::new("ours");
    let daemon = Daemon::listen(&listener(&authority.server(), None));
    send(client(daemon.inet(), &authority, None)).expect("all is well");
    assert_eq!(daemon.hears(), Heard::took("a:1|c"));
    let (_, counted) = daemon.drain_and_count();
    assert_eq!(counted, ["tcp.connects{} 1", "tcp.disconnects{} 1"]);
}

#[test]
fn a_client_certificate_of_the_authority_is_let_in() {
    let authority = Authority::new("ours");
    let daemon = Daemon::listen(&listener(&authority.server(), Some(&authority)));
    send(client(daemon.inet(), &authority, Some(&authority.client()))).expect("all is well");
    assert_eq!(daemon.hears(), Heard::took("a:1|c"));
}

#[test]
fn a_client_without_a_good_certificate_is_kept_out_and_the_cause_counted() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    for (identity, cause) in [
        (None, "no_certificate"),
        (Some(stranger.client()), "unknown_issuer"),
        // One that only claims to be of ours.
        (Some(Authority::new("ours").client()), "bad_certificate"),
        (Some(expired_client(&authority)), "certificate_expired"),
        // Good for a server, not for a client.
        (Some(authority.server()), "bad_certificate"),
    ] {
        let daemon = Daemon::listen(&listener(&authority.server(), Some(&authority)));
        let client = client(daemon.inet(), &authority, identity.as_ref());
        assert!(send(client).is_err(), "{cause}");
        let failures = format!("tcp.tls_handshake_failures{{cause:{cause}}} 1");
        daemon.ends_having_counted(&["tcp.connects{} 1", "tcp.disconnects{} 1", &failures]);
    }
}

#[test]
fn a_client_that_does_not_trust_us_or_speaks_no_tls_is_counted() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let daemon = Daemon::listen(&listener(&authority.server(), None));
    assert!(send(client(daemon.inet(), &stranger, None)).is_err());
    let mut plain = TcpStream::connect(daemon.inet()).expect("somebody listens");
    plain.set_read_timeout(Some(PATIENCE)).expect("a fresh socket");
    plain.write_all(b"a:1|c\n").expect("the kernel has room");
    let _alert = plain.read_to_end(&mut Vec::new());
    daemon.ends_having_counted(&[
        "tcp.connects{} 2",
        "tcp.disconnects{} 2",
        "tcp.tls_handshake_failures{cause:not_tls} 1",
        "tcp.tls_handshake_failures{cause:refused_by_client} 1",
    ]);
}

#[test]
fn a_handshake_may_not_take_for_ever() {
    let authority = Authority::new("ours");
    let handshake_timeout = Duration::from_millis(50);
    let impatient = IntakeSettings { handshake_timeout, ..listener(&authority.server(), None) };
    let daemon = Daemon::listen(&impatient);
    let mut silent = TcpStream::connect(daemon.inet()).expect("somebody listens");
    silent.set_read_timeout(Some(PATIENCE)).expect("a fresh socket");
    crate::streams::expect_closed(&mut silent);
    let (_, counted) = daemon.drain_and_count();
    assert_eq!(
        counted,
        ["tcp.connects{} 1", "tcp.disconnects{} 1", "tcp.tls_handshake_failures{cause:timeout} 1",]
    );
}

#[test]
fn tls_settings_that_cannot_be_used_are_named() {
    let authority = Authority::new("ours");
    let server = authority.server();
    let with = |change: &dyn Fn(&mut TlsSettings)| {
        let mut settings = listener(&server, Some(&authority));
        change(settings.tls.as_mut().expect("it has been set"));
        bind(&settings).expect_err("it cannot be used").to_string()
    };
    let other_key = authority.server().key;
    for (error, start) in [
        (
            with(&|tls| tls.certificate.clear()),
            "cannot offer TLS: tls_certificate holds no certificate",
        ),
        (
            with(&|tls| tls.key = Secret::new("x".into())),
            "cannot offer TLS: tls_key cannot be read as PEM",
        ),
        (
            with(&|tls| tls.key = Secret::new(other_key.clone())),
            "cannot offer TLS: tls_key cannot be used",
        ),
        (
            with(&|tls| tls.client_authority = Some(String::new())),
            "cannot offer TLS: tls_authority_certificate holds no certificate",
        ),
    ] {
        assert!(error.starts_with(start), "{error}");
    }
}
