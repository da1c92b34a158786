// SPDX-License-Identifier: Apache-2.0
//! A kernel in memory: it refuses what the real one refuses, and takes along what the real one takes along.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rhumb_model::{AttachmentKey, IfName};
use rustix::io::Errno;

use crate::kernel::{
    Address, Bucket, ByPod, Change, FilterFound, Hook, HostLinks, Kernel, KernelError, Link, NewFilter,
    NewTunnel, NextHop, PROTOCOL, Pair, Peer, Place, PolicyRule, Route, Shaped, Tunnel,
};

/// A kernel in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeKernel(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    /// Namespaces by the number that the others know them by; the host is number 0.
    namespaces: BTreeMap<i32, FakeNamespace>,
    open: BTreeMap<AttachmentKey, i32>,
    last_index: u32,
    last_namespace: i32,
    calls: usize,
    failing: Option<usize>,
}

/// A network namespace of the [`FakeKernel`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakeNamespace {
    /// Links by name.
    pub links: BTreeMap<IfName, Link>,
    /// What the links that are VXLAN devices do.
    pub tunnels: BTreeMap<IfName, FakeTunnel>,
    /// Links with `fe80::1/64`.
    pub gateways: BTreeSet<IfName>,
    /// Addresses of all links.
    pub addresses: BTreeSet<Address>,
    /// Routes of the main table.
    pub routes: BTreeSet<Route>,
    /// Routes of other tables, with the number of the table.
    pub tables: BTreeSet<(u32, Route)>,
    /// Rules, and who put each.
    pub rules: BTreeSet<(PolicyRule, u8)>,
    /// What is at the root of links.
    pub roots: BTreeMap<IfName, FakeRoot>,
    /// What links have for filters to be part of.
    pub classifiers: BTreeMap<IfName, FakeClassifier>,
    /// Programs of rhumb at the hooks of links, by the kernel's numbers.
    pub filters: BTreeMap<(IfName, Hook), u32>,
}

/// A VXLAN device of the [`FakeKernel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FakeTunnel {
    /// UDP port.
    pub port: u16,
    /// Whether its packets carry their destination with them.
    pub external: bool,
}

/// The queueing discipline for filters of a link of the [`FakeKernel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeClassifier {
    /// `clsact`, with both hooks.
    Clsact,
    /// `ingress`, with that hook alone.
    Ingress,
}

/// The queueing discipline at the root of a link of the [`FakeKernel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FakeRoot {
    /// A token bucket of rhumb.
    Ours(Bucket),
    /// One of another program.
    Foreign,
}

const HOST: i32 = 0;

impl FakeKernel {
    /// Begins with an empty host.
    pub fn new() -> Self {
        let kernel = Self::default();
        kernel.0.borrow_mut().namespaces.insert(HOST, FakeNamespace::default());
        kernel
    }

    /// Opens a new, empty namespace for an attachment. One that was open before lives on behind its links.
    pub fn open(&self, key: &AttachmentKey) {
        let mut state = self.0.borrow_mut();
        state.last_namespace += 1;
        let number = state.last_namespace;
        state.namespaces.insert(number, FakeNamespace::default());
        state.open.insert(key.clone(), number);
    }

    /// Opens for an attachment the namespace that is open for another one.
    ///
    /// # Panics
    /// That one is not open.
    pub fn open_with(&self, key: &AttachmentKey, other: &AttachmentKey) {
        let mut state = self.0.borrow_mut();
        let number = state.open[other];
        state.open.insert(key.clone(), number);
    }

    /// Closes the namespace of an attachment.
    pub fn forget(&self, key: &AttachmentKey) {
        self.0.borrow_mut().open.remove(key);
    }

    /// Lets the `number`-th call from now on (1 is the next) fail without effect.
    pub fn fail_call(&self, number: usize) {
        let mut state = self.0.borrow_mut();
        state.failing = Some(state.calls + number);
    }

    /// Whether the failure that was asked for has not happened yet; it no longer will.
    pub fn take_failure(&self) -> bool {
        self.0.borrow_mut().failing.take().is_some()
    }

    /// Looks at a namespace, or changes it as another program would.
    ///
    /// # Panics
    /// The namespace is not open.
    pub fn with<T>(&self, place: &Place, work: impl FnOnce(&mut FakeNamespace) -> T) -> T {
        let mut state = self.0.borrow_mut();
        let number = state.number(place).expect("the namespace is open");
        work(state.namespaces.get_mut(&number).expect("every number has a namespace"))
    }

    /// Adds a link that is nobody's pair.
    ///
    /// # Panics
    /// The namespace is not open.
    pub fn add_link(&self, place: &Place, name: &IfName) {
        let ifindex = self.0.borrow_mut().next_index();
        let link =
            Link { ifindex, name: name.clone(), alias: None, mac: None, mtu: 1500, up: true, peer: None };
        self.with(place, |namespace| namespace.links.insert(name.clone(), link));
    }

    fn call<T>(&self, work: impl FnOnce(&mut State) -> Result<T, KernelError>) -> Result<T, KernelError> {
        let mut state = self.0.borrow_mut();
        state.calls += 1;
        if state.failing == Some(state.calls) {
            state.failing = None;
            return Err(refused(Errno::IO));
        }
        work(&mut state)
    }

    fn in_pods<T>(
        &self,
        only: Option<&AttachmentKey>,
        look: impl Fn(&AttachmentKey, &FakeNamespace) -> Option<T>,
    ) -> Result<ByPod<T>, KernelError> {
        self.call(|state| {
            let wanted = state.open.iter().filter(|(key, _)| only.is_none_or(|only| only == *key));
            let there =
                wanted.filter(|(key, number)| state.namespaces[number].links.contains_key(&key.ifname));
            Ok(there
                .filter_map(|(key, number)| Some((key.clone(), look(key, &state.namespaces[number])?)))
                .collect())
        })
    }
}

fn refused(errno: Errno) -> KernelError {
    KernelError::Refused { words: None, cause: errno.into() }
}

fn is_through(route: &Route, name: &IfName) -> bool {
    matches!(&route.next_hop, NextHop::Link { ifname: Some(ifname), .. } if ifname == name)
}

impl State {
    fn number(&self, place: &Place) -> Result<i32, KernelError> {
        match place {
            Place::Host => Ok(HOST),
            Place::Pod(key) => {
                self.open.get(key).copied().ok_or_else(|| KernelError::NotOpen { key: key.clone() })
            }
        }
    }

    fn next_index(&mut self) -> u32 {
        self.last_index += 1;
        self.last_index
    }

    fn space(&mut self, number: i32) -> &mut FakeNamespace {
        self.namespaces.get_mut(&number).expect("every number has a namespace")
    }

    fn create_pair(&mut self, pair: &Pair) -> Result<u32, KernelError> {
        let pod = self.number(&Place::Pod(pair.key.clone()))?;
        let taken = |space: &FakeNamespace, name| space.links.contains_key(name);
        if taken(&self.namespaces[&HOST], &pair.host) || taken(&self.namespaces[&pod], &pair.key.ifname) {
            return Err(refused(Errno::EXIST));
        }
        let (host_index, pod_index) = (self.next_index(), self.next_index());
        let end = |ifindex, name: &IfName, mac, peer, netns| Link {
            ifindex,
            name: name.clone(),
            alias: None,
            mac: Some(mac),
            mtu: pair.mtu,
            up: true,
            peer: Some(Peer { ifindex: peer, netns: Some(netns) }),
        };
        let mut host = end(host_index, &pair.host, pair.host_mac, pod_index, pod);
        host.alias = Some(pair.alias.clone());
        let inner = end(pod_index, &pair.key.ifname, pair.mac, host_index, HOST);
        self.space(HOST).gateways.insert(pair.host.clone());
        self.space(HOST).links.insert(pair.host.clone(), host);
        self.space(pod).links.insert(pair.key.ifname.clone(), inner);
        Ok(host_index)
    }

    fn create_tunnel(&mut self, new: &NewTunnel) -> Result<u32, KernelError> {
        let host = &self.namespaces[&HOST];
        let mut same_port = host.tunnels.values().filter(|tunnel| tunnel.port == new.port);
        if host.links.contains_key(&new.name) {
            return Err(refused(Errno::EXIST));
        }
        if let Some(other) = same_port.next() {
            return Err(refused(if other.external { Errno::EXIST } else { Errno::ADDRINUSE }));
        }
        let ifindex = self.next_index();
        let link = Link {
            ifindex,
            name: new.name.clone(),
            alias: Some(new.alias.clone()),
            mac: Some(new.mac),
            mtu: new.mtu,
            up: true,
            peer: None,
        };
        self.space(HOST).links.insert(new.name.clone(), link);
        let tunnel = FakeTunnel { port: new.port, external: true };
        self.space(HOST).tunnels.insert(new.name.clone(), tunnel);
        Ok(ifindex)
    }

    fn delete(&mut self, number: i32, ifindex: u32) -> Result<(), KernelError> {
        let found = self.space(number).links.values().find(|link| link.ifindex == ifindex).cloned();
        let link = found.ok_or_else(|| refused(Errno::NODEV))?;
        self.space(number).drop_link(&link.name);
        let Some(Peer { ifindex, netns: Some(netns) }) = link.peer else { return Ok(()) };
        let other = self.space(netns).links.values().find(|link| link.ifindex == ifindex).cloned();
        if let Some(other) = other {
            self.space(netns).drop_link(&other.name);
        }
        Ok(())
    }

    fn change(&mut self, place: &Place, change: &Change) -> Result<(), KernelError> {
        let number = self.number(place)?;
        self.space(number).change(place, change)
    }
}

impl FakeNamespace {
    fn drop_link(&mut self, name: &IfName) {
        self.links.remove(name);
        self.tunnels.remove(name);
        self.gateways.remove(name);
        self.roots.remove(name);
        self.classifiers.remove(name);
        self.filters.retain(|(ifname, _), _| ifname != name);
        self.addresses.retain(|address| address.ifname != *name);
        self.routes.retain(|route| !is_through(route, name));
        self.tables.retain(|(_, route)| !is_through(route, name));
    }

    fn has(&self, place: &Place, name: &IfName) -> Result<(), KernelError> {
        let missing = || KernelError::NoLink { ifname: name.clone(), place: place.clone() };
        self.links.get(name).map(drop).ok_or_else(missing)
    }

    fn change(&mut self, place: &Place, change: &Change) -> Result<(), KernelError> {
        match change {
            Change::SetLink { ifname, mac, mtu } => {
                self.has(place, ifname)?;
                let link = self.links.get_mut(ifname).expect("looked for just now");
                link.mac = mac.or(link.mac);
                link.mtu = mtu.unwrap_or(link.mtu);
                link.up = true;
                Ok(())
            }
            Change::AddGateway(ifname) => {
                self.has(place, ifname)?;
                self.gateways.insert(ifname.clone()).then_some(()).ok_or(refused(Errno::EXIST))
            }
            Change::AddAddress(ifname, address) => {
                self.has(place, ifname)?;
                if self.addresses.iter().any(|there| there.ifname == *ifname && there.address == *address) {
                    return Err(refused(Errno::EXIST));
                }
                let (ifname, address) = (ifname.clone(), *address);
                self.addresses.insert(Address { ifname, address, protocol: PROTOCOL, global: true });
                Ok(())
            }
            Change::RemoveAddress(ifname, address) => {
                self.has(place, ifname)?;
                let before = self.addresses.len();
                self.addresses.retain(|there| there.ifname != *ifname || there.address != *address);
                (self.addresses.len() < before).then_some(()).ok_or(refused(Errno::ADDRNOTAVAIL))
            }
            Change::AddRoute(route) => {
                if self.routes.iter().any(|there| (there.dst, there.metric) == (route.dst, route.metric)) {
                    return Err(refused(Errno::EXIST));
                }
                let route = self.resolved(place, route)?;
                self.routes.insert(route);
                Ok(())
            }
            Change::ReplaceRoute(route) => {
                let resolved = self.resolved(place, route)?;
                self.routes.retain(|there| (there.dst, there.metric) != (route.dst, route.metric));
                self.routes.insert(resolved);
                Ok(())
            }
            Change::RemoveRoute(route) => {
                let mut resolved = self.resolved(place, route)?;
                (resolved.mtu, resolved.source) = (None, None);
                let same = |there: &&Route| Route { mtu: None, source: None, ..(*there).clone() } == resolved;
                let found = self.routes.iter().find(same).cloned();
                let found = found.ok_or_else(|| refused(Errno::SRCH))?;
                self.routes.remove(&found);
                Ok(())
            }
            Change::AddTableRoute(table, route) => {
                let resolved = self.resolved(place, route)?;
                let same = |(of, there): &(u32, Route)| {
                    (*of, there.dst, there.metric) == (*table, route.dst, route.metric)
                };
                if self.tables.iter().any(same) {
                    return Err(refused(Errno::EXIST));
                }
                self.tables.insert((*table, resolved));
                Ok(())
            }
            Change::ReplaceTableRoute(table, route) => {
                let resolved = self.resolved(place, route)?;
                self.tables.retain(|(of, there)| {
                    (*of, there.dst, there.metric) != (*table, route.dst, route.metric)
                });
                self.tables.insert((*table, resolved));
                Ok(())
            }
            Change::RemoveTableRoute(table, route) => {
                let resolved = self.resolved(place, route)?;
                self.tables.remove(&(*table, resolved)).then_some(()).ok_or(refused(Errno::SRCH))
            }
            Change::AddRule(rule) => {
                self.rules.insert((*rule, PROTOCOL)).then_some(()).ok_or(refused(Errno::EXIST))
            }
            Change::RemoveRule(rule) => {
                self.rules.remove(&(*rule, PROTOCOL)).then_some(()).ok_or(refused(Errno::NOENT))
            }
            Change::PutBucket(ifname, bucket) => {
                self.has(place, ifname)?;
                if self.roots.get(ifname) == Some(&FakeRoot::Foreign) {
                    return Err(refused(Errno::EXIST));
                }
                self.roots.insert(ifname.clone(), FakeRoot::Ours(*bucket));
                Ok(())
            }
            Change::RemoveBucket(ifname) => {
                self.has(place, ifname)?;
                let ours = matches!(self.roots.get(ifname), Some(FakeRoot::Ours(_)));
                if !ours {
                    return Err(refused(Errno::NOENT));
                }
                self.roots.remove(ifname);
                Ok(())
            }
        }
    }

    fn put_filter(&mut self, filter: &NewFilter) -> Result<(), KernelError> {
        if self.links.get(&filter.ifname).is_none_or(|link| link.ifindex != filter.ifindex) {
            return Err(KernelError::NoLink { ifname: filter.ifname.clone(), place: Place::Host });
        }
        let classifier = self.classifiers.entry(filter.ifname.clone()).or_insert(FakeClassifier::Clsact);
        if (*classifier, filter.hook) == (FakeClassifier::Ingress, Hook::Egress) {
            return Err(refused(Errno::EXIST));
        }
        self.filters.insert((filter.ifname.clone(), filter.hook), filter.program);
        Ok(())
    }

    fn remove_filter(&mut self, hook: &(IfName, Hook)) -> Result<(), KernelError> {
        self.has(&Place::Host, &hook.0)?;
        self.filters.remove(hook).map(drop).ok_or_else(|| refused(Errno::NOENT))
    }

    /// The route with the link that the kernel would choose for its gateway.
    fn resolved(&self, place: &Place, route: &Route) -> Result<Route, KernelError> {
        let mut route = route.clone();
        if let NextHop::Link { ifname, gateway, .. } = &mut route.next_hop {
            if let (None, Some(gateway)) = (&ifname, gateway) {
                let neighbour = self.addresses.iter().find(|address| address.address.contains(*gateway));
                *ifname = neighbour.map(|address| address.ifname.clone());
            }
            match ifname {
                Some(ifname) => self.has(place, ifname)?,
                None => return Err(refused(Errno::NETUNREACH)),
            }
        }
        Ok(route)
    }

    fn shaped(&self, name: &IfName) -> Option<Shaped> {
        let Some(FakeRoot::Ours(Bucket { rate, limit, .. })) = self.roots.get(name) else { return None };
        Some(Shaped { ifname: name.clone(), rate: *rate, limit: *limit })
    }
}

impl Kernel for FakeKernel {
    fn is_open(&self, key: &AttachmentKey) -> bool {
        self.0.borrow().open.contains_key(key)
    }

    async fn host_links(&self) -> Result<HostLinks, KernelError> {
        self.call(|state| {
            let host = &state.namespaces[&HOST];
            Ok(HostLinks {
                links: host.links.values().cloned().collect(),
                gateways: host.gateways.iter().cloned().collect(),
                namespaces: state.open.clone(),
            })
        })
    }

    async fn pod_addresses(&self, only: Option<&AttachmentKey>) -> Result<ByPod<Vec<Address>>, KernelError> {
        self.in_pods(only, |key, namespace| {
            let ours = namespace.addresses.iter().filter(|address| address.ifname == key.ifname);
            Some(ours.cloned().collect())
        })
    }

    async fn pod_routes(&self, only: Option<&AttachmentKey>) -> Result<ByPod<Vec<Route>>, KernelError> {
        self.in_pods(only, |key, namespace| {
            let ours = namespace.routes.iter().filter(|route| route.protocol == PROTOCOL);
            Some(ours.filter(|route| is_through(route, &key.ifname)).cloned().collect())
        })
    }

    async fn pod_buckets(&self) -> Result<ByPod<Shaped>, KernelError> {
        self.in_pods(None, |key, namespace| namespace.shaped(&key.ifname))
    }

    async fn host_routes(&self) -> Result<Vec<Route>, KernelError> {
        self.call(|state| {
            let routes = state.namespaces[&HOST].routes.iter();
            Ok(routes.filter(|route| route.protocol == PROTOCOL).cloned().collect())
        })
    }

    async fn table_routes(&self) -> Result<Vec<(u32, Route)>, KernelError> {
        self.call(|state| {
            let routes = state.namespaces[&HOST].tables.iter();
            Ok(routes.filter(|(_, route)| route.protocol == PROTOCOL).cloned().collect())
        })
    }

    async fn rules(&self) -> Result<Vec<PolicyRule>, KernelError> {
        self.call(|state| {
            let rules = state.namespaces[&HOST].rules.iter();
            Ok(rules.filter(|(_, protocol)| *protocol == PROTOCOL).map(|(rule, _)| *rule).collect())
        })
    }

    async fn host_addresses(&self) -> Result<Vec<Address>, KernelError> {
        self.call(|state| {
            let addresses = state.namespaces[&HOST].addresses.iter();
            Ok(addresses.filter(|address| address.global).cloned().collect())
        })
    }

    async fn host_buckets(&self) -> Result<Vec<Shaped>, KernelError> {
        self.call(|state| {
            let host = &state.namespaces[&HOST];
            Ok(host.links.keys().filter_map(|name| host.shaped(name)).collect())
        })
    }

    async fn filters(&self) -> Result<Vec<FilterFound>, KernelError> {
        self.call(|state| {
            let host = &state.namespaces[&HOST];
            let found = |((ifname, hook), program): (&(IfName, Hook), &u32)| FilterFound {
                ifname: ifname.clone(),
                ifindex: host.links[ifname].ifindex,
                hook: *hook,
                program: *program,
            };
            Ok(host.filters.iter().map(found).collect())
        })
    }

    async fn put_filters(&self, filters: Vec<NewFilter>) -> Vec<Result<(), KernelError>> {
        filters.iter().map(|filter| self.call(|state| state.space(HOST).put_filter(filter))).collect()
    }

    async fn remove_filters(&self, hooks: Vec<(IfName, Hook)>) -> Vec<Result<(), KernelError>> {
        hooks.iter().map(|hook| self.call(|state| state.space(HOST).remove_filter(hook))).collect()
    }

    async fn apply(&self, place: Place, changes: Vec<Change>) -> Vec<Result<(), KernelError>> {
        changes.iter().map(|change| self.call(|state| state.change(&place, change))).collect()
    }

    async fn create_pairs(&self, pairs: Vec<Pair>) -> Vec<Result<u32, KernelError>> {
        pairs.iter().map(|pair| self.call(|state| state.create_pair(pair))).collect()
    }

    async fn tunnels(&self) -> Result<Vec<Tunnel>, KernelError> {
        self.call(|state| {
            let host = &state.namespaces[&HOST];
            let tunnel = |(name, tunnel): (&IfName, &FakeTunnel)| {
                let link = host.links[name].clone();
                Tunnel {
                    ifindex: link.ifindex,
                    name: link.name,
                    alias: link.alias,
                    mac: link.mac,
                    mtu: link.mtu,
                    up: link.up,
                    arp: !tunnel.external,
                    port: tunnel.port,
                    external: tunnel.external,
                    learning: !tunnel.external,
                }
            };
            Ok(host.tunnels.iter().map(tunnel).collect())
        })
    }

    async fn create_tunnel(&self, tunnel: NewTunnel) -> Result<u32, KernelError> {
        self.call(|state| state.create_tunnel(&tunnel))
    }

    async fn delete_links(&self, links: Vec<u32>) -> Vec<Result<(), KernelError>> {
        links.into_iter().map(|ifindex| self.call(|state| state.delete(HOST, ifindex))).collect()
    }
}

#[cfg(test)]
mod tests;
