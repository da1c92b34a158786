// SPDX-License-Identifier: Apache-2.0
//! The composition root: waits to lead, follows the cluster's objects, and writes what was decided.
//!
//! ```text
//!   Node, NodeState, NodeConfig, PodPool ─► Cluster ─► decide ─► NodeConfig of each node
//!                                              ▲                       │
//!                     end of a grace period ───┘   what was written comes back as a change
//!   Node, BGPClusterConfig, BGPPeerConfig ─► bgp ─► status of each BGPClusterConfig
//! ```

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::{BoxStream, select_all};
use rhumb_api::{DirStore, NodeConfig, NodeState, ObjectKey, Store, StoreError, follow};
use rhumb_cloud::Pacer;
use rhumb_cloud_aws::{Aws, AwsSettings};
use rhumb_ipam::CarvePolicy;
use rhumb_model::{NodeName, Timestamp};
use rhumb_process::Ready;
use tracing::{info, warn};

use crate::args::{Args, Cloud};
use crate::cluster::{Cluster, Seen, Work};
use crate::eni::figures::Figures;
use crate::{eni, leader, metrics};

/// What could not be written is decided anew after this time.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Runs the operator until SIGTERM or SIGINT.
pub(crate) async fn run(args: Args) -> Result<()> {
    let signal = rhumb_process::stop_signal()?;
    tokio::select! {
        ended = lead(args) => ended,
        word = signal => {
            info!(signal = word, "stopping");
            Ok(())
        }
    }
}

async fn lead(args: Args) -> Result<()> {
    let dir = args.store.clone();
    // A thread of its own: a standby waits here for as long as another operator lives, and must still end on a signal.
    let (leads, leading) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(leads.send(leader::wait(&dir))));
    let _leadership = leading.await.context("wait for leadership")?.context("take the leader's lock")?;
    info!("leading");
    let store = DirStore::open(&args.store).await?;
    let pacer = Pacer::new(f64::from(args.ec2_share) / 100.0);
    let figures = Figures::default();
    tokio::select! {
        ended = carve_pools(&args, store.clone()) => ended,
        () = interfaces(&args, store, pacer.clone(), figures.clone()) => Ok(()),
        () = metrics::serve(args.metrics_address, || figures.text(&pacer)) => Ok(()),
    }
}

/// Gives nodes their interfaces and addresses of the VPC, for ever, where there is a cloud.
async fn interfaces(args: &Args, store: DirStore, pacer: Pacer, figures: Figures) {
    match args.cloud {
        Cloud::None => std::future::pending().await,
        Cloud::Aws => {
            let settings = AwsSettings {
                endpoint: args.ec2_endpoint.clone(),
                region: args.region.clone(),
                credentials: None,
                deadline: args.ec2_deadline,
            };
            let provider = Aws::new(&settings, pacer.clone()).await;
            let settings = eni::run::Settings {
                cluster: args.cluster_name.clone(),
                period: args.ec2_period,
                grace: args.grace,
                orphan_age: args.ec2_orphan_age,
            };
            eni::run::run(store, provider, pacer, settings, figures).await;
        }
    }
}

async fn carve_pools(args: &Args, store: DirStore) -> Result<()> {
    let policy = CarvePolicy { grace: args.grace, min_free: args.min_free };
    let mut ready = Some(Ready::open(args.ready_fd).context("open the descriptor of --ready-fd")?);
    let mut cluster = Cluster::default();
    let mut seen = everything(&store);
    // Ends with this function, as all tasks of a set do.
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(crate::bgp::run(store.clone()));
    let mut problems = Vec::new();
    let mut wake: Option<Duration> = None;
    loop {
        let sleep = wake.unwrap_or(Duration::from_secs(3600));
        tokio::select! {
            change = seen.next() => match change {
                Some(change) => cluster.take(change),
                None => return Ok(()),
            },
            () = tokio::time::sleep(sleep) => {}
        }
        if !cluster.synced() {
            continue;
        }
        let now = Timestamp::from(SystemTime::now());
        let work = cluster.decide(&policy, now);
        if work.carving.problems != problems {
            for problem in &work.carving.problems {
                warn!(%problem, "pod CIDRs");
            }
            problems.clone_from(&work.carving.problems);
        }
        wake = work.carving.wake_at.map(|at| at.since(now));
        if let Err(error) = write(&store, &mut cluster, work).await {
            warn!(error = &error as &dyn std::error::Error, "decision not written");
            wake = Some(RETRY);
        }
        if let Some(mut ready) = ready.take() {
            ready.say("ready");
        }
    }
}

/// Every change of every kind that the operator reads.
fn everything(store: &DirStore) -> futures::stream::SelectAll<BoxStream<'static, Seen>> {
    select_all([
        follow(store).map(Seen::Nodes).boxed(),
        follow(store).map(Seen::States).boxed(),
        follow(store).map(Seen::Configs).boxed(),
        follow(store).map(Seen::Pools).boxed(),
    ])
}

async fn write(store: &DirStore, cluster: &mut Cluster, work: Work) -> Result<(), StoreError> {
    for (node, blocks) in work.configs {
        let config = cluster.config_with(&node, blocks);
        let written = if config.metadata.resource_version.is_some() {
            store.update(&config).await?
        } else {
            store.create(&config).await?
        };
        let cidrs: Vec<String> = written.spec.pod_cidrs.iter().map(|block| block.cidr.to_string()).collect();
        info!(%node, cidrs = cidrs.join(" "), "pod CIDRs assigned");
        // The next decision counts it at once, before the change comes back from the store.
        cluster.take(Seen::Configs(rhumb_api::Update::Put(written)));
    }
    for node in work.forget {
        forget(store, &node).await?;
        info!(%node, "pod CIDRs of a node that is gone are released");
        let config = cluster.config_with(&node, Vec::new());
        cluster.take(Seen::Configs(rhumb_api::Update::Delete(config)));
    }
    Ok(())
}

async fn forget(store: &DirStore, node: &NodeName) -> Result<(), StoreError> {
    let key = ObjectKey::from(node);
    absent_is_fine(store.delete::<NodeState>(&key, None).await)?;
    absent_is_fine(store.delete::<NodeConfig>(&key, None).await)
}

fn absent_is_fine(deleted: Result<(), StoreError>) -> Result<(), StoreError> {
    match deleted {
        Err(StoreError::NotFound { .. }) => Ok(()),
        other => other,
    }
}
