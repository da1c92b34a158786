// SPDX-License-Identifier: Apache-2.0
//! The operator as a process, with objects in a directory and an EC2 in memory: nodes get their interfaces, and a kill
//! at any step leaves nothing over and makes nothing twice.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod cluster;
mod forgotten;
mod offer;
mod reasons;
mod settings;

use rhumb_cloud_fake::{Fault, Rule};

use cluster::{CLUSTER, Cluster};

#[tokio::test]
async fn a_node_gets_its_addresses_by_as_few_calls_as_there_can_be() {
    let mut cluster = Cluster::new().await;
    cluster.start();
    cluster.until_served().await;
    cluster.check(2).await;
    for (action, calls) in [
        ("CreateNetworkInterface", 1),
        ("AttachNetworkInterface", 1),
        ("AssignPrivateIpAddresses", 1),
        ("ModifyNetworkInterfaceAttribute", 1),
    ] {
        assert_eq!(cluster.calls(action), calls, "{action}");
    }
    let made = cluster.interfaces().into_iter().find(|eni| !eni.tags.is_empty()).expect("made by us");
    for (tag, value) in [("rhumb.io/cluster", CLUSTER), ("rhumb.io/node", "a")] {
        assert_eq!(made.tags.get(tag).map(String::as_str), Some(value), "{:?}", made.tags);
    }
}

#[tokio::test]
async fn a_kill_at_any_step_leaves_nothing_over_and_makes_nothing_twice() {
    for point in [
        "operator.eni.after.look",
        "operator.eni.before.config",
        "operator.eni.after.config",
        "operator.eni.before.offer",
        "operator.eni.after.offer",
        "operator.eni.before.CreateNetworkInterface",
        "operator.eni.after.CreateNetworkInterface",
        "operator.eni.before.AttachNetworkInterface",
        "operator.eni.after.AttachNetworkInterface",
        "operator.eni.before.AssignPrivateIpAddresses",
        "operator.eni.after.AssignPrivateIpAddresses",
        "operator.eni.before.ModifyNetworkInterfaceAttribute",
        "operator.eni.after.ModifyNetworkInterfaceAttribute",
    ] {
        let mut cluster = Cluster::new().await;
        cluster.start_twice(point).await;
        cluster.until_served().await;
        cluster.check(2).await;
        cluster.until_node("the scheduler is told", |node| offer::of(node) == offer::all(27)).await;
        assert!(cluster.calls("CreateNetworkInterface") <= 2, "{point}");
    }
}

#[tokio::test]
async fn a_lost_reply_is_followed_by_a_look_and_not_by_another_interface() {
    let mut cluster = Cluster::new().await;
    cluster.servers.handle().with(|fake, _| {
        for action in ["CreateNetworkInterface", "AssignPrivateIpAddresses"] {
            let fault = Fault::LostReply;
            fake.fault(Rule { action: Some(action.to_owned()), times: Some(1), fault, ..Rule::default() });
        }
    });
    cluster.start();
    cluster.until_served().await;
    cluster.check(2).await;
    assert_eq!(cluster.calls("CreateNetworkInterface"), 1);
    assert_eq!(cluster.calls("AssignPrivateIpAddresses"), 1);
}

#[tokio::test]
async fn a_look_at_many_nodes_costs_no_more_describes_than_one_at_one() {
    let mut cluster = Cluster::new().await;
    for number in 0..40 {
        let instance = cluster.launch();
        cluster.write_node(&format!("n{number}"), &instance);
    }
    cluster.change_pool(|pool| (pool.min_allocate, pool.pre_allocate) = (0, 0)).await;
    cluster.start();
    let looks = "DescribeSubnets";
    cluster.until("it looked several times", |cluster, _| cluster.calls(looks) >= 4).await;
    cluster.stop();
    let looked = cluster.calls(looks);
    for action in ["DescribeInstances", "DescribeNetworkInterfaces", "DescribeSecurityGroups", "DescribeVpcs"]
    {
        let calls = cluster.calls(action);
        assert!(calls.abs_diff(looked) <= 1, "{action}: {calls} in {looked} looks");
    }
    assert_eq!(cluster.calls("DescribeInstanceTypes"), 0, "the table knows m5.large");
}
