//! What a listener's thread hands its bytes to.

use std::time::{Duration, Instant};

/// One listener thread's way into the pipeline: parses, counts, routes. Owned by one thread.
#[derive(Debug)]
pub struct Intake {}

impl Intake {
    /// Takes one datagram or stream frame: lines separated by newlines.
    pub fn datagram(&mut self, _bytes: &[u8]) {}

    /// Counts one datagram, frame or line that was longer than allowed and is not looked at.
    pub fn too_long(&mut self) {}

    /// How long until the oldest open batch must be handed over; `None` if nothing is open.
    pub fn until_due(&self, _now: Instant) -> Option<Duration> {
        None
    }

    /// Hands over batches that are old enough, and publishes counts.
    pub fn hand_over_due(&mut self, _now: Instant) {}

    /// Hands over all open batches: the thread is about to end.
    pub fn hand_over_all(&mut self) {}
}
