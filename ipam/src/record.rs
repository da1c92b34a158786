// SPDX-License-Identifier: Apache-2.0

use rhumb_model::{PoolName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Lease;

/// What a [`crate::Journal`] keeps of a pool: a change, or, after compaction, what is left of all changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub enum Record {
    /// The address has this owner.
    Leased {
        /// The address with its owner.
        lease: Lease,
    },
    /// The address had this owner.
    Released {
        /// The address with its last owner.
        lease: Lease,
        /// When the owner gave it back.
        released: Timestamp,
    },
}

impl Record {
    /// The pool it is about.
    pub fn pool(&self) -> &PoolName {
        match self {
            Record::Leased { lease } | Record::Released { lease, .. } => &lease.pool,
        }
    }
}
