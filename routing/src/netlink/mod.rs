// SPDX-License-Identifier: Apache-2.0
//! The kernel over netlink.
//!
//! ```text
//!   runtime thread ── job ──► thread of the blocking pool ── pooled socket ──► host
//!                  └─ job ──► thread of its own: enter namespace, open socket, talk, end ──► pods
//! ```
//! Sockets into the namespaces of pods live only as long as one job, so that their number does not grow with the
//! pods.

mod address;
mod changes;
mod delete;
mod events;
mod fabric;
mod filter;
mod foreign;
pub(crate) mod learned;
mod link;
mod message;
mod neighbour;
pub(crate) mod pods;
mod qdisc;
mod route;
mod rule;
mod socket;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use rhumb_model::{AttachmentKey, Family, IfName, MacAddr};
use tokio::sync::oneshot;

pub use events::{Events, Notices};

use crate::kernel::{
    Address, ByPod, Change, FilterFound, Hook, HostLinks, Kernel, KernelError, Link, NewFilter, NewTunnel,
    NextHop, PROTOCOL, Pair, Place, PolicyRule, Route, Shaped, Tunnel,
};
use crate::namespaces::{Namespaces, in_own_thread};
use socket::{Refused, Socket};

/// Sockets that stay open between jobs.
const POOL: usize = 4;

/// The kernel of this machine, seen from one namespace (the host) and from those of its pods; clones share
/// everything.
#[derive(Debug, Clone)]
pub struct Netlink {
    namespaces: Namespaces,
    host: Host,
}

/// What jobs on other threads need to reach the host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    namespace: Arc<OwnedFd>,
    sockets: Arc<Mutex<Sockets>>,
    watch: fabric::Watch,
}

/// The sockets of the host.
#[derive(Debug, Default)]
struct Sockets {
    /// Those that wait for a job.
    idle: Vec<Socket>,
    /// The ports of all of them.
    ports: BTreeSet<u32>,
}

/// Addresses by the index of their link.
type ByIndex = BTreeMap<u32, Vec<IpNetwork>>;

/// A conversation that broke off, or an answer.
type Talk<T> = Result<T, Break>;

/// Why a conversation did not go on.
#[derive(Debug)]
enum Break {
    Socket(io::Error),
    Refused(Refused),
}

impl From<io::Error> for Break {
    fn from(error: io::Error) -> Self {
        Break::Socket(error)
    }
}

impl From<Refused> for Break {
    fn from(refused: Refused) -> Self {
        Break::Refused(refused)
    }
}

impl From<Refused> for KernelError {
    fn from(refused: Refused) -> Self {
        KernelError::Refused { words: refused.words, cause: io::Error::from_raw_os_error(refused.errno) }
    }
}

impl Break {
    fn at(self, place: &Place) -> KernelError {
        match self {
            Break::Socket(cause) => KernelError::Socket { place: place.clone(), cause },
            Break::Refused(refused) => refused.into(),
        }
    }
}

impl Host {
    /// Lends a socket of the host to `work`; it is kept for others unless the conversation broke off.
    fn with<T>(&self, work: impl FnOnce(&mut Socket) -> Talk<T>) -> Talk<T> {
        let idle = self.sockets().idle.pop();
        let mut socket = match idle {
            Some(socket) => socket,
            None => self.open()?,
        };
        let result = work(&mut socket);
        let mut sockets = self.sockets();
        if sockets.idle.len() < POOL && !matches!(result, Err(Break::Socket(_))) {
            sockets.idle.push(socket);
        } else {
            sockets.ports.remove(&socket.port());
        }
        result
    }

    fn open(&self) -> io::Result<Socket> {
        let socket = in_own_thread(|| Socket::open_in(&self.namespace))?;
        self.sockets().ports.insert(socket.port());
        Ok(socket)
    }

    /// Whether a change was asked for by one of these sockets.
    fn is_own_port(&self, port: u32) -> bool {
        self.sockets().ports.contains(&port)
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Netlink {
    /// Takes the namespace of the calling thread as the host.
    ///
    /// # Errors
    /// That namespace cannot be opened, or has no netlink.
    pub fn new(namespaces: Namespaces) -> Result<Self, KernelError> {
        let open = || {
            let namespace = Arc::new(OwnedFd::from(File::open("/proc/thread-self/ns/net")?));
            let host = Host { namespace, sockets: Arc::default(), watch: fabric::Watch::default() };
            let socket = host.open()?;
            host.sockets().idle.push(socket);
            Ok(host)
        };
        let host = open().map_err(|error| Break::Socket(error).at(&Place::Host))?;
        Ok(Self { namespaces, host })
    }

    /// The part that other threads may use.
    pub(crate) fn into_host(self) -> Host {
        self.host
    }

    /// The registered namespaces of pods.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    fn open(&self, only: Option<&AttachmentKey>) -> Vec<(AttachmentKey, Arc<OwnedFd>)> {
        match only {
            Some(key) => self.namespaces.get(key).map(|fd| (key.clone(), fd)).into_iter().collect(),
            None => self.namespaces.all(),
        }
    }

    /// The indices of links that carry a default route.
    pub(crate) async fn default_carriers(&self) -> Result<BTreeSet<u32>, KernelError> {
        self.on_host(|socket| {
            let mut carriers = BTreeSet::new();
            for family in Family::BOTH {
                let of_each = |object: &_| Some(route::default_carriers(object));
                if let Ok(told) = socket.dump(&route::get(family, 0), of_each)? {
                    carriers.extend(told.into_iter().flatten());
                }
            }
            Ok(carriers)
        })
        .await
    }

    /// All links of the host, and the global addresses of each by index.
    pub(crate) async fn links_with_addresses(&self) -> Result<(Vec<Link>, ByIndex), KernelError> {
        self.on_host(|socket| {
            let links = links(socket)?;
            let mut global = ByIndex::new();
            for told in addresses(socket, 0)?.iter().filter(|told| told.global) {
                global.entry(told.ifindex).or_default().push(told.address);
            }
            Ok((links, global))
        })
        .await
    }

    /// All links of the host, and all addresses of each by index.
    pub(crate) async fn links_with_all_addresses(&self) -> Result<(Vec<Link>, ByIndex), KernelError> {
        self.on_host(|socket| {
            let links = links(socket)?;
            let mut all = ByIndex::new();
            for told in addresses(socket, 0)? {
                all.entry(told.ifindex).or_default().push(told.address);
            }
            Ok((links, all))
        })
        .await
    }

    /// All links of the host with the Ethernet address that their hardware came with, else the one that they have.
    pub(crate) async fn links_by_hardware(&self) -> Result<Vec<(MacAddr, Link)>, KernelError> {
        self.on_host(|socket| Ok(socket.dump(&link::get_all(), link::read_hardware)??)).await
    }

    /// The link of the host of this name.
    pub(crate) async fn link(&self, name: &IfName) -> Result<Option<Link>, KernelError> {
        let name = name.clone();
        self.on_host(move |socket| find(socket, &name)).await
    }

    /// Runs a job with a socket of the host.
    async fn on_host<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Socket) -> Talk<T> + Send + 'static,
    ) -> Result<T, KernelError> {
        let host = self.host.clone();
        let job = tokio::task::spawn_blocking(move || host.with(work));
        let result = job.await.unwrap_or_else(|error| Err(io::Error::other(error).into()));
        result.map_err(|error| error.at(&Place::Host))
    }

    /// Runs a job with a socket in each of these namespaces, one after the other. What cannot be entered or breaks
    /// off has no result: whoever then wants to change something there is told why.
    async fn in_pods<T: Send + 'static>(
        &self,
        pods: Vec<(AttachmentKey, Arc<OwnedFd>)>,
        mut work: impl FnMut(&AttachmentKey, &mut Socket) -> Talk<Option<T>> + Send + 'static,
    ) -> Result<ByPod<T>, KernelError> {
        if pods.is_empty() {
            return Ok(ByPod::new());
        }
        let visit = move || {
            let mut results = ByPod::new();
            for (key, namespace) in pods {
                let visited = Socket::open_in(&namespace).map_err(Break::from);
                match visited.and_then(|mut socket| work(&key, &mut socket)) {
                    Ok(Some(result)) => drop(results.insert(key, result)),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(netns = %key, ?error, "namespace not readable"),
                }
            }
            Ok(results)
        };
        on_own_thread(visit).await.map_err(|error| error.at(&Place::Host))
    }
}

/// Runs a job on a thread that ends with it, without keeping the runtime waiting.
async fn on_own_thread<T: Send + 'static>(work: impl FnOnce() -> Talk<T> + Send + 'static) -> Talk<T> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("rhumb-netns".to_owned()).spawn(move || {
        // Nobody listens when the wait was cancelled; the work is done all the same.
        drop(tell.send(work()));
    })?;
    told.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::BrokenPipe).into()))
}

fn links(socket: &mut Socket) -> Talk<Vec<Link>> {
    Ok(socket.dump(&link::get_all(), link::read)??)
}

fn names(socket: &mut Socket) -> Talk<BTreeMap<u32, IfName>> {
    Ok(links(socket)?.into_iter().map(|link| (link.ifindex, link.name)).collect())
}

/// The link of this name, if it is there.
fn find(socket: &mut Socket, name: &IfName) -> Talk<Option<Link>> {
    match socket.ask(link::get_by_name(name))? {
        Ok(answers) => Ok(answers.iter().find_map(link::read)),
        Err(refused) if KernelError::from(refused.clone()).is_absent() => Ok(None),
        Err(refused) => Err(refused.into()),
    }
}

fn addresses(socket: &mut Socket, ifindex: u32) -> Talk<Vec<address::Told>> {
    Ok(socket.dump(&address::get(AddressFamily::Unspec, ifindex), address::read)??)
}

fn routes(socket: &mut Socket, protocol: u8) -> Talk<Vec<route::Told>> {
    let mut routes = Vec::new();
    for family in Family::BOTH {
        // Kernels without IPv6 answer with an error; then there are none.
        if let Ok(told) = socket.dump(&route::get(family, protocol), route::read)? {
            routes.extend(told);
        }
    }
    Ok(routes.into_iter().filter(|route| protocol == 0 || route.protocol == protocol).collect())
}

/// A route in the words of the targets.
fn named_route(told: &route::Told, name: impl Fn(u32) -> Option<IfName>) -> Route {
    let next_hop = match told.kind {
        route::Kind::Unreachable => NextHop::Unreachable,
        route::Kind::Other => NextHop::Other,
        route::Kind::Unicast => {
            NextHop::Link { ifname: told.ifindex.and_then(name), gateway: told.gateway, onlink: told.onlink }
        }
    };
    Route {
        dst: told.dst,
        metric: told.metric,
        next_hop,
        mtu: told.mtu,
        source: told.source,
        protocol: told.protocol,
    }
}

fn named_address(told: &address::Told, ifname: &IfName) -> Address {
    Address { ifname: ifname.clone(), address: told.address, protocol: told.protocol, global: told.global }
}

impl Kernel for Netlink {
    fn is_open(&self, key: &AttachmentKey) -> bool {
        self.namespaces.has(key)
    }

    async fn host_links(&self) -> Result<HostLinks, KernelError> {
        let open = self.namespaces.all();
        self.on_host(move |socket| {
            let links = links(socket)?;
            let gateways = socket.dump(&address::get(AddressFamily::Inet6, 0), address::read)??;
            let gateways = gateways.iter().filter(|told| told.address.ip() == address::GATEWAY);
            let gateways: Vec<u32> = gateways.map(|told| told.ifindex).collect();
            let gateways = links
                .iter()
                .filter(|link| gateways.contains(&link.ifindex))
                .map(|link| link.name.clone())
                .collect();
            // The listing gave a number to every namespace that a link leads to.
            let ask = |(_, fd): &(AttachmentKey, Arc<OwnedFd>)| {
                link::get_namespace_number(std::os::fd::AsFd::as_fd(fd))
            };
            let answered = socket.exchange(open.iter().map(ask).collect())?;
            let numbers = answered.into_iter().map(|answers| {
                answers.ok().and_then(|answers| link::read_namespace_number(answers.first()?))
            });
            let namespaces =
                open.into_iter().zip(numbers).filter_map(|((key, _), number)| Some((key, number?))).collect();
            Ok(HostLinks { links, gateways, namespaces })
        })
        .await
    }

    async fn pod_addresses(&self, only: Option<&AttachmentKey>) -> Result<ByPod<Vec<Address>>, KernelError> {
        self.in_pods(self.open(only), |key, socket| {
            let Some(link) = find(socket, &key.ifname)? else { return Ok(None) };
            let told = addresses(socket, link.ifindex)?;
            Ok(Some(told.iter().map(|told| named_address(told, &key.ifname)).collect()))
        })
        .await
    }

    async fn pod_routes(&self, only: Option<&AttachmentKey>) -> Result<ByPod<Vec<Route>>, KernelError> {
        self.in_pods(self.open(only), |key, socket| {
            let Some(link) = find(socket, &key.ifname)? else { return Ok(None) };
            let told = routes(socket, PROTOCOL)?;
            let through = told.iter().filter(|told| told.ifindex == Some(link.ifindex));
            Ok(Some(through.map(|told| named_route(told, |_| Some(key.ifname.clone()))).collect()))
        })
        .await
    }

    async fn pod_buckets(&self) -> Result<ByPod<Shaped>, KernelError> {
        self.in_pods(self.namespaces.all(), |key, socket| {
            let Some(link) = find(socket, &key.ifname)? else { return Ok(None) };
            let told = socket.dump(&qdisc::get_all(), qdisc::read)??;
            let told = told.into_iter().find(|told| told.ifindex == link.ifindex);
            Ok(told.map(|told| Shaped { ifname: key.ifname.clone(), rate: told.rate, limit: told.limit }))
        })
        .await
    }

    async fn host_routes(&self) -> Result<Vec<Route>, KernelError> {
        self.on_host(|socket| {
            let told = routes(socket, PROTOCOL)?;
            let names = names(socket)?;
            Ok(told.iter().map(|told| named_route(told, |ifindex| names.get(&ifindex).cloned())).collect())
        })
        .await
    }

    async fn table_routes(&self) -> Result<Vec<(u32, Route)>, KernelError> {
        self.on_host(|socket| {
            let names = names(socket)?;
            let mut routes = Vec::new();
            for family in Family::BOTH {
                // Kernels without IPv6 answer with an error; then there are none.
                let told = socket.dump(&route::get_everywhere(family, PROTOCOL), route::read_with_table)?;
                let ours =
                    |(table, told): &(u32, route::Told)| *table != route::MAIN && told.protocol == PROTOCOL;
                routes.extend(told.unwrap_or_default().into_iter().filter(ours));
            }
            let named = |(table, told): (u32, route::Told)| {
                (table, named_route(&told, |ifindex| names.get(&ifindex).cloned()))
            };
            Ok(routes.into_iter().map(named).collect())
        })
        .await
    }

    async fn rules(&self) -> Result<Vec<PolicyRule>, KernelError> {
        self.on_host(|socket| {
            let mut rules = Vec::new();
            for family in Family::BOTH {
                rules.extend(socket.dump(&foreign::get_rules(family), rule::read)?.unwrap_or_default());
            }
            Ok(rules)
        })
        .await
    }

    async fn host_addresses(&self) -> Result<Vec<Address>, KernelError> {
        self.on_host(|socket| {
            let names = names(socket)?;
            let told = addresses(socket, 0)?.into_iter().filter(|told| told.global);
            let named = told.filter_map(|told| Some(named_address(&told, names.get(&told.ifindex)?)));
            Ok(named.collect())
        })
        .await
    }

    async fn host_buckets(&self) -> Result<Vec<Shaped>, KernelError> {
        self.on_host(|socket| {
            let told = socket.dump(&qdisc::get_all(), qdisc::read)??;
            if told.is_empty() {
                return Ok(Vec::new());
            }
            let names = names(socket)?;
            let named = told.into_iter().filter_map(|told| {
                Some(Shaped { ifname: names.get(&told.ifindex)?.clone(), rate: told.rate, limit: told.limit })
            });
            Ok(named.collect())
        })
        .await
    }

    async fn filters(&self) -> Result<Vec<FilterFound>, KernelError> {
        self.on_host(filter::all).await
    }

    async fn put_filters(&self, filters: Vec<NewFilter>) -> Vec<Result<(), KernelError>> {
        let count = filters.len();
        each(self.on_host(move |socket| filter::put_all(socket, &filters)).await, count)
    }

    async fn remove_filters(&self, hooks: Vec<(IfName, Hook)>) -> Vec<Result<(), KernelError>> {
        let count = hooks.len();
        each(self.on_host(move |socket| filter::remove_all(socket, &hooks)).await, count)
    }

    async fn apply(&self, place: Place, list: Vec<Change>) -> Vec<Result<(), KernelError>> {
        let count = list.len();
        let work = {
            let place = place.clone();
            move |socket: &mut Socket| changes::apply(socket, &place, &list)
        };
        let applied = match &place {
            Place::Host => self.on_host(work).await,
            Place::Pod(key) => match self.namespaces.get(key) {
                None => return (0..count).map(|_| Err(KernelError::NotOpen { key: key.clone() })).collect(),
                Some(namespace) => {
                    let talk = on_own_thread(move || work(&mut Socket::open_in(&namespace)?));
                    talk.await.map_err(|error| error.at(&place))
                }
            },
        };
        each(applied, count)
    }

    async fn create_pairs(&self, pairs: Vec<Pair>) -> Vec<Result<u32, KernelError>> {
        let count = pairs.len();
        let mut open = Vec::with_capacity(count);
        for pair in pairs {
            let namespace = self.namespaces.get(&pair.key);
            open.push((pair, namespace));
        }
        let host = self.host.clone();
        let talk = on_own_thread(move || Ok(changes::create_pairs(&host, &open)));
        each(talk.await.map_err(|error| error.at(&Place::Host)), count)
    }

    async fn tunnels(&self) -> Result<Vec<Tunnel>, KernelError> {
        self.on_host(|socket| Ok(socket.dump(&link::get_all(), tunnel::read)??)).await
    }

    async fn create_tunnel(&self, new: NewTunnel) -> Result<u32, KernelError> {
        self.on_host(move |socket| tunnel::make(socket, &new)).await
    }

    async fn delete_links(&self, links: Vec<u32>) -> Vec<Result<(), KernelError>> {
        delete::delete(&self.host, links).await
    }
}

/// One result per item; a conversation that broke off is the result of each.
fn each<T>(
    results: Result<Vec<Result<T, KernelError>>, KernelError>,
    count: usize,
) -> Vec<Result<T, KernelError>> {
    results.unwrap_or_else(|error| (0..count).map(|_| Err(error.again())).collect())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable};
    use netlink_packet_route::RouteNetlinkMessage;
    use proptest::prelude::*;

    use super::message::{Message, append, objects};
    use super::*;

    /// What is read of a request for a change, when the kernel tells of it.
    fn told<T>(request: Message, read: impl Fn(&RouteNetlinkMessage) -> Option<T>) -> Option<T> {
        let mut datagram = Vec::new();
        append(&mut datagram, request, 0, 1);
        objects(&datagram, |_| true).find_map(|object| read(&object))
    }

    fn read_everything(datagram: &[u8]) {
        for object in objects(datagram, |_| true) {
            drop((link::read(&object), link::read_deleted(&object), link::read_namespace_number(&object)));
            drop((route::read(&object), route::default_carriers(&object), tunnel::read(&object)));
            drop((foreign::read_route(&object), foreign::read_rule(&object), neighbour::read(&object)));
            drop((rule::read(&object), route::read_with_table(&object), link::read_hardware(&object)));
            assert!(address::read(&object).is_none() || qdisc::read(&object).is_none());
            assert!(link::read(&object).is_none() || filter::read_program(&object).is_none());
            assert!(qdisc::read(&object).is_none() || filter::read_classifier(&object).is_none());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_without_harm(bytes: Vec<u8>) {
            read_everything(&bytes);
        }

        #[test]
        fn arbitrary_objects_are_read_without_harm(
            kind in prop::sample::select(vec![2_u16, 3, 16, 17, 20, 21, 24, 25, 28, 29, 32, 33, 36, 37, 44, 88]),
            head in prop::sample::select(vec![0, 4, 8, 12, 16, 20]),
            family: u8,
            attributes in prop::collection::vec((0..70_u16, prop::collection::vec(0..20_u8, 0..40)), 0..5),
        ) {
            let mut datagram = vec![0; 16 + head];
            datagram[4..6].copy_from_slice(&kind.to_ne_bytes());
            if head > 0 {
                datagram[16] = family;
            }
            for (kind, value) in attributes {
                let attribute = DefaultNla::new(kind, value);
                let start = datagram.len();
                datagram.resize(start + attribute.buffer_len(), 0);
                attribute.emit(&mut datagram[start..]);
            }
            let length = u32::try_from(datagram.len()).expect("short");
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            read_everything(&datagram);
        }
    }

    #[test]
    fn what_is_asked_for_is_what_is_read_back() {
        let route = route::Told {
            dst: "10.0.0.0/24".parse().expect("valid"),
            metric: 7,
            kind: route::Kind::Unicast,
            ifindex: Some(3),
            gateway: Some("192.168.1.2".parse().expect("valid")),
            onlink: true,
            mtu: Some(1400),
            source: Some("192.168.1.1".parse().expect("valid")),
            protocol: PROTOCOL,
        };
        assert_eq!(told(route::put(&route, 0), route::read), Some(route));
        let address = "fd00::1/128".parse().expect("valid");
        let read = address::Told { ifindex: 3, address, protocol: PROTOCOL, global: true };
        assert_eq!(told(address::add(3, address), address::read), Some(read));
        let bucket = crate::kernel::Bucket { rate: 1 << 40, burst: 9600, limit: 50_000 };
        let read = qdisc::Told { ifindex: 3, rate: 1 << 40, limit: 50_000 };
        assert_eq!(told(qdisc::put(3, &bucket), qdisc::read), Some(read));
        let hooks = Some((3, &[Hook::Ingress, Hook::Egress][..]));
        assert_eq!(told(filter::clsact(3, 0), filter::read_classifier), hooks);
    }
}
