//! The configuration of `veneur proxy`, which takes the file of a veneur-proxy as it is.

use std::io;
use std::path::Path;
use std::time::Duration;

use veneur::config::machine::Machine;
use veneur::config::{self, Loaded, Problem, Problems, Program, Settings};
use veneur::model::TagMatcher;

use crate::machine;

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    config::parse_proxy("p.yaml", text, variables, false, &machine())
}

fn settings(text: &str) -> Settings {
    let parsed = parse_with(text, &[]);
    parsed.unwrap_or_else(|problems| panic!("{text}\n{problems}")).settings
}

/// The upstream nodes and the format.
fn upstream(settings: &Settings) -> (String, &'static str) {
    let forward = settings.forward.as_ref().expect("a proxy forwards");
    let names: Vec<String> = forward.upstreams.iter().map(|address| address.name()).collect();
    (names.join(" "), forward.format.as_str())
}

/// As Veneur 14 has it in its example, with all keys set to something.
const FILE_OF_A_VENEUR_PROXY: &str = "
debug: true
enable_profiling: false
http_address: 'localhost:18127'
grpc_address: 'localhost:18128'
stats_address: 'localhost:8125'
forward_address: 'http://veneur.example.com:8127'
forward_timeout: 7s
consul_forward_service_name: ''
consul_forward_grpc_service_name: ''
grpc_forward_address: ''
consul_refresh_interval: '30s'
ignore_tags:
  - kind: prefix
    value: 'host:'
sentry_dsn: ''
runtime_metrics_interval: 10s
idle_connection_timeout: 90s
max_idle_conns: 100
max_idle_conns_per_host: 100
tracing_client_capacity: 1024
ssf_destination_address: ''
trace_address: ''
http: {config: true}
";

#[test]
fn the_file_of_a_veneur_proxy_works_as_it_is() {
    let loaded = parse_with(FILE_OF_A_VENEUR_PROXY, &[]).expect("it works");
    let settings = loaded.settings;
    assert_eq!(settings.program, Program::Proxy);
    assert_eq!(upstream(&settings), ("http://veneur.example.com:8127".into(), "protobuf"));
    let forward = settings.forward.expect("a proxy forwards");
    assert_eq!(forward.timeout, Duration::from_secs(7));
    assert_eq!(forward.refresh, Duration::from_secs(30));
    assert_eq!(forward.ignored_tags, [TagMatcher::Prefix("host:".to_owned())]);
    assert!(settings.http.address.is_some() && settings.import.grpc_address.is_some());
    assert!(settings.http.config && settings.debug);
    assert_eq!(settings.stats_address.as_deref(), Some("localhost:8125"));
    assert_eq!(settings.intake.listeners, [], "a proxy does not listen for statsd");
    let warnings: Vec<String> = loaded.warnings.iter().map(Problem::to_string).collect();
    assert_eq!(warnings.len(), 5, "{warnings:#?}");
    assert!(warnings.iter().all(|text| text.contains("a key of Veneur that this build")));
    // Later ones have other names for some.
    let later = FILE_OF_A_VENEUR_PROXY
        .replace("consul_refresh_interval:", "discovery_interval:")
        .replace("{config: true}", "{enable_config: true}");
    let parsed = parse_with(&later, &[]).expect("it works");
    assert_eq!(parsed.settings.http, settings.http);
    assert_eq!(parsed.settings.forward.map(|forward| forward.refresh), Some(forward.refresh));
}

#[test]
fn the_example_is_free_of_remarks() {
    let text = include_str!("../../example_proxy.yaml");
    let loaded = config::parse_proxy("example_proxy.yaml", text, [], true, &machine());
    assert_eq!(loaded.expect("it can be used").warnings, []);
}

#[test]
fn an_upstream_node_is_named_by_any_of_its_keys() {
    for (text, names, format) in [
        ("forward_address: http://g:1", "http://g:1", "protobuf"),
        ("forward_address: [http://g:1, http://h:1]", "http://g:1 http://h:1", "protobuf"),
        ("forward_address: http://g:1\nforward_format: json-gob", "http://g:1", "json-gob"),
        ("grpc_forward_address: g:1", "g:1", "grpc"),
        ("grpc_forward_address: g:1\nforward_format: grpc-stream", "g:1", "grpc-stream"),
        ("consul_forward_service_name: v-g", "consul+http://v-g", "protobuf"),
        ("consul_forward_grpc_service_name: v-g", "consul+http://v-g", "grpc"),
        ("forward_address: kubernetes+http://", "kubernetes+http://app=veneur-global", "protobuf"),
    ] {
        assert_eq!(upstream(&settings(text)), (names.to_owned(), format), "{text}");
        // A node that forwards by itself may name them so, too.
        let daemon = config::parse("v.yaml", text, [], true, &machine()).expect(text);
        assert_eq!(upstream(&daemon.settings), (names.to_owned(), format), "{text}");
    }
}

#[test]
fn a_proxy_is_refused_with_a_sentence() {
    for (text, sentence) in [
        (
            "",
            "p.yaml: a proxy without an upstream node; accepted: forward_address, \
             grpc_forward_address, consul_forward_service_name or consul_forward_grpc_service_name",
        ),
        (
            "forward_address: http://g\nhttp_address: ''",
            "p.yaml: a proxy that listens nowhere; accepted: http_address or grpc_address",
        ),
        (
            "forward_address: http://g:1\ngrpc_forward_address: g:2",
            "p.yaml:2: grpc_forward_address: \"g:2\": set beside forward_address, but one ring \
             takes everything here; accepted: one of them, and forward_format for how it is \
             written",
        ),
        (
            "consul_forward_grpc_service_name: g\nforward_format: json-gob",
            "p.yaml:1: consul_forward_grpc_service_name: \"g\": set, but forward_format is \
             json-gob; accepted: forward_address, or forward_format: grpc",
        ),
        (
            "forward_address: consul+http://a/b",
            "p.yaml:1: forward_address: \"consul+http://a/b\": not an upstream address; accepted: \
             consul+http://SERVICE or consul+https://SERVICE",
        ),
        (
            "forward_address: http://g\nignore_tags: [{kind: regex, value: h}]",
            "p.yaml:2: ignore_tags: an item of kind regex, which this build does not have; \
             accepted: a list such as [{kind: prefix, value: \"host:\"}]; kinds are any, exact, \
             prefix and substring",
        ),
        (
            "forward_address: http://g\nconsul_refresh_interval: 2h",
            "p.yaml:2: consul_refresh_interval: \"2h\": out of range; accepted: 100ms to 1h",
        ),
    ] {
        let problems = parse_with(text, &[]).expect_err(text);
        assert!(problems.to_string().lines().any(|line| line == sentence), "{text}:\n{problems}");
    }
}

#[test]
fn keys_that_mean_nothing_to_a_proxy_are_remarked_on() {
    let text = "forward_address: http://g\npercentiles: [0.5]\nudp_address: localhost:1\n\
                debug_flushed_metrics: false\nkey: hunter2\n";
    let loaded = parse_with(text, &[]).expect("it can be used");
    let warnings: Vec<String> = loaded.warnings.iter().map(Problem::to_string).collect();
    assert_eq!(
        warnings,
        [
            "p.yaml:2: percentiles: without effect in a proxy",
            "p.yaml:3: udp_address: \"localhost:1\": without effect in a proxy",
            "p.yaml:5: key: without effect in a proxy",
        ]
    );
}

#[test]
fn the_environment_of_a_veneur_proxy_counts_first() {
    let variables = [
        ("VENEUR_PROXY_FORWARDADDRESS", "http://p:1"),
        ("VENEUR_FORWARD_ADDRESS", "http://d:1"),
        ("VENEUR_PROXY_SERVICE_HOST", "10.0.0.1"),
        ("VENEUR_INTERVAL", "3s"),
    ];
    let loaded = parse_with("", &variables).expect("it can be used");
    assert_eq!(upstream(&loaded.settings).0, "http://p:1");
    assert_eq!(loaded.settings.interval.length(), Duration::from_secs(3));
}

#[test]
fn in_a_pod_the_name_of_a_service_means_pods_as_in_a_veneur_proxy() {
    fn read(path: &Path) -> io::Result<Vec<u8>> {
        let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        if path == Path::new(token) { Ok(b"t".into()) } else { Err(io::Error::other("no")) }
    }
    let pod = Machine { read, ..machine() };
    let parse = |text| config::parse_proxy("p.yaml", text, [], false, &pod).expect(text);
    let loaded = parse("consul_forward_service_name: g");
    assert_eq!(upstream(&loaded.settings).0, "kubernetes+http://app=veneur-global");
    assert_eq!(loaded.warnings.len(), 1);
    let loaded = parse("forward_address: consul+http://g");
    assert_eq!(upstream(&loaded.settings).0, "consul+http://g");
}

#[test]
fn what_is_in_effect_can_be_loaded_again() {
    for text in [
        FILE_OF_A_VENEUR_PROXY,
        "consul_forward_grpc_service_name: g\nconsul_refresh_interval: 1m",
        "forward_address: 'kubernetes+https://a/b=c?namespace=d'\ninterval: 2s",
    ] {
        let settings = settings(text);
        let shown = settings.effective_yaml();
        let again =
            parse_with(&shown, &[]).unwrap_or_else(|problems| panic!("{shown}\n{problems}"));
        assert_eq!(again.settings, settings, "{shown}");
        assert_eq!(again.warnings, [], "{shown}");
        assert!(!shown.contains("percentiles"), "{shown}");
    }
}
