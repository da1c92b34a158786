// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;

use rhumb_model::{AttachmentKey, IfName, Target};

use crate::kernel::{Bucket, Change, Kernel, KernelError, Place, Shaped};
use crate::links::owner;
use crate::netlink::Netlink;

/// A bucket holds at least one jumbo frame: a frame longer than the bucket would never pass.
const LEAST_BURST: u64 = 9600;
const MOST_BURST: u64 = 1 << 31;
/// Packets may wait for 25 ms of the rate beyond the burst …
const WAIT_PER_SECOND: u64 = 40;
const MOST_WAIT: u64 = 1 << 30;
/// … and a few jumbo frames at any rate.
const LEAST_WAIT: u64 = 4 * 9600;

/// Which way packets go, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Towards the pod: shaped at the host's end.
    Ingress,
    /// From the pod: shaped at the pod's end.
    Egress,
}

/// One direction of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QdiscKey {
    /// Which interface of which container.
    pub attachment: AttachmentKey,
    /// Which way.
    pub direction: Direction,
}

impl fmt::Display for QdiscKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        write!(f, "{direction} of {}", self.attachment)
    }
}

/// A limit of a rate. Two are equal when the kernel cannot tell them apart: it counts in bytes, and a burst is at
/// least one jumbo frame.
#[derive(Debug, Clone, Copy, Eq)]
pub struct TokenBucket {
    /// Bits per second.
    pub rate_bits: u64,
    /// Bits that may pass at once.
    pub burst_bits: u64,
}

impl TokenBucket {
    fn bucket(self) -> Bucket {
        let rate = (self.rate_bits / 8).max(1);
        let burst = (self.burst_bits / 8).clamp(LEAST_BURST, MOST_BURST);
        let limit = burst + wait(rate);
        let fits = "the greatest burst and wait fit together";
        Bucket { rate, burst: u32::try_from(burst).expect(fits), limit: u32::try_from(limit).expect(fits) }
    }

    /// The kernel tells the burst only as a time, rounded; but the limit is exact, and the burst is part of it.
    fn observed(shaped: &Shaped) -> Self {
        let burst = u64::from(shaped.limit).saturating_sub(wait(shaped.rate));
        Self { rate_bits: shaped.rate.saturating_mul(8), burst_bits: burst * 8 }
    }
}

fn wait(rate: u64) -> u64 {
    (rate / WAIT_PER_SECOND).clamp(LEAST_WAIT, MOST_WAIT)
}

impl PartialEq for TokenBucket {
    fn eq(&self, other: &Self) -> bool {
        self.bucket() == other.bucket()
    }
}

/// Why a rate could not be limited or freed.
#[derive(Debug, thiserror::Error)]
pub enum QdiscError {
    /// The host's end of the attachment's pair is not there.
    #[error("limit {key}: no link of ours leads there")]
    NoLink {
        /// Which direction of which attachment.
        key: QdiscKey,
    },
    /// Somebody else shapes this interface.
    #[error("limit {key}: the interface has a queueing discipline of another program")]
    Foreign {
        /// Which direction of which attachment.
        key: QdiscKey,
    },
    /// The kernel did not do it.
    #[error("limit {key}")]
    Kernel {
        /// Which direction of which attachment.
        key: QdiscKey,
        /// Why.
        #[source]
        cause: KernelError,
    },
    /// The queueing disciplines could not be listed.
    #[error("list queueing disciplines")]
    Observe {
        /// Why.
        #[source]
        cause: KernelError,
    },
}

/// The token buckets (TBF) of rhumb, known by their handle `7268:`: at the root of the host's end for what goes to a
/// pod, at the root of the pod's end for what comes from it. A queueing discipline of others at the same place is
/// left there, and is an error. In a namespace that is not open, a removal finds nothing to do.
#[derive(Debug)]
pub struct Qdiscs<K = Netlink> {
    kernel: K,
}

impl<K: Kernel> Qdiscs<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel }
    }

    /// Where the key's interface is; `None` when there is no pair.
    async fn interface(&self, key: &QdiscKey) -> Result<Option<(Place, IfName)>, QdiscError> {
        if key.direction == Direction::Egress {
            let place = Place::Pod(key.attachment.clone());
            return Ok(Some((place, key.attachment.ifname.clone())));
        }
        let host = self.kernel.host_links().await.map_err(|cause| QdiscError::Observe { cause })?;
        let end = host.links.into_iter().find(|link| owner(link).as_ref() == Some(&key.attachment));
        Ok(end.map(|link| (Place::Host, link.name)))
    }

    async fn apply(&self, place: Place, change: Change) -> Result<(), KernelError> {
        self.kernel.apply(place, vec![change]).await.pop().expect("one result per change")
    }
}

impl<K: Kernel> Target for Qdiscs<K> {
    type Key = QdiscKey;
    type Value = TokenBucket;
    type Error = QdiscError;

    fn kind(&self) -> &'static str {
        "qdisc"
    }

    fn is_retryable(error: &QdiscError) -> bool {
        match error {
            QdiscError::Foreign { .. } => false,
            QdiscError::NoLink { .. } => true,
            QdiscError::Kernel { cause, .. } | QdiscError::Observe { cause } => cause.is_retryable(),
        }
    }

    async fn observe(&mut self) -> Result<BTreeMap<QdiscKey, TokenBucket>, QdiscError> {
        let failed = |cause| QdiscError::Observe { cause };
        let mut buckets = BTreeMap::new();
        let shaped = self.kernel.host_buckets().await.map_err(failed)?;
        if !shaped.is_empty() {
            let host = self.kernel.host_links().await.map_err(failed)?;
            for link in &host.links {
                let (Some(attachment), Some(shaped)) =
                    (owner(link), shaped.iter().find(|shaped| shaped.ifname == link.name))
                else {
                    continue;
                };
                let key = QdiscKey { attachment, direction: Direction::Ingress };
                buckets.insert(key, TokenBucket::observed(shaped));
            }
        }
        for (attachment, shaped) in self.kernel.pod_buckets().await.map_err(failed)? {
            let key = QdiscKey { attachment, direction: Direction::Egress };
            buckets.insert(key, TokenBucket::observed(&shaped));
        }
        Ok(buckets)
    }

    async fn put(&mut self, key: &QdiscKey, value: &TokenBucket) -> Result<(), QdiscError> {
        let Some((place, ifname)) = self.interface(key).await? else {
            return Err(QdiscError::NoLink { key: key.clone() });
        };
        match self.apply(place, Change::PutBucket(ifname, value.bucket())).await {
            Err(error) if error.is_present() => Err(QdiscError::Foreign { key: key.clone() }),
            result => result.map_err(|cause| QdiscError::Kernel { key: key.clone(), cause }),
        }
    }

    async fn remove(&mut self, key: &QdiscKey) -> Result<(), QdiscError> {
        let Some((place, ifname)) = self.interface(key).await? else { return Ok(()) };
        match self.apply(place, Change::RemoveBucket(ifname)).await {
            Err(cause) if !cause.is_absent() => Err(QdiscError::Kernel { key: key.clone(), cause }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_is_recognized_from_what_the_kernel_tells(rate_bits in 8u64.., burst_bits: u64) {
            let wished = TokenBucket { rate_bits, burst_bits };
            let Bucket { rate, limit, .. } = wished.bucket();
            let ifname = IfName::new("eth0").expect("valid");
            prop_assert_eq!(TokenBucket::observed(&Shaped { ifname, rate, limit }), wished);
        }
    }

    #[test]
    fn different_rates_and_bursts_differ() {
        let bucket = |rate_bits, burst_bits| TokenBucket { rate_bits, burst_bits };
        assert_ne!(bucket(1_000_000, 1_000_000), bucket(2_000_000, 1_000_000));
        assert_ne!(bucket(1_000_000, 1_000_000), bucket(1_000_000, 2_000_000));
        assert_eq!(bucket(1_000_000, 8), bucket(1_000_001, 16), "less than the kernel can tell apart");
    }
}
