// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rhumb_cloud::{Action, Bucket, Rate};

/// Buckets of calls, by the second of the virtual clock.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    start: Instant,
    buckets: BTreeMap<&'static str, Bucket>,
}

/// Cilium's limit of its own for all calls together (`limit-ipam-api-qps`, `limit-ipam-api-burst`).
const ONE_FOR_ALL: Rate = Rate { capacity: 20.0, per_second: 4.0 };

impl Pace {
    /// The operator's own buckets, which take so much of what EC2 allows.
    pub(super) fn published(share: f64) -> Self {
        let start = Instant::now();
        let bucket = |action: Action| (action.name(), Bucket::new(action.published(), share, start));
        Self { start, buckets: Action::ALL.into_iter().map(bucket).collect() }
    }

    pub(super) fn one_for_all() -> Self {
        let start = Instant::now();
        Self { start, buckets: [("", Bucket::new(ONE_FOR_ALL, 1.0, start))].into() }
    }

    /// Whether the call may be made in this second.
    pub(super) fn take(&mut self, call: &str, second: u64) -> bool {
        let now = self.start + Duration::from_secs(second);
        self.buckets.get_mut(call).is_some_and(|bucket| bucket.take(now))
    }

    /// EC2 refused the call.
    pub(super) fn refused(&mut self, call: &str, second: u64) {
        let now = self.start + Duration::from_secs(second);
        self.buckets.get_mut(call).into_iter().for_each(|bucket| bucket.refuse(now));
    }
}
