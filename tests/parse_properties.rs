//! Laws of the DogStatsD parser, for lines that make sense and lines that do not.

#[path = "support/print.rs"]
mod print;

use proptest::prelude::*;
use veneur::protocol::Refusal;
use veneur::protocol::dogstatsd::{Message, lines, parse};

/// Lines as clients write them, and lines that nearly are.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![4 => metric(), 2 => event(), 2 => check(), 1 => noise]
}

fn metric() -> impl Strategy<Value = Vec<u8>> {
    let value = "[-+]?[0-9]{1,3}(\\.[0-9]{0,3})?(e[0-9])?|inf|nan|x?";
    let section = concat!(
        "@0?\\.?[0-9]{0,3}|#[a-zé:,]{0,9}\r?|T[0-9]{1,4}|c:[a-z-]{0,4}|e:[a-z]{0,3}|",
        "card:(low|HIGH|what)|[a-z]{0,2}",
    );
    let line = format!("[a-z._-]{{1,8}}:({value})(:({value})){{0,3}}\\|(c|g|ms|h|d|s|q)");
    let with_sections = format!("{line}(\\|({section})){{0,4}}");
    proptest::string::string_regex(&with_sections).expect("a pattern").prop_map(String::into_bytes)
}

fn event() -> impl Strategy<Value = Vec<u8>> {
    let text = "([a-zé|\\\\\n]|\\\\n){0,5}";
    let sections = concat!(
        "(\\|(d:-?[0-9x]{1,3}|h:[a-z]{0,3}|k:[a-z]{0,3}|p:low|s:[a-z]{0,3}|t:error|",
        "#[a-z,]{0,6}|c:[a-z]{0,3}|card:none|z)?){0,4}",
    );
    // One length in a dozen is wrong.
    let wrong = prop_oneof![11 => Just(0), 1 => 1..3_usize];
    (text, text, sections, wrong).prop_map(|(title, text, sections, wrong)| {
        let lengths = (title.len(), text.len() + wrong);
        format!("_e{{{},{}}}:{title}|{text}{sections}", lengths.0, lengths.1).into_bytes()
    })
}

fn check() -> impl Strategy<Value = Vec<u8>> {
    let line = concat!(
        "_sc\\|[a-z. ]{0,4}\\|[0-4]",
        "(\\|(d:[0-9x]{1,3}|h:[a-z]{0,3}|m:([a-z\\\\]|\\\\n){0,4}|#[a-z,]{0,6}|e:[a-z]{0,3}|z)){0,4}",
    );
    line.prop_map(String::into_bytes)
}

/// What a line says, but for counts of what was skipped: printed lines have nothing to skip.
fn said(line: &[u8]) -> Result<Message<'_>, Refusal> {
    parse(line).map(|message| match message {
        Message::Metric(mut line) => {
            line.unknown_sections = 0;
            line.skipped_values = 0;
            Message::Metric(line)
        }
        other => other,
    })
}

fn messages(datagram: &[u8]) -> Vec<Result<Message<'_>, Refusal>> {
    lines(datagram).map(parse).collect()
}

proptest! {
    /// Printing loses nothing: for all accepted lines, parse(print(parse(line))) == parse(line).
    #[test]
    fn an_accepted_line_is_read_the_same_when_printed(line in line()) {
        if let Ok(message) = said(&line) {
            let printed = print::print(&message);
            prop_assert_eq!(said(&printed), Ok(message), "{}", printed.escape_ascii());
        }
    }

    /// A line does not know its neighbours: messages(a ++ "\n" ++ b) == messages(a) ++ messages(b).
    #[test]
    fn lines_are_independent_of_how_they_are_packed(
        datagrams in prop::collection::vec(line(), 0..6)
    ) {
        let alone: Vec<_> = datagrams.iter().flat_map(|datagram| messages(datagram)).collect();
        let packed = datagrams.join(&b'\n');
        prop_assert_eq!(messages(&packed), alone);
    }

    /// A refusal points into its line, or right behind it.
    #[test]
    fn a_refusal_points_into_its_line(line in line()) {
        if let Err(refusal) = parse(&line) {
            prop_assert!(refusal.at as usize <= line.len(), "{refusal}");
        }
    }

    /// No bytes make the parser panic.
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = messages(&bytes);
    }
}

#[test]
fn the_generator_makes_enough_accepted_lines_of_each_kind() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut accepted = [0; 3];
    for _ in 0..1000 {
        let line = line().new_tree(&mut runner).expect("it filters nothing").current();
        match parse(&line) {
            Ok(Message::Metric(_)) => accepted[0] += 1,
            Ok(Message::Event(_)) => accepted[1] += 1,
            Ok(Message::ServiceCheck(_)) => accepted[2] += 1,
            Err(_) => {}
        }
    }
    assert!(accepted.iter().all(|&count| count >= 100), "{accepted:?}");
}
