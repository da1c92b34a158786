// SPDX-License-Identifier: Apache-2.0
//! Who may ask the cloud next.
//!
//! ```text
//!   admit ── a token, and nobody before me ─────────────────────────► go
//!      └──── else: a place in the line of the action, by priority
//!                 └─ wakes when its turn can have come, serves the line from its head ─► go
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::{Action, Bucket, Class, CloudError};

/// Who goes first when there are fewer requests than wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Pods wait for an address of this node.
    PodsWaiting,
    /// The node has fewer addresses than it is to have at least; also the view of the cluster.
    BelowMinimum,
    /// The node has fewer free addresses than are wished for.
    Warm,
    /// Addresses that nobody needs are given back.
    Release,
    /// What is left over is swept away.
    Sweep,
}

impl Priority {
    /// Every priority, the first first.
    pub const ALL: [Priority; 5] =
        [Self::PodsWaiting, Self::BelowMinimum, Self::Warm, Self::Release, Self::Sweep];

    /// The priority as it stands in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::PodsWaiting => "pods-waiting",
            Self::BelowMinimum => "below-minimum",
            Self::Warm => "warm",
            Self::Release => "release",
            Self::Sweep => "sweep",
        }
    }
}

/// How a request ended, for the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// As asked.
    Done,
    /// Too much was asked.
    Throttled,
    /// Otherwise refused, or not answered.
    Failed(Class),
}

impl Outcome {
    /// The outcome as it stands in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Throttled => "throttled",
            Self::Failed(class) => class.word(),
        }
    }

    /// How a request with this result ended.
    pub fn of<T>(result: &Result<T, CloudError>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(error) if error.is_throttle() => Self::Throttled,
            Err(error) => Self::Failed(error.class),
        }
    }
}

/// What one action's line looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionReport {
    /// The action.
    pub action: Action,
    /// Requests that wait, by priority.
    pub waiting: BTreeMap<Priority, usize>,
    /// How long the last of them will wait, as it looks now; with an empty line, how long a new one would.
    pub estimated_wait: Duration,
    /// The part of the configured rate that is in force, from 1/16 to 1.
    pub factor: f64,
    /// Requests that ended, by outcome.
    pub ended: BTreeMap<Outcome, u64>,
    /// How long admitted requests waited in sum.
    pub waited: Duration,
    /// Requests admitted.
    pub admitted: u64,
}

/// Admits requests to the cloud: every action by its own bucket, those that pods wait for first.
///
/// Clones are the same pacer.
#[derive(Debug, Clone)]
pub struct Pacer {
    lines: Arc<Mutex<BTreeMap<Action, Line>>>,
}

#[derive(Debug)]
struct Line {
    bucket: Bucket,
    /// Those that wait: first by priority, then by arrival.
    waiting: BTreeMap<(Priority, u64), oneshot::Sender<()>>,
    arrivals: u64,
    ended: BTreeMap<Outcome, u64>,
    waited: Duration,
    admitted: u64,
}

impl Pacer {
    /// A pacer that takes this share (0 to 1) of what is published.
    pub fn new(share: f64) -> Self {
        let now = Instant::now();
        let line = |action: Action| Line {
            bucket: Bucket::new(action.published(), share, now),
            waiting: BTreeMap::new(),
            arrivals: 0,
            ended: BTreeMap::new(),
            waited: Duration::ZERO,
            admitted: 0,
        };
        let lines = Action::ALL.into_iter().map(|action| (action, line(action))).collect();
        Self { lines: Arc::new(Mutex::new(lines)) }
    }

    /// Waits until this action may be asked for. When dropped before, the place in the line is given up.
    pub async fn admit(&self, action: Action, priority: Priority) {
        let arrived = Instant::now();
        let (grant, mut granted) = oneshot::channel();
        let key = {
            let mut lines = self.lines();
            let line = line(&mut lines, action);
            let key = (priority, line.arrivals);
            line.arrivals += 1;
            line.waiting.insert(key, grant);
            line.serve(arrived);
            key
        };
        let place = Place { pacer: self, action, key };
        loop {
            let pause = place.pause();
            tokio::select! {
                _ = &mut granted => break,
                () = tokio::time::sleep(pause) => {}
            }
            line(&mut self.lines(), action).serve(Instant::now());
        }
        let mut lines = self.lines();
        let line = line(&mut lines, action);
        line.admitted += 1;
        line.waited += arrived.elapsed();
    }

    /// Notes how an admitted request ended; a refusal slows its action down.
    pub fn ended(&self, action: Action, outcome: Outcome) {
        let mut lines = self.lines();
        let line = line(&mut lines, action);
        *line.ended.entry(outcome).or_default() += 1;
        if outcome == Outcome::Throttled {
            line.bucket.refuse(Instant::now());
        }
    }

    /// How it stands with every action.
    pub fn report(&self) -> Vec<ActionReport> {
        let now = Instant::now();
        self.lines().iter_mut().map(|(action, line)| line.report(*action, now)).collect()
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<Action, Line>> {
        // What is behind the lock is whole between any two statements.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn line(lines: &mut BTreeMap<Action, Line>, action: Action) -> &mut Line {
    lines.get_mut(&action).expect("there is a line for every action")
}

impl Line {
    fn serve(&mut self, now: Instant) {
        while let Some(first) = self.waiting.first_entry() {
            if !self.bucket.take(now) {
                return;
            }
            // Whoever goes away takes its place out of the line first, so somebody hears this.
            let _heard = first.remove().send(()).is_ok();
        }
    }

    fn report(&mut self, action: Action, now: Instant) -> ActionReport {
        let mut waiting = BTreeMap::new();
        for (priority, _) in self.waiting.keys() {
            *waiting.entry(*priority).or_default() += 1;
        }
        ActionReport {
            action,
            waiting,
            estimated_wait: self.bucket.wait(self.waiting.len().max(1), now),
            factor: self.bucket.factor(),
            ended: self.ended.clone(),
            waited: self.waited,
            admitted: self.admitted,
        }
    }
}

/// A place in a line, given up on every path.
struct Place<'a> {
    pacer: &'a Pacer,
    action: Action,
    key: (Priority, u64),
}

impl Place<'_> {
    /// How long until this one's turn can have come. Each place of a line has another time, so that at every time at
    /// which a token comes somebody wakes and serves the line.
    fn pause(&self) -> Duration {
        let mut lines = self.pacer.lines();
        let line = line(&mut lines, self.action);
        let before = line.waiting.range(..=self.key).count().max(1);
        // A moment more, as the clock of timers is coarser than that of tokens.
        line.bucket.wait(before, Instant::now()) + Duration::from_millis(1)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        line(&mut self.pacer.lines(), self.action).waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    const SLOW: Action = Action::CreateSubnetCidrReservation;

    fn drain(pacer: &Pacer, action: Action) {
        let mut lines = pacer.lines();
        while line(&mut lines, action).bucket.take(Instant::now()) {}
    }

    #[tokio::test]
    async fn a_full_bucket_admits_at_once_and_its_burst_is_the_share_of_what_is_published() {
        let pacer = Pacer::new(0.5);
        for _ in 0..25 {
            pacer.admit(Action::AttachNetworkInterface, Priority::Warm).await;
        }
        let report = pacer.report();
        let attach = report.iter().find(|line| line.action == Action::AttachNetworkInterface).expect("there");
        assert_eq!((attach.admitted, attach.waiting.len()), (25, 0));
        assert!(attach.estimated_wait > Duration::from_millis(300), "{:?}", attach.estimated_wait);
    }

    #[tokio::test]
    async fn those_that_pods_wait_for_go_first_and_equals_in_the_order_of_arrival() {
        let pacer = Pacer::new(1.0);
        drain(&pacer, Action::UnassignPrivateIpAddresses);
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let order = [Priority::Sweep, Priority::Warm, Priority::Warm, Priority::PodsWaiting];
        for (number, priority) in order.into_iter().enumerate() {
            let (pacer, said) = (pacer.clone(), said.clone());
            tasks.spawn(async move {
                pacer.admit(Action::UnassignPrivateIpAddresses, priority).await;
                said.send((priority, number)).expect("heard");
            });
        }
        drop(said);
        let mut seen = Vec::new();
        while let Some(word) = heard.recv().await {
            seen.push(word);
        }
        let expected =
            [(Priority::PodsWaiting, 3), (Priority::Warm, 1), (Priority::Warm, 2), (Priority::Sweep, 0)];
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_line_and_keeps_nobody_waiting() {
        let pacer = Pacer::new(1.0);
        drain(&pacer, Action::UnassignPrivateIpAddresses);
        let impatient = pacer.admit(Action::UnassignPrivateIpAddresses, Priority::PodsWaiting);
        assert!(tokio::time::timeout(Duration::from_millis(5), impatient).await.is_err());
        pacer.admit(Action::UnassignPrivateIpAddresses, Priority::Sweep).await;
        let report = pacer.report();
        let line =
            report.iter().find(|line| line.action == Action::UnassignPrivateIpAddresses).expect("there");
        assert_eq!((line.admitted, line.waiting.len()), (1, 0));
    }

    #[tokio::test]
    async fn a_refusal_slows_down_its_own_action_alone() {
        let pacer = Pacer::new(1.0);
        pacer.ended(SLOW, Outcome::Throttled);
        pacer.ended(Action::UnassignPrivateIpAddresses, Outcome::Failed(Class::Terminal));
        for line in pacer.report() {
            let slow = line.action == SLOW;
            assert_eq!(line.factor < 0.6, slow, "{}", line.action);
            assert_eq!(line.estimated_wait > Duration::from_millis(900), slow, "{}", line.action);
        }
    }
}
