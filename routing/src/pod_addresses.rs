// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnetwork::IpNetwork;
use rhumb_model::{AttachmentKey, Target};

use crate::kernel::{Change, Kernel, KernelError, PROTOCOL, Place};
use crate::netlink::Netlink;

/// An address of an attachment's interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodAddress {
    /// Which interface of which container.
    pub attachment: AttachmentKey,
    /// Address with the length of its subnet.
    pub address: IpNetwork,
}

impl fmt::Display for PodAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.address, self.attachment)
    }
}

/// Why an address could not be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Somebody else gave the interface this address.
    #[error("{key} is there already, added by another program")]
    Foreign {
        /// Which address.
        key: PodAddress,
    },
    /// The kernel did not do it.
    #[error("change address {key}")]
    Kernel {
        /// Which address.
        key: PodAddress,
        /// Why.
        #[source]
        cause: KernelError,
    },
    /// The addresses could not be listed.
    #[error("list addresses of pods")]
    Observe {
        /// Why.
        #[source]
        cause: KernelError,
    },
}

/// The addresses inside of pods. Ours carry our number as their protocol (`IFA_PROTO`); those that others add to a
/// pod's interface are left alone. Only open namespaces are looked at; in one that is not open, a removal finds
/// nothing to do.
#[derive(Debug)]
pub struct PodAddresses<K = Netlink> {
    kernel: K,
}

impl<K: Kernel> PodAddresses<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel }
    }

    /// The addresses of ours on the attachment's interface.
    async fn ours(&self, attachment: &AttachmentKey) -> Result<BTreeSet<IpNetwork>, KernelError> {
        let there = self.kernel.pod_addresses(Some(attachment)).await?.remove(attachment).unwrap_or_default();
        let ours = there.into_iter().filter(|address| address.protocol == PROTOCOL);
        Ok(ours.map(|address| address.address).collect())
    }

    async fn apply(&self, attachment: &AttachmentKey, changes: Vec<Change>) -> Vec<Result<(), KernelError>> {
        self.kernel.apply(Place::Pod(attachment.clone()), changes).await
    }

    async fn added(&self, key: &PodAddress, result: Result<(), KernelError>) -> Result<(), AddressError> {
        match result {
            Err(error) if error.is_present() => {
                let ours =
                    self.ours(&key.attachment).await.map_err(|cause| AddressError::Observe { cause })?;
                ours.contains(&key.address)
                    .then_some(())
                    .ok_or_else(|| AddressError::Foreign { key: key.clone() })
            }
            result => result.map_err(|cause| AddressError::Kernel { key: key.clone(), cause }),
        }
    }
}

fn add(key: &PodAddress) -> Change {
    Change::AddAddress(key.attachment.ifname.clone(), key.address)
}

impl<K: Kernel> Target for PodAddresses<K> {
    type Key = PodAddress;
    type Value = ();
    type Error = AddressError;

    fn kind(&self) -> &'static str {
        "pod address"
    }

    fn is_retryable(error: &AddressError) -> bool {
        match error {
            AddressError::Foreign { .. } => false,
            AddressError::Kernel { cause, .. } | AddressError::Observe { cause } => cause.is_retryable(),
        }
    }

    async fn observe(&mut self) -> Result<BTreeMap<PodAddress, ()>, AddressError> {
        let there = self.kernel.pod_addresses(None).await.map_err(|cause| AddressError::Observe { cause })?;
        let mut ours = BTreeMap::new();
        for (attachment, addresses) in there {
            for address in addresses.into_iter().filter(|address| address.protocol == PROTOCOL) {
                ours.insert(PodAddress { attachment: attachment.clone(), address: address.address }, ());
            }
        }
        Ok(ours)
    }

    async fn put(&mut self, key: &PodAddress, (): &()) -> Result<(), AddressError> {
        let result = self.apply(&key.attachment, vec![add(key)]).await.pop().expect("one result per change");
        self.added(key, result).await
    }

    async fn remove(&mut self, key: &PodAddress) -> Result<(), AddressError> {
        self.remove_all(std::slice::from_ref(key)).await.pop().expect("one result per key")
    }

    async fn put_all(&mut self, batch: &[(PodAddress, ())]) -> Vec<Result<(), AddressError>> {
        let mut results = Vec::with_capacity(batch.len());
        for group in batch.chunk_by(|(one, ()), (next, ())| one.attachment == next.attachment) {
            let changes = group.iter().map(|(key, ())| add(key)).collect();
            let applied = self.apply(&group[0].0.attachment, changes).await;
            for ((key, ()), result) in group.iter().zip(applied) {
                results.push(self.added(key, result).await);
            }
        }
        results
    }

    async fn remove_all(&mut self, batch: &[PodAddress]) -> Vec<Result<(), AddressError>> {
        let mut results = Vec::with_capacity(batch.len());
        for group in batch.chunk_by(|one, next| one.attachment == next.attachment) {
            let attachment = &group[0].attachment;
            // The kernel does not compare the protocol when it removes an address.
            let ours = match self.ours(attachment).await {
                Ok(ours) => ours,
                Err(cause) => {
                    results.extend(group.iter().map(|_| Err(AddressError::Observe { cause: cause.again() })));
                    continue;
                }
            };
            let there = group.iter().filter(|key| ours.contains(&key.address));
            let changes =
                there.map(|key| Change::RemoveAddress(attachment.ifname.clone(), key.address)).collect();
            let mut removed = self.apply(attachment, changes).await.into_iter();
            for key in group {
                let removed = ours.contains(&key.address).then(|| removed.next()).flatten();
                results.push(match removed {
                    Some(Err(cause)) if !cause.is_absent() => {
                        Err(AddressError::Kernel { key: key.clone(), cause })
                    }
                    _ => Ok(()),
                });
            }
        }
        results
    }
}
