//! The list of sinks.

use veneur::model::{Glob, Pattern, TagMatcher};

use veneur::config;

use super::{
    cases, datadog_of, in_repository, machine, parse, parse_with, settings, sinks_of, warnings,
};

#[test]
fn sinks_are_a_list_and_short_forms_of_it() {
    for (text, sinks) in [
        ("", &["console console"][..]),
        ("sinks: []", &["console console"]),
        ("key: x", &["datadog datadog"]),
        ("key: x\ndebug_flushed_metrics: true", &["datadog datadog", "console console"]),
        ("flush_file: /m.tsv", &["file file"]),
        ("metric_sinks: [{kind: localfile, config: {flush_file: /m}}]", &["file file"]),
        ("graphite_address: h:2003", &["graphite graphite"]),
        ("influx_address: http://h\ninflux_db_name: d", &["influxdb influxdb"]),
        (
            "key: x\nsinks: [{kind: datadog, name: eu, key: y}, {kind: console, name: c}]",
            &["datadog datadog", "eu datadog", "c console"],
        ),
        (
            "sinks:\n  - {kind: console}\n  - {kind: console, name: b}\n",
            &["console console", "b console"],
        ),
        (
            "metric_sinks:\n  - kind: datadog\n    name: d\n    config: {api_key: x, api_hostname: http://h}\n\
             \x20 - {kind: debug}\n",
            &["d datadog", "console console"],
        ),
    ] {
        assert_eq!(sinks_of(&settings(text)), sinks, "{text}");
    }
    let nested =
        settings("metric_sinks: [{kind: datadog, config: {api_key: x, api_hostname: http://h}}]");
    let datadog = datadog_of(&nested).expect("there is one");
    assert_eq!(datadog.api_hostname.reveal(), "http://h");
    assert_eq!(datadog.key.as_ref().map(|key| key.reveal()), Some("x"));
}

#[test]
fn in_the_environment_the_list_is_yaml() {
    let variable = [("VENEUR_SINKS", "[{kind: console, own: yes}, {kind: datadog, key: x}]")];
    let loaded = parse_with("sinks: [{kind: console, name: other}]", &variable);
    let settings = loaded.expect("it is in order").settings;
    assert_eq!(sinks_of(&settings), ["console console", "datadog datadog"]);
    let problems = parse_with("", &[("VENEUR_SINKS", "[{")]).expect_err("it is no YAML");
    assert!(problems.to_string().starts_with("environment variable VENEUR_SINKS: sinks: "));
}

#[test]
fn a_sink_has_a_filter() {
    let text = "sinks: [{kind: console, include: ['a.*', '#env:p*'], exclude: ['*.max'],\n\
                strip_tags: [pod, {kind: prefix, value: 'k8s'}]}]\n\
                tags_exclude: [a, b|console, c|nowhere, '']\n";
    let settings = parse(text).expect("it is in order").settings;
    let filter = &settings.sinks[0].filter;
    let name = |text| Pattern::Name(Glob::new(text));
    assert_eq!(filter.include, [name("a.*"), Pattern::Tag(Glob::new("env:p*"))]);
    assert_eq!(filter.exclude, [name("*.max")]);
    let glob = |text| TagMatcher::Glob(Glob::new(text));
    let stripped = [glob("pod"), TagMatcher::Prefix("k8s".to_owned()), glob("a"), glob("b")];
    assert_eq!(filter.strip_tags, stripped);
    assert_eq!(
        warnings(text),
        ["v.yaml:3: tags_exclude: \"c|nowhere\": there is no sink called nowhere"]
    );
}

#[test]
fn all_problems_of_the_list_are_named_with_their_lines() {
    let text = include_str!("sinks.yaml");
    let problems = parse(text).expect_err("everything in it is wrong");
    let golden = in_repository("tests/config/sinks.txt");
    let listed = format!("{problems}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &listed).expect("the golden file can be written");
    }
    assert_eq!(listed, std::fs::read_to_string(&golden).expect("the golden file is there"));
    assert!(!listed.contains("hunter2"), "no secret is quoted");
}

#[test]
fn what_is_printed_of_every_kind_can_be_loaded_again() {
    for text in [
        "graphite_address: '[::1]:2003'\ngraphite_layout: veneur\n",
        "influx_address: http://h\ninflux_db_name: d\ninflux_consistency: quorum\n",
        "sinks: [{kind: graphite, address: 'udp://h:1', prefix: a.b},\n\
         {kind: graphite, name: p, address: 'tcp://h:1', protocol: pickle},\n\
         {kind: file, path: /a, max_bytes: 5000, max_age: 1h, keep: 0},\n\
         {kind: influxdb, address: 'http://h/base', database: d, user: u, retention_policy: r}]\n",
    ] {
        let settings = settings(text);
        let shown = settings.effective_yaml();
        let again = config::parse("shown", &shown, [], true, &machine());
        let again = again.unwrap_or_else(|problems| panic!("{shown}\n{problems}"));
        assert_eq!(again.settings, settings, "{shown}");
    }
    let secrets = "sinks: [{kind: influxdb, address: 'http://u:hunter2@h', org: o, bucket: b,\n\
                   token: hunter2}, {kind: influxdb, name: v1, address: 'http://h', database: d,\n\
                   user: u, password: hunter2}]\n";
    let settings = settings(secrets);
    for shown in [format!("{settings:?}"), settings.effective_yaml(), settings.effective_json()] {
        assert!(!shown.contains("hunter2") && shown.contains("REDACTED"), "{shown}");
    }
}

#[test]
fn a_doubtful_sink_works_and_warns() {
    for (text, warning) in cases(include_str!("sinks_warned.txt")) {
        let warnings = warnings(&text);
        let said = warnings.first().and_then(|warning| warning.split_once(": "));
        assert_eq!(said.map(|(_, said)| said), Some(warning), "{text}: {warnings:?}");
    }
}
