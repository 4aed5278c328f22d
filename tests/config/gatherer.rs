//! Who an instance is, whom it reports to, and what it gathers.

use std::path::Path;
use std::time::Duration;

use veneur::config::settings::Program;
use veneur::config::{self, Loaded, Problem, Problems};

use crate::machine;

fn parse(text: &str) -> Result<Loaded, Problems> {
    config::parse_gatherer("g.yaml", text, [], false, &machine())
}

#[test]
fn the_example_is_free_of_remarks() {
    let text = include_str!("../../example_gatherer.yaml");
    let loaded = config::parse_gatherer("example_gatherer.yaml", text, [], true, &machine());
    assert_eq!(loaded.expect("it can be used").warnings, []);
}

#[test]
fn a_gatherer_needs_a_directory_and_no_more() {
    let settings = parse("gatherer: {directory: /g}").expect("it can be used").settings;
    assert_eq!(settings.program, Program::Gatherer);
    let http = settings.http.address.as_ref().map(ToString::to_string);
    assert_eq!(http.as_deref(), Some("127.0.0.1:8132"), "a daemon may be beside it");
    let gatherer = settings.gatherer.expect("it gathers");
    assert_eq!(gatherer.directory, Path::new("/g"));
    assert_eq!(gatherer.address.to_string(), "127.0.0.1:8131");
    assert_eq!(gatherer.poll_interval, Duration::from_secs(60));
    assert_eq!(gatherer.file_mode, 0o644);
    assert!(settings.intake.listeners.is_empty() && settings.reference.is_none());
    let daemon = config::parse("v.yaml", "", [], false, &machine()).expect("it can be used");
    assert_eq!(daemon.settings.gatherer, None);
}

#[test]
fn keys_that_mean_nothing_to_a_gatherer_are_remarked_on() {
    let text = "gatherer: {directory: /g}\npercentiles: [0.5]\nforward_address: http://g:1\n";
    let warnings = parse(text).expect("it can be used").warnings;
    assert_eq!(
        warnings.iter().map(Problem::to_string).collect::<Vec<_>>(),
        [
            "g.yaml:2: percentiles: without effect in a gatherer",
            "g.yaml:3: forward_address: \"http://g:1\": without effect in a gatherer",
        ]
    );
}

#[test]
fn it_is_refused_with_a_sentence_that_has_no_secret_in_it() {
    for (text, sentence) in [
        ("", "g.yaml: a gatherer without a directory; accepted: gatherer.directory"),
        (
            "gatherer: {directory: g}",
            "g.yaml:1: gatherer.directory: \"g\": not an absolute path; accepted: a directory such \
             as /var/lib/veneur",
        ),
        (
            "gatherer: {file_mode: \"0444\"}",
            "g.yaml:1: gatherer.file_mode: \"0444\": not the mode of such a file; accepted: \
             \"0600\" to \"0666\"",
        ),
        (
            "gatherer: {token: \"hunter 2\"}",
            "g.yaml:1: gatherer.token: not a token; accepted: 1 to 128 letters, digits, dots, \
             dashes and underscores",
        ),
        (
            "gatherer: {reference: \"gather://hunter2@h\"}",
            "g.yaml:1: gatherer.reference: no port; accepted: gather://TOKEN@HOST:PORT or \
             gathers://TOKEN@HOST:PORT?fp=sha256:HEX",
        ),
        (
            "gatherer: {tls_certificate: cert.pem}",
            "g.yaml:1: gatherer.tls_certificate: \"cert.pem\": set without gatherer.tls_key; \
             accepted: gatherer.tls_certificate and gatherer.tls_key together",
        ),
        (
            "gatherer: {reference: \"gather://hunter2@h:1\", reference_file: /f}",
            "g.yaml:1: gatherer.reference_file: \"/f\": set beside gatherer.reference; accepted: \
             one of them",
        ),
        (
            "gatherer: {reference_file: /f}",
            "g.yaml:1: gatherer.reference_file: \"/f\": cannot be read: no such file; accepted: a \
             file with a reference",
        ),
        (
            "instance_id: a/b",
            "g.yaml:1: instance_id: \"a/b\": not an id; accepted: 1 to 64 letters, digits, dots, \
             dashes and underscores",
        ),
    ] {
        let problems = parse(text).expect_err(text).to_string();
        assert!(problems.lines().any(|line| line == sentence), "{text}:\n{problems}");
        assert!(!problems.contains("hunter"), "{problems}");
    }
}

#[test]
fn what_is_in_effect_can_be_loaded_again_without_its_secrets() {
    let text = "instance_id: me\nstate_directory: /s\ngatherer:\n  directory: /g\n  \
                reference: gather://hunter2@h:1\n  token: hunter3\n  file_mode: \"0640\"\n  \
                urls: [http://u:p@h:1]\n";
    let settings = parse(text).expect("it can be used").settings;
    let shown = settings.effective_yaml();
    assert!(!shown.contains("hunter") && !shown.contains("u:p"), "{shown}");
    let again = parse(&shown).unwrap_or_else(|problems| panic!("{shown}\n{problems}"));
    assert_eq!(again.warnings, [], "{shown}");
    assert_eq!(again.settings.effective_yaml(), shown);
    assert_eq!(again.settings.identity, settings.identity);
    let gatherer = again.settings.gatherer.expect("it gathers");
    assert_eq!((gatherer.file_mode, gatherer.max_providers.get()), (0o640, 10_000));
}
