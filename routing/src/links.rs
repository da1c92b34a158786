// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use rhumb_model::{AttachmentKey, IfName, MacAddr, Target};

use crate::kernel::{Change, HostLinks, Kernel, KernelError, Link, Pair, Place};
use crate::netlink::Netlink;

/// Begins the alias of every host's end that is ours; the attachment follows.
const ALIAS: &str = "rhumb:";
/// Stands for the MTU of a pair that is not whole: switched off, without its gateway address, or leading elsewhere.
const NOT_WHOLE: u32 = 0;

/// The pair of links of an attachment.
///
/// Two values are equal when the host's end is: the MAC address of the pod's end is set when the pair is made, and
/// from then on belongs to the pod, which may change it. So a difference in it alone is none.
#[derive(Debug, Clone, Eq)]
pub struct LinkSpec {
    /// Name of the host's end.
    pub host: IfName,
    /// MAC address of the pod's end when the pair is made. What is observed repeats the one of the last `put`, or
    /// where there was none since the start, that of the host's end.
    pub mac: MacAddr,
    /// MAC address of the host's end.
    pub host_mac: MacAddr,
    /// MTU of both ends in bytes.
    pub mtu: u32,
}

impl PartialEq for LinkSpec {
    fn eq(&self, other: &Self) -> bool {
        (&self.host, self.host_mac, self.mtu) == (&other.host, other.host_mac, other.mtu)
    }
}

/// What is known about the host's end of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFacts {
    /// Index on the host.
    pub ifindex: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// MAC address.
    pub host_mac: MacAddr,
    /// Whether it is switched on.
    pub up: bool,
}

/// Why a pair could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The pod has an interface of that name that is not ours.
    #[error("the pod already has an interface {ifname}")]
    InterfaceExists {
        /// Its name.
        ifname: IfName,
    },
    /// The host has an interface of the name of the host's end that is not ours.
    #[error("the host already has an interface {ifname}")]
    HostInterfaceExists {
        /// Its name.
        ifname: IfName,
    },
    /// The kernel did not do it.
    #[error("set up the link of {key}")]
    Kernel {
        /// Which attachment.
        key: AttachmentKey,
        /// Why.
        #[source]
        cause: KernelError,
    },
    /// The links could not be listed.
    #[error("list links")]
    Observe {
        /// Why.
        #[source]
        cause: KernelError,
    },
}

/// Whether the link is the host's end of a pair of rhumb.
pub(crate) fn is_ours(link: &Link) -> bool {
    owner(link).is_some()
}

/// The attachment that the link belongs to, by its alias.
pub(crate) fn owner(link: &Link) -> Option<AttachmentKey> {
    link.alias.as_deref()?.strip_prefix(ALIAS)?.parse().ok()
}

/// The pairs of links between the host and its pods. Ours are those whose host's end has an alias
/// `rhumb:CONTAINER/IFNAME`; nothing else is touched.
///
/// A pair that was made anew has lost its addresses, routes, attached programs and queueing disciplines: whoever
/// puts those looks again then ([`LinkFacts::ifindex`] has changed).
#[derive(Debug)]
pub struct Links<K = Netlink> {
    kernel: K,
    seen: BTreeMap<AttachmentKey, Seen>,
    macs: BTreeMap<AttachmentKey, MacAddr>,
}

#[derive(Debug, Clone)]
struct Seen {
    name: IfName,
    facts: LinkFacts,
    gateway: bool,
    leads_to_pod: bool,
}

impl Seen {
    fn is_whole(&self) -> bool {
        self.facts.up && self.gateway && self.leads_to_pod
    }
}

impl<K: Kernel> Links<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel, seen: BTreeMap::new(), macs: BTreeMap::new() }
    }

    /// What the last look or change found out about the pair of `key`.
    pub fn facts(&self, key: &AttachmentKey) -> Option<LinkFacts> {
        self.seen.get(key).map(|seen| seen.facts)
    }

    async fn look(&mut self) -> Result<HostLinks, KernelError> {
        let host = self.kernel.host_links().await?;
        self.seen =
            host.links.iter().filter_map(|link| Some((owner(link)?, self.see(link, &host)?))).collect();
        self.macs.retain(|key, _| self.seen.contains_key(key));
        Ok(host)
    }

    fn see(&self, link: &Link, host: &HostLinks) -> Option<Seen> {
        let key = owner(link)?;
        let facts = LinkFacts { ifindex: link.ifindex, mtu: link.mtu, host_mac: link.mac?, up: link.up };
        // Of a namespace that is not open nobody can say whether the pair leads there.
        let peer = link.peer.and_then(|peer| peer.netns);
        let leads_to_pod =
            !self.kernel.is_open(&key) || (peer.is_some() && peer == host.namespaces.get(&key).copied());
        Some(Seen {
            name: link.name.clone(),
            facts,
            gateway: host.gateways.contains(&link.name),
            leads_to_pod,
        })
    }

    fn pair(key: &AttachmentKey, value: &LinkSpec) -> Pair {
        Pair {
            host: value.host.clone(),
            alias: format!("{ALIAS}{key}"),
            host_mac: value.host_mac,
            key: key.clone(),
            mac: value.mac,
            mtu: value.mtu,
        }
    }

    fn made(&mut self, key: &AttachmentKey, value: &LinkSpec, ifindex: u32) {
        let facts = LinkFacts { ifindex, mtu: value.mtu, host_mac: value.host_mac, up: true };
        let seen = Seen { name: value.host.clone(), facts, gateway: true, leads_to_pod: true };
        self.seen.insert(key.clone(), seen);
        self.macs.insert(key.clone(), value.mac);
    }

    async fn make(&mut self, key: &AttachmentKey, value: &LinkSpec) -> Result<(), KernelError> {
        let made = self.kernel.create_pairs(vec![Self::pair(key, value)]).await.pop();
        let ifindex = made.expect("one result per pair")?;
        self.made(key, value, ifindex);
        Ok(())
    }

    /// Brings what is there to `value`, as it was found just now.
    async fn settle(&mut self, key: &AttachmentKey, value: &LinkSpec) -> Result<(), LinkError> {
        let kernel_error = |cause| LinkError::Kernel { key: key.clone(), cause };
        let host = self.look().await.map_err(|cause| LinkError::Observe { cause })?;
        if let Some(seen) = self.seen.get(key).cloned() {
            if seen.leads_to_pod && seen.name == value.host {
                return self.change(key, value, &seen).await.map_err(kernel_error);
            }
            self.remove(key).await?;
        }
        if host.links.iter().any(|link| link.name == value.host && owner(link).as_ref() != Some(key)) {
            return Err(LinkError::HostInterfaceExists { ifname: value.host.clone() });
        }
        match self.make(key, value).await {
            Err(error) if error.is_present() => {
                Err(LinkError::InterfaceExists { ifname: key.ifname.clone() })
            }
            result => result.map_err(kernel_error),
        }
    }

    async fn change(
        &mut self,
        key: &AttachmentKey,
        value: &LinkSpec,
        seen: &Seen,
    ) -> Result<(), KernelError> {
        if !self.kernel.is_open(key) {
            return Err(KernelError::NotOpen { key: key.clone() });
        }
        let mtu = (seen.facts.mtu != value.mtu).then_some(value.mtu);
        let mut inside = Vec::new();
        if mtu.is_some() || !seen.gateway {
            inside.push(Change::SetLink { ifname: key.ifname.clone(), mac: None, mtu });
        }
        if !seen.gateway {
            // The gateway's address comes last when a pair is made, so the pod's side may not be finished either.
            let loopback = IfName::new("lo").expect("a valid name");
            inside.push(Change::SetLink { ifname: loopback, mac: None, mtu: None });
        }
        for result in self.kernel.apply(Place::Pod(key.clone()), inside).await {
            match result {
                // The pod gave its end another name, and so has taken charge of it.
                Err(KernelError::NoLink { .. }) => {}
                result => result?,
            }
        }
        let mac = (seen.facts.host_mac != value.host_mac).then_some(value.host_mac);
        let mut changes = Vec::new();
        if mac.is_some() || mtu.is_some() || !seen.facts.up {
            changes.push(Change::SetLink { ifname: seen.name.clone(), mac, mtu });
        }
        if !seen.gateway {
            changes.push(Change::AddGateway(seen.name.clone()));
        }
        for result in self.kernel.apply(Place::Host, changes).await {
            result?;
        }
        self.made(key, value, seen.facts.ifindex);
        Ok(())
    }
}

impl<K: Kernel> Target for Links<K> {
    type Key = AttachmentKey;
    type Value = LinkSpec;
    type Error = LinkError;

    fn kind(&self) -> &'static str {
        "link"
    }

    fn is_retryable(error: &LinkError) -> bool {
        match error {
            LinkError::InterfaceExists { .. } | LinkError::HostInterfaceExists { .. } => false,
            LinkError::Kernel { cause, .. } | LinkError::Observe { cause } => cause.is_retryable(),
        }
    }

    async fn observe(&mut self) -> Result<BTreeMap<AttachmentKey, LinkSpec>, LinkError> {
        self.look().await.map_err(|cause| LinkError::Observe { cause })?;
        let value = |(key, seen): (&AttachmentKey, &Seen)| {
            let LinkFacts { mtu, host_mac, .. } = seen.facts;
            let mac = self.macs.get(key).copied().unwrap_or(host_mac);
            let mtu = if seen.is_whole() { mtu } else { NOT_WHOLE };
            (key.clone(), LinkSpec { host: seen.name.clone(), mac, host_mac, mtu })
        };
        Ok(self.seen.iter().map(value).collect())
    }

    async fn put(&mut self, key: &AttachmentKey, value: &LinkSpec) -> Result<(), LinkError> {
        if !self.seen.contains_key(key) && self.make(key, value).await.is_ok() {
            return Ok(());
        }
        self.settle(key, value).await
    }

    async fn remove(&mut self, key: &AttachmentKey) -> Result<(), LinkError> {
        self.remove_all(std::slice::from_ref(key)).await.pop().expect("one result per key")
    }

    async fn put_all(&mut self, batch: &[(AttachmentKey, LinkSpec)]) -> Vec<Result<(), LinkError>> {
        let fresh: Vec<_> = batch.iter().filter(|(key, _)| !self.seen.contains_key(key)).collect();
        let pairs = fresh.iter().map(|(key, value)| Self::pair(key, value)).collect();
        let mut done = BTreeSet::new();
        for ((key, value), made) in fresh.into_iter().zip(self.kernel.create_pairs(pairs).await) {
            if let Ok(ifindex) = made {
                self.made(key, value, ifindex);
                done.insert(key);
            }
        }
        let mut results = Vec::with_capacity(batch.len());
        for (key, value) in batch {
            results.push(if done.contains(key) { Ok(()) } else { self.settle(key, value).await });
        }
        results
    }

    async fn remove_all(&mut self, batch: &[AttachmentKey]) -> Vec<Result<(), LinkError>> {
        if batch.iter().any(|key| !self.seen.contains_key(key))
            && let Err(error) = self.look().await
        {
            return batch.iter().map(|_| Err(LinkError::Observe { cause: error.again() })).collect();
        }
        let there: Vec<_> = batch.iter().filter(|key| self.seen.contains_key(key)).collect();
        let indices = there.iter().map(|key| self.seen[*key].facts.ifindex).collect();
        let deleted = self.kernel.delete_links(indices).await;
        let mut errors = BTreeMap::new();
        for (key, result) in there.into_iter().zip(deleted) {
            match result {
                Err(error) if !error.is_absent() => drop(errors.insert(key, error)),
                _ => drop(self.seen.remove(key)),
            }
        }
        let result = |key: &AttachmentKey| match errors.remove(key) {
            Some(cause) => Err(LinkError::Kernel { key: key.clone(), cause }),
            None => Ok(()),
        };
        batch.iter().map(result).collect()
    }
}
