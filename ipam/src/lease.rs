// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use rhumb_model::{AttachmentKey, PodKey, PoolName, Timestamp};
use serde::{Deserialize, Serialize};

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Which interface of which container.
    pub attachment: AttachmentKey,
    /// The pod, where the runtime named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodKey>,
    /// Whether the pod's interface of this name is to get the same address when it comes again.
    #[serde(default)]
    pub sticky: bool,
}

impl Owner {
    /// Whether both are the same attachment or the same pod.
    pub(crate) fn is_same_as(&self, other: &Owner) -> bool {
        self.attachment == other.attachment || (self.pod.is_some() && self.pod == other.pod)
    }
}

/// What an owner asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// These addresses and no others, at most one of a family. A family that is not named gets any address.
    pub wanted: Vec<IpAddr>,
}

/// An address with its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub addr: IpAddr,
    /// The pool it belongs to.
    pub pool: PoolName,
    /// Who has it.
    pub owner: Owner,
    /// When it was leased.
    pub since: Timestamp,
}

/// Why an address is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// Its owner has it.
    Held,
    /// Released; free from then on.
    Cooling {
        /// When the cool-down ends.
        until: Timestamp,
    },
    /// Released and sticky: it waits for its pod.
    Kept {
        /// When the wait ends.
        until: Timestamp,
    },
}
