// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rhumb_model::{AttachmentKey, Family, PodKey, PoolName};

/// Why a pool leases nothing. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// Every address of a family is leased or cools down.
    #[error("lease an {family} address from pool {pool}: none of its {capacity} is free{}", Next(*next_free_in))]
    Exhausted {
        /// The pool.
        pool: PoolName,
        /// The family that ran out.
        family: Family,
        /// How many addresses the node has of it.
        capacity: u64,
        /// How long until the first released address has cooled down; `None` when all are leased.
        next_free_in: Option<Duration>,
    },
    /// The node has no range of the pool, in either family.
    #[error("lease an address from pool {pool}: the node has no range of it")]
    NoRange {
        /// The pool.
        pool: PoolName,
    },
    /// The wanted address is in no range that the node has of the pool.
    #[error("lease {addr} from pool {pool}: it is in no range of this node")]
    NotInPool {
        /// The wanted address.
        addr: IpAddr,
        /// The pool.
        pool: PoolName,
    },
    /// The wanted address is never leased.
    #[error("lease {addr} from pool {pool}: it is reserved")]
    Reserved {
        /// The wanted address.
        addr: IpAddr,
        /// The pool.
        pool: PoolName,
    },
    /// The wanted address is leased.
    #[error("lease {addr} from pool {pool}: {holder} has it")]
    Taken {
        /// The wanted address.
        addr: IpAddr,
        /// The pool.
        pool: PoolName,
        /// Who has it.
        holder: AttachmentKey,
    },
    /// The wanted address was released a moment ago by somebody else.
    #[error("lease {addr} from pool {pool}: it cools down{}", Next(Some(*free_in)))]
    Cooling {
        /// The wanted address.
        addr: IpAddr,
        /// The pool.
        pool: PoolName,
        /// How long until it is free.
        free_in: Duration,
    },
    /// The wanted address waits for another pod.
    #[error("lease {addr} from pool {pool}: it is kept for pod {pod}{}", Next(Some(*free_in)))]
    Kept {
        /// The wanted address.
        addr: IpAddr,
        /// The pool.
        pool: PoolName,
        /// The pod it waits for.
        pod: PodKey,
        /// How long until it is free.
        free_in: Duration,
    },
    /// Two addresses of one family are wanted.
    #[error("lease {first} and {second} from pool {pool}: an interface gets one address of a family")]
    TwoOfAFamily {
        /// The pool.
        pool: PoolName,
        /// The first that is wanted.
        first: IpAddr,
        /// The second of the same family.
        second: IpAddr,
    },
}

impl AllocateError {
    /// Whether the same call may succeed soon without a change of what it asks for: when an address was released or
    /// has cooled down, or the node got another range.
    pub fn is_retryable(&self) -> bool {
        match self {
            AllocateError::Exhausted { .. }
            | AllocateError::NoRange { .. }
            | AllocateError::Cooling { .. } => true,
            AllocateError::NotInPool { .. }
            | AllocateError::Reserved { .. }
            | AllocateError::Taken { .. }
            | AllocateError::Kept { .. }
            | AllocateError::TwoOfAFamily { .. } => false,
        }
    }
}

/// When the wait is over, as the end of a message.
struct Next(Option<Duration>);

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, "; free in {:.1} s", wait.as_secs_f64()),
            None => Ok(()),
        }
    }
}

/// Why a lease cannot be restored: the journal and the pool disagree. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Two owners have one address.
    #[error("restore the lease of {addr} to {owner}: {holder} has it")]
    DoubleLease {
        /// The address.
        addr: IpAddr,
        /// Who is to get it.
        owner: AttachmentKey,
        /// Who has it already.
        holder: AttachmentKey,
    },
    /// The lease belongs to another pool.
    #[error("restore the lease of {addr} to pool {pool}: it is of pool {other}")]
    OtherPool {
        /// The address.
        addr: IpAddr,
        /// This pool.
        pool: PoolName,
        /// The lease's pool.
        other: PoolName,
    },
}
