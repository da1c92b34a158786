// SPDX-License-Identifier: Apache-2.0
//! Writes the state of this node to its NodeState object, and the Node object where the agent registers it.

use std::time::Duration;

use rhumb_api::{
    Condition, ConditionStatus, INTERFACES_LEFT_ALONE, Node as NodeObject, NodeState, NodeStateStatus,
    ObjectKey, PoolUsage, READY, Store, StoreError,
};
use rhumb_cni::failpoint;
use rhumb_ipam::Usage;
use rhumb_model::{Family, NodeName, PoolName, Prefix};
use tokio::sync::watch;
use tracing::warn;

/// Changes within this time are written as one.
const SETTLE: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(1);

/// What this node says about itself for one family of its pool.
pub(crate) fn pool_usage(
    pool: &PoolName,
    family: Family,
    blocks: &[Prefix],
    idle: &[Prefix],
    usage: Usage,
) -> PoolUsage {
    let of_family = |all: &[Prefix]| all.iter().copied().filter(|prefix| prefix.family() == family).collect();
    PoolUsage {
        pool: pool.clone(),
        family,
        pod_cidrs: of_family(blocks),
        idle: of_family(idle),
        capacity: usage.capacity,
        used: usage.held,
        cooling: usage.cooling + usage.kept,
        free: usage.free,
    }
}

/// The condition that says whether ADD can be served.
pub(crate) fn ready_condition(not_ready: &[String]) -> Condition {
    let (status, reason) = match not_ready {
        [] => (ConditionStatus::True, "Ready"),
        [_, ..] => (ConditionStatus::False, "NotReady"),
    };
    Condition { kind: READY.to_owned(), status, reason: reason.to_owned(), message: not_ready.join("; ") }
}

/// The condition that says whether other programs leave interfaces of the cloud alone.
pub(crate) fn left_alone_condition(dangers: &[String]) -> Condition {
    let (status, reason) = match dangers {
        [] => (ConditionStatus::True, "LeftAlone"),
        [_, ..] => (ConditionStatus::False, "Managed"),
    };
    let kind = INTERFACES_LEFT_ALONE.to_owned();
    Condition { kind, status, reason: reason.to_owned(), message: dangers.join("; ") }
}

/// Publishes every change until the sender is gone.
pub(crate) async fn run<S: Store>(
    store: S,
    node: NodeName,
    register: bool,
    mut status: watch::Receiver<NodeStateStatus>,
) {
    while status.changed().await.is_ok() {
        tokio::time::sleep(SETTLE).await;
        loop {
            let current = status.borrow_and_update().clone();
            match publish(&store, &node, register, &current).await {
                Ok(()) => break,
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "node state not published");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

async fn publish<S: Store>(
    store: &S,
    node: &NodeName,
    register: bool,
    status: &NodeStateStatus,
) -> Result<(), StoreError> {
    let key = ObjectKey::from(node);
    if register && store.get::<NodeObject>(&key).await?.is_none() {
        let mut object = NodeObject::default();
        object.metadata.name = Some(node.as_str().to_owned());
        match store.create(&object).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    // From now on the operator may take these blocks from EC2.
    let gives_back = !status.released.is_empty();
    if gives_back {
        failpoint::pass_alive("agent.eni.before_release");
    }
    store.publish_status(&NodeState::new(node), status).await?;
    if gives_back {
        failpoint::pass_alive("agent.eni.after_release");
    }
    Ok(())
}
