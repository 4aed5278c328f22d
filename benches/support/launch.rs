//! A daemon as a process, started and ready.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

/// Starts the daemon with the configuration in `file`; returns it and the line in which it says
/// that it is ready. What else it logs is read, so that it never waits for a reader.
pub(crate) fn launch(file: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_veneur"))
        .arg("-f")
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let log = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut lines = log.lines().map_while(Result::ok);
    let ready = lines.find(|line| line.contains(" ready ")).expect("it gets ready");
    thread::spawn(move || lines.for_each(drop));
    (child, ready)
}

/// What the line says behind `key`, as in `http=`.
pub(crate) fn field(ready: &str, key: &str) -> String {
    let from = ready.find(key).expect("the field is there") + key.len();
    ready[from..].split([' ', '"']).find(|word| !word.is_empty()).unwrap_or("").to_owned()
}
