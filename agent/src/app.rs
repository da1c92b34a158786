// SPDX-License-Identifier: Apache-2.0
//! The composition root: opens every part, joins them, and runs until told to stop.
//!
//! Stopping leaves the datapath, the pods, the routes and the leases as they are.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rhumb_api::{DirStore, NodeStateStatus};
use rhumb_cni::queue::{self, Queue};
use rhumb_ebpf::{Datapath, Epoch};
use rhumb_ipam::{Policy, Pool};
use rhumb_model::Reconciler;
use rhumb_process::{Ready, heap};
use rhumb_routing::Filters;
use rhumb_routing::eni::Outside;
use rhumb_routing::plan::HoldDown;
use rhumb_routing::{
    Events, HostAddresses, HostRoutes, Interfaces, Links, Namespaces, Netlink, PodAddresses, PodRoutes,
    Qdiscs, Rules, Sysctls, TableRoutes, Tunnels,
};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::args::{self, Args, Cloud, EniMasquerade, Tunnel};
use crate::conf_file::{self, ConfFiles};
use crate::desired::Programs;
use crate::eni::EniSettings;
use crate::kernel::Kernel;
use crate::ledger::{Ledger, STICKY_FOR};
use crate::masquerade::{self, Followed, Masquerade};
use crate::metrics::Scraper;
use crate::node::{BgpEnds, Input, Neighbours, Node, Settings};
use crate::udev::Udev;
use crate::{bgp, follow, instance, local_socket, metrics, monitor, plugin_socket, probe, publish, sweep};

/// Requests and changes that wait for the loop; senders wait when it is full.
const INBOX: usize = 1024;

/// Watchers of packets that wait to be taken in, at once.
const WATCHERS: usize = 4;

/// A store that is not there is looked for again after this time.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How long calls under way may take to end when the agent is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Where the kernel says which boot this is; tests point elsewhere to play a reboot.
const BOOT_ID_ENV: &str = "RHUMB_BOOT_ID_FILE";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Runs the agent until SIGTERM or SIGINT.
pub(crate) async fn run(args: Args) -> Result<()> {
    let mut ready = Ready::open(args.ready_fd).context("open the descriptor of --ready-fd")?;
    for dir in [&args.state_dir, &args.run_dir] {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let mut ledger = open_ledger(&args)?;
    let socket = args.run_dir.join("agent.sock");
    let queue = drain_queue(&socket, &mut ledger)?;
    let config = rhumb_ebpf::Config { flows: args.flows, ..rhumb_ebpf::Config::new(args.bpffs.clone()) };
    let datapath = Datapath::open(&config)?;
    // The programs' object is read, relocated and loaded once, and that needs five times what the agent holds afterwards.
    heap::give_back();
    let namespaces = Namespaces::new();
    let host = Netlink::new(namespaces.clone())?;
    let (kernel, programs) = open_kernel(&args, &datapath, &host)?;
    let plugins = listen(&socket)?;
    // From now on plugins reach us: they need not queue any more.
    drop(queue);
    let (events, pressure) = (datapath.events()?, datapath.pressure());
    let (table, sweep) = (datapath.flow_table(), datapath.sweep());
    let questions = listen(&args.run_dir.join(local_socket::SOCKET))?;
    let (publication, published) = watch::channel(NodeStateStatus::default());
    let (local, seen) = watch::channel(bgp::Local::default());
    let (report, reported) = watch::channel(bgp::Report::default());
    let (inbox, inputs) = mpsc::channel(INBOX);
    let plugin_inbox = inbox.clone();
    let (notices, epoch) = (Events::open(&host).await?, datapath.epoch());
    let masquerade = read_masquerade(&args);
    let bgp = BgpParts { host: host.clone(), local: seen, report };
    let (whom, targets) = watch::channel(probe::Targets::default());
    let (probed, heard) = watch::channel(probe::Report::default());
    ready.say("serving");
    let node = Node::new(
        Settings {
            node: args.node.clone(),
            pool: ledger.pool().name().clone(),
            follows_pool: args.pool.is_none(),
            mtu: args.mtu,
            node_addresses: args.node_address.clone(),
            programs,
            uplinks: args.uplink.clone(),
            hold_down: HoldDown(args.route_hold_down),
            metadata_service: args.metadata_service,
            tunnel_port: (args.tunnel == Tunnel::Auto).then_some(args.tunnel_port),
            eni: EniSettings {
                outside: match args.eni_masquerade {
                    EniMasquerade::Node => Outside::Node,
                    EniMasquerade::Interface => Outside::Interface,
                },
                base: args.eni_tables,
            },
            cool_down: args.cool_down,
        },
        ledger,
        masquerade.clone(),
        kernel,
        namespaces,
        host,
        datapath,
        conf_file::content(&args.cni_network, &socket),
        publication,
        BgpEnds { local, report: reported },
        ready,
        Neighbours { whom, report: heard },
    );

    let store = Rc::new(OnceCell::new());
    let mut tasks = JoinSet::new();
    tasks.spawn_local(use_store(args.clone(), Rc::clone(&store), inbox.clone(), published, bgp));
    let (watchers, joins) = mpsc::channel(WATCHERS);
    let scraper = Rc::new(Scraper::new(inbox.clone(), pressure));
    tasks.spawn_local(local_socket::serve(questions, inbox.clone(), Rc::clone(&scraper), table, watchers));
    tasks.spawn_local(metrics::serve(args.metrics_address, scraper));
    tasks.spawn_local(monitor::run(events, inbox.clone(), joins));
    if let Some(file) = args.ip_masq_config.clone() {
        tasks.spawn_local(masquerade::follow(Followed::new(file, masquerade), inbox.clone()));
    }
    if args.probe == args::Probe::On {
        tasks.spawn_local(probe::run(args.probe_port, args.node.clone(), targets, inbox.clone(), probed));
    }
    if args.cloud == Cloud::Aws {
        tasks.spawn_local(Udev::default().follow(inbox.clone()));
        tasks.spawn_local(instance::run(args.imds_endpoint, inbox.clone()));
    }
    tasks.spawn_local(sweep::run(sweep, inbox.clone()));
    tasks.spawn_local(pass_notices(notices, epoch, inbox));
    info!(node = %args.node, version = env!("CARGO_PKG_VERSION"), "serving");
    tokio::select! {
        () = node.run(inputs) => {}
        ended = serve_until_signal(plugins, socket, store, plugin_inbox) => ended?,
    }
    Ok(())
}

/// What BGP needs besides the store.
struct BgpParts {
    host: Netlink,
    local: watch::Receiver<bgp::Local>,
    report: watch::Sender<bgp::Report>,
}

/// Opens the object store, as soon as it is there, and does everything that needs it. Until then pods that are up stay
/// as they are, DEL is served, and ADD is told to come again.
async fn use_store(
    args: Args,
    opened: Rc<OnceCell<DirStore>>,
    inbox: mpsc::Sender<Input>,
    published: watch::Receiver<NodeStateStatus>,
    bgp: BgpParts,
) {
    let store = loop {
        match DirStore::open(&args.store).await {
            Ok(store) => break store,
            Err(error) => {
                warn!(store = %args.store.display(), error = &error as &dyn std::error::Error, "waiting for the object store");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    };
    let store = opened.get_or_init(|| store);
    let bgp = bgp::Parts {
        store: store.clone(),
        node: args.node.clone(),
        host: bgp.host,
        local: bgp.local,
        socket: args.bgp_socket.clone().unwrap_or_else(|| args.run_dir.join(rhumb_bgp_feed::SOCKET)),
        report: bgp.report,
        inbox: inbox.clone(),
    };
    tokio::join!(
        follow::run(store.clone(), Input::NodeConfigs, inbox.clone()),
        follow::run(store.clone(), Input::NodeStates, inbox.clone()),
        follow::run(store.clone(), Input::Pools, inbox),
        bgp::run(bgp),
        publish::run(store.clone(), args.node, args.register_node, published),
        log_problems(store.clone()),
    );
}

/// Serves plugins until SIGTERM or SIGINT, and then until those who were heard have their answer.
async fn serve_until_signal(
    plugins: UnixListener,
    socket: PathBuf,
    store: Rc<OnceCell<DirStore>>,
    inbox: mpsc::Sender<Input>,
) -> Result<()> {
    let signal = rhumb_process::stop_signal()?;
    let (stop, stopping) = watch::channel(false);
    let serving = plugin_socket::serve(plugins, socket, store, inbox, stopping);
    let stopped = async {
        info!(signal = signal.await, "stopping; pods, routes and the datapath stay as they are");
        stop.send_replace(true);
        tokio::time::sleep(DRAIN).await;
        warn!("stopping with calls unanswered");
        anyhow::Ok(())
    };
    tokio::select! {
        () = serving => Ok(()),
        ended = stopped => ended,
    }
}

fn open_ledger(args: &Args) -> Result<Ledger> {
    let path = std::env::var_os(BOOT_ID_ENV).unwrap_or_else(|| BOOT_ID.into());
    let boot =
        fs::read_to_string(&path).with_context(|| format!("read the boot id from {}", path.display()))?;
    let name = args.pool.clone().unwrap_or_else(args::usual_pool);
    let pool =
        Pool::new(name, Policy { cool_down: args.cool_down, sticky_for: STICKY_FOR, ..Policy::default() });
    let journal = args.state_dir.join("attachments.journal");
    let (ledger, found) =
        Ledger::open(&journal, pool, args.pool.is_none(), boot.trim(), SystemTime::now().into())?;
    if let Some(repair) = found.repaired {
        warn!(bytes = repair.bytes_cut, "the journal ended in a torn record, which was cut");
    }
    if found.forgotten > 0 {
        info!(attachments = found.forgotten, "attachments of an earlier boot are released");
    }
    info!(attachments = ledger.endpoints().len(), "attachments restored");
    Ok(ledger)
}

/// Does what plugins asked while no agent was there. What that leaves in the kernel goes with the first pass.
///
/// While the queue is held, plugins wait: none queues a DEL that would not be seen.
fn drain_queue(socket: &Path, ledger: &mut Ledger) -> Result<Queue> {
    let queue = Queue::open(&queue::directory_of(socket))?;
    let now = SystemTime::now().into();
    let drained = queue.drain(|request| ledger.detach(std::slice::from_ref(&request.key), now))?;
    for (file, error) in &drained.bad {
        warn!(file = %file.display(), error = error as &dyn std::error::Error, "a queued DEL is not readable and was set aside");
    }
    if let Some((request, error)) = drained.failed.into_iter().next() {
        return Err(error).with_context(|| format!("remove attachment {} as queued", request.key));
    }
    if !drained.done.is_empty() {
        info!(attachments = drained.done.len(), "queued DELs done");
    }
    Ok(queue)
}

fn open_kernel(args: &Args, datapath: &Datapath, host: &Netlink) -> Result<(Kernel, Programs)> {
    let targets = datapath.targets()?;
    let has_tcx = rhumb_ebpf::has_tcx();
    let mut programs = Programs::default();
    let mut loaded = BTreeMap::new();
    for program in datapath.programs()?.into_iter().filter(|it| Programs::is_filter(it.hook, has_tcx)) {
        programs.filters.insert(program.hook, program.id);
        loaded.insert(program.id, Arc::new(program.fd));
    }
    let kernel = Kernel {
        sysctls: Reconciler::new(Sysctls::default()),
        tunnels: Reconciler::new(Tunnels::new(host.clone())),
        links: Reconciler::new(Links::new(host.clone())),
        addresses: Reconciler::new(PodAddresses::new(host.clone())),
        routes: Reconciler::new(PodRoutes::new(host.clone())),
        qdiscs: Reconciler::new(Qdiscs::new(host.clone())),
        host_routes: Reconciler::new(HostRoutes::new(host.clone())),
        pod_links: Reconciler::new(targets.pod_links),
        filters: Reconciler::new(Filters::new(host.clone(), loaded)),
        attachments: Reconciler::new(targets.attachments),
        pods: Reconciler::new(targets.endpoints),
        interfaces: Reconciler::new(Interfaces::new(host.clone())),
        host_addresses: Reconciler::new(HostAddresses::new(host.clone())),
        table_routes: Reconciler::new(TableRoutes::new(host.clone())),
        rules: Reconciler::new(Rules::new(host.clone())),
        tunnel_links: Reconciler::new(targets.tunnel_links),
        ipcache: Reconciler::new(targets.ipcache),
        masquerade: Reconciler::new(targets.uplinks),
        host_ports: Reconciler::new(targets.host_ports),
        conf_files: Reconciler::new(ConfFiles::new(args.cni_conf_dir.clone())),
    };
    Ok((kernel, programs))
}

/// What the file about masquerading says. A bad one keeps no node from starting: what is usual holds until it is good.
fn read_masquerade(args: &Args) -> Masquerade {
    let Some(file) = &args.ip_masq_config else { return Masquerade::default() };
    Masquerade::read(file).unwrap_or_else(|error| {
        warn!(file = %file.display(), %error, "masquerading as usual");
        Masquerade::default()
    })
}

/// Listens at `path` in place of whoever listened there before; only root may connect.
fn listen(path: &Path) -> Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove the old socket {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protect {}", path.display()))?;
    Ok(listener)
}

/// Passes on that the node's links, addresses, routes or neighbours changed, after the ways that flows keep were ended. When the
/// kernel's notices cannot be heard any more, the regular refresh is what is left, and the moment for which flows keep ways.
async fn pass_notices(mut events: Events, epoch: Epoch, inbox: mpsc::Sender<Input>) {
    let advance = || {
        if let Err(error) = epoch.advance() {
            warn!(
                error = &error as &dyn std::error::Error,
                "ways that flows keep end with their moment only"
            );
        }
    };
    loop {
        let heard = match events.next_after(advance).await {
            Ok(heard) => heard,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "changes of links and routes are not heard any more"
                );
                return;
            }
        };
        if inbox.send(Input::HostChanged(heard)).await.is_err() {
            return;
        }
    }
}

/// Says in the log what is wrong with objects that people wrote.
async fn log_problems(store: DirStore) {
    use rhumb_api::Store;
    let mut problems = store.problems();
    loop {
        for problem in problems.borrow_and_update().iter() {
            warn!(%problem, "object not taken over; the last good version stays in force");
        }
        if problems.changed().await.is_err() {
            return;
        }
    }
}
