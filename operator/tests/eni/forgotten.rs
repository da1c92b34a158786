// SPDX-License-Identifier: Apache-2.0
//! Nodes that go, with and without their instance, and what is left over in EC2.

use std::collections::BTreeMap;

use futures::future::join_all;
use rhumb_api::{Kind, Node, NodeConfig, NodeState, ObjectKey, PodCidr, Store};
use rhumb_cloud_fake::{Action as Call, NewInterface};
use rhumb_model::{Eni, EniId, InstanceState};

use crate::cluster::{CLUSTER, Cluster, is_on, node};

/// Calls that take something from EC2.
const TAKING: [&str; 3] = ["UnassignPrivateIpAddresses", "DetachNetworkInterface", "DeleteNetworkInterface"];

impl Cluster {
    fn terminate(&self) {
        self.ask(Call::TerminateInstances(vec![self.instance.clone()]));
    }

    async fn remove_node(&self) {
        self.store.delete::<Node>(&node(), None).await.expect("there");
    }

    fn taken(&self) -> u64 {
        TAKING.iter().map(|action| self.calls(action)).sum()
    }

    /// An interface that nobody has.
    fn make(&self, tags: &[(&str, &str)]) -> EniId {
        let tags: BTreeMap<String, String> =
            tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.create(NewInterface { tags, ..NewInterface::new(self.subnet.clone()) })
    }
}

#[tokio::test]
async fn with_its_instance_and_its_node_object_everything_of_a_node_goes() {
    let mut cluster = Cluster::new().await;
    cluster.start();
    cluster.until_served().await;
    cluster.report(3).await;
    cluster.terminate();
    cluster.until_said("InstanceState").await;
    cluster.remove_node().await;
    cluster.until("its NodeConfig is gone", |_, config| config.is_none()).await;
    assert_eq!(cluster.store.get::<NodeState>(&node()).await.expect("readable"), None);
    assert_eq!(cluster.interfaces(), [], "they went with the instance");
    assert_eq!(cluster.taken(), 0, "nothing was asked for");
}

#[tokio::test]
async fn a_node_object_that_comes_back_finds_its_interfaces_and_blocks_as_they_were() {
    let mut cluster = Cluster::new().await;
    cluster.start();
    cluster.until_served().await;
    let before = cluster.config().await.expect("there");
    cluster.remove_node().await;
    cluster.until("its NodeConfig is gone", |_, config| config.is_none()).await;
    assert_eq!(
        (cluster.interfaces().len(), cluster.taken()),
        (2, 0),
        "the instance runs, and its pods with it"
    );
    // Its agent says once more what it said last.
    cluster.report(3).await;
    let seen = before.spec.eni.as_ref().expect("there").generation;
    let mut state = cluster.store.get::<NodeState>(&node()).await.expect("readable").expect("there");
    state.status.observed_generation = seen;
    cluster.store.patch_status::<NodeState>(&node(), &state.status).await.expect("written");
    let instance = cluster.instance.clone();
    cluster.write_node("a", &instance);
    cluster.until_served().await;
    cluster.check(2).await;
    let config = cluster.config().await.expect("there");
    assert!(
        config.spec.eni.as_ref().is_some_and(|eni| eni.generation > seen),
        "older words count for nothing"
    );
    assert_eq!((cluster.calls("CreateNetworkInterface"), cluster.taken()), (1, 0));
}

#[tokio::test]
async fn another_instance_under_the_same_name_begins_with_its_own_interfaces() {
    let mut cluster = Cluster::new().await;
    cluster.start();
    cluster.until_served().await;
    cluster.stop();
    cluster.terminate();
    let instance = cluster.launch();
    cluster.store.delete::<Node>(&node(), None).await.expect("there");
    cluster.write_node("a", &instance);
    cluster.instance = instance.clone();
    cluster.start_twice("operator.eni.before.config").await;
    cluster
        .until("it is told of its own", |_, config| {
            let eni = config.and_then(|config| config.spec.eni.as_ref());
            eni.is_some_and(|eni| eni.instance == instance && eni.interfaces.len() == 2)
        })
        .await;
    cluster.until_served().await;
    cluster.check(2).await;
    assert_eq!(cluster.taken(), 0);
}

/// What a node left over is removed, wherever the operator dies, and nothing else.
#[tokio::test]
async fn interfaces_left_over_are_removed_when_they_are_ours_and_old_wherever_the_operator_dies() {
    let one = |point: &'static str| async move {
        let mut cluster = Cluster::new().await;
        cluster.args = vec!["--ec2-orphan-age".to_owned(), "30".to_owned()];
        cluster.change_pool(|pool| (pool.min_allocate, pool.pre_allocate) = (0, 0)).await;
        let ours =
            [("rhumb.io/cluster", CLUSTER), ("rhumb.io/node", "gone"), ("rhumb.io/instance", "i-gone")];
        let ours = cluster.make(&ours);
        let others = [
            cluster.make(&[("rhumb.io/cluster", "other"), ("rhumb.io/node", "gone")]),
            cluster.make(&[("Name", "a person's")]),
            cluster.make(&[]),
        ];
        let begun = cluster.servers.handle().now();
        cluster.start_twice(point).await;
        cluster
            .until("ours is gone", |cluster, _| cluster.interfaces().iter().all(|eni| eni.id != ours))
            .await;
        let age = cluster.servers.handle().now().since(begun);
        assert!(age.as_secs() >= 30, "{point}: after {age:?}");
        let looks = cluster.calls("DescribeSubnets");
        cluster.until("two more looks", |cluster, _| cluster.calls("DescribeSubnets") >= looks + 2).await;
        let left = cluster.interfaces();
        assert!(others.iter().all(|id| left.iter().any(|eni| eni.id == *id)), "{point}: {left:#?}");
        assert!(cluster.calls("DeleteNetworkInterface") <= 2, "{point}");
    };
    let points = ["operator.eni.before.DeleteNetworkInterface", "operator.eni.after.DeleteNetworkInterface"];
    join_all(points.map(one)).await;
}

/// The blocks of the second interface that are to go, as an operator that died wrote them: the agent let them go.
async fn unassign(cluster: &Cluster, second: &EniId, count: usize) {
    let change = |config: &mut NodeConfig| {
        let generation = config.spec.eni.as_ref().map_or(0, |eni| eni.generation);
        let of_second = |block: &&mut PodCidr| block.interface.as_ref() == Some(second);
        for block in config.spec.pod_cidrs.iter_mut().filter(of_second).take(count) {
            (block.releasing, block.unassigning) = (Some(generation), true);
        }
    };
    cluster.store.modify::<NodeConfig, _>(&node(), change).await.expect("written");
}

#[tokio::test]
async fn what_was_let_go_is_taken_once_wherever_the_operator_dies() {
    let one = |(action, when): (&'static str, &'static str)| async move {
        let mut cluster = Cluster::new().await;
        cluster.start();
        cluster.until_served().await;
        cluster.stop();
        let is_second = |eni: &&Eni| !eni.tags.is_empty();
        let second = cluster.interfaces().iter().find(is_second).expect("made").id.clone();
        // Of the six blocks of the second interface three go, or all of them and the interface itself.
        let (count, left, interfaces) =
            if action == "UnassignPrivateIpAddresses" { (3, 12, 2) } else { (6, 9, 1) };
        cluster.change_pool(|pool| (pool.min_allocate, pool.pre_allocate) = (left, 0)).await;
        unassign(&cluster, &second, count).await;
        cluster.start_twice(&format!("operator.eni.{when}.{action}")).await;
        let blocks = usize::try_from(left).expect("few");
        cluster
            .until("they are gone from EC2", |cluster, _| {
                let all = cluster.interfaces();
                let held: usize = all.iter().map(|eni| eni.addresses.len()).sum();
                (held, all.len()) == (blocks, interfaces)
            })
            .await;
        cluster.check(interfaces).await;
        assert!(cluster.calls(action) <= 2, "{action}");
        assert_eq!(cluster.calls("CreateNetworkInterface"), 1, "{action}");
    };
    let points = TAKING.iter().flat_map(|action| [(*action, "before"), (*action, "after")]);
    join_all(points.map(one)).await;
}

#[tokio::test]
async fn of_an_instance_that_leaves_its_interfaces_behind_they_are_removed_later() {
    let mut cluster = Cluster::new().await;
    cluster.args = vec!["--ec2-orphan-age".to_owned(), "30".to_owned()];
    cluster.change_pool(|pool| pool.delete_on_termination = false).await;
    cluster.start();
    cluster
        .until("the node has its addresses", |cluster, config| {
            let blocks = config.map_or(0, |config| config.spec.pod_cidrs.len());
            blocks >= 15 && cluster.interfaces().iter().all(|eni| is_on(eni, &cluster.instance))
        })
        .await;
    cluster.terminate();
    cluster
        .until("one is left over", |cluster, _| {
            let state = cluster
                .servers
                .handle()
                .with(|fake, _| fake.world().instance(&cluster.instance).map(|instance| instance.state));
            state == Some(InstanceState::Terminated) && cluster.interfaces().len() == 1
        })
        .await;
    cluster.remove_node().await;
    cluster
        .until("nothing is left over", |cluster, config| config.is_none() && cluster.interfaces().is_empty())
        .await;
    assert_eq!(cluster.calls("DeleteNetworkInterface"), 1);
    let known = cluster.store.get::<NodeConfig>(&ObjectKey::cluster("a")).await.expect("readable");
    assert_eq!(known.map(|config| config.key()), None);
}

#[tokio::test]
async fn two_nodes_that_are_one_instance_keep_what_they_have_until_one_of_them_goes() {
    let mut cluster = Cluster::new().await;
    cluster.start();
    cluster.until_served().await;
    let before = cluster.config().await.expect("there").spec;
    let instance = cluster.instance.clone();
    cluster.write_node("stale", &instance);
    let said = cluster.until_said("NoInstance").await;
    assert!(said.contains("node stale") && said.contains("Delete the Node object"), "{said}");
    cluster.change_pool(|pool| pool.min_allocate = 18).await;
    let looks = cluster.calls("DescribeSubnets");
    cluster.until("three more looks", |cluster, _| cluster.calls("DescribeSubnets") >= looks + 3).await;
    let spec = cluster.config().await.expect("there").spec;
    assert_eq!((spec.pod_cidrs, spec.eni), (before.pod_cidrs, before.eni));
    let stale = ObjectKey::cluster("stale");
    let told = cluster.store.get::<NodeConfig>(&stale).await.expect("readable").expect("there").spec;
    assert!(told.pod_cidrs.is_empty() && told.eni.is_none(), "{told:?}");
    assert!(told.unserved.expect("told").message.contains("node a"));

    cluster.store.delete::<Node>(&stale, None).await.expect("there");
    cluster
        .until("it has what it wants", |_, config| {
            config.is_some_and(|config| config.spec.pod_cidrs.len() >= 18 && config.spec.unserved.is_none())
        })
        .await;
}
