//! When everybody is asked, and when what they said is written.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{error, info};

use super::House;
use super::roll::Poll;
use super::store::Store;
use crate::telemetry::names;

/// The file is written no more often.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Those that are asked keep to a timeout of their own; this is for what they do then.
const SLACK: Duration = Duration::from_secs(1);

/// Has all asked together, once an interval. Newcomers see to themselves.
pub(super) async fn rounds(house: Arc<House>, pages: Vec<mpsc::Sender<Poll>>) {
    let mut ticks = interval(house.poll_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let (round, mut all_done) = mpsc::channel(1);
        house.roll().ask_all(&round);
        for page in &pages {
            // Full: it is busy with the last one.
            let _ = page.try_send(round.clone());
        }
        drop(round);
        // Ends when the last one has let go of its end.
        let _ = timeout(house.poll_timeout + SLACK, all_done.recv()).await;
        house.telemetry.duration(names::GATHERER_ROUND_DURATION_NS, "", begun.elapsed());
        house.changed.notify_one();
    }
}

/// Writes the file whenever something has changed, until nothing will any more.
pub(super) async fn write_changes(house: Arc<House>, store: Store) {
    let mut is_failing = false;
    loop {
        house.changed.notified().await;
        let is_last = house.roll().is_closed();
        let taken = house.roll().take_changed();
        if let Some(entries) = taken {
            let (begun, store) = (Instant::now(), store.clone());
            let written = spawn_blocking(move || store.write(&entries)).await;
            match written.map_err(std::io::Error::other).and_then(|written| written) {
                Ok(()) if is_failing => info!("stats.json can be written again"),
                Ok(()) => {}
                Err(error) => {
                    house.telemetry.count(names::GATHERER_WRITE_ERRORS_TOTAL, "", 1);
                    error!(%error, "stats.json cannot be written: the old one stays");
                    house.roll().was_not_written();
                    is_failing = true;
                    // Tried again after the next round.
                    sleep_until(begun + WRITE_EVERY).await;
                    if is_last {
                        return;
                    }
                    continue;
                }
            }
            is_failing = false;
            if !is_last {
                sleep_until(begun + WRITE_EVERY).await;
            }
        }
        if is_last {
            return;
        }
    }
}
