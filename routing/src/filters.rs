// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rhumb_model::{IfName, Target};

use crate::kernel::{Hook, Kernel, KernelError, NewFilter};
use crate::netlink::Netlink;

/// One hook of one interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterKey {
    /// Name of the interface.
    pub ifname: IfName,
    /// Which packets.
    pub hook: Hook,
}

impl fmt::Display for FilterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.hook, self.ifname)
    }
}

/// The program at a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Index of the interface: another interface under the same name is another value.
    pub ifindex: u32,
    /// The kernel's number of the program.
    pub program: u32,
}

/// Why a program could not be put at a hook or removed from it.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The program is none of those that the target was made with.
    #[error("put a program at {key}: program {program} is not loaded for it")]
    UnknownProgram {
        /// Which hook.
        key: FilterKey,
        /// The kernel's number of the program.
        program: u32,
    },
    /// The interface is gone, or another one has its name or index now.
    #[error("put a program at {key}: the interface with index {ifindex} is gone")]
    LinkGone {
        /// Which hook.
        key: FilterKey,
        /// Index that was asked for.
        ifindex: u32,
    },
    /// Another program put a queueing discipline `ingress` there, where `clsact` would have to be.
    #[error("put a program at {key}: the interface has a queueing discipline \"ingress\" of another program")]
    Foreign {
        /// Which hook.
        key: FilterKey,
    },
    /// The kernel did not put the program there.
    #[error("put a program at {key}")]
    Put {
        /// Which hook.
        key: FilterKey,
        /// Why.
        #[source]
        cause: KernelError,
    },
    /// The kernel did not remove the program.
    #[error("remove the program at {key}")]
    Remove {
        /// Which hook.
        key: FilterKey,
        /// Why.
        #[source]
        cause: KernelError,
    },
    /// The programs at hooks could not be listed.
    #[error("list programs at hooks")]
    Observe {
        /// Why.
        #[source]
        cause: KernelError,
    },
}

/// The BPF programs of rhumb at interfaces of the host, as filters of `clsact` (tc-bpf(8)) that say themselves what
/// becomes of a packet: unlike a tcx link, such a filter is there without waiting for all processors.
///
/// Ours are known by their priority and handle, both 0x7268, and their name `rhumb`; filters of other priorities
/// are left alone. A `clsact` that is there already is used, whoever made it, and no removal takes one away: ours
/// goes with its link, and on a link of others one without filters does nothing, while theirs would lose its filters.
#[derive(Debug)]
pub struct Filters<K = Netlink> {
    kernel: K,
    programs: BTreeMap<u32, Arc<OwnedFd>>,
}

impl<K: Kernel> Filters<K> {
    /// Takes a kernel, and the programs that may be put by the kernel's numbers of them.
    pub fn new(kernel: K, programs: BTreeMap<u32, Arc<OwnedFd>>) -> Self {
        Self { kernel, programs }
    }

    fn filter(&self, key: &FilterKey, value: &Filter) -> Result<NewFilter, FilterError> {
        let Filter { ifindex, program } = *value;
        let fd = self.programs.get(&program).cloned();
        let fd = fd.ok_or_else(|| FilterError::UnknownProgram { key: key.clone(), program })?;
        Ok(NewFilter { ifname: key.ifname.clone(), ifindex, hook: key.hook, program, fd })
    }
}

fn refusal(key: &FilterKey, value: &Filter, cause: KernelError) -> FilterError {
    let key = key.clone();
    if matches!(cause, KernelError::NoLink { .. }) {
        FilterError::LinkGone { key, ifindex: value.ifindex }
    } else if cause.is_present() {
        FilterError::Foreign { key }
    } else {
        FilterError::Put { key, cause }
    }
}

impl<K: Kernel> Target for Filters<K> {
    type Key = FilterKey;
    type Value = Filter;
    type Error = FilterError;

    fn kind(&self) -> &'static str {
        "filter"
    }

    fn is_retryable(error: &FilterError) -> bool {
        match error {
            FilterError::UnknownProgram { .. } | FilterError::Foreign { .. } => false,
            FilterError::LinkGone { .. } => true,
            FilterError::Put { cause, .. }
            | FilterError::Remove { cause, .. }
            | FilterError::Observe { cause } => cause.is_retryable(),
        }
    }

    async fn observe(&mut self) -> Result<BTreeMap<FilterKey, Filter>, FilterError> {
        let found = self.kernel.filters().await.map_err(|cause| FilterError::Observe { cause })?;
        let entry = found.into_iter().map(|found| {
            let key = FilterKey { ifname: found.ifname, hook: found.hook };
            (key, Filter { ifindex: found.ifindex, program: found.program })
        });
        Ok(entry.collect())
    }

    async fn put(&mut self, key: &FilterKey, value: &Filter) -> Result<(), FilterError> {
        self.put_all(&[(key.clone(), *value)]).await.pop().expect("one result per item")
    }

    async fn remove(&mut self, key: &FilterKey) -> Result<(), FilterError> {
        self.remove_all(std::slice::from_ref(key)).await.pop().expect("one result per key")
    }

    async fn put_all(&mut self, batch: &[(FilterKey, Filter)]) -> Vec<Result<(), FilterError>> {
        let mut filters = Vec::with_capacity(batch.len());
        let mut known = Vec::with_capacity(batch.len());
        for (key, value) in batch {
            known.push(self.filter(key, value).map(|filter| filters.push(filter)));
        }
        let mut put = self.kernel.put_filters(filters).await.into_iter();
        let result = |((key, value), known): (&(FilterKey, Filter), Result<(), FilterError>)| {
            known?;
            let put = put.next().expect("one result per filter");
            put.map_err(|cause| refusal(key, value, cause))
        };
        batch.iter().zip(known).map(result).collect()
    }

    async fn remove_all(&mut self, batch: &[FilterKey]) -> Vec<Result<(), FilterError>> {
        let hooks = batch.iter().map(|key| (key.ifname.clone(), key.hook)).collect();
        let removed = self.kernel.remove_filters(hooks).await;
        let result = |(key, removed): (&FilterKey, Result<(), KernelError>)| match removed {
            Err(cause) if !cause.is_absent() => Err(FilterError::Remove { key: key.clone(), cause }),
            _ => Ok(()),
        };
        batch.iter().zip(removed).map(result).collect()
    }
}
