//! Lines are independent of how they are packed: wherever a newline cuts a datagram in two,
//! the parts say what the whole says. Lines of the usual shape, wherever they stand in what was
//! received, are read as the ordinary parser reads them. Nothing makes the explanations panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veneur::cli::explain;
use veneur::protocol::Refusal;
use veneur::model::MetricKind;
use veneur::protocol::dogstatsd::{Message, Piece, Values, lines, parse, pieces};

fn messages(datagram: &[u8]) -> Vec<Result<Message<'_>, Refusal>> {
    lines(datagram).map(parse).collect()
}

/// The pieces of a packet in `buffer` are its lines, each read as it is read alone.
fn check_pieces(buffer: &[u8], packet: &[u8]) {
    let mut expected = lines(packet);
    for piece in pieces(buffer, packet) {
        let line = expected.next().expect("a piece is a line");
        match piece {
            Piece::Line(piece) => assert_eq!(piece, line),
            Piece::Sample(sample) => {
                let Ok(Message::Metric(parsed)) = parse(line) else { panic!("no metric") };
                let values = match sample.kind {
                    MetricKind::Set => Values::Member(sample.text),
                    _ => Values::One(sample.number),
                };
                assert_eq!((sample.name, sample.tags), (parsed.name, parsed.tags));
                assert_eq!((sample.kind, sample.weight), (parsed.kind, parsed.weight));
                assert_eq!(values, parsed.values);
                assert!(parsed.timestamp.is_none() && parsed.unknown_sections == 0);
            }
        }
    }
    assert_eq!(expected.next(), None);
}

fuzz_target!(|datagram: &[u8]| {
    let whole = messages(datagram);
    let middle = datagram.len() / 2;
    if let Some(end) = datagram[middle..].iter().position(|&byte| byte == b'\n') {
        let (first, second) = datagram.split_at(middle + end);
        let mut parts = messages(first);
        parts.extend(messages(second));
        assert_eq!(parts, whole);
    }
    check_pieces(datagram, datagram);
    check_pieces(datagram, &datagram[..middle]);
    check_pieces(datagram, &datagram[middle..]);
    let json = explain::explain_json(datagram);
    assert!(!json.contains('\n'));
    let _ = explain::explain_text(datagram);
});
