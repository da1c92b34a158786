// SPDX-License-Identifier: Apache-2.0
//! Why a node has no more addresses, from what EC2 answers to what `rhumb ip explain` prints. What the plan makes of each
//! trouble is tested beside it; here is that every kind of it gets to the person who asks.

use futures::StreamExt;
use rhumb_api::{ENIPoolSpec, EniMode, Node, NodeSpec, Store};
use rhumb_cloud_fake::{Action as Call, NewInterface, Unassign, Want, Wants};
use rhumb_ipam::eni::Code;
use rhumb_model::{InstanceId, SubnetId};

use crate::cluster::{Cluster, is_on, node, reason};

/// So many operators run at a time.
const AT_ONCE: usize = 4;

/// One way into a trouble.
struct Row {
    code: Code,
    /// Type of the node's instance.
    kind: &'static str,
    trouble: Vec<Trouble>,
    /// What the person who asks must read, besides the code.
    words: &'static [&'static str],
}

enum Trouble {
    /// EC2 refuses calls of this name, with this code and status.
    Refused(&'static str, &'static str, u16),
    /// The pool is so.
    Pool(fn(&mut ENIPoolSpec)),
    /// The Node object is so.
    Node(fn(&mut Node)),
    /// Pods have so many addresses.
    Used(u64),
    /// Others do this in the account, before the operator starts.
    Before(fn(&Cluster)),
    /// Others do this once the node has its addresses.
    Later(fn(&Cluster)),
}

impl Row {
    /// Gets a node into the trouble, and reads what is printed about it.
    async fn check(self) {
        let Self { code, kind, trouble, words } = self;
        let mut cluster = Cluster::of(kind).await;
        let mut later = None;
        for trouble in trouble {
            match trouble {
                Trouble::Refused(action, code, status) => cluster.refuse(action, code, status, None),
                Trouble::Pool(change) => cluster.change_pool(change).await,
                Trouble::Node(change) => {
                    cluster.store.modify::<Node, _>(&node(), change).await.expect("changed");
                }
                Trouble::Used(addresses) => cluster.report(addresses).await,
                Trouble::Before(others) => others(&cluster),
                Trouble::Later(others) => later = Some(others),
            }
        }
        cluster.start();
        if let Some(others) = later {
            cluster.until_served().await;
            others(&cluster);
        }
        let mut printed = String::new();
        cluster
            .until(&format!("{code} with {words:?}"), |cluster, config| {
                if config.and_then(reason).is_none_or(|reason| reason.code != code.to_string()) {
                    return false;
                }
                printed = cluster.explained();
                let last = printed.lines().last().unwrap_or_default();
                last.starts_with(&format!("{code}: ")) && words.iter().all(|words| last.contains(words))
            })
            .await;
    }
}

/// Every way into each trouble.
fn rows(code: Code) -> Vec<Row> {
    use Trouble::{Before, Later, Node, Pool, Refused, Used};
    let of = |kind: &'static str, trouble: Vec<Trouble>, words| Row { code, kind, trouble, words };
    let row = |trouble: Vec<Trouble>, words| of("m5.large", trouble, words);
    let denied = |action| Refused(action, "UnauthorizedOperation", 403);
    match code {
        Code::NoSubnet => vec![row(
            vec![Pool(|pool| pool.subnets.ids = vec![SubnetId::new("subnet-elsewhere").expect("valid")])],
            &["zone eu-central-1a", "ENIPool vpc", "spec.subnets"],
        )],
        Code::NoSecurityGroup => vec![row(
            vec![Pool(|pool| pool.security_groups.tags = [("no".into(), "such".into())].into())],
            &["ENIPool vpc", "spec.securityGroups.ids"],
        )],
        Code::SubnetExhausted => vec![
            row(
                vec![Before(|cluster| (0..6).for_each(|_| others_take(cluster, Want::Count(40))))],
                &["has no addresses left", "Add a subnet of zone eu-central-1a"],
            ),
            row(
                vec![Refused("CreateNetworkInterface", "InsufficientFreeAddressesInSubnet", 400)],
                &["has no addresses left", "Add a subnet"],
            ),
        ],
        Code::SubnetFragmented => vec![row(
            vec![
                Pool(|pool| pool.mode = EniMode::Prefixes),
                Before(|cluster| {
                    let one_of_each = (0..16).map(|block| [10, 0, 4, block * 16 + 10].into());
                    others_take(cluster, Want::These(one_of_each.collect()));
                }),
            ],
            &["no whole /28", "create-subnet-cidr-reservation", "allowAddressesInPrefixSubnets: true"],
        )],
        Code::NoIpv6 => vec![row(
            vec![Pool(|pool| pool.ipv6 = true)],
            &["ENIPool vpc wants IPv6", "Associate a /64", "spec.ipv6: false"],
        )],
        Code::InstanceFull => vec![row(
            vec![Used(27)],
            &["All 3 interfaces of 10 slots", "m5.large", "larger type", "mode: prefixes"],
        )],
        Code::NoPrefixes => vec![of(
            "m4.large",
            vec![Pool(|pool| pool.mode = EniMode::Prefixes)],
            &["m4.large", "cannot have prefixes", "mode: addresses"],
        )],
        Code::UnknownType => vec![of(
            "x9.huge",
            vec![denied("DescribeInstanceTypes"), Used(2)],
            &["x9.huge", "2 interfaces of 2 slots", "ec2:DescribeInstanceTypes"],
        )],
        Code::MaxAllocate => vec![row(
            vec![Pool(|pool| (pool.min_allocate, pool.max_allocate) = (0, 5)), Used(5)],
            &["all 5 addresses that ENIPool vpc allows", "spec.maxAllocate"],
        )],
        Code::KubeletLimit => vec![row(
            vec![
                Pool(|pool| pool.min_allocate = 0),
                Before(|cluster| {
                    let (path, kubelet) =
                        (cluster.path("store/a.yaml"), "status: {capacity: {pods: \"5\"}}\n");
                    let text = std::fs::read_to_string(&path).expect("there") + kubelet;
                    std::fs::write(path, text).expect("written");
                }),
                Used(5),
            ],
            &["no more than 5 pods", "maxPods"],
        )],
        Code::Budget => vec![row(
            vec![Pool(|pool| (pool.min_allocate, pool.interface_budget_per_hour) = (27, 1))],
            &[
                "Interfaces made for this node within the hour: 1",
                "tried again at",
                "spec.interfaceBudgetPerHour",
            ],
        )],
        Code::Backoff => vec![
            row(
                vec![Refused("CreateNetworkInterface", "InvalidGroup.NotFound", 400)],
                &["CreateNetworkInterface answered InvalidGroup.NotFound", "correct securityGroups"],
            ),
            row(
                vec![Refused("CreateNetworkInterface", "SecurityGroupsPerInterfaceLimitExceeded", 400)],
                &["name fewer security groups in the ENIPool"],
            ),
        ],
        Code::Unreachable => {
            vec![row(vec![Refused("*", "Unavailable", 503)], &["Unavailable to Describe", "reachability"])]
        }
        Code::Quota => vec![
            row(
                vec![Refused("AssignPrivateIpAddresses", "NetworkAddressUsageLimitExceeded", 400)],
                &["NetworkAddressUsageLimitExceeded", "Network Address Usage"],
            ),
            row(
                vec![Refused("CreateNetworkInterface", "NetworkInterfaceLimitExceeded", 400)],
                &["NetworkInterfaceLimitExceeded", "network interfaces per Region"],
            ),
        ],
        Code::Refused => vec![
            row(vec![denied("AssignPrivateIpAddresses")], &["Allow ec2:AssignPrivateIpAddresses", "IAM"]),
            row(vec![denied("DescribeSubnets")], &["Allow ec2:DescribeSubnets", "IAM"]),
        ],
        Code::BlockLost => vec![row(
            vec![Later(|cluster| {
                let interfaces = cluster.interfaces();
                let eni = interfaces.iter().find(|eni| is_on(eni, &cluster.instance)).expect("there");
                let addresses = eni.addresses.iter().copied().take(1).collect();
                let what = Unassign { interface: eni.id.clone(), addresses, prefixes: Vec::new() };
                cluster.ask(Call::UnassignPrivateIpAddresses(what));
            })],
            &["EC2 no longer holds 10.0.4.", "delete them"],
        )],
        Code::Leaving => vec![row(
            vec![Node(|node| {
                node.spec.get_or_insert_with(NodeSpec::default).unschedulable = Some(true);
            })],
            &["cordoned", "kubectl uncordon"],
        )],
        Code::InstanceState => vec![row(
            vec![Later(|cluster| {
                drop(cluster.ask(Call::TerminateInstances(vec![cluster.instance.clone()])))
            })],
            &["terminated and never comes back", "Remove the Node object"],
        )],
        Code::NoInstance => vec![
            row(
                vec![Before(|cluster| {
                    cluster.write_node("a", &InstanceId::new("i-0123456789abcdef0").expect("valid"));
                })],
                &["EC2 shows no instance i-0123456789abcdef0", "spec.providerID", "--region"],
            ),
            row(
                vec![Before(|cluster| {
                    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n";
                    std::fs::write(cluster.path("store/a.yaml"), text).expect("written");
                })],
                &["Set spec.providerID", "--cloud aws"],
            ),
        ],
        Code::Throttled => vec![
            row(
                vec![Refused("AssignPrivateIpAddresses", "RequestLimitExceeded", 503)],
                &["Calls of AssignPrivateIpAddresses wait", "--ec2-share"],
            ),
            row(
                vec![Refused("Describe*", "RequestLimitExceeded", 503)],
                &["RequestLimitExceeded", "--ec2-share"],
            ),
        ],
    }
}

/// Others have these addresses of the subnet.
fn others_take(cluster: &Cluster, addresses: Want<std::net::Ipv4Addr>) {
    let wants = Wants { addresses, ..Wants::default() };
    cluster.create(NewInterface { wants, ..NewInterface::new(cluster.subnet.clone()) });
}

#[tokio::test]
async fn rhumb_ip_explain_says_every_reason_with_what_would_help() {
    let mut rows: Vec<Row> = Code::ALL.iter().flat_map(|code| rows(*code)).collect();
    // It takes a minute to be sure of it: the others go by meanwhile.
    rows.sort_by_key(|row| row.code != Code::BlockLost);
    assert!(Code::ALL.iter().all(|code| rows.iter().any(|row| row.code == *code && !row.words.is_empty())));
    futures::stream::iter(rows).for_each_concurrent(AT_ONCE, Row::check).await;
}

/// `docs/operations.md` is what the person on call has at hand.
#[test]
fn the_handbook_has_every_reason_with_what_helps() {
    let text = include_str!("../../../docs/operations.md");
    let (_, section) = text.split_once("### Why has a node no more addresses").expect("a section of it");
    let lines: Vec<Vec<&str>> = section
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    for code in Code::ALL {
        let name = format!("`{code}`");
        let line = lines.iter().find(|cells| cells.get(1).is_some_and(|cell| cell.contains(&name)));
        let line = line.unwrap_or_else(|| panic!("{code} is in no line of the table"));
        assert!(line.len() == 5 && line[2..4].iter().all(|cell| !cell.is_empty()), "{line:?}");
    }
}

#[tokio::test]
async fn a_cordoned_node_is_left_alone() {
    let mut cluster = Cluster::new().await;
    let cordon = |node: &mut Node| {
        node.spec.get_or_insert_with(NodeSpec::default).unschedulable = Some(true);
    };
    cluster.store.modify::<Node, _>(&node(), cordon).await.expect("cordoned");
    cluster.start();
    cluster.until_said("Leaving").await;
    assert_eq!(cluster.calls("AssignPrivateIpAddresses"), 0);
}

#[tokio::test]
async fn a_node_whose_instance_is_found_is_served() {
    let mut cluster = Cluster::new().await;
    cluster.write_node("a", &InstanceId::new("i-0123456789abcdef0").expect("valid"));
    cluster.start();
    cluster.until_said("NoInstance").await;
    let instance = cluster.instance.clone();
    cluster.write_node("a", &instance);
    cluster.until_served().await;
    cluster
        .until("the reason is gone", |_, config| config.is_some_and(|config| config.spec.unserved.is_none()))
        .await;
}

#[tokio::test]
async fn an_outage_is_told_to_nodes_that_lack_addresses_and_is_over_when_it_is() {
    let mut cluster = Cluster::new().await;
    cluster.refuse("*", "Unavailable", 503, None);
    cluster.start();
    cluster.until_said("Unreachable").await;
    cluster.servers.handle().with(|fake, _| fake.clear_faults());
    cluster.until_served().await;
    cluster.check(2).await;
    cluster
        .until("the reason is gone", |_, config| config.is_some_and(|config| reason(config).is_none()))
        .await;
}
