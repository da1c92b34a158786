// SPDX-License-Identifier: Apache-2.0

/// The pool has IPv4 and IPv6 addresses; which lab a case runs in follows from it.
pub(crate) const POOL_WITH_BOTH_FAMILIES: &str = "pool with both families";

/// Every state that a case can begin with.
pub(crate) const WORDS: &[&str] = &[POOL_WITH_BOTH_FAMILIES];
