// SPDX-License-Identifier: Apache-2.0
//! The clock of the servers: it stands and is set forward, or runs with real time, maybe faster.

use std::time::{Duration, Instant};

use rhumb_model::Timestamp;
use serde::{Deserialize, Serialize};

/// How the clock goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pace {
    /// It stands.
    Still,
    /// It runs, this many times as fast as real time.
    Running(f64),
}

#[derive(Debug)]
pub(super) struct Clock {
    base: Timestamp,
    since: Instant,
    speed: f64,
}

impl Clock {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { base: now, since: Instant::now(), speed: 0.0 }
    }

    pub(super) fn now(&self) -> Timestamp {
        if self.speed == 0.0 { self.base } else { self.base.after(self.since.elapsed().mul_f64(self.speed)) }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.base = self.base.after(by);
    }

    pub(super) fn set(&mut self, pace: Pace) {
        self.base = self.now();
        self.since = Instant::now();
        self.speed = match pace {
            Pace::Still => 0.0,
            Pace::Running(speed) if speed.is_finite() => speed.clamp(0.0, 1_000_000.0),
            Pace::Running(_) => 1.0,
        };
    }

    /// Real time until the clock shows `time`; `None` when it stands before it.
    pub(super) fn until(&self, time: Timestamp) -> Option<Duration> {
        let left = time.since(self.now());
        match left {
            Duration::ZERO => Some(Duration::ZERO),
            _ if self.speed == 0.0 => None,
            // At least a millisecond, as the clock counts in these.
            left => Some(left.div_f64(self.speed).max(Duration::from_millis(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_is_set_forward() {
        let mut clock = Clock::new(Timestamp(1_000));
        assert_eq!((clock.now(), clock.until(Timestamp(1_001))), (Timestamp(1_000), None));
        clock.advance(Duration::from_secs(1));
        assert_eq!((clock.now(), clock.until(Timestamp(2_000))), (Timestamp(2_000), Some(Duration::ZERO)));
    }

    #[test]
    fn a_running_clock_knows_how_long_to_wait() {
        let mut clock = Clock::new(Timestamp(0));
        clock.set(Pace::Running(100.0));
        let wait = clock.until(Timestamp(1_000_000)).expect("it runs");
        assert!(wait <= Duration::from_secs(10) && wait > Duration::from_secs(5), "{wait:?}");
    }
}
