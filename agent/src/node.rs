// SPDX-License-Identifier: Apache-2.0
//! The owner of all state of the node: one task, one loop.
//!
//! ```text
//!   plugin calls ─┐
//!   CLI questions ┤                        ┌─ answer CLI, CHECK, STATUS
//!   store changes ┼─► inbox ─► take a batch┤
//!   kernel notices┤                        └─ lease + one journal write for all ADDs of the batch
//!   retry, refresh┘                                     │
//!                                                       ▼
//!                    remove stale, put missing, in order (pass) ─► settle: reply to ADDs and DELs that are done
//! ```

mod add;
mod check;
mod del;
mod fabric;
mod pass;
mod show;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use rhumb_api::{InstanceIdentity, NodeConfig, NodeState, NodeStateStatus, PodPool, Update};
use rhumb_cni::failpoint;
use rhumb_cni::protocol::{AddRequest, CheckRequest, Refusal, Reply};
use rhumb_ebpf::MapUse;
use rhumb_ipam::Order;
use rhumb_ipam::eni::agent::Newest;
use rhumb_model::{AttachmentKey, NodeName, PoolName, Revision, Timestamp};
use rhumb_routing::plan::{Event, HoldDown};
use rhumb_routing::{Namespaces, Netlink, Notices};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::args::{MetadataService, usual_pool};
use crate::bgp;
use crate::conf_file::ConfFileName;
use crate::desired::{Desired, Programs, Shared, Surroundings, chained_ifindex};
use crate::endpoint::Endpoint;
use crate::eni::{Eni, EniRow, EniSettings};
use crate::follow::fold;
use crate::kernel::Kernel;
use crate::ledger::Ledger;
use crate::link_managers::LinkManagers;
use crate::masquerade::Masquerade;
use crate::metrics::{MAP_EVICTED, Registry, SWEEP_MILLISECONDS, SWEEP_REMOVED, SWEEP_SEEN, Sample};
use crate::monitor::Names;
use crate::probe;
use crate::question::Show;
use crate::shortage::Shortage;
use crate::sweep;
use crate::tables::{NodeRow, PoolRow, Tables};
use crate::udev::Udev;
use crate::ways::Ways;

pub(crate) use show::show_change;

/// Everything is looked at anew this often, in case a change was not announced.
const REFRESH: Duration = Duration::from_secs(30);

/// Notices of the kernel within this time are one reason to look: most are echoes of what we did ourselves.
const NOTICES_SETTLE: Duration = Duration::from_millis(200);

/// What the loop hears.
#[derive(Debug)]
pub(crate) enum Input {
    Add {
        request: Box<AddRequest>,
        netns: OwnedFd,
        wishes: Wishes,
        reply: oneshot::Sender<Reply>,
    },
    Del {
        key: AttachmentKey,
        reply: oneshot::Sender<Reply>,
    },
    /// Attachments of `network` that are not in `keep`, for GC.
    Stale {
        network: String,
        keep: Vec<AttachmentKey>,
        reply: oneshot::Sender<Vec<AttachmentKey>>,
    },
    Check {
        request: Box<CheckRequest>,
        netns: Option<OwnedFd>,
        reply: oneshot::Sender<Reply>,
    },
    Status {
        reply: oneshot::Sender<Reply>,
    },
    Show {
        what: Show,
        reply: oneshot::Sender<serde_json::Value>,
    },
    /// The last changes of ways, and all that come.
    FollowWays {
        reply: oneshot::Sender<(Vec<Event>, broadcast::Receiver<Event>)>,
    },
    /// Counters and gauges; `maps` says how full those of the datapath are.
    Metrics {
        maps: Vec<MapUse>,
        reply: oneshot::Sender<Vec<Sample>>,
    },
    /// What the pods of this node are called, for packet events.
    Names {
        reply: oneshot::Sender<Names>,
    },
    NodeConfigs(Update<NodeConfig>),
    NodeStates(Update<NodeState>),
    Pools(Update<PodPool>),
    /// Where the source of pods' packets stays.
    Masquerade(Masquerade),
    /// Links, addresses, routes or neighbours of the node changed.
    HostChanged(Notices),
    /// Addresses of other nodes that answered once and do not any more.
    Silent(BTreeSet<IpAddr>),
    /// udev is done with the interface of this index.
    Settled(u32),
    /// Which instance of a cloud this node is.
    Instance(Box<InstanceIdentity>),
    /// What is published about BGP is otherwise now.
    Bgp(bgp::Summary),
    /// A round of the sweep is over.
    Swept {
        reports: Vec<sweep::Report>,
        took: Duration,
    },
}

/// The loop's ends of what it and BGP say to each other.
#[derive(Debug)]
pub(crate) struct BgpEnds {
    /// What BGP hears of the loop.
    pub(crate) local: watch::Sender<bgp::Local>,
    /// What is known of the speaker.
    pub(crate) report: watch::Receiver<bgp::Report>,
}

/// What the Pod object wishes for its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) sticky: bool,
}

/// What is under way for one attachment.
#[derive(Debug)]
enum Pending {
    /// ADD waits for its objects.
    Adding { replies: Vec<oneshot::Sender<Reply>> },
    /// DEL, GC or a failed ADD waits for the objects to go; each of those who wait with what it is then told.
    Removing { objects: Box<Desired>, replies: Vec<(oneshot::Sender<Reply>, Reply)> },
}

/// Fixed facts of this node.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) node: NodeName,
    pub(crate) pool: PoolName,
    /// Whether the node's interfaces say which pool that is, where it has any.
    pub(crate) follows_pool: bool,
    /// MTU asked for by the flag.
    pub(crate) mtu: Option<u32>,
    /// Node addresses asked for by the flag.
    pub(crate) node_addresses: Vec<IpAddr>,
    /// How programs are attached.
    pub(crate) programs: Programs,
    /// Uplinks asked for by the flag.
    pub(crate) uplinks: Vec<rhumb_model::IfName>,
    /// For how long a direct way has to be back before packets return to it.
    pub(crate) hold_down: HoldDown,
    /// UDP port of the tunnel; `None` is no tunnel.
    pub(crate) tunnel_port: Option<u16>,
    /// Whether pods reach the cloud's metadata service.
    pub(crate) metadata_service: MetadataService,
    /// How interfaces of a cloud are used.
    pub(crate) eni: EniSettings,
    /// For how long a released address stays out of use, where the pool does not say.
    pub(crate) cool_down: Duration,
}

/// The probe of other agents: whom it is to ask, and what it knows.
#[derive(Debug)]
pub(crate) struct Neighbours {
    pub(crate) whom: watch::Sender<probe::Targets>,
    pub(crate) report: watch::Receiver<probe::Report>,
}

/// All state of the node.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) ledger: Ledger,
    pub(crate) tables: Tables,
    pub(crate) kernel: Kernel,
    pub(crate) namespaces: Namespaces,
    pub(crate) host: Netlink,
    pub(crate) datapath: rhumb_ebpf::Datapath,
    /// The CNI configuration, to be written once this node can serve ADD.
    pub(crate) conf_files: BTreeMap<ConfFileName, String>,
    pub(crate) publication: watch::Sender<NodeStateStatus>,
    pub(crate) bgp: BgpEnds,
    /// What is published about BGP.
    bgp_summary: bgp::Summary,
    /// How often the node's own links and addresses were looked at.
    host_looks: u64,
    pub(crate) started: Instant,
    /// Counts of what happens here.
    pub(crate) registry: Registry,
    /// What the sweep found in each map, and what it did there since the start.
    pub(crate) sweeps: BTreeMap<&'static str, sweep::Report>,
    pending: BTreeMap<AttachmentKey, Pending>,
    /// Host ends of chained endpoints that are really there, by index.
    chained_links: BTreeMap<AttachmentKey, u32>,
    /// The ways to other nodes' pods.
    pub(crate) ways: Ways,
    fabric_times: fabric::FabricTimes,
    /// What is planned for interfaces of a cloud.
    eni: Eni,
    /// Keeps it from going back to an older NodeConfig.
    newest: Newest,
    /// When interfaces keep their names.
    udev: Udev,
    /// Indices of those that udev was not done with at the last look.
    unsettled: BTreeSet<u32>,
    link_managers: LinkManagers,
    /// What other programs would do to interfaces of a cloud.
    dangers: Vec<String>,
    /// Which instance of a cloud this node is, once that is known.
    instance: Option<InstanceIdentity>,
    shortage: Shortage,
    /// Whether the node's own links and addresses were ever read.
    host_seen: bool,
    reached: Revision,
    /// Whether nothing of an earlier version's datapath is left to be taken over.
    migrated: bool,
    /// Something that waits can be settled by another pass at once.
    pass_again: bool,
    /// When the node's own links, addresses and routes are to be looked at again.
    look_due: Option<Instant>,
    announced_ready: bool,
    ready: rhumb_process::Ready,
    pub(crate) neighbours: Neighbours,
}

impl Node {
    #[expect(clippy::too_many_arguments, reason = "the composition root hands over every part once")]
    pub(crate) fn new(
        settings: Settings,
        ledger: Ledger,
        masquerade: Masquerade,
        kernel: Kernel,
        namespaces: Namespaces,
        host: Netlink,
        datapath: rhumb_ebpf::Datapath,
        conf_files: BTreeMap<ConfFileName, String>,
        publication: watch::Sender<NodeStateStatus>,
        bgp: BgpEnds,
        ready: rhumb_process::Ready,
        neighbours: Neighbours,
    ) -> Self {
        Self {
            settings,
            ledger,
            tables: Tables::new(masquerade),
            kernel,
            namespaces,
            host,
            datapath,
            conf_files,
            publication,
            bgp,
            bgp_summary: bgp::Summary::default(),
            host_looks: 0,
            started: Instant::now(),
            registry: Registry::default(),
            sweeps: BTreeMap::new(),
            pending: BTreeMap::new(),
            chained_links: BTreeMap::new(),
            ways: Ways::default(),
            fabric_times: fabric::FabricTimes::new(Instant::now()),
            eni: Eni::default(),
            newest: Newest::default(),
            udev: Udev::default(),
            unsettled: BTreeSet::new(),
            link_managers: LinkManagers::default(),
            dangers: Vec::new(),
            instance: None,
            shortage: Shortage::default(),
            host_seen: false,
            reached: Revision::default(),
            migrated: false,
            pass_again: false,
            look_due: Some(Instant::now()),
            announced_ready: false,
            ready,
            neighbours,
        }
    }

    /// Runs until the inbox is closed.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Input>) {
        let mut refresh = Instant::now() + REFRESH;
        loop {
            self.pass().await;
            let due = self.kernel.next_retry().into_iter().chain(self.look_due).chain(self.ways_wake());
            let wake = due.chain(self.rested_wake()).fold(refresh, Instant::min);
            let wake = if self.pass_again { Instant::now() } else { wake };
            let first = tokio::select! {
                input = inbox.recv() => match input {
                    Some(input) => Some(input),
                    None => return,
                },
                () = tokio::time::sleep_until(wake.into()) => None,
            };
            if Instant::now() >= refresh {
                refresh = Instant::now() + REFRESH;
                self.look_due = Some(Instant::now());
                self.fabric_times.changed(Instant::now());
                self.kernel.invalidate();
            }
            let mut batch: Vec<Input> = first.into_iter().collect();
            while let Ok(input) = inbox.try_recv() {
                batch.push(input);
            }
            self.take(batch).await;
        }
    }

    async fn take(&mut self, batch: Vec<Input>) {
        let mut adds = Vec::new();
        for input in batch {
            match input {
                Input::Add { request, netns, wishes, reply } => {
                    adds.extend(self.begin_add(*request, netns, wishes, reply).await);
                }
                Input::Del { key, reply } => self.begin_del(&key, reply),
                Input::Stale { network, keep, reply } => {
                    drop(reply.send(self.stale(&network, &keep)));
                }
                Input::Check { request, netns, reply } => {
                    let outcome = self.check(&request, netns).await;
                    drop(reply.send(outcome.map_or_else(Reply::Refused, |()| Reply::Done)));
                }
                Input::Status { reply } => {
                    let outcome = self.status().await;
                    drop(reply.send(outcome.map_or_else(Reply::Refused, |()| Reply::Done)));
                }
                Input::Show { what, reply } => drop(reply.send(self.show(what))),
                Input::FollowWays { reply } => drop(reply.send(self.ways.follow())),
                Input::Metrics { maps, reply } => drop(reply.send(self.samples(&maps))),
                Input::Names { reply } => drop(reply.send(self.names())),
                Input::NodeConfigs(update) => self.take_node_config(update),
                Input::NodeStates(update) => self.take_node_state(update),
                Input::Pools(update) => self.take_pool(update),
                Input::Masquerade(masquerade) => {
                    self.tables.masquerade = masquerade;
                    self.tables.touch();
                }
                Input::HostChanged(notices) => self.host_changed(notices),
                Input::Settled(ifindex) => {
                    if self.unsettled.remove(&ifindex) {
                        self.look_due = Some(Instant::now());
                    }
                }
                Input::Bgp(summary) => self.bgp_summary = summary,
                Input::Instance(identity) => self.instance = Some(*identity),
                Input::Silent(silent) => {
                    self.ways.silent = silent;
                    self.tables.touch();
                }
                Input::Swept { reports, took } => self.swept(&reports, took),
            }
        }
        self.write_adds(adds);
    }

    /// Counts what the sweep did.
    fn swept(&mut self, reports: &[sweep::Report], took: Duration) {
        for report in reports {
            let sweep::Report { map, seen, removed, evicted } = *report;
            for (metric, more) in [(&SWEEP_SEEN, seen), (&SWEEP_REMOVED, removed), (&MAP_EVICTED, evicted)] {
                self.registry.add(metric, &[map], more);
            }
            let known = self.sweeps.entry(map).or_insert(sweep::Report { seen, removed: 0, evicted: 0, map });
            known.seen = seen;
            known.removed += removed;
            known.evicted += evicted;
        }
        self.registry.add(&SWEEP_MILLISECONDS, &[], u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    /// A way that goes is acted on at once; everything else may wait until the echoes are over.
    fn host_changed(&mut self, notices: Notices) {
        let now = Instant::now();
        if notices.fabric || notices.links {
            self.fabric_times.changed(now);
        }
        if notices.links || notices.addresses || notices.routes {
            self.look_due.get_or_insert(now + NOTICES_SETTLE);
        }
    }

    fn take_node_config(&mut self, update: Update<NodeConfig>) {
        let own = |config: &&NodeConfig| config.metadata.name.as_deref() == Some(self.settings.node.as_str());
        let told = match &update {
            Update::Put(config) => Some(config).filter(own),
            Update::Snapshot(all) => all.iter().find(own),
            Update::Delete(_) | Update::Stalled(_) => None,
        };
        let told = told.and_then(|config| config.spec.eni.as_ref()).map(|eni| eni.generation);
        if told.is_some() {
            failpoint::pass_alive("agent.eni.before_config");
        }
        let kept = told.filter(|told| !self.newest.take(*told)).map(|told| {
            warn!(node = %self.settings.node, told, "an older NodeConfig is passed over");
            self.tables.nodes.as_ref().and_then(|nodes| nodes.get(&self.settings.node)).cloned()
        });
        fold(update, &mut self.tables.nodes, |config| {
            let routed = config.spec.pod_cidrs.iter().filter(|block| block.interface.is_none());
            NodeRow {
                pod_cidrs: routed.map(|block| (block.pool.clone(), block.cidr)).collect(),
                eni: EniRow::of(config),
            }
        });
        if let (Some(row), Some(nodes)) = (kept, &mut self.tables.nodes) {
            match row {
                Some(row) => drop(nodes.insert(self.settings.node.clone(), row)),
                None => drop(nodes.remove(&self.settings.node)),
            }
        }
        self.inputs_changed();
        if told.is_some() {
            failpoint::pass_alive("agent.eni.after_config");
        }
    }

    fn take_node_state(&mut self, update: Update<NodeState>) {
        fold(update, &mut self.tables.node_addresses, |state| state.status.addresses.clone());
        self.inputs_changed();
    }

    fn take_pool(&mut self, update: Update<PodPool>) {
        fold(update, &mut self.tables.pools, PoolRow::of);
        self.inputs_changed();
    }

    fn inputs_changed(&mut self) {
        self.tables.touch();
        if self.tables.synced() {
            self.set_ranges();
            let names = self.eni_links();
            if names.iter().any(|name| !self.tables.uplinks.iter().any(|uplink| uplink.ifname == *name)) {
                // An interface of the cloud that was there before it was decided about.
                self.look_due = Some(Instant::now());
            }
        }
    }

    /// Tells the pool what may be leased, and how long what was leased rests.
    fn set_ranges(&mut self) {
        if self.settings.follows_pool {
            self.follow_pool();
        }
        let ranges = self.tables.ranges(&self.settings.node, &self.settings.pool);
        self.ledger.set_ranges(&ranges);
        let row = self.tables.eni(&self.settings.node);
        self.ledger.set_families(row.map_or(&[], EniRow::families));
        // What no pod has an address of can be given back: pods of interfaces stay together.
        let order = if row.is_some() { Order::Lowest } else { Order::LongestFree };
        let asked = row.and_then(EniRow::cool_down);
        self.ledger.set_lending(asked.unwrap_or(self.settings.cool_down), order);
    }

    /// Leases from the pool of the node's interfaces, where it has any.
    fn follow_pool(&mut self) {
        let pool = match self.tables.eni(&self.settings.node) {
            Some(row) => row.pool().cloned(),
            None => Some(usual_pool()),
        };
        if let Some(pool) = pool
            && pool != self.settings.pool
        {
            info!(before = %self.settings.pool, now = %pool, "addresses are leased from another pool");
            self.ledger.set_pool(pool.clone());
            self.settings.pool = pool;
        }
    }

    /// What is known about an endpoint's surroundings.
    fn surroundings(&self, endpoint: &Endpoint) -> Surroundings {
        let ifindex = match chained_ifindex(endpoint) {
            Some(_) => self.chained_links.get(&endpoint.key).copied(),
            None => self.kernel.link_facts(&endpoint.key).map(|facts| facts.ifindex),
        };
        Surroundings { ifindex, namespace: self.namespaces.has(&endpoint.key) }
    }

    /// What every endpoint of the node shares.
    fn shared(&self) -> Shared<'_> {
        Shared {
            addresses: &self.tables.own_addresses,
            programs: &self.settings.programs,
            eni: self.eni.around(),
        }
    }

    /// The objects of one endpoint.
    fn objects_of(&self, endpoint: &Endpoint) -> Desired {
        let mut objects = Desired::default();
        objects.add_endpoint(endpoint, self.surroundings(endpoint), self.shared());
        objects
    }

    /// What the pods of this node are called; attachments without a pod go by their key.
    fn names(&self) -> Names {
        let mut names = Names::default();
        for endpoint in self.ledger.endpoints().values() {
            let name = endpoint.pod.as_ref().map_or_else(|| endpoint.key.to_string(), ToString::to_string);
            if let Some(ifindex) = self.surroundings(endpoint).ifindex {
                names.links.insert(ifindex, (endpoint.host.to_string(), name.clone()));
            }
            for address in &endpoint.addresses {
                names.pods.insert(address.address.ip(), name.clone());
            }
        }
        names
    }

    fn forget_namespace(&mut self, key: &AttachmentKey) {
        self.namespaces.forget(key);
        self.kernel.forget_pod(key);
    }
}

/// Sends a refusal to everyone who waits.
fn refuse_all(replies: Vec<oneshot::Sender<Reply>>, refusal: &Refusal) {
    for reply in replies {
        // Whoever asked may have gone away.
        drop(reply.send(Reply::Refused(refusal.clone())));
    }
}

/// The wall clock, for what is journalled.
fn wall_clock() -> Timestamp {
    SystemTime::now().into()
}
