// SPDX-License-Identifier: Apache-2.0
//! Why a node has no more addresses, from what EC2 answers to what the node's NodeConfig says. What the plan makes of each
//! trouble is tested beside it; here is that every kind of it gets there.

use rhumb_api::{Node, NodeSpec, Store};
use rhumb_model::{InstanceId, SubnetId};

use crate::cluster::{Cluster, node};

/// Starts the operator and waits for the reason and for words that it is told with.
async fn told(cluster: &mut Cluster, code: &str, words: &str) {
    cluster.start();
    let message = cluster.until_said(code).await;
    assert!(message.contains(words), "{code}: {message}");
}

#[tokio::test]
async fn what_ec2_refuses_is_named_with_what_would_help() {
    let unauthorized = ("UnauthorizedOperation", 403);
    for (action, (code, status), reason, words) in [
        ("AssignPrivateIpAddresses", unauthorized, "Refused", "Allow ec2:AssignPrivateIpAddresses"),
        ("DescribeSubnets", unauthorized, "Refused", "Allow ec2:DescribeSubnets"),
        (
            "AssignPrivateIpAddresses",
            ("NetworkAddressUsageLimitExceeded", 400),
            "Quota",
            "Network Address Usage",
        ),
        (
            "CreateNetworkInterface",
            ("NetworkInterfaceLimitExceeded", 400),
            "Quota",
            "network interfaces per Region",
        ),
        ("CreateNetworkInterface", ("InvalidGroup.NotFound", 400), "Backoff", "correct securityGroups"),
        (
            "CreateNetworkInterface",
            ("SecurityGroupsPerInterfaceLimitExceeded", 400),
            "Backoff",
            "more security groups than the account's quota",
        ),
        ("AssignPrivateIpAddresses", ("RequestLimitExceeded", 503), "Throttled", "--ec2-share"),
        ("Describe*", ("RequestLimitExceeded", 503), "Throttled", "--ec2-share"),
        (
            "CreateNetworkInterface",
            ("InsufficientFreeAddressesInSubnet", 400),
            "SubnetExhausted",
            "Add a subnet",
        ),
    ] {
        let mut cluster = Cluster::new().await;
        cluster.refuse(action, code, status, None);
        told(&mut cluster, reason, words).await;
    }
}

#[tokio::test]
async fn what_the_node_or_its_pool_lacks_is_named_with_what_would_help() {
    let mut cluster = Cluster::new().await;
    let elsewhere = SubnetId::new("subnet-elsewhere").expect("valid");
    cluster.change_pool(|pool| pool.subnets.ids = vec![elsewhere.clone()]).await;
    told(&mut cluster, "NoSubnet", "eu-central-1a").await;

    let mut cluster = Cluster::new().await;
    cluster.change_pool(|pool| pool.security_groups.tags = [("no".into(), "such".into())].into()).await;
    told(&mut cluster, "NoSecurityGroup", "securityGroups").await;

    let mut cluster = Cluster::new().await;
    cluster.change_pool(|pool| (pool.min_allocate, pool.interface_budget_per_hour) = (27, 1)).await;
    told(&mut cluster, "Budget", "interfaceBudgetPerHour").await;

    let mut cluster = Cluster::new().await;
    cluster.report(27).await;
    told(&mut cluster, "InstanceFull", "larger type").await;

    let mut cluster = Cluster::of("x9.huge").await;
    cluster.refuse("DescribeInstanceTypes", "UnauthorizedOperation", 403, None);
    cluster.report(2).await;
    told(&mut cluster, "UnknownType", "ec2:DescribeInstanceTypes").await;

    let mut cluster = Cluster::new().await;
    let cordon = |node: &mut Node| {
        node.spec.get_or_insert_with(NodeSpec::default).unschedulable = Some(true);
    };
    cluster.store.modify::<Node, _>(&node(), cordon).await.expect("cordoned");
    told(&mut cluster, "Leaving", "Uncordon").await;
    assert_eq!(cluster.calls("AssignPrivateIpAddresses"), 0, "it is left alone");
}

#[tokio::test]
async fn a_node_that_nobody_finds_is_told_so() {
    let mut cluster = Cluster::new().await;
    cluster.write_node("a", &InstanceId::new("i-0123456789abcdef0").expect("valid"));
    told(&mut cluster, "NoInstance", "i-0123456789abcdef0").await;
    let instance = cluster.instance.clone();
    cluster.write_node("a", &instance);
    cluster.until_served().await;
    cluster
        .until("the reason is gone", |_, config| config.is_some_and(|config| config.spec.unserved.is_none()))
        .await;

    let mut cluster = Cluster::new().await;
    std::fs::write(cluster.path("store/a.yaml"), "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n")
        .expect("written");
    told(&mut cluster, "NoInstance", "spec.providerID").await;
}

#[tokio::test]
async fn an_outage_is_told_to_nodes_that_lack_addresses_and_is_over_when_it_is() {
    let mut cluster = Cluster::new().await;
    cluster.refuse("*", "Unavailable", 503, None);
    told(&mut cluster, "Unreachable", "Unavailable to Describe").await;
    cluster.servers.handle().with(|fake, _| fake.clear_faults());
    cluster.until_served().await;
    cluster.check(2).await;
    cluster
        .until("the reason is gone", |_, config| {
            config.is_some_and(|config| crate::cluster::reason(config).is_none())
        })
        .await;
}
