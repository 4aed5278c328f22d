//! Laws of the classic dialects.

use proptest::prelude::*;
use veneur::model::Dialect;

use crate::laws;
use crate::node::Node;

/// Lines as clients write them, and lines that nearly are.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let value = "[-+]?[0-9]{0,4}(\\.[0-9]{0,3})?(e[0-9]{1,3})?|0x[0-9a-f]{0,2}|inf|Infinity| ?";
    let kind = "c|C|g|ms|h|s|d| ms |q?";
    let sample = format!("({value})(\\|({kind})(\\|(@[0-9.+ e-]{{0,4}}|x?)){{0,2}})?");
    let tags = "(\\|#[a-z:;=,é |#/]{0,12})?\r?";
    let name = "[a-z._;=/ $éA\u{a0}-]{0,9}";
    let line = format!("{name}:{sample}(:{sample}){{0,2}}{tags}");
    let text = proptest::string::string_regex(&line).expect("a pattern");
    prop_oneof![
        9 => text.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

/// What is done to one series: a sample, or a flush.
#[derive(Clone, Debug)]
enum Step {
    Sample(u16),
    Signed(i16),
    Flush,
    /// After a flush.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<u16>().prop_map(Step::Sample),
        2 => any::<i16>().prop_map(Step::Signed),
        2 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..30)
}

fn samples_and_a_permutation() -> impl Strategy<Value = (Vec<u32>, Vec<u32>)> {
    let samples = prop::collection::vec(0..1000_u32, 1..40);
    samples.prop_flat_map(|samples| (Just(samples.clone()), Just(samples).prop_shuffle()))
}

proptest! {
    /// See [`laws::check`].
    #[test]
    fn lines_are_read_or_refused(line in line()) {
        laws::check(&line);
    }

    /// Wherever flushes and restarts fall, the growth of a total that is emitted adds up to the same.
    #[test]
    fn flushes_do_not_change_what_a_total_has_grown(steps in steps()) {
        let mut node = Node::new(Dialect::Brubeck);
        let (mut emitted, mut grown, mut previous) = (0.0, 0.0, 0.0);
        for step in &steps {
            match step {
                Step::Sample(total) => {
                    let total = f64::from(*total);
                    node.take(&format!("n:{total}|C"));
                    if previous > 0.0 {
                        grown += if total >= previous { total - previous } else { total };
                    }
                    previous = total;
                }
                Step::Signed(_) => {}
                Step::Flush => emitted += node.flush().get("n").copied().unwrap_or(0.0),
                Step::Restart => {
                    emitted += node.flush().get("n").copied().unwrap_or(0.0);
                    node.restart();
                }
            }
        }
        emitted += node.flush().get("n").copied().unwrap_or(0.0);
        prop_assert_eq!(emitted, grown);
    }

    /// Wherever flushes and restarts fall, a gauge is what its samples say, and each flush says what it is.
    #[test]
    fn flushes_do_not_change_what_a_gauge_is(steps in steps()) {
        for (dialect, path) in [(Dialect::Etsy, "stats.gauges.g"), (Dialect::Brubeck, "g")] {
            let mut node = Node::new(dialect);
            let mut value = None;
            for step in &steps {
                match step {
                    Step::Sample(to) => {
                        node.take(&format!("g:{to}|g"));
                        value = Some(f64::from(*to));
                    }
                    Step::Signed(by) => {
                        node.take(&format!("g:{by:+}|g"));
                        value = Some(value.unwrap_or(0.0) + f64::from(*by));
                    }
                    Step::Flush => prop_assert_eq!(node.flush().get(path).copied(), value),
                    Step::Restart => {
                        prop_assert_eq!(node.flush().get(path).copied(), value);
                        node.restart();
                    }
                }
            }
            prop_assert_eq!(node.flush().get(path).copied(), value);
        }
    }

    /// The statistics of few samples are those of a sorted list, whatever their order.
    #[test]
    fn the_order_of_samples_does_not_matter((samples, shuffled) in samples_and_a_permutation()) {
        let line = |samples: &[u32]| {
            samples.iter().map(|sample| format!("t:{sample}|ms\n")).collect::<String>()
        };
        for dialect in [Dialect::Etsy, Dialect::Brubeck] {
            let flushed = [&samples, &shuffled].map(|samples| {
                let mut node = Node::new(dialect);
                node.take(&line(samples));
                node.flush()
            });
            prop_assert_eq!(&flushed[0], &flushed[1]);
            let prefix = if dialect == Dialect::Etsy { "stats.timers.t" } else { "t" };
            let count = flushed[0][&format!("{prefix}.count")];
            prop_assert_eq!(count, samples.len() as f64);
        }
    }
}
