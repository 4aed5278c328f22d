use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use veneur::config::listen::{HttpAddress, UnixAddress};
use veneur::ingest::{HttpListener, HttpSocket, Inherited, bind_http};

use crate::support::Directory;

fn bind(address: &HttpAddress) -> HttpListener {
    bind_http("http_address", &address.clone().into(), None, &mut Inherited::default())
        .expect("the address is free")
}

fn expect_to_talk(mut client: impl Write, mut server: impl Read) {
    client.write_all(b"GET").expect("it is connected");
    drop(client);
    let mut said = String::new();
    server.read_to_string(&mut said).expect("it is connected");
    assert_eq!(said, "GET");
}

fn expect_tcp(listener: HttpListener) {
    let HttpSocket::Tcp(listener) = listener.socket else { panic!("not TCP") };
    let address = listener.local_addr().expect("it is bound");
    let client = TcpStream::connect(address).expect("it listens");
    expect_to_talk(client, listener.accept().expect("a client waits").0);
}

#[test]
fn http_listens_on_tcp() {
    expect_tcp(bind(&HttpAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))));
}

#[test]
fn http_listens_on_a_unix_socket_whose_file_goes_with_it() {
    let directory = Directory::new();
    let path = directory.join("http.sock");
    let bound = bind(&HttpAddress::Unix(UnixAddress::Path(path.clone())));
    let HttpListener { socket: HttpSocket::Unix(listener), file, .. } = bound else {
        panic!("not Unix")
    };
    let client = UnixStream::connect(&path).expect("it listens");
    expect_to_talk(client, listener.accept().expect("a client waits").0);
    drop(file);
    assert!(!path.exists());
}

#[test]
fn http_listens_on_a_descriptor_by_number() {
    let open = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    expect_tcp(bind(&HttpAddress::Fd(open.as_raw_fd())));
}

#[test]
fn http_needs_a_listening_stream() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = udp.local_addr().expect("it is bound");
    for (descriptor, why) in [
        (udp.as_raw_fd(), format!("it is udp://{address}, and HTTP needs a stream")),
        (1_000_000, "descriptor 1000000: Bad file descriptor (os error 9)".to_owned()),
    ] {
        let error = bind_http(
            "http_address",
            &HttpAddress::Fd(descriptor).into(),
            None,
            &mut Inherited::default(),
        );
        let error = error.expect_err("it cannot be used").to_string();
        assert_eq!(error, format!("cannot bind http_address fd@{descriptor}: {why}"));
    }
    let error =
        bind_http("http_address", &HttpAddress::Einhorn(0).into(), None, &mut Inherited::default());
    assert_eq!(
        error.expect_err("there is no Einhorn").to_string(),
        "cannot bind http_address einhorn@0: this process was not started by Einhorn"
    );
}
