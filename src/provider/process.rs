//! What the system knows of this process, and how busy it keeps us.
//!
//! Source of the names: Tahoe-LAFS's load and CPU monitors.

use std::collections::VecDeque;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::warn;

use super::{Facts, Provider, Registered};

/// The monitor's timer.
const TICK: Duration = Duration::from_secs(1);
/// Ticks that the load is told of.
const LOAD_TICKS: usize = 60;
/// CPU time is noted once in so many ticks, 16 times.
const TICKS_A_MINUTE: u64 = 60;
const MINUTES: usize = 16;
/// Ticks of the clock in which the kernel tells CPU time: 100 on every architecture that
/// matters, whatever the kernel's own.
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

/// Tells of this process for as long as it lives: its age, CPU time, memory, descriptors,
/// threads, and how late a timer of a second is. Needs a tokio runtime.
pub fn watch(provider: &Provider) -> Watched {
    let begun = Instant::now();
    let load = Arc::new(Mutex::new(Load::default()));
    let told = Arc::clone(&load);
    let registered = provider.register("process", move |facts| {
        facts.stat("node.uptime", Some(begun.elapsed().as_secs_f64()));
        told.lock().unwrap_or_else(PoisonError::into_inner).tell(facts);
        facts.stat("cpu_monitor.total", cpu_seconds());
        for (name, value) in sizes() {
            facts.stat(name, value);
        }
    });
    let monitor = tokio::spawn(monitor(load));
    Watched { _registered: registered, monitor }
}

/// Ends the watch when dropped.
#[derive(Debug)]
pub struct Watched {
    _registered: Registered,
    monitor: tokio::task::JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.monitor.abort();
    }
}

async fn monitor(load: Arc<Mutex<Load>>) {
    for tick in 0u64.. {
        if tick.is_multiple_of(TICKS_A_MINUTE)
            && let Some(cpu) = cpu_seconds()
        {
            load.lock().unwrap_or_else(PoisonError::into_inner).note_cpu(cpu, Instant::now());
        }
        let begun = Instant::now();
        sleep(TICK).await;
        let late = begun.elapsed().saturating_sub(TICK);
        if late > TICK {
            warn!(?late, "a timer was late: this process, or the machine, stood still");
        }
        load.lock().unwrap_or_else(PoisonError::into_inner).note_late(late);
    }
}

/// Lateness by ticks, CPU time by minutes.
#[derive(Debug, Default)]
struct Load {
    late: VecDeque<Duration>,
    /// CPU seconds since the start, and when.
    cpu: VecDeque<(f64, Instant)>,
}

impl Load {
    fn note_late(&mut self, late: Duration) {
        if self.late.len() == LOAD_TICKS {
            self.late.pop_front();
        }
        self.late.push_back(late);
    }

    fn note_cpu(&mut self, seconds: f64, now: Instant) {
        if self.cpu.len() == MINUTES {
            self.cpu.pop_front();
        }
        self.cpu.push_back((seconds, now));
    }

    fn tell(&self, facts: &mut Facts) {
        let sum: Duration = self.late.iter().sum();
        let mean = sum.as_secs_f64() / self.late.len().max(1) as f64;
        let most = self.late.iter().max().copied().unwrap_or_default();
        facts.stat("load_monitor.avg_load", Some(mean));
        facts.stat("load_monitor.max_load", Some(most.as_secs_f64()));
        let Some((cpu, at)) = self.cpu.back() else { return };
        for (minutes, name) in [
            (1, "cpu_monitor.1min_avg"),
            (5, "cpu_monitor.5min_avg"),
            (15, "cpu_monitor.15min_avg"),
        ] {
            // Absent until there are so many minutes to compare with.
            let Some(index) = self.cpu.len().checked_sub(minutes + 1) else { continue };
            let (before, then) = self.cpu[index];
            let share = (cpu - before) / at.duration_since(then).as_secs_f64();
            facts.stat(name, Some(share));
        }
    }
}

/// User and system time of all threads together.
fn cpu_seconds() -> Option<f64> {
    cpu_seconds_of(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Source: proc_pid_stat(5), fields 14 and 15. The name of the program, field 2, is in
/// parentheses and may hold anything.
fn cpu_seconds_of(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / CLOCK_TICKS_PER_SECOND)
}

fn sizes() -> [(&'static str, Option<f64>); 3] {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<f64>().ok()
    };
    // The descriptor it is listed through is not one of ours.
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as f64 - 1.0);
    [
        ("process.resident_bytes", field("VmRSS").map(|kib| kib * 1024.0)),
        ("process.threads", field("Threads")),
        ("process.open_fds", descriptors),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Statistics;

    fn told(load: &Load) -> Statistics {
        let mut facts = Facts::default();
        load.tell(&mut facts);
        facts.0
    }

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_seconds_of(stat), Some(3.0));
        assert_eq!(cpu_seconds_of("7 (a) R"), None);
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
    }

    #[test]
    fn the_load_is_of_the_last_minute() {
        let mut load = Load::default();
        assert_eq!(told(&load).stats["load_monitor.avg_load"], Some(0.0));
        load.note_late(Duration::from_secs(9));
        for _ in 0..59 {
            load.note_late(Duration::ZERO);
        }
        assert_eq!(told(&load).stats["load_monitor.max_load"], Some(9.0));
        assert_eq!(told(&load).stats["load_monitor.avg_load"], Some(0.15));
        load.note_late(Duration::ZERO);
        assert_eq!(told(&load).stats["load_monitor.max_load"], Some(0.0));
    }

    #[test]
    fn cpu_averages_are_absent_until_there_are_minutes_enough() {
        let (mut load, start) = (Load::default(), Instant::now());
        for minute in 0..20u32 {
            load.note_cpu(f64::from(minute) * 30.0, start + minute * Duration::from_secs(60));
            let stats = told(&load).stats;
            for (minutes, name) in [(1, "1min_avg"), (5, "5min_avg"), (15, "15min_avg")] {
                let value = stats.get(&format!("cpu_monitor.{name}")).copied();
                assert_eq!(value, (minute >= minutes).then_some(Some(0.5)), "{name} at {minute}");
            }
        }
    }

    #[test]
    fn this_process_has_a_size() {
        assert!(sizes().iter().all(|(_, value)| value.is_some_and(|value| value >= 1.0)));
    }
}
