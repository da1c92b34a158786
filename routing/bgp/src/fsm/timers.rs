// SPDX-License-Identifier: Apache-2.0
//! The timers of a machine, as points in time.

use std::time::{Duration, Instant};

use super::Event;

/// When each timer runs out; `None`: it does not run (RFC 4271 §8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// ConnectRetryTimer.
    pub connect_retry: Option<Instant>,
    /// HoldTimer.
    pub hold: Option<Instant>,
    /// KeepaliveTimer.
    pub keepalive: Option<Instant>,
    /// DelayOpenTimer.
    pub delay_open: Option<Instant>,
    /// IdleHoldTimer.
    pub idle_hold: Option<Instant>,
}

impl Timers {
    /// When the next timer runs out.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        [self.connect_retry, self.hold, self.keepalive, self.delay_open, self.idle_hold]
            .into_iter()
            .flatten()
            .min()
    }

    /// Stops one timer that has run out and says which. The KEEPALIVE goes before all else: a machine that was not
    /// scheduled for long must still be heard.
    pub fn expire(&mut self, now: Instant) -> Option<Event> {
        let timers = [
            (&mut self.keepalive, Event::KeepaliveTimerExpires),
            (&mut self.hold, Event::HoldTimerExpires),
            (&mut self.delay_open, Event::DelayOpenTimerExpires),
            (&mut self.connect_retry, Event::ConnectRetryTimerExpires),
            (&mut self.idle_hold, Event::IdleHoldTimerExpires),
        ];
        for (timer, event) in timers {
            if timer.is_some_and(|at| at <= now) {
                *timer = None;
                return Some(event);
            }
        }
        None
    }
}

/// Spreads timers over 75 to 100 % of their value (RFC 4271 §10): a sequence that its seed decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Jitter(seed | 1)
    }

    /// The next value between 75 and 100 % of `value`.
    pub(super) fn of(&mut self, value: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let share = u32::try_from(self.0 >> 40 & 0xff).unwrap_or(0);
        value * 3 / 4 + value / 4 * share / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_keeps_between_three_quarters_and_the_whole() {
        let mut jitter = Jitter::new(7);
        let whole = Duration::from_secs(100);
        let values: Vec<_> = (0..1000).map(|_| jitter.of(whole)).collect();
        assert!(values.iter().all(|value| (Duration::from_secs(75)..=whole).contains(value)));
        assert!(
            values.iter().max().unwrap().saturating_sub(*values.iter().min().unwrap())
                > Duration::from_secs(20)
        );
    }

    #[test]
    fn a_late_machine_sends_its_keepalive_before_it_gives_up() {
        let now = Instant::now();
        let mut timers = Timers { hold: Some(now), keepalive: Some(now), ..Timers::default() };
        assert_eq!(timers.expire(now), Some(Event::KeepaliveTimerExpires));
        assert_eq!(timers.expire(now), Some(Event::HoldTimerExpires));
        assert_eq!(timers.expire(now), None);
    }
}
