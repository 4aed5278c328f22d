use super::*;

fn read(text: &str) -> Result<(Mapping, Vec<Problem>), Problems> {
    parse(&"m.yaml".into(), text, false)
}

#[test]
fn a_file_of_statsd_exporter_is_read_as_it_is() {
    let text = "\
defaults:
  observer_type: histogram
  glob_disable_ordering: false
  ttl: 0
mappings:
- match: test.dispatcher.*.*.*
  name: dispatcher_events_total
  labels:
    processor: $1
    action: \"$2\"
    job: test_dispatcher
- match: '*.signup.*.*'
  name: signup_events_total
  match_metric_type: counter
  help: how many
  scale: 0.001
  honor_labels: true
  labels: {provider: '${2}', outcome: $3}
- match: 'server-(\\w+)\\.(?P<rest>.+)'
  match_type: regex
  name: servers_$1
  labels:
    what: ${rest}
- match: .
  match_type: regex
  action: drop
  name: dropped
";
    let (mapping, warnings) = read(text).expect("it is good");
    let warnings: Vec<String> = warnings.iter().map(Problem::to_string).collect();
    let expected = [
        "m.yaml:2: observer_type: has no effect here",
        "m.yaml:4: ttl: has no effect here",
        "m.yaml:15: help: has no effect here",
    ];
    assert_eq!(warnings, expected);
    let lines: Vec<u64> = mapping.rules().iter().map(|rule| rule.line).collect();
    assert_eq!(lines, [6, 12, 19, 24]);
    assert_eq!(mapping.scale(1), Some(0.001));
    for (name, of, renamed) in [
        ("test.dispatcher.a.b.c", None, Some("dispatcher_events_total")),
        ("x.signup.a.b", Some(MappedType::Counter), Some("signup_events_total")),
        ("x.signup.a.b", Some(MappedType::Gauge), None),
        ("server-7.cpu.idle", None, Some("servers_7")),
    ] {
        assert_eq!(mapping.rename(name, of).as_deref(), renamed, "{name}");
    }
    assert_eq!(mapping.find("x.signup.a.b", None), Some(3), "the last one takes the rest");
}

#[test]
fn all_problems_of_a_file_are_told_at_once_with_their_lines() {
    let text = "\
defaults: {match_type: blob}
mapings: []
mappings:
- match: a..b
  name: x
- match: a.b*
  name: 7x
- match: '('
  match_type: regex
  name: x
- name: x
- match: a.*
  labels: {7: x}
- match: a.c
  name: x y
  action: lose
  scale: much
  honor_labels: perhaps
  match_metric_type: set
  nmae: x
- x
- match: a.d
  match: a.e
  name: $1
";
    let problems = read(text).expect_err("much is wrong").to_string();
    let expected = "\
m.yaml:1: match_type: not one of the known ones; accepted: glob, regex
m.yaml:4: match: an empty part; accepted: parts between dots, of which * is any one; or match_type: regex
m.yaml:6: match: a * that is not a whole part; accepted: parts between dots, of which * is any one; or match_type: regex
m.yaml:8: match: not a regular expression: unclosed group; accepted: one in the syntax of RE2
m.yaml:11: match: a rule without one; accepted: a glob such as web.*.requests
m.yaml:12: name: a rule without one; accepted: a name, or action: drop
m.yaml:13: labels: not a label; accepted: labels of letters, digits and _, not a digit first
m.yaml:15: name: not a name; accepted: letters, digits, _, :, - and dots, not a digit first; $1 and so on
m.yaml:16: action: not one of the known ones; accepted: map, drop
m.yaml:17: scale: not a number; accepted: a number such as 0.99
m.yaml:18: honor_labels: not a boolean; accepted: true or false
m.yaml:19: match_metric_type: not one of the known ones; accepted: counter, gauge, observer
m.yaml:21: mappings: an item that is not a mapping; accepted: match: and name:
m.yaml:23: match: written twice; accepted: each key once
m.yaml:24: name: nothing is left of it; accepted: letters, digits, _, :, - and dots, not a digit first; $1 and so on
warning: m.yaml:2: mapings: unknown key, it has no effect; did you mean mappings?
warning: m.yaml:20: nmae: unknown key, it has no effect; did you mean name?
warning: m.yaml:24: name: $1 stands for nothing: the match has no such part";
    assert_eq!(problems, expected);
}

#[test]
fn a_rule_that_is_never_used_is_remarked_on() {
    let text = "\
mappings:
- {match: a.*, name: x, match_metric_type: gauge}
- {match: a.*, name: y}
- {match: a.*, name: z, match_metric_type: counter}
";
    let (_, warnings) = read(text).expect("it works");
    let warnings: Vec<String> = warnings.iter().map(Problem::to_string).collect();
    let expected = ["m.yaml:4: match: never used: the rule of line 3 takes the same names"];
    assert_eq!(warnings, expected);
}

#[test]
fn thousands_of_rules_are_read() {
    let rules = (0..5_000).map(|n| format!("- {{match: a.b{n}.*, name: c, labels: {{d: $1}}}}\n"));
    let text = format!("mappings:\n{}", rules.collect::<String>());
    assert_eq!(read(&text).expect("it is good").0.rules().len(), 5_000);
}
