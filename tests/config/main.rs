//! The configuration as its writer meets it: files in, settings or sentences out.

mod gatherer;
mod proxy;
mod sinks;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::{collection, sample};
use veneur::config::listen::HttpAddress;
use veneur::config::machine::Machine;
use veneur::config::settings::{DatadogSettings, SinkKind};
use veneur::config::{self, Loaded, Problem, Problems, Settings};
use veneur::model::{Role, Statistic};

/// A machine without surprises: 32 cores, one name, no files.
fn machine() -> Machine {
    fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match host {
            "localhost" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
            _ => Err(io::Error::other("no such host")),
        }
    }
    fn read(path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("mapping.yml") => Ok(MAPPING.into()),
            Some("cert.pem") => Ok(CERTIFICATE.into()),
            Some("key.pem") => Ok(KEY.into()),
            _ => Err(io::Error::other("no such file")),
        }
    }
    Machine { cores: 32, hostname: || Some("testhost".to_owned()), resolve, read }
}

const MAPPING: &str = "mappings:\n- match: a.*\n  name: b\n  ttl: 1h\n  nmae: c\n";

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";

fn parse(text: &str) -> Result<Loaded, Problems> {
    config::parse("v.yaml", text, [], false, &machine())
}

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let variables: Vec<(OsString, OsString)> =
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    config::parse("v.yaml", text, variables, false, &machine())
}

fn settings(text: &str) -> Settings {
    parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems}")).settings
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
    loaded.warnings.iter().map(Problem::to_string).collect()
}

/// The cases of a table: lines of YAML, then `=> ` and what is said about them.
fn cases(table: &str) -> Vec<(String, &str)> {
    let mut cases = Vec::new();
    let mut yaml = String::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("=> ") {
            Some(sentence) => cases.push((std::mem::take(&mut yaml), sentence)),
            None => yaml.push_str(&format!("{line}\n")),
        }
    }
    assert!(yaml.is_empty() && !cases.is_empty(), "every case ends with what is said about it");
    cases
}

/// Name and kind of each sink.
fn sinks_of(settings: &Settings) -> Vec<String> {
    let sinks = settings.sinks.iter();
    sinks.map(|sink| format!("{} {}", sink.name, sink.kind.as_str())).collect()
}

fn datadog_of(settings: &Settings) -> Option<DatadogSettings> {
    settings.sinks.iter().find_map(|sink| match &sink.kind {
        SinkKind::Datadog(datadog) => Some(datadog.clone()),
        _ => None,
    })
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn without_a_file_everything_has_a_default() {
    let defaults = settings("");
    let listeners: Vec<_> = defaults.intake.listeners.iter().map(ToString::to_string).collect();
    assert_eq!(listeners, ["udp://127.0.0.1:8126"]);
    let http = defaults.http.address.as_ref().map(ToString::to_string);
    assert_eq!(http.as_deref(), Some("127.0.0.1:8127"));
    assert_eq!(defaults.interval.length(), Duration::from_secs(10));
    assert_eq!(defaults.hostname.as_deref(), Some("testhost"));
    assert_eq!(defaults.aggregates, [Statistic::Max, Statistic::Min, Statistic::Count]);
    let quantiles: Vec<_> = defaults.percentiles.iter().map(|p| p.quantile()).collect();
    assert_eq!(quantiles, [0.5, 0.75, 0.99]);
    assert_eq!(defaults.num_workers.get(), 2, "one for each 16 of 32 cores");
    assert_eq!(defaults.intake.num_readers.get(), 2);
    assert_eq!(defaults.limits.contexts.get(), 200_000);
    assert_eq!(defaults.limits.contexts_per_name.get(), 50_000);
    assert_eq!(sinks_of(&defaults), ["console console"]);
    assert_eq!(defaults.role(), Role::Global);
    assert_eq!(parse("").expect("it has been read above").warnings, []);
    for cores in [1, 2, 16, 31] {
        let loaded = config::parse("", "", [], true, &Machine { cores, ..machine() });
        assert_eq!(loaded.expect("defaults work anywhere").settings.num_workers.get(), 1);
    }
}

#[test]
fn this_machine_loads_the_defaults_and_every_file_of_the_repository() {
    let no_variables = || std::iter::empty::<(OsString, OsString)>();
    let defaults = config::load(None, no_variables(), true).expect("defaults work anywhere");
    assert_eq!(defaults.warnings, []);
    let example = config::load(Some(&in_repository("example.yaml")), no_variables(), true);
    let example = example.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(example.warnings, []);
    assert_eq!(example.settings, defaults.settings, "example.yaml shows the true defaults");
    for path in ["config/local.yaml", "config/global.yaml"] {
        let key = [("VENEUR_KEY".into(), "hunter2".into())];
        let loaded = config::load(Some(&in_repository(path)), key, true);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.warnings, []);
        let role = if path.contains("local") { Role::Local } else { Role::Global };
        assert_eq!(loaded.settings.role(), role, "{path}");
    }
}

/// What is below the Datadog sink shows only when there is one.
#[test]
fn the_example_shows_the_true_defaults_of_the_datadog_sink_too() {
    let example = include_str!("../../example.yaml");
    let key = [("VENEUR_KEY", "hunter2")];
    let with_key = parse_with(example, &key).expect("a key does no harm").settings;
    assert_eq!(with_key, parse_with("", &key).expect("a key does no harm").settings);
    let datadog = datadog_of(&with_key).expect("there is a key");
    assert_eq!(datadog.api_hostname.reveal(), "https://app.datadoghq.com");
    assert_eq!(datadog.flush_max_per_body.get(), 25_000);
    assert!(!datadog.key_in_query);
}

/// What is below a forward address shows only when there is one.
#[test]
fn the_example_shows_the_true_defaults_of_forwarding_too() {
    let example = include_str!("../../example.yaml");
    let address = [("VENEUR_FORWARD_ADDRESS", "http://g:8127")];
    let forwarding = parse_with(example, &address).expect("an address does no harm").settings;
    assert_eq!(forwarding, parse_with("", &address).expect("nor without a file").settings);
    assert_eq!(forwarding.role(), Role::Local);
}

#[test]
fn upstream_nodes_are_one_address_or_a_list() {
    let named = |text: &str, variables: &[(&str, &str)]| {
        let loaded = parse_with(text, variables).unwrap_or_else(|problems| panic!("{problems}"));
        let forward = loaded.settings.forward.expect("there is an address");
        let names: Vec<String> = forward.upstreams.iter().map(|address| address.name()).collect();
        (names.join(" "), forward.format.as_str())
    };
    for (text, variables, names, format) in [
        ("forward_address: http://g:1/", &[][..], "http://g:1", "protobuf"),
        (
            "forward_address: [http://g:1, 'dns+http://h']",
            &[],
            "http://g:1 dns+http://h",
            "protobuf",
        ),
        ("forward_address: g:1\nforward_use_grpc: true", &[], "g:1", "grpc"),
        ("forward_address: [g:1]\nforward_format: grpc-stream", &[], "g:1", "grpc-stream"),
        ("forward_address: http://g\nforward_format: json-gob", &[], "http://g", "json-gob"),
        (
            "",
            &[("VENEUR_FORWARDADDRESS", "http://a:1, http://b:1")],
            "http://a:1 http://b:1",
            "protobuf",
        ),
    ] {
        assert_eq!(named(text, variables), (names.to_owned(), format), "{text}");
    }
    let role = |text| settings(text).role();
    assert_eq!(role("forward_address: http://g"), Role::Local);
    assert_eq!(role("forward_address: http://g\nforward_format: json-gob"), Role::LocalToV1);
    assert_eq!(settings("forward_address: ['']\nforward: {token: x}").forward, None);
}

/// Go's zero values, of which files printed by Veneur 14 are full.
#[test]
fn what_is_empty_or_zero_is_as_if_it_were_not_there() {
    let zeros = "num_workers: 0\nnum_readers: 0\nmetric_max_length: 0\nflush_max_per_body: 0\n\
                 read_buffer_size_bytes: 0\nhostname: ''\ntags: ['']\naggregates: []\n\
                 statsd_listen_addresses: []\ntls_key: ''\nforward_address: ''\nkey: ''\n\
                 datadog_api_key: ''\nstats_address: ''\nsentry_dsn: ''\nkafka_broker: ''\n";
    let loaded = parse(zeros).expect("nothing in it is wrong");
    assert_eq!(loaded, parse("").expect("nor in nothing"));
}

#[test]
fn all_problems_of_a_file_are_listed_at_once() {
    let bad = include_str!("bad.yaml");
    let variables = [("VENEUR_NUM_READERS", "2000"), ("VENEUR_TAGZ", "hunter2")];
    let problems = parse_with(bad, &variables).expect_err("everything in it is wrong");
    let golden = in_repository("tests/config/bad.txt");
    let listed = format!("{problems}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &listed).expect("the golden file can be written");
    }
    assert_eq!(listed, std::fs::read_to_string(&golden).expect("the golden file is there"));
    assert!(!listed.contains("hunter2"), "no secret is quoted");
}

#[test]
fn a_value_is_refused_with_a_sentence() {
    for (text, sentence) in cases(include_str!("refused.txt")) {
        let refused = parse(&text).expect_err(&text).problems[0].to_string();
        let (place, said) = refused.split_once(": ").expect("the place is before the first colon");
        assert_eq!(said, sentence, "{text}");
        assert!(place.starts_with("v.yaml:"), "{place}");
        assert!(!refused.contains("hunter2"));
    }
}

#[test]
fn a_mapping_file_speaks_with_its_own_lines_and_is_read_again_on_reload() {
    let told = [
        "mapping.yml:4: ttl: has no effect here",
        "mapping.yml:5: nmae: unknown key, it has no effect; did you mean name?",
    ];
    assert_eq!(warnings("mapping_config: mapping.yml"), told);
    let strict = config::parse("v.yaml", "mapping_config: mapping.yml", [], true, &machine());
    assert_eq!(strict.expect_err("it is strict").problems[0].to_string(), told[1]);
    let missing = parse("mapping_config: none.yml").expect_err("there is none").to_string();
    assert_eq!(missing, "none.yml: cannot be read: no such file");
    let loaded = parse("mapping_config: mapping.yml").expect("it works");
    assert_eq!(loaded.files, [PathBuf::from("mapping.yml")]);
    assert_eq!(settings("").needs_restart(&loaded.settings), ["mapping_config"]);
    assert!(loaded.settings.needs_restart(&loaded.settings).is_empty());
}

#[test]
fn so_many_percentiles_are_too_many() {
    let with = |count: i32| {
        let listed: Vec<_> = (0..count).map(|n| format!("{}", f64::from(n) / 1000.0)).collect();
        parse(&format!("percentiles: [{}]", listed.join(", ")))
    };
    assert_eq!(with(100).expect("a hundred are in order").settings.percentiles.len(), 100);
    let refused = with(102).expect_err("each is a series of every histogram").to_string();
    assert_eq!(refused, "v.yaml:1: percentiles: \"0.1\": too many; accepted: 100 at most");
}

#[test]
fn a_doubtful_setting_works_and_warns() {
    for (text, warning) in cases(include_str!("warned.txt")) {
        let warnings = warnings(&text);
        let said = warnings.first().and_then(|warning| warning.split_once(": "));
        assert_eq!(said.map(|(_, said)| said), Some(warning), "{text}: {warnings:?}");
        assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
    }
    let nameless = Machine { hostname: || None, ..machine() };
    let loaded = config::parse("", "", [], false, &nameless).expect("a name can be done without");
    assert_eq!(loaded.settings.hostname, None);
    assert_eq!(
        loaded.warnings.first().map(Problem::to_string).as_deref(),
        Some("built-in default: hostname: this host has no name; points carry none")
    );
}

#[test]
fn any_listener_replaces_the_default_one() {
    for (text, listeners) in [
        ("udp_address: :8125", vec!["udp://[::]:8125"]),
        ("tcp_address: localhost:1", vec!["tcp://127.0.0.1:1"]),
        (
            "statsd_listen_addresses: ['unixgram:@v', 'fd://statsd']",
            vec!["unixgram://@v", "fd://statsd"],
        ),
        (
            "statsd_listen_addresses: ['unix:///v']\ntcp_address: :2\nudp_address: :1",
            vec!["udp://[::]:1", "tcp://[::]:2", "unix:///v"],
        ),
        ("statsd_listen_addresses: []", vec!["udp://127.0.0.1:8126"]),
        (
            "statsd_listen_addresses: ['udp4://:0', 'udp4://:0']",
            vec!["udp://0.0.0.0:0", "udp://0.0.0.0:0"],
        ),
        ("udp_address: ''\ntcp_address: :2", vec!["tcp://[::]:2"]),
        ("udp_address: ''", vec![]),
    ] {
        let found: Vec<_> =
            settings(text).intake.listeners.iter().map(ToString::to_string).collect();
        assert_eq!(found, listeners, "{text}");
    }
    assert_eq!(settings("http_address: ''").http.address, None);
    assert_eq!(
        settings("http_address: einhorn@0").http.address,
        Some(HttpAddress::Einhorn(0).into())
    );
}

#[test]
fn the_datadog_sink_runs_with_a_key_or_an_address() {
    let datadog = |text| datadog_of(&settings(text));
    assert_eq!(datadog("flush_max_per_body: 4"), None);
    let by_key = datadog("key: abc").expect("there is a key");
    assert_eq!(by_key.key.as_ref().map(|key| key.reveal()), Some("abc"));
    assert_eq!(by_key.api_hostname.reveal(), "https://app.datadoghq.com");
    let by_address = datadog("datadog_api_hostname: http://127.0.0.1:9/").expect("an address");
    assert_eq!(by_address.api_hostname.reveal(), "http://127.0.0.1:9");
    assert_eq!(by_address.key, None);
    // An API key of digits keeps its zeros, and one like a number its spelling.
    for digits in ["000123", "1e10", "0x1F", "12_34"] {
        let key = datadog_of(&settings(&format!("key: {digits}"))).and_then(|datadog| datadog.key);
        assert_eq!(key.as_ref().map(|key| key.reveal()), Some(digits));
    }
}

#[test]
fn tls_takes_pem_text_and_paths() {
    let indented = |pem: &str| pem.replace('\n', "\n  ");
    let text =
        format!("tls_key: |\n  {}\ntls_certificate: |\n  {}", indented(KEY), indented(CERTIFICATE));
    let inline = settings(&format!("{text}\ntcp_address: :1")).intake.tls.expect("both are given");
    let files = settings("tls_key: key.pem\ntls_certificate: cert.pem\ntcp_address: :1");
    let files = files.intake.tls.expect("both are given");
    assert_eq!(inline.key.reveal().trim(), files.key.reveal().trim());
    assert_eq!(inline.certificate.trim(), files.certificate.trim());
    assert_eq!(files.client_authority, None);
}

#[test]
fn the_environment_wins_even_over_a_file_with_unknown_keys() {
    let text = "interval: 10s\ncolour: red\ntags: [a]\nhttp: {config: true}\n";
    let loaded = parse_with(
        text,
        &[
            ("VENEUR_INTERVAL", "20s"),
            ("VENEUR_TAGS", "b,c"),
            ("VENEUR_HTTP__CONFIG", "false"),
            ("VENEUR_DATADOGAPIHOSTNAME", "http://h"),
            ("VENEUR_STATSD_LISTEN_ADDRESSES", "udp://:1,tcp://:2"),
        ],
    );
    let settings = loaded.expect("unknown keys only warn").settings;
    assert_eq!(settings.interval.length(), Duration::from_secs(20));
    assert_eq!(settings.tags, ["b", "c"]);
    assert!(!settings.http.config);
    let datadog = datadog_of(&settings).expect("an address is set");
    assert_eq!(datadog.api_hostname.reveal(), "http://h");
    assert_eq!(settings.intake.listeners.len(), 2);
}

#[test]
fn strictness_makes_unknown_and_repeated_keys_problems() {
    let text = "colour: red\ninterval: 1s\ninterval: 2s\nflush_on_shutdown: false\n";
    let lenient = parse(text).expect("these only warn");
    assert_eq!(
        (lenient.settings.interval.length(), lenient.warnings.len()),
        (Duration::from_secs(2), 3)
    );
    let strict = config::parse("v.yaml", text, [], true, &machine()).expect_err("two are problems");
    assert_eq!(
        strict.to_string(),
        "v.yaml:1: colour: unknown key, it has no effect\n\
         v.yaml:3: interval: given again after interval (v.yaml:2); this one counts\n\
         warning: v.yaml:4: flush_on_shutdown: \"false\": the open interval is always flushed on \
         shutdown"
    );
}

#[test]
fn a_file_that_cannot_be_used_is_one_sentence() {
    let directory = std::env::temp_dir().join(format!("veneur-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory can be made");
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("a file can be written there");
        path
    };
    let huge = directory.join("huge.yaml");
    let mut file = std::fs::File::create(&huge).expect("a file can be made there");
    file.write_all(b"interval: 10s\n").expect("it can be written to");
    file.set_len(100 << 20).expect("a sparse file costs nothing");
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    let bomb: String = (1..30).map(|n| format!("l{n}: &l{n} [*l{0}, *l{0}]\n", n - 1)).collect();
    let limits = "too deep, too long or too many aliases for a configuration";
    for (path, sentence) in [
        (directory.join("missing.yaml"), "cannot be read: No such file or directory (os error 2)"),
        (directory.clone(), "cannot be read: Is a directory (os error 21)"),
        (huge, "cannot be read: larger than 1 MiB"),
        (write("latin1.yaml", b"key: hunter2\xe4"), "not UTF-8"),
        (
            write("list.yaml", b"- hunter2"),
            "not a mapping of keys to values; accepted: lines such as interval: 10s",
        ),
        (write("deep.yaml", deep.as_bytes()), limits),
        (write("bomb.yaml", format!("l0: &l0 [x, x]\n{bomb}").as_bytes()), limits),
        (write("syntax.yaml", b"interval: 10s\nkey: 'hunter2"), "not valid YAML: unclosed quote"),
    ] {
        let began = Instant::now();
        let error = config::load(Some(&path), [], false).expect_err("no such file can be used");
        assert!(began.elapsed() < Duration::from_secs(10), "{path:?}");
        let [problem] = &error.problems[..] else { panic!("one sentence, not {error}") };
        let said = Problem { place: config::Place::BuiltIn, ..problem.clone() }.to_string();
        assert_eq!(said, format!("built-in default: {sentence}"), "{path:?}");
        assert!(problem.place.to_string().starts_with(&path.display().to_string()));
    }
    std::fs::remove_dir_all(&directory).expect("what was made can be removed");
}

#[test]
fn a_secret_is_shown_nowhere() {
    let text = "key: hunter2\napi_hostname: https://user:hunter2@h\nforward_address: http://hunter2@h\n\
                sentry_dsn: https://hunter2@h/1\ntls_key: key.pem\ntls_certificate: cert.pem\n";
    let settings = settings(text);
    for shown in [format!("{settings:?}"), settings.effective_yaml(), settings.effective_json()] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("REDACTED"), "{shown}");
    }
}

#[test]
fn what_is_printed_can_be_loaded_again() {
    for text in [
        "",
        "hostname: größe\ntags: ['a:\"b\"', '#c', 'd: e', \"f\\tg\"]\nextend_tags: [x:y]\n",
        "hostname: \"\\x01\\x7f\\u0085\\u009f\\uFFFE\\uFEFF\\u2028\"\n",
        "omit_empty_hostname: true\npercentiles: [0.999, 1, 0]\naggregates: [hmean, avg]\n",
        "udp_address: ''\nhttp_address: ''\n",
        "udp_address: :1?allow=10.0.0.0/8,::1\nhttp_address: /h?mode=0660&group=5\n",
        "statsd_listen_addresses: ['unixgram:@v', 'tcp6://[::1]:1', 'fd://x']\nhttp_address: '@h'\n",
        "api_hostname: http://h/base\nflush_max_per_body: 4\ndatadog: {key_in_query: yes}\n",
        "key: ''\ntags_exclude: [a, 'b|x']\nsinks: [{kind: datadog, name: x, api_hostname: 'http://h'},\
         {kind: console, include: ['a.*', '#b:*'], strip_tags: [c, {kind: any}]}]\n",
        "forward_address: http://h:1\nstats_address: h:1\ninterval: 1500ms\nnum_workers: 9\n",
        "forward_address: [h:1, 'dns+https://h']\nforward_format: grpc-stream\n\
         forward: {tls_authority_certificate: cert.pem, in_flight: 2, queue_age: 1h}\n",
        "grpc_address: '@g'\nimport: {max_entries_per_body: 3, in_flight: 2, timeout: 1500ms}\n",
        "connections: {max: 1, idle_timeout: 1h30m, handshake_timeout: 1.5s}\nhttp: {config: on}\n",
    ] {
        let settings = settings(text);
        for shown in [settings.effective_yaml(), settings.effective_json()] {
            let again = config::parse("shown", &shown, [], true, &machine());
            let again = again.unwrap_or_else(|problems| panic!("{shown}\n{problems}"));
            assert_eq!(again.settings, settings, "{shown}");
        }
    }
}

#[test]
fn the_effective_configuration_reads_like_a_file() {
    let shown = settings("key: hunter2\nhostname: h\n").effective_yaml();
    assert!(shown.starts_with("interval: \"10s\"\nsynchronize_with_interval: false\n"), "{shown}");
    assert!(shown.contains("\nhttp:\n  config: false\n  token: \"\"\n"), "{shown}");
    assert!(shown.contains("\"key\":\"REDACTED\""), "{shown}");
}

#[test]
fn some_settings_change_live_and_the_others_are_named() {
    let old = settings("key: a");
    for (text, restart) in [
        ("key: a", vec![]),
        (
            "key: b\napi_hostname: http://h\nflush_max_per_body: 1\npercentiles: []\n\
             aggregates: [sum]\ntags: [a]\ndebug: true\nhostname: x\n",
            vec![],
        ),
        ("key: ''", vec!["sinks"]),
        ("sinks: [{kind: datadog, key: b, exclude: [x]}]", vec![]),
        ("key: a\nsinks: [{kind: console}]", vec!["sinks"]),
        ("sinks: [{kind: console, name: datadog}]", vec!["sinks"]),
        ("key: a\nimport: {token: x}", vec!["grpc_address, import"]),
        ("key: a\nhttp: {token: x}", vec!["http.token", "grpc_address, import"]),
        ("key: a\ninterval: 1s\nextend_tags: [a]", vec!["interval", "extend_tags"]),
        (
            "key: a\ntcp_address: :1\nnum_workers: 7\nlimits: {contexts: 9}\nhttp: {config: true}",
            vec![
                "num_workers",
                "limits",
                "udp_address, tcp_address, statsd_listen_addresses",
                "http.config",
            ],
        ),
    ] {
        assert_eq!(old.needs_restart(&settings(text)), restart, "{text}");
    }
}

/// Lines that are nearly a configuration.
fn lines() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "interval",
        "key",
        "tags",
        "percentiles",
        "aggregates",
        "http",
        "connections",
        "udp_address",
        "statsd_listen_addresses",
        "tls_key",
        "forward_address",
        "sentry_dsn",
    ];
    let key = prop_oneof!["[a-z_]{0,12}", sample::select(KNOWN).prop_map(str::to_owned)];
    let value = prop_oneof!["[ -~]{0,20}", "\\PC{0,12}", "[0-9.smh:/@\\[\\]{}\\-&*]{0,12}",];
    collection::vec((0..3usize, key, value), 0..8).prop_map(|lines| {
        let line = |(indent, key, value)| format!("{}{key}: {value}\n", "  ".repeat(indent));
        lines.into_iter().map(line).collect()
    })
}

proptest! {
    /// No text makes the loader panic, and what it accepts it can print and read again.
    #[test]
    fn any_text_is_settings_or_sentences(text in prop_oneof![lines(), "\\PC{0,80}", "(?s).{0,80}"]) {
        match parse(&text) {
            Ok(loaded) => {
                let shown = loaded.settings.effective_yaml();
                let again = parse(&shown);
                prop_assert!(again.is_ok() || shown.contains("REDACTED"), "{}\n{:?}", shown, again);
            }
            Err(problems) => prop_assert!(!problems.problems.is_empty()),
        }
    }
}
