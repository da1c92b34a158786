// SPDX-License-Identifier: Apache-2.0

use std::error::Error;

use crate::ObjectKey;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object (404).
    #[error("{kind} {key} does not exist")]
    NotFound {
        /// Kind of the object.
        kind: &'static str,
        /// Which one.
        key: ObjectKey,
    },
    /// There is such an object already (409, reason `AlreadyExists`).
    #[error("{kind} {key} exists already")]
    AlreadyExists {
        /// Kind of the object.
        kind: &'static str,
        /// Which one.
        key: ObjectKey,
    },
    /// The object was changed since it was read: read it again and decide anew (409, reason `Conflict`).
    #[error("{kind} {key} was changed since it was read")]
    Conflict {
        /// Kind of the object.
        kind: &'static str,
        /// Which one.
        key: ObjectKey,
    },
    /// The object breaks a rule of its kind (422).
    #[error("{kind} {key} is not valid: {field}: {message}")]
    Invalid {
        /// Kind of the object.
        kind: &'static str,
        /// Which one.
        key: ObjectKey,
        /// Path of the field that is wrong.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The store cannot do this now.
    #[error("{doing}")]
    Unavailable {
        /// What was being done, for example `read the object directory`.
        doing: &'static str,
        /// Why it could not be done.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call may succeed later. A conflict needs a new reading first, so it is not retryable as it is.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. })
    }

    /// Whether the object was changed since it was read.
    pub fn is_conflict(&self) -> bool {
        matches!(self, StoreError::Conflict { .. })
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, StoreError::NotFound { .. })
    }

    /// Whether there is such an object already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, StoreError::AlreadyExists { .. })
    }
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// What happened since that version is no longer known: list again (410).
    #[error("the version to watch from is too old")]
    TooOld,
    /// The store can give no more events now.
    #[error("watch ended")]
    Ended(#[source] StoreError),
}
