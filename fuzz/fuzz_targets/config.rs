//! A configuration is settings or sentences, whatever it says: what is accepted can be printed
//! and read again, and what is refused is refused for a reason that quotes no secret.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use veneur::config::machine::Machine;
use veneur::config::secret::REDACTED;
use veneur::config::{self, Loaded, Problems};

/// A machine that answers at once and always the same.
fn machine() -> Machine {
    Machine {
        cores: 2,
        hostname: || Some("host".to_owned()),
        resolve: |_, port| Ok(vec![([192, 0, 2, 1], port).into()]),
        read: |_| Err(io::Error::other("no files here")),
    }
}

fn parse(text: &str) -> Result<Loaded, Problems> {
    config::parse("fuzz.yaml", text, [], false, &machine())
}

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(Loaded { settings, .. }) => {
            for shown in [settings.effective_yaml(), settings.effective_json()] {
                if !shown.contains(REDACTED) {
                    let again = parse(&shown).unwrap_or_else(|problems| panic!("{problems}"));
                    assert_eq!(again.settings, settings);
                }
            }
        }
        Err(problems) => {
            assert!(!problems.problems.is_empty());
            assert!(problems.to_string().lines().count() >= problems.problems.len());
        }
    }
    // Whatever else it says, a key is not shown.
    if let Err(problems) = parse(&format!("{text}\nkey: ' hunter2 '\n")) {
        let shown = problems.to_string();
        assert!(!shown.contains("hunter2") || text.contains("hunter2"), "{shown}");
    }
});
