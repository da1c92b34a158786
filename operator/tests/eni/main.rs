// SPDX-License-Identifier: Apache-2.0
//! The operator as a process, with objects in a directory and an EC2 in memory: nodes get their interfaces, and a kill
//! at any step leaves nothing over and makes nothing twice.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod cluster;
mod forgotten;
mod offer;
mod reasons;
mod settings;

use std::collections::BTreeSet;

use rhumb_cloud_fake::{Fault, Rule, Span};

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

/// Steps that a node with single addresses does not come to while it grows; labs walk through all of them.
fn is_elsewhere(point: &str) -> bool {
    let calls = ["Ipv6", "SourceDestCheck", "Groups", "Unassign", "Detach", "Delete", "Reservation"];
    calls.iter().any(|call| point.contains(call)) && !point.ends_with("DeleteOnTermination")
}

#[tokio::test]
async fn a_kill_at_any_step_leaves_nothing_over_and_makes_nothing_twice() {
    let text = [include_str!("../../src/eni/call.rs"), include_str!("../../src/eni/run.rs")].concat();
    let points: BTreeSet<&str> =
        text.split('"').filter(|word| word.starts_with("operator.eni.") && !is_elsewhere(word)).collect();
    assert!(points.len() > 10, "{points:?}");
    for point in points {
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

/// The look of the operator that comes after does not show the interface, so that it asks for it again, by the same token.
#[tokio::test]
async fn what_an_operator_that_died_made_is_waited_for_and_not_made_again() {
    let mut cluster = Cluster::new().await;
    cluster.change_pool(|pool| pool.min_allocate = 9).await;
    cluster.start();
    cluster
        .until("nine addresses", |_, config| config.is_some_and(|config| config.spec.pod_cidrs.len() == 9))
        .await;
    cluster.stop();
    cluster.change_pool(|pool| pool.min_allocate = 15).await;
    cluster.servers.handle().with(|fake, _| fake.world_mut().settings_mut().lag = Span::exactly(15_000));
    cluster.start_twice("operator.eni.after.CreateNetworkInterface").await;
    cluster.until_served().await;
    cluster.check(2).await;
    assert_eq!(cluster.outcomes("CreateNetworkInterface"), ["ok", "IdempotentParameterMismatch"]);
}

#[tokio::test]
async fn ec2_is_asked_once_about_a_type_that_the_table_does_not_know() {
    let mut cluster = Cluster::of("x9.huge").await;
    cluster.start();
    cluster.until_served().await;
    cluster.check(2).await;
    let looks = cluster.calls("DescribeSubnets");
    cluster.until("two more looks", |cluster, _| cluster.calls("DescribeSubnets") >= looks + 2).await;
    assert_eq!(cluster.calls("DescribeInstanceTypes"), 1);
    cluster.until_node("all that the type allows", |node| offer::of(node) == offer::all(27)).await;
}
