// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("valid")
}

fn name(text: &str) -> NodeName {
    text.parse().expect("valid")
}

fn node(of: &str, addresses: &[&str], pod_cidrs: &[&str]) -> RemoteNode {
    RemoteNode {
        name: name(of),
        addresses: addresses.iter().map(|address| address.parse().expect("valid")).collect(),
        pod_cidrs: pod_cidrs.iter().map(|cidr| prefix(cidr)).collect(),
    }
}

fn uplink(ifname: &str, on_link: &[&str]) -> Reach {
    Reach {
        ifname: ifname.parse().expect("valid"),
        on_link: on_link.iter().map(|subnet| prefix(subnet)).collect(),
    }
}

fn via(gateway: &str, ifname: &str) -> HostRoute {
    HostRoute::Via { gateway: gateway.parse().expect("valid"), ifname: Some(ifname.parse().expect("valid")) }
}

fn input(own: &[&str], uplinks: Vec<Reach>, nodes: Vec<RemoteNode>) -> PlanInput {
    PlanInput { own_pod_cidrs: own.iter().map(|cidr| prefix(cidr)).collect(), uplinks, nodes }
}

#[test]
fn both_families_go_to_the_neighbours_address_of_their_own_family() {
    let plan = plan(&input(
        &["10.0.0.0/24", "fd00:0:0:1::/64"],
        vec![uplink("eth0", &["192.168.1.0/24", "fd99::/64"])],
        vec![node("b", &["192.168.1.2", "fd99::2"], &["10.0.1.0/24", "fd00:0:0:2::/64"])],
    ));
    let routes = [
        (prefix("10.0.0.0/24"), HostRoute::Unreachable),
        (prefix("10.0.1.0/24"), via("192.168.1.2", "eth0")),
        (prefix("fd00:0:0:1::/64"), HostRoute::Unreachable),
        (prefix("fd00:0:0:2::/64"), via("fd99::2", "eth0")),
    ];
    assert_eq!(plan, Plan { routes: routes.into(), problems: vec![] });
}

#[test]
fn the_first_address_that_is_a_neighbour_is_taken() {
    let plan = plan(&input(
        &[],
        vec![uplink("eth0", &["192.168.1.0/24"]), uplink("eth1", &["172.16.0.0/16"])],
        vec![node("b", &["8.8.8.8", "172.16.3.4", "192.168.1.2"], &["10.0.1.0/24"])],
    ));
    assert_eq!(plan.routes, [(prefix("10.0.1.0/24"), via("172.16.3.4", "eth1"))].into());
}

#[test]
fn without_a_neighbour_there_is_no_route_and_a_problem() {
    let uplinks = vec![uplink("eth0", &["192.168.1.0/24"])];
    let plan = plan(&input(&[], uplinks, vec![node("b", &["192.168.2.2", "fd99::2"], &["10.0.1.0/24"])]));
    assert_eq!(plan.routes, BTreeMap::new());
    assert_eq!(plan.problems, [Problem::NoDirectWay { node: name("b"), prefix: prefix("10.0.1.0/24") }]);
    let words = plan.problems[0].to_string();
    assert_eq!(words, "no route to 10.0.1.0/24: no ipv4 address of node b is on a link of this node");
}

#[test]
fn of_two_nodes_with_overlapping_cidrs_the_first_by_name_wins() {
    let plan = plan(&input(
        &[],
        vec![uplink("eth0", &["192.168.1.0/24"])],
        vec![node("c", &["192.168.1.3"], &["10.0.1.0/24"]), node("b", &["192.168.1.2"], &["10.0.0.0/16"])],
    ));
    assert_eq!(plan.routes, [(prefix("10.0.0.0/16"), via("192.168.1.2", "eth0"))].into());
    let problem = Problem::Overlap {
        node: name("c"),
        prefix: prefix("10.0.1.0/24"),
        holder: Some(name("b")),
        held: prefix("10.0.0.0/16"),
    };
    assert_eq!(plan.problems, [problem]);
}

#[test]
fn own_cidrs_are_never_routed_to_others() {
    let plan = plan(&input(
        &["10.0.1.0/24", "10.0.0.0/16"],
        vec![uplink("eth0", &["192.168.1.0/24"])],
        vec![node("b", &["192.168.1.2"], &["10.0.5.0/24"])],
    ));
    assert_eq!(plan.routes.get(&prefix("10.0.5.0/24")), None);
    assert!(matches!(plan.problems[..], [Problem::Overlap { holder: None, .. }]), "{:?}", plan.problems);
}

/// Few addresses and lengths, so that overlaps are frequent.
fn any_prefix() -> impl Strategy<Value = Prefix> {
    (any::<bool>(), 0u8..4, 0u8..8).prop_map(|(v6, addr, len)| {
        let addr = addr << 4;
        let addr: IpAddr = if v6 {
            [0xfd, addr, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into()
        } else {
            [10, addr, 0, 0].into()
        };
        Prefix::containing(addr, 8 + len)
    })
}

fn any_node() -> impl Strategy<Value = RemoteNode> {
    let addresses = prop::collection::vec((any::<bool>(), 0u8..3, 0u8..4), 0..3);
    (0u8..4, addresses, prop::collection::vec(any_prefix(), 0..4)).prop_map(|(of, addresses, pod_cidrs)| {
        let addresses = addresses.into_iter().map(|(v6, net, host)| {
            if v6 {
                [0xfc, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host].into()
            } else {
                [192, 168, net, host].into()
            }
        });
        RemoteNode { name: name(&format!("n{of}")), addresses: addresses.collect(), pod_cidrs }
    })
}

fn any_input() -> impl Strategy<Value = PlanInput> {
    (prop::collection::vec(any_prefix(), 0..3), prop::collection::vec(any_node(), 0..6)).prop_map(
        |(own_pod_cidrs, nodes)| PlanInput {
            own_pod_cidrs,
            uplinks: vec![
                uplink("eth0", &["192.168.0.0/24", "fc00::/64"]),
                uplink("eth1", &["192.168.1.0/24"]),
            ],
            nodes,
        },
    )
}

fn overlap(one: Prefix, other: Prefix) -> bool {
    one.contains(other.addr()) || other.contains(one.addr())
}

proptest! {
    #[test]
    fn every_gateway_is_a_neighbour_of_the_prefixs_family(input in any_input()) {
        for (prefix, route) in plan(&input).routes {
            let HostRoute::Via { gateway, ifname: Some(ifname) } = route else { continue };
            prop_assert_eq!(Family::of(gateway), prefix.family());
            let reach = input.uplinks.iter().find(|reach| reach.ifname == ifname).expect("a known link");
            prop_assert!(reach.on_link.iter().any(|subnet| subnet.contains(gateway)));
        }
    }

    #[test]
    fn routes_to_other_nodes_overlap_with_nothing(input in any_input()) {
        let plan = plan(&input);
        let remote = |route: &HostRoute| *route != HostRoute::Unreachable;
        for (prefix, _) in plan.routes.iter().filter(|(_, route)| remote(route)) {
            for other in plan.routes.keys().filter(|other| *other != prefix) {
                prop_assert!(!overlap(*prefix, *other), "{} {}", prefix, other);
            }
        }
    }

    #[test]
    fn every_claim_has_a_route_or_a_problem(input in any_input()) {
        let plan = plan(&input);
        for node in &input.nodes {
            for cidr in &node.pod_cidrs {
                let problem = plan.problems.iter().any(|problem| match problem {
                    Problem::NoDirectWay { prefix, .. } | Problem::Overlap { prefix, .. } => prefix == cidr,
                });
                prop_assert!(problem || plan.routes.contains_key(cidr), "{}", cidr);
            }
        }
        for own in &input.own_pod_cidrs {
            prop_assert_eq!(plan.routes.get(own), Some(&HostRoute::Unreachable));
        }
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter(input in any_input().prop_filter("names differ", |input| {
        let names: std::collections::BTreeSet<_> = input.nodes.iter().map(|node| &node.name).collect();
        names.len() == input.nodes.len()
    })) {
        let mut reversed = input.clone();
        reversed.nodes.reverse();
        reversed.own_pod_cidrs.reverse();
        prop_assert_eq!(plan(&reversed), plan(&input));
    }
}
