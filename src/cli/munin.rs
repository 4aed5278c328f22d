//! The munin plugin: this program under a link's name, `veneur_contexts` and its like, draws from
//! the file of a gatherer.
//!
//! | Argument | Output |
//! |---|---|
//! | none | a line for each provider that has the value; `U` if it is unknown or old |
//! | `config` | what the graph is, and a line in it for each provider that has the value |
//! | `autoconf` | `yes`, or `no (reason)` |
//! | `suggest` | what can follow `veneur_` in a link's name |
//!
//! The bare name `veneur_`, by which munin knows a plugin with many instances, serves the last
//! two. Exit code 2: another argument, or no such graph; 3: no file to draw from.
//!
//! Sources: Munin's guide to plugins; Tahoe-LAFS's `tahoe_stats`, one program under many names.

mod field;
mod graph;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::gatherer::{self, Entry};
use graph::{Graph, Kind};

/// Links to this program that begin so are plugins.
const PREFIX: &str = "veneur_";
const USAGE: &str = "arguments: none, config, autoconf or suggest; veneur_ alone has the last two";
const EXIT_USAGE: u8 = 2;
const EXIT_NO_FILE: u8 = 3;

/// How `munin-node-configure` knows what a plugin can do: it looks for these lines anywhere in
/// the file, also of a compiled program.
#[used]
static MAGIC_MARKERS: [u8; 51] = *b"\n#%# family=auto\n#%# capabilities=autoconf suggest\n";

/// What follows `veneur_` in the name we were started by, if we are a plugin.
pub fn plugin_of(program: &OsStr) -> Option<String> {
    let name = Path::new(program).file_name()?.to_str()?;
    name.strip_prefix(PREFIX).map(str::to_owned)
}

/// What munin's `plugin-conf.d` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    /// The file of the gatherer.
    pub statsfile: PathBuf,
    /// What is older is unknown, in seconds.
    pub stat_validity: f64,
    /// So much of an id is in a field's name.
    pub id_length: usize,
    /// Of the graphs.
    pub category: String,
}

impl Environment {
    /// From environment variables.
    ///
    /// # Errors
    /// One that is no number.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Environment, String> {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
            text.parse().map_err(|_| format!("{name}: {text:?} is no number"))
        }
        let validity = given("stat_validity").unwrap_or_else(|| "300".to_owned());
        let length = given("id_length").unwrap_or_else(|| "4".to_owned());
        Ok(Environment {
            statsfile: given("statsfile").unwrap_or("/var/lib/veneur/stats.json".into()).into(),
            stat_validity: number("stat_validity", &validity)?,
            id_length: number("id_length", &length)?,
            category: given("category").unwrap_or_else(|| "veneur".to_owned()),
        })
    }
}

/// What a plugin has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// For munin.
    pub stdout: String,
    /// For people.
    pub stderr: String,
    /// The exit code.
    pub code: u8,
}

impl Said {
    fn lines(stdout: String) -> Said {
        Said { stdout, ..Said::default() }
    }

    fn failed(code: u8, why: &str) -> Said {
        Said { stderr: format!("{PREFIX}: {why}\n"), code, ..Said::default() }
    }
}

/// Is the plugin `name`, at `now` (seconds since 1970).
pub fn run(name: &str, arguments: &[OsString], environment: &Environment, now: f64) -> Said {
    let argument = match arguments {
        [] => "",
        [argument] => argument.to_str().unwrap_or("?"),
        _ => "?",
    };
    let entries = gatherer::read(&environment.statsfile).map_err(|error| error.to_string());
    match (argument, entries) {
        ("autoconf", Ok(entries)) => {
            let is_there = name.is_empty() || Graph::find(name, &entries).is_some();
            Said::lines(if is_there { "yes\n".into() } else { format!("no (no graph {name})\n") })
        }
        ("autoconf", Err(why)) => Said::lines(format!("no ({})\n", field::label(&why))),
        ("suggest" | "" | "config", Err(why)) => Said::failed(EXIT_NO_FILE, &why),
        ("suggest", Ok(entries)) => Said::lines(suggest(&entries)),
        ("" | "config", Ok(_)) if name.is_empty() => Said::failed(EXIT_USAGE, USAGE),
        ("" | "config", Ok(entries)) => match Graph::find(name, &entries) {
            None => Said::failed(EXIT_USAGE, &format!("no graph {name:?}; see suggest")),
            Some(graph) if argument == "config" => {
                Said::lines(config(&graph, &entries, environment))
            }
            Some(graph) => Said::lines(fetch(&graph, &entries, environment, now)),
        },
        _ => Said::failed(EXIT_USAGE, USAGE),
    }
}

type Entries = BTreeMap<String, Entry>;

fn suggest(entries: &Entries) -> String {
    let mut names: BTreeSet<String> = graph::NAMED.iter().map(|it| it.plugin.to_owned()).collect();
    for entry in entries.values() {
        names.extend(entry.stats.counters.keys().map(|name| Graph::counter(name)));
        names.extend(entry.stats.stats.keys().map(|name| Graph::stat(name)));
    }
    names.into_iter().map(|name| name + "\n").collect()
}

fn config(graph: &Graph, entries: &Entries, environment: &Environment) -> String {
    let mut text = format!(
        "graph_title {}\ngraph_vlabel {}\ngraph_category {}\ngraph_info {}\n",
        field::label(&graph.title),
        graph.vlabel,
        field::label(&environment.category),
        field::label(&graph.info),
    );
    if let Some(arguments) = graph.arguments {
        text.push_str(&format!("graph_args {arguments}\n"));
    }
    for (field, id) in fields(entries, environment) {
        let Some(entry) = entries.get(id).filter(|entry| graph.value(entry).is_some()) else {
            continue;
        };
        let nickname = if entry.nickname.is_empty() { id } else { &entry.nickname };
        let label = field::label(nickname);
        write!(text, "{field}.label {label}\n{field}.draw LINE1\n").expect("it is a String");
        if graph.kind == Kind::Counter {
            // With a minimum of 0 a restart draws no spike.
            write!(text, "{field}.type DERIVE\n{field}.min 0\n").expect("it is a String");
        }
    }
    text
}

fn fetch(graph: &Graph, entries: &Entries, environment: &Environment, now: f64) -> String {
    let mut text = String::new();
    for (field, id) in fields(entries, environment) {
        let entry = &entries[id];
        let Some(value) = graph.value(entry) else { continue };
        let is_old = now - entry.timestamp > environment.stat_validity;
        let shown = value.filter(|_| !is_old).map_or_else(|| "U".to_owned(), |it| graph.show(it));
        writeln!(text, "{field}.value {shown}").expect("it is a String");
    }
    text
}

/// Fields of all providers, in their order: a provider has the same in every graph.
fn fields<'a>(entries: &'a Entries, environment: &Environment) -> BTreeMap<String, &'a str> {
    let named = entries.iter().map(|(id, entry)| (id.as_str(), entry.nickname.as_str()));
    field::fields(named, environment.id_length)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Three providers, the last of them not heard from for long.
    const FILE: &str = r#"{
        "k2vq7m3x": {"timestamp": 1000.0, "nickname": "web-1", "stats": {
            "counters": {"worker.metrics_processed_total": 1042, "a.b": 7},
            "stats": {"node.uptime": 12.5, "x.y": null}}},
        "k2vqzzzz": {"timestamp": 1000.0, "nickname": "web-1", "stats": {
            "counters": {"worker.metrics_processed_total": 1e3}, "stats": {"node.uptime": 3}}},
        "zzzz": {"timestamp": 699.0, "nickname": "9old", "stats": {
            "counters": {"worker.metrics_processed_total": 5}, "stats": {}}}
    }"#;

    fn with_file<T>(name: &str, text: Option<&str>, then: impl FnOnce(&Environment) -> T) -> T {
        let name = format!("veneur-munin-{}-{name}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_file(&path);
        if let Some(text) = text {
            fs::write(&path, text).expect("the temporary directory can be written");
        }
        let mut environment = Environment::read(|_| None).expect("defaults are good");
        environment.statsfile = path.clone();
        let result = then(&environment);
        let _ = fs::remove_file(path);
        result
    }

    fn said(environment: &Environment, name: &str, argument: &str) -> Said {
        let arguments: Vec<OsString> = argument.split_whitespace().map(OsString::from).collect();
        run(name, &arguments, environment, 1000.0)
    }

    #[test]
    fn a_counter_is_drawn_as_a_rate_of_each_provider() {
        with_file("counter", Some(FILE), |environment| {
            let config = said(environment, "metrics_processed", "config");
            assert_eq!(
                config.stdout,
                "graph_title Metrics processed\n\
                 graph_vlabel per ${graph_period}\n\
                 graph_category veneur\n\
                 graph_info worker.metrics_processed_total of each instance\n\
                 _9old_zzzz.label 9old\n_9old_zzzz.draw LINE1\n\
                 _9old_zzzz.type DERIVE\n_9old_zzzz.min 0\n\
                 web_1_k2vq.label web-1\nweb_1_k2vq.draw LINE1\n\
                 web_1_k2vq.type DERIVE\nweb_1_k2vq.min 0\n\
                 web_1_k2vqz.label web-1\nweb_1_k2vqz.draw LINE1\n\
                 web_1_k2vqz.type DERIVE\nweb_1_k2vqz.min 0\n"
            );
            let fetched = said(environment, "metrics_processed", "");
            let values = "_9old_zzzz.value U\nweb_1_k2vq.value 1042\nweb_1_k2vqz.value 1000\n";
            assert_eq!((fetched.stdout.as_str(), fetched.code), (values, 0));
        });
    }

    #[test]
    fn a_stat_is_drawn_as_it_is_and_null_is_unknown() {
        with_file("stat", Some(FILE), |environment| {
            let uptime = said(environment, "uptime", "").stdout;
            assert_eq!(uptime, "web_1_k2vq.value 12.5\nweb_1_k2vqz.value 3\n");
            assert!(!said(environment, "uptime", "config").stdout.contains("DERIVE"));
            assert_eq!(said(environment, "stat_x_y", "").stdout, "web_1_k2vq.value U\n");
            assert!(said(environment, "stat_x_y", "config").stdout.contains("web_1_k2vq.label"));
            assert_eq!(said(environment, "counter_a_b", "").stdout, "web_1_k2vq.value 7\n");
            let memory = said(environment, "memory", "config").stdout;
            assert!(memory.contains("graph_args --base 1024\n"), "{memory}");
            assert!(!memory.contains(".label"), "nobody tells of its memory: {memory}");
        });
    }

    #[test]
    fn it_says_what_it_can_draw() {
        with_file("suggest", Some(FILE), |environment| {
            let suggested = said(environment, "", "suggest").stdout;
            let names: Vec<&str> = suggested.lines().collect();
            for name in ["contexts", "counter_a_b", "stat_x_y", "stat_node_uptime", "peers_failed"]
            {
                assert!(names.contains(&name), "{name} is missing:\n{suggested}");
            }
            for name in names {
                assert_eq!(said(environment, name, "").code, 0, "{name}");
                assert_eq!(said(environment, name, "autoconf").stdout, "yes\n", "{name}");
            }
            assert_eq!(said(environment, "", "autoconf"), Said::lines("yes\n".to_owned()));
        });
    }

    #[test]
    fn what_it_cannot_do_has_an_exit_code() {
        with_file("codes", Some(FILE), |environment| {
            for (name, argument, code) in [
                ("contexts", "frob", 2),
                ("contexts", "config config", 2),
                ("frob", "", 2),
                ("frob", "config", 2),
                ("counter_frob", "", 2),
                ("stat_a_b", "", 2),
                ("", "", 2),
                ("", "config", 2),
            ] {
                let said = said(environment, name, argument);
                assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{name} {argument}");
                assert!(!said.stderr.is_empty(), "{name} {argument}");
            }
            let autoconf = said(environment, "frob", "autoconf");
            assert_eq!(autoconf, Said::lines("no (no graph frob)\n".to_owned()));
        });
        for text in [None, Some("{"), Some("[]")] {
            with_file("none", text, |environment| {
                for argument in ["", "config", "suggest"] {
                    let said = said(environment, "contexts", argument);
                    assert_eq!((said.code, said.stdout.as_str()), (3, ""), "{argument}");
                    let file = environment.statsfile.display().to_string();
                    assert!(said.stderr.contains(&file), "{}", said.stderr);
                }
                let autoconf = said(environment, "", "autoconf");
                assert!(autoconf.stdout.starts_with("no (") && autoconf.code == 0);
                assert_eq!(autoconf.stdout.lines().count(), 1);
            });
        }
    }

    #[test]
    fn the_environment_has_defaults_and_numbers() {
        let read = |given: &'static [(&str, &str)]| {
            Environment::read(|name| {
                given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let defaults = read(&[]).expect("defaults are good");
        assert_eq!(defaults.statsfile, Path::new("/var/lib/veneur/stats.json"));
        assert_eq!((defaults.stat_validity, defaults.id_length), (300.0, 4));
        let given = read(&[("stat_validity", "60"), ("id_length", "8"), ("category", "stats")]);
        let given = given.expect("these are good");
        assert_eq!((given.stat_validity, given.id_length), (60.0, 8));
        assert_eq!(given.category, "stats");
        assert_eq!(
            read(&[("id_length", "many")]).map_err(|why| why.contains("id_length")),
            Err(true)
        );
    }

    #[test]
    fn only_links_of_that_name_are_plugins() {
        for (program, plugin) in [
            ("/etc/munin/plugins/veneur_contexts", Some("contexts")),
            ("veneur_", Some("")),
            ("/usr/bin/veneur", None),
            ("/veneur_x/veneur", None),
            ("", None),
        ] {
            assert_eq!(plugin_of(OsStr::new(program)).as_deref(), plugin, "{program}");
        }
    }
}
