//! What a panic costs: half a daemon is worse than a restart.

use std::panic;
use std::thread;
use std::time::Duration;

/// Beginnings of the names of threads the daemon cannot do without.
const ESSENTIAL: [&str; 5] = ["reader-", "stream-", "worker-", "flush", "spool-"];

/// How long an essential panic waits for its message to be printed.
const PRINT_WITHIN: Duration = Duration::from_secs(1);

/// From now on a panic in an essential thread is printed and ends the process. One in a task
/// (a sink, a request) is that task's, and counted by whoever waits for it.
pub fn end_process() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !is_essential(thread::current().name().unwrap_or_default()) {
            return print(panic);
        }
        // Nobody may be reading what is printed, and then printing waits for ever.
        thread::spawn(|| {
            thread::sleep(PRINT_WITHIN);
            std::process::abort();
        });
        print(panic);
        std::process::abort();
    }));
}

fn is_essential(thread: &str) -> bool {
    ESSENTIAL.iter().any(|beginning| thread.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_the_hot_path_are_essential_and_those_of_the_runtime_are_not() {
        for (thread, essential) in [
            ("reader-0", true),
            ("stream-1", true),
            ("worker-3", true),
            ("flush", true),
            ("spool-datadog", true),
            ("io", false),
            ("", false),
        ] {
            assert_eq!(is_essential(thread), essential, "{thread}");
        }
    }
}
