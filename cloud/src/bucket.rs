// SPDX-License-Identifier: Apache-2.0

use std::time::{Duration, Instant};

use crate::Rate;

/// The smallest part of its rate to which a bucket goes down.
const FLOOR: f64 = 1.0 / 16.0;
/// From the floor back to the whole rate it takes this long, if nothing is refused meanwhile.
const RECOVERY: Duration = Duration::from_secs(120);
/// Refusals within this time are one: those that were under way together.
const SAME: Duration = Duration::from_secs(1);
/// Nothing is asked for so long after a refusal.
const PAUSE: Duration = Duration::from_secs(1);

/// How often one action may be asked for: a token bucket whose rate halves when the cloud refuses, and comes back
/// slowly. Others spend from the same allowance, so ours is only a share of what is published.
///
/// Pure: time is an argument, and may not go back.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: Rate,
    /// The part of the rate that is in force, from [`FLOOR`] to 1.
    factor: f64,
    tokens: f64,
    /// When tokens and factor were counted last.
    at: Instant,
    refused: Option<Instant>,
}

impl Bucket {
    /// A full bucket with this share (0 to 1) of a rate. It holds at least one token.
    pub fn new(rate: Rate, share: f64, now: Instant) -> Self {
        let share = share.clamp(0.01, 1.0);
        let rate = Rate { capacity: (rate.capacity * share).max(1.0), per_second: rate.per_second * share };
        Self { rate, factor: 1.0, tokens: rate.capacity, at: now, refused: None }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.count(now);
        let taken = self.tokens >= 1.0 && !self.paused(now);
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }

    /// How long until the `nth` token from now (1: the next one) can be taken, if nobody else takes one and nothing
    /// is refused.
    pub fn wait(&mut self, nth: usize, now: Instant) -> Duration {
        self.count(now);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 wait")]
        let missing = (nth as f64 - self.tokens).max(0.0);
        let pause = self.refused.map_or(Duration::ZERO, |at| (at + PAUSE).saturating_duration_since(now));
        Duration::from_secs_f64(missing / (self.rate.per_second * self.factor)).max(pause)
    }

    /// The cloud said that too much was asked: the rest of the tokens is void, and the rate halves.
    pub fn refuse(&mut self, now: Instant) {
        self.count(now);
        let same = self.refused.is_some_and(|at| now.saturating_duration_since(at) < SAME);
        if !same {
            self.factor = (self.factor / 2.0).max(FLOOR);
            self.refused = Some(now);
        }
        self.tokens = 0.0;
    }

    /// The part of the rate that is in force, from 1/16 to 1.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    fn paused(&self, now: Instant) -> bool {
        self.refused.is_some_and(|at| now.saturating_duration_since(at) < PAUSE)
    }

    fn count(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        // In a long silence the rate grows while tokens come: counted by what was in force before, which is less.
        let gained = passed * self.rate.per_second * self.factor;
        self.tokens = (self.tokens + gained).min(self.rate.capacity);
        self.factor = (self.factor + passed / RECOVERY.as_secs_f64()).min(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { capacity: 50.0, per_second: 5.0 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn taken(bucket: &mut Bucket, now: Instant) -> usize {
        (0..1000).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn a_full_bucket_gives_its_share_at_once_and_then_by_the_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, 0.5, start);
        assert_eq!(taken(&mut bucket, start), 25);
        assert_eq!(bucket.wait(1, start), ms(400));
        assert!(!bucket.take(start + ms(399)));
        assert!(bucket.take(start + ms(401)));
        assert_eq!(taken(&mut bucket, start + ms(4_401)), 10);
    }

    #[test]
    fn a_small_share_still_gives_one() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { capacity: 5.0, per_second: 1.0 }, 0.1, start);
        assert_eq!(taken(&mut bucket, start), 1);
        assert_eq!(bucket.wait(1, start), Duration::from_secs(10));
    }

    #[test]
    fn a_refusal_voids_the_tokens_and_halves_the_rate_once_for_those_under_way_together() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, 1.0, start);
        for late in [0, 100, 900] {
            bucket.refuse(start + ms(late));
        }
        assert!((0.5..0.52).contains(&bucket.factor()), "{}", bucket.factor());
        assert!(!bucket.take(start + ms(950)));
        assert!(bucket.wait(1, start + ms(950)) > ms(300));
    }

    #[test]
    fn the_rate_never_goes_below_its_floor_and_comes_back_in_two_minutes() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(RATE, 1.0, now);
        for _ in 0..20 {
            bucket.refuse(now);
            now += ms(1_000);
        }
        assert!((FLOOR..FLOOR + 0.01).contains(&bucket.factor()), "{}", bucket.factor());
        bucket.wait(1, now + Duration::from_secs(30));
        assert!(bucket.factor() < 0.4, "slowly");
        bucket.wait(1, now + RECOVERY);
        assert!((bucket.factor() - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_gives_more_than_capacity_and_refill(
            steps in prop::collection::vec((0_u64..2_000, 0_usize..40, prop::bool::weighted(0.1)), 1..60),
            share in 0.05_f64..1.0,
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(RATE, share, start);
            let (mut now, mut given) = (start, 0_usize);
            for (pause, wanted, refused) in steps {
                now += ms(pause);
                given += (0..wanted).filter(|_| bucket.take(now)).count();
                if refused {
                    bucket.refuse(now);
                }
                let most = (50.0 * share).max(1.0) + (now - start).as_secs_f64() * 5.0 * share;
                prop_assert!(given as f64 <= most + 1e-6, "{given} of {most}");
            }
        }

        #[test]
        fn after_the_wait_that_was_named_there_is_a_token(spent in 1_usize..60, refused in any::<bool>()) {
            let start = Instant::now();
            let mut bucket = Bucket::new(RATE, 1.0, start);
            for _ in 0..spent {
                bucket.take(start);
            }
            if refused {
                bucket.refuse(start);
            }
            let wait = bucket.wait(1, start);
            prop_assert!(bucket.take(start + wait + ms(1)));
        }
    }
}
