// SPDX-License-Identifier: Apache-2.0
//! Who waits for an address. A runtime asks for a pod again and again, each time as another container.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rhumb_ipam::{AllocateError, Owner};
use rhumb_model::{AttachmentKey, IfName, PodKey};

/// For how long one that was refused for want of an address counts as one that waits.
const SHORT_FOR: Duration = Duration::from_secs(60);

/// Interfaces of pods for which there was no address lately, and when.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    refused: BTreeMap<Waiting, Instant>,
}

/// One that waits, the same each time it asks.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waiting {
    Pod(PodKey, IfName),
    /// Of whom no pod is known.
    Attachment(AttachmentKey),
}

impl Shortage {
    /// Notes how an attempt to lease addresses ended.
    pub(crate) fn note(&mut self, owner: &Owner, error: Option<&AllocateError>, now: Instant) {
        self.refused.retain(|_, at| now.duration_since(*at) < SHORT_FOR);
        let who = match &owner.pod {
            Some(pod) => Waiting::Pod(pod.clone(), owner.attachment.ifname.clone()),
            None => Waiting::Attachment(owner.attachment.clone()),
        };
        match error {
            Some(AllocateError::Exhausted { .. } | AllocateError::NoRange { .. }) => {
                self.refused.insert(who, now);
            }
            Some(_) | None => _ = self.refused.remove(&who),
        }
    }

    /// How many were refused for want of an address in the last minute, and not served since.
    pub(crate) fn count(&self, now: Instant) -> u32 {
        let lately = self.refused.values().filter(|at| now.duration_since(**at) < SHORT_FOR).count();
        u32::try_from(lately).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_model::Family;

    fn owner(container: &str, pod: Option<&str>) -> Owner {
        let attachment = AttachmentKey {
            container: container.parse().expect("valid"),
            ifname: "eth0".parse().expect("valid"),
        };
        let pod = pod.map(|name| PodKey { namespace: "default".to_owned(), name: name.to_owned() });
        Owner { attachment, pod, sticky: false }
    }

    fn none_left() -> AllocateError {
        AllocateError::Exhausted {
            pool: "vpc".parse().expect("valid"),
            family: Family::V4,
            capacity: 9,
            next_free_in: None,
        }
    }

    #[test]
    fn a_pod_that_asks_as_another_container_each_time_waits_once() {
        let (now, mut shortage) = (Instant::now(), Shortage::default());
        for container in ["a", "b", "c"] {
            shortage.note(&owner(container, Some("p")), Some(&none_left()), now);
        }
        shortage.note(&owner("d", Some("q")), Some(&none_left()), now);
        shortage.note(&owner("e", None), Some(&none_left()), now);
        assert_eq!(shortage.count(now), 3);
        shortage.note(&owner("f", Some("p")), None, now);
        assert_eq!(shortage.count(now), 2, "p was served");
    }

    #[test]
    fn who_does_not_ask_again_waits_no_longer() {
        let (now, mut shortage) = (Instant::now(), Shortage::default());
        shortage.note(&owner("a", Some("p")), Some(&none_left()), now);
        assert_eq!(shortage.count(now + SHORT_FOR - Duration::from_secs(1)), 1);
        assert_eq!(shortage.count(now + SHORT_FOR), 0);
    }
}
