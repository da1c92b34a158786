// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use rhumb_model::Target;

use crate::kernel::{Change, Kernel, KernelError, Place, PolicyRule};
use crate::netlink::Netlink;

/// Why a rule could not be put or removed.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// The kernel did not do it.
    #[error("change rule {rule}")]
    Kernel {
        /// The rule.
        rule: PolicyRule,
        /// Why.
        #[source]
        cause: KernelError,
    },
    /// The rules could not be listed.
    #[error("list rules")]
    Observe {
        /// Why.
        #[source]
        cause: KernelError,
    },
}

/// The rules of rhumb, known by their protocol number. A rule has no parts that could differ: it is there or it is not.
#[derive(Debug)]
pub struct Rules<K = Netlink> {
    kernel: K,
}

impl<K: Kernel> Rules<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel }
    }

    async fn change(&self, change: Change) -> Result<(), KernelError> {
        self.kernel.apply(Place::Host, vec![change]).await.pop().expect("one result per change")
    }
}

impl<K: Kernel> Target for Rules<K> {
    type Key = PolicyRule;
    type Value = ();
    type Error = RuleError;

    fn kind(&self) -> &'static str {
        "rule"
    }

    fn is_retryable(error: &RuleError) -> bool {
        match error {
            RuleError::Kernel { cause, .. } | RuleError::Observe { cause } => cause.is_retryable(),
        }
    }

    async fn observe(&mut self) -> Result<BTreeMap<PolicyRule, ()>, RuleError> {
        let rules = self.kernel.rules().await.map_err(|cause| RuleError::Observe { cause })?;
        Ok(rules.into_iter().map(|rule| (rule, ())).collect())
    }

    async fn put(&mut self, key: &PolicyRule, (): &()) -> Result<(), RuleError> {
        match self.change(Change::AddRule(*key)).await {
            // The kernel tells rules apart by their protocol as well, so what is there already is ours.
            Err(error) if error.is_present() => Ok(()),
            result => result.map_err(|cause| RuleError::Kernel { rule: *key, cause }),
        }
    }

    async fn remove(&mut self, key: &PolicyRule) -> Result<(), RuleError> {
        match self.change(Change::RemoveRule(*key)).await {
            Err(error) if error.is_absent() => Ok(()),
            result => result.map_err(|cause| RuleError::Kernel { rule: *key, cause }),
        }
    }
}
