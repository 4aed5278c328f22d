//! The real program as a child process, and what the tests say to it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing here takes seconds on an idle machine; on a busy one it may.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

const CONFIG: &str = "veneur.yaml";

/// A running `veneur`, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Receiver<String>,
    stdout: Receiver<String>,
    seen: Vec<String>,
    directory: PathBuf,
    /// What the log line `ready` says.
    pub(crate) statsd: Vec<String>,
    pub(crate) http: String,
    pub(crate) grpc: String,
}

impl Daemon {
    /// Starts it with this configuration and waits until it is ready.
    pub(crate) fn start(yaml: &str) -> Daemon {
        let mut daemon = Daemon::launch_with(&[], yaml, &[]);
        daemon.wait_until_ready();
        daemon
    }

    /// Starts it with this configuration, to take over from the one that runs, and waits until
    /// it is ready.
    pub(crate) fn start_successor(yaml: &str) -> Daemon {
        let mut daemon = Daemon::launch_with(&["--takeover"], yaml, &[]);
        daemon.wait_until_ready();
        daemon
    }

    /// Starts `veneur proxy` with this configuration, and does not wait: it may not get ready.
    pub(crate) fn launch_proxy(yaml: &str, environment: &[(&str, &str)]) -> Daemon {
        Daemon::launch_with(&["proxy"], yaml, environment)
    }

    /// Starts it with these arguments and this configuration, and does not wait.
    pub(crate) fn launch_with(
        arguments: &[&str],
        yaml: &str,
        environment: &[(&str, &str)],
    ) -> Daemon {
        let directory = scratch_directory();
        let file = directory.join(CONFIG);
        fs::write(&file, yaml).expect("the scratch directory can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_veneur"));
        command.args(arguments).arg("-f").arg(file).envs(environment.iter().copied());
        Daemon::launch(command, directory)
    }

    /// Starts it by a command that becomes it, such as `nice`, and waits until it is ready.
    pub(crate) fn start_by(by: &[&str], yaml: &str, environment: &[(&str, &str)]) -> Daemon {
        let directory = scratch_directory();
        let file = directory.join(CONFIG);
        fs::write(&file, yaml).expect("the scratch directory can be written");
        let mut command = Command::new(by[0]);
        command.args(&by[1..]).arg(env!("CARGO_BIN_EXE_veneur")).arg("-f").arg(file);
        command.envs(environment.iter().copied());
        Daemon::spawn(command, directory)
    }

    /// Starts `veneur proxy` with this configuration and waits until it is ready.
    pub(crate) fn start_proxy(yaml: &str) -> Daemon {
        let mut proxy = Daemon::launch_proxy(yaml, &[]);
        proxy.wait_until_ready();
        proxy
    }

    /// Replaces its configuration file.
    pub(crate) fn configure(&self, yaml: &str) {
        fs::write(self.directory.join(CONFIG), yaml).expect("the scratch directory can be written");
    }

    /// Puts another file in the place of its configuration file.
    pub(crate) fn replace_configuration(&self, yaml: &str) {
        let new = self.directory.join("new.yaml");
        fs::write(&new, yaml).expect("the scratch directory can be written");
        fs::rename(new, self.directory.join(CONFIG)).expect("the scratch directory can be written");
    }

    /// Starts it without a file and waits until it is ready.
    pub(crate) fn start_plain(environment: &[(&str, &str)]) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veneur"));
        command.envs(environment.iter().copied());
        Daemon::spawn(command, scratch_directory())
    }

    fn spawn(command: Command, directory: PathBuf) -> Daemon {
        let mut daemon = Daemon::launch(command, directory);
        daemon.wait_until_ready();
        daemon
    }

    /// Starts it by this command, and does not wait. The directory is its own.
    pub(crate) fn launch(mut command: Command, directory: PathBuf) -> Daemon {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let log = lines(child.stderr.take().expect("it is piped"));
        let stdout = lines(child.stdout.take().expect("it is piped"));
        let seen = Vec::new();
        let (statsd, http, grpc) = (Vec::new(), String::new(), String::new());
        Daemon { child, log, stdout, seen, directory, statsd, http, grpc }
    }

    /// Waits for the log line that says where it listens.
    pub(crate) fn wait_until_ready(&mut self) {
        let ready = self.wait_for_log(" ready ");
        if ready.contains(" statsd=") {
            self.statsd = field(&ready, "statsd").split(',').map(str::to_owned).collect();
        }
        self.http = field(&ready, "http").to_owned();
        self.grpc = field(&ready, "grpc").to_owned();
    }

    /// The next log line that contains `text`.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(start.elapsed());
            let Ok(line) = self.log.recv_timeout(left) else {
                panic!("no {text:?} in the log:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The first log line that contains `text`, be it before or behind what has been waited for.
    pub(crate) fn first_log(&mut self, text: &str) -> String {
        let seen = self.seen.iter().find(|line| line.contains(text)).cloned();
        seen.unwrap_or_else(|| self.wait_for_log(text))
    }

    /// The next line on standard output that contains `text`.
    pub(crate) fn wait_for_output(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let line = self.stdout.recv_timeout(DEADLINE.saturating_sub(start.elapsed()));
            let line = line.unwrap_or_else(|_| panic!("no {text:?} on standard output"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Sends a signal again and again until the process has ended.
    pub(crate) fn signal_until_end(&mut self, signal: &str) -> ExitStatus {
        let mut status = None;
        wait_until("it has ended", || {
            status = self.child.try_wait().expect("it is our child");
            if status.is_none() {
                self.signal(signal);
            }
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Where its first UDP listener is.
    pub(crate) fn udp(&self) -> &str {
        let address = self.statsd.iter().find_map(|address| address.strip_prefix("udp://"));
        address.expect("there is a UDP listener")
    }

    /// Where spans come in, as the log has it.
    pub(crate) fn span_addresses(&self) -> Vec<String> {
        let ready = self.seen.iter().find(|line| line.contains(" ready "));
        let addresses = field(ready.expect("it is ready"), "ssf");
        addresses.split(',').map(str::to_owned).collect()
    }

    /// Sends datagrams to its first UDP listener. Over loopback they are in its socket when
    /// this returns.
    pub(crate) fn send<'a>(&self, datagrams: impl IntoIterator<Item = &'a [u8]>) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        for datagram in datagrams {
            socket.send_to(datagram, self.udp()).expect("loopback takes it");
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.signals(&[signal]);
    }

    /// Sends several signals without a pause.
    pub(crate) fn signals(&self, signals: &[&str]) {
        let kill = |signal: &&str| format!("kill -{signal} {}", self.child.id());
        let script = signals.iter().map(kill).collect::<Vec<_>>().join("; ");
        let sent = Command::new("sh").arg("-c").arg(script).status();
        assert!(sent.expect("there is a shell").success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("it has ended", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// SIGTERM, and waits: the open interval is flushed and delivered.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.rest_of_log());
    }

    /// Everything it has logged so far.
    pub(crate) fn rest_of_log(&mut self) -> String {
        self.seen.extend(self.log.try_iter());
        self.seen.join("\n")
    }

    /// Everything it has logged, to its end: call it after the process ended.
    pub(crate) fn whole_log(&mut self) -> String {
        self.seen.extend(self.log.iter());
        self.seen.join("\n")
    }

    /// Everything left on its standard output, to its end: call it after the process ended.
    pub(crate) fn rest_of_output(&mut self) -> String {
        self.stdout.iter().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A TCP port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// Asks again and again until it holds: for what announces itself to nobody.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// One HTTP request; status and body.
pub(crate) fn http(address: &str, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the server is there");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: veneur\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the server takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.expect("a status line"), body.to_owned())
}

/// The value of `key="value"` or `key=value` in a log line.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
    let from = line.find(&format!(" {key}=")).expect("the field is there") + key.len() + 2;
    let rest = &line[from..];
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or(quoted),
        None => rest.split(' ').next().unwrap_or(rest),
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A directory of this test's own.
pub(crate) fn scratch_directory() -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("veneur-test-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir_all(&directory).expect("the temporary directory can be written");
    directory
}
