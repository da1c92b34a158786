// SPDX-License-Identifier: Apache-2.0
//! What the scheduler is told by the Node object.

use rhumb_api::{Node, Store};
use rhumb_cloud_fake::{Action as Call, NewInterface, Want, Wants};
use rhumb_model::EniId;

use crate::cluster::Cluster;

/// Capacity, allocatable, and whether there is the taint.
pub(crate) fn of(node: &Node) -> (Option<u32>, Option<u32>, bool) {
    let status = node.status.as_ref();
    let read = |of: Option<&rhumb_api::Quantity>| of.and_then(|number| number.0.parse().ok());
    let name = "rhumb.io/pod-addresses";
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    (
        read(status.and_then(|status| status.capacity.as_ref()?.get(name))),
        read(status.and_then(|status| status.allocatable.as_ref()?.get(name))),
        taints.into_iter().any(|taint| taint.key == "rhumb.io/no-addresses" && taint.effect == "NoSchedule"),
    )
}

/// A node that can have so many addresses, and nothing in its way.
pub(crate) fn all(count: u32) -> (Option<u32>, Option<u32>, bool) {
    (Some(count), Some(count), false)
}

impl Cluster {
    /// Somebody else's interface, with so many addresses beside its primary one.
    fn occupy(&self, count: u16) -> EniId {
        let wants = Wants { addresses: Want::Count(count), ..Wants::default() };
        self.create(NewInterface { wants, ..NewInterface::new(self.subnet.clone()) })
    }
}

#[tokio::test]
async fn the_scheduler_is_told_while_a_subnet_is_full_and_when_it_no_longer_is() {
    let mut cluster = Cluster::new().await;
    // Of 251 addresses the node has one, and these leave four.
    let others: Vec<EniId> = [49, 49, 49, 49, 45].map(|count| cluster.occupy(count)).into();
    cluster.start();
    let few = (Some(27), Some(4), false);
    cluster.until_node("only these can be given out", |node| of(node) == few).await;
    cluster.report(4).await;
    cluster.until_node("all are taken", |node| of(node) == (Some(27), Some(4), true)).await;
    let node = cluster.store.get::<Node>(&crate::cluster::node()).await.expect("readable");

    // An operator that starts anew finds it as it is to be.
    cluster.stop();
    cluster.start();
    let looks = cluster.calls("DescribeSubnets");
    cluster.until("it looked twice", |cluster, _| cluster.calls("DescribeSubnets") >= looks + 2).await;
    assert_eq!(
        cluster.store.get::<Node>(&crate::cluster::node()).await.expect("readable"),
        node,
        "nothing is written"
    );

    for id in others {
        cluster.ask(Call::DeleteNetworkInterface(id));
    }
    cluster.until_node("there is room again", |node| of(node) == all(27)).await;
    cluster.change_pool(|pool| pool.node_selector.match_labels = [("no".into(), "node".into())].into()).await;
    cluster.until_node("the node is served no longer", |node| of(node) == all(0)).await;
}
