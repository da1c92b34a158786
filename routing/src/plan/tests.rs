// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::fabric::{ForeignRoute, Leads, Neighbour, Rule};

const MAIN: u32 = 254;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("valid")
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("valid")
}

fn name(text: &str) -> NodeName {
    text.parse().expect("valid")
}

fn pool(text: &str) -> PoolName {
    text.parse().expect("valid")
}

fn node(of: &str, addresses: &[&str], pod_cidrs: &[&str]) -> RemoteNode {
    RemoteNode {
        name: name(of),
        addresses: addresses.iter().map(|address| addr(address)).collect(),
        pod_cidrs: pod_cidrs.iter().map(|cidr| (pool("default"), prefix(cidr))).collect(),
    }
}

fn uplink(ifname: &str, on_link: &[&str]) -> Reach {
    Reach {
        ifname: ifname.parse().expect("valid"),
        on_link: on_link.iter().map(|subnet| prefix(subnet)).collect(),
        addresses: on_link.iter().map(|subnet| prefix(subnet).nth(1).expect("large enough")).collect(),
        mtu: 1500,
    }
}

fn gateway(addr: &str, ifname: &str) -> Gateway {
    Gateway { addr: addr.parse().expect("valid"), ifname: ifname.parse().expect("valid") }
}

fn via(gateway: &str, ifname: &str) -> HostRoute {
    HostRoute::Via { gateway: gateway.parse().expect("valid"), ifname: Some(ifname.parse().expect("valid")) }
}

fn input(own: &[&str], uplinks: Vec<Reach>, nodes: Vec<RemoteNode>) -> PlanInput {
    PlanInput {
        own_pod_cidrs: own.iter().map(|cidr| prefix(cidr)).collect(),
        uplinks,
        nodes,
        ..PlanInput::default()
    }
}

fn tunnelled(input: PlanInput) -> PlanInput {
    PlanInput { tunnel: Some("rhumb_vxlan".parse().expect("valid")), ..input }
}

fn fabric(routes: &[(&str, &str)], neighbours: &[(&str, Neighbour)]) -> Fabric {
    let route = |(dst, via): &(&str, &str)| ForeignRoute {
        table: MAIN,
        dst: prefix(dst),
        metric: 20,
        leads: Leads::Out(vec![Some(gateway(via, "eth0"))]),
    };
    let rule = |family: Family| {
        (family, Rule { priority: 32766, dst: family.default_route(), table: Some(MAIN), suppressed: None })
    };
    let neighbours = neighbours.iter().map(|(addr, state)| (gateway(addr, "eth0"), *state)).collect();
    Fabric::new(routes.iter().map(route).collect(), Family::BOTH.map(rule).to_vec(), neighbours)
}

fn once(input: &PlanInput) -> Plan {
    plan(input, &Memory::default(), Instant::now()).0
}

fn way(input: &PlanInput, to: &str) -> String {
    let (_, memory) = plan(input, &Memory::default(), Instant::now());
    memory.0[&prefix(to)].way.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
}

#[test]
fn both_families_go_to_the_neighbours_address_of_their_own_family() {
    let plan = once(&input(
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
    assert_eq!((plan.routes, plan.problems), (routes.into(), vec![]));
}

#[test]
fn the_first_address_that_is_a_neighbour_is_taken() {
    let plan = once(&input(
        &[],
        vec![uplink("eth0", &["192.168.1.0/24"]), uplink("eth1", &["172.16.0.0/16"])],
        vec![node("b", &["8.8.8.8", "172.16.3.4", "192.168.1.2"], &["10.0.1.0/24"])],
    ));
    assert_eq!(plan.routes, [(prefix("10.0.1.0/24"), via("172.16.3.4", "eth1"))].into());
}

#[test]
fn without_a_way_there_is_no_route_and_a_problem() {
    let uplinks = vec![uplink("eth0", &["192.168.1.0/24"])];
    let plan = once(&input(&[], uplinks, vec![node("b", &["192.168.2.2", "fd99::2"], &["10.0.1.0/24"])]));
    assert_eq!(plan.routes, BTreeMap::new());
    let problem = Problem::NoWay { node: name("b"), prefix: prefix("10.0.1.0/24"), mode: Mode::Auto };
    assert_eq!(plan.problems, [problem]);
    let words = plan.problems[0].to_string();
    assert_eq!(
        words,
        "no route to 10.0.1.0/24: no ipv4 address of node b is on a link of this node, no other program has put a \
         route, and no tunnel leads there"
    );
}

#[test]
fn of_two_nodes_with_overlapping_cidrs_the_first_by_name_wins() {
    let plan = once(&input(
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
    let plan = once(&input(
        &["10.0.1.0/24", "10.0.0.0/16"],
        vec![uplink("eth0", &["192.168.1.0/24"])],
        vec![node("b", &["192.168.1.2"], &["10.0.5.0/24"])],
    ));
    assert_eq!(plan.routes.get(&prefix("10.0.5.0/24")), None);
    assert!(matches!(plan.problems[..], [Problem::Overlap { holder: None, .. }]), "{:?}", plan.problems);
}

/// A node beyond a router, and what the fabric offers.
fn beyond(routes: &[(&str, &str)], neighbours: &[(&str, Neighbour)]) -> PlanInput {
    let nodes = vec![node("b", &["192.168.2.2", "fd98::2"], &["10.0.1.0/24", "fd00:0:0:2::/64"])];
    let uplinks = vec![uplink("eth0", &["192.168.1.0/24", "fd99::/64"])];
    PlanInput { fabric: fabric(routes, neighbours), ..tunnelled(input(&[], uplinks, nodes)) }
}

#[test]
fn a_node_beyond_a_router_is_reached_through_the_tunnel() {
    let input = beyond(&[], &[]);
    assert_eq!(way(&input, "10.0.1.0/24"), "tunnel to 192.168.2.2");
    let (pods, host) = (prefix("fd00:0:0:2::/64"), prefix("fd98::2/128"));
    let plan = once(&input);
    let owner = plan.remotes[&pods].owner;
    let remote = Remote {
        tunnel: Some(addr("192.168.2.2")),
        mtu: 1450,
        keep_source: true,
        node: false,
        stack: false,
        owner,
    };
    assert_eq!((plan.remotes[&pods], plan.remotes[&host]), (remote, Remote { node: true, ..remote }));
    let route = HostRoute::Tunnel {
        ifname: "rhumb_vxlan".parse().expect("valid"),
        mtu: 1450,
        source: Some(addr("fd99::1")),
    };
    assert_eq!(plan.routes[&pods], route);
}

#[test]
fn a_route_of_others_is_taken_and_none_is_added() {
    let input = beyond(&[("10.0.0.0/16", "192.168.1.254")], &[]);
    assert_eq!(way(&input, "10.0.1.0/24"), "fabric by 10.0.0.0/16 via 192.168.1.254 dev eth0");
    let plan = once(&input);
    assert_eq!(plan.routes.get(&prefix("10.0.1.0/24")), None);
    let remote = plan.remotes[&prefix("10.0.1.0/24")];
    assert_eq!(remote, Remote { keep_source: true, owner: remote.owner, ..Remote::default() });
    assert_eq!(plan.gateways, [gateway("192.168.1.254", "eth0")].into());
}

#[test]
fn a_route_to_the_very_prefix_goes_before_a_neighbour_and_that_before_a_larger_block() {
    let next_to = |routes: &[(&str, &str)], neighbours: &[(&str, Neighbour)]| PlanInput {
        nodes: vec![node("b", &["192.168.1.2"], &["10.0.1.0/24"])],
        ..beyond(routes, neighbours)
    };
    let larger = [("10.0.0.0/16", "192.168.1.254")];
    let very = [("10.0.1.0/24", "192.168.1.254")];
    let dead = [("192.168.1.2", Neighbour::Failed)];
    assert_eq!(way(&next_to(&larger, &[]), "10.0.1.0/24"), "direct via 192.168.1.2 dev eth0");
    assert_eq!(way(&next_to(&very, &[]), "10.0.1.0/24"), "fabric by 10.0.1.0/24 via 192.168.1.254 dev eth0");
    assert_eq!(
        way(&next_to(&larger, &dead), "10.0.1.0/24"),
        "fabric by 10.0.0.0/16 via 192.168.1.254 dev eth0"
    );
}

#[test]
fn the_tunnel_avoids_an_address_that_does_not_answer() {
    let nodes = vec![node("b", &["192.168.1.2", "fd98::2"], &["10.0.1.0/24"])];
    let input = PlanInput { nodes, ..beyond(&[], &[("192.168.1.2", Neighbour::Failed)]) };
    assert_eq!(way(&input, "10.0.1.0/24"), "tunnel to fd98::2");
    let remote = once(&input).remotes[&prefix("10.0.1.0/24")];
    assert_eq!(remote.mtu, 1430);
}

#[test]
fn a_policy_holds_for_its_pool_and_the_longest_exception_wins() {
    let mut input = beyond(&[("10.0.0.0/16", "192.168.1.254")], &[]);
    let exceptions = vec![(prefix("10.0.0.0/16"), Mode::Direct), (prefix("10.0.1.0/24"), Mode::Tunnel)];
    input.policies = [(pool("default"), Policy { mode: Mode::Direct, exceptions })].into();
    assert_eq!(way(&input, "10.0.1.0/24"), "tunnel to 192.168.2.2");
    assert_eq!(way(&input, "fd00:0:0:2::/64"), "none");
    let words: Vec<_> = once(&input).problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "no route to fd00:0:0:2::/64: no ipv6 address of node b is on a link of this node, no other program has \
          put a route, and its pool wants no tunnel"
        ]
    );
    input.tunnel = None;
    let problem = once(&input).problems.remove(0);
    assert_eq!(
        problem.to_string(),
        "no route to 10.0.1.0/24: its pool wants the tunnel, and none leads to node b"
    );
}

#[test]
fn every_change_is_told_with_its_reason_and_only_once() {
    let now = Instant::now();
    let with = beyond(&[("10.0.0.0/16", "192.168.1.254")], &[]);
    let without = beyond(&[], &[]);
    let of = |plan: &Plan| -> Vec<String> {
        let word = |way: &Option<Way>| way.as_ref().map_or("none", Way::word);
        let v4 = plan.changes.iter().filter(|change| change.prefix.family() == Family::V4);
        v4.map(|change| format!("{} {} {}", word(&change.from), word(&change.to), change.why.word()))
            .collect()
    };
    let (first, memory) = plan(&with, &Memory::default(), now);
    assert_eq!(of(&first), ["none fabric fabric_route"]);
    let (again, memory) = plan(&with, &memory, now);
    assert_eq!(of(&again), [""; 0]);
    let (lost, memory) = plan(&without, &memory, now);
    assert_eq!(of(&lost), ["fabric tunnel direct_gone"]);
    // Nobody has tried the gateway of a route that just came back.
    let answered = beyond(&[("10.0.0.0/16", "192.168.1.254")], &[("192.168.1.254", Neighbour::Confirmed)]);
    let (back, memory) = plan(&answered, &memory, now);
    assert_eq!((of(&back), back.next), (vec![], Some(now + Duration::from_secs(5))));
    let (over, memory) = plan(&answered, &memory, now + Duration::from_secs(5));
    assert_eq!((of(&over), over.next), (vec!["tunnel fabric hold_down_over".to_owned()], None));
    let (gone, memory) = plan(&PlanInput { nodes: vec![], ..without }, &memory, now);
    assert_eq!((of(&gone), memory), (vec!["fabric none unclaimed".to_owned()], Memory::default()));
}

#[test]
fn a_silent_address_is_avoided_as_long_as_another_way_is_there() {
    let mut both = node("b", &["192.168.1.2", "fd99::2"], &["10.1.0.0/24", "fd01::/64"]);
    let uplinks = || vec![uplink("eth0", &["192.168.1.0/24", "fd99::/64"])];
    let mut input = tunnelled(input(&[], uplinks(), vec![both.clone()]));
    let now = Instant::now();
    let (first, memory) = plan(&input, &Memory::default(), now);
    assert!(first.changes.iter().all(|change| change.why == Why::Neighbour), "{:?}", first.changes);
    input.silent = [addr("192.168.1.2")].into();
    let (lost, memory) = plan(&input, &memory, now);
    let [change] = &lost.changes[..] else { panic!("{:?}", lost.changes) };
    let tunnel = Some(Way::Tunnel { endpoint: addr("fd99::2") });
    assert_eq!((change.prefix, &change.to, change.why), (prefix("10.1.0.0/24"), &tunnel, Why::ProbeLost));
    // Silent at all addresses: nothing is better, so nothing moves but the reason.
    input.silent.insert(addr("fd99::2"));
    assert_eq!(plan(&input, &memory, now).0.changes, vec![]);
    // A route of others leads to the node's address as well as to its pods.
    both.addresses = vec![addr("192.168.2.2"), addr("192.168.3.2"), addr("fd99::2")];
    let nodes = vec![both];
    let gateway = ("192.168.1.254", Neighbour::Confirmed);
    let fabric = fabric(&[("10.1.0.0/24", "192.168.1.254")], &[gateway]);
    let mut input = PlanInput { nodes, fabric, silent: [addr("192.168.2.2")].into(), ..input };
    let of = |input: &PlanInput| once(input).remotes[&prefix("10.1.0.0/24")].tunnel;
    assert_eq!(of(&input), None, "one address of the family answers");
    input.silent.insert(addr("192.168.3.2"));
    assert_eq!(of(&input), Some(addr("fd99::2")));
}

#[test]
fn ipv6_is_left_to_the_stack_where_a_rule_passes_over_routes_that_programs_are_told() {
    let uplinks = vec![uplink("eth0", &["192.168.1.0/24", "fd99::/64"])];
    let near = node("b", &["192.168.1.2", "fd99::2"], &["10.0.1.0/24", "fd00:0:0:2::/64"]);
    let far = node("c", &["192.168.2.2", "fd98::2"], &["10.0.2.0/24", "fd00:0:0:3::/64"]);
    let routes = ["10.0.2.0/24", "fd00:0:0:3::/64"].map(|dst| ForeignRoute {
        table: 7268,
        dst: prefix(dst),
        metric: 115,
        leads: Leads::Out(vec![None]),
    });
    let rule = |priority, table, suppressed| {
        Family::BOTH.map(|family| {
            (family, Rule { priority, dst: family.default_route(), table: Some(table), suppressed })
        })
    };
    let rules = [rule(1, MAIN, Some(0)), rule(2, 7268, None), rule(3, MAIN, None)].concat();
    let mut input = input(&[], uplinks, vec![near, far]);
    input.keep_source = vec![prefix("fd05::/16"), prefix("10.5.0.0/16")];
    input.fabric = Fabric::new(routes.into(), rules, [].into());
    let remotes = once(&input).remotes;
    let by_stack: Vec<String> =
        remotes.iter().filter(|(_, remote)| remote.stack).map(|(prefix, _)| prefix.to_string()).collect();
    assert_eq!(by_stack, ["::/0", "fd00:0:0:3::/64", "fd05::/16", "fd98::2/128"]);
    input.fabric = fabric(&[], &[]);
    assert!(once(&input).remotes.values().all(|remote| !remote.stack));
}

#[test]
fn where_the_source_stays_is_told_to_the_datapath_unless_more_is_known() {
    let mut input = beyond(&[], &[]);
    input.keep_source = vec![prefix("10.0.0.0/8"), prefix("10.0.1.0/24")];
    let remotes = once(&input).remotes;
    assert_eq!(remotes[&prefix("10.0.0.0/8")], Remote { keep_source: true, ..Remote::default() });
    assert_eq!(remotes[&prefix("10.0.1.0/24")].tunnel, Some(addr("192.168.2.2")));
}

#[test]
fn what_a_node_has_bears_its_number_by_whatever_way_and_nothing_else_does() {
    let other = node("c", &["192.168.1.3"], &["10.0.3.0/24"]);
    let mut input = beyond(&[], &[]);
    input.nodes.push(other);
    input.keep_source = vec![prefix("10.0.0.0/8")];
    let remotes = once(&input).remotes;
    let owner = |text: &str| remotes[&prefix(text)].owner;
    let of_b = ["10.0.1.0/24", "fd00:0:0:2::/64", "192.168.2.2/32", "fd98::2/128"].map(owner);
    assert!(of_b.iter().all(|number| *number == of_b[0] && *number != 0), "{of_b:?}");
    assert_eq!(owner("10.0.3.0/24"), owner("192.168.1.3/32"));
    assert_ne!(owner("10.0.3.0/24"), of_b[0]);
    assert_eq!(owner("10.0.0.0/8"), 0);
    let direct = once(&beyond(&[("10.0.0.0/16", "192.168.1.254")], &[])).remotes;
    assert_eq!(
        (direct[&prefix("10.0.1.0/24")].tunnel, direct[&prefix("10.0.1.0/24")].owner),
        (None, of_b[0])
    );
}

#[test]
fn the_mtu_of_a_tunnel_is_that_of_its_link_less_what_it_adds() {
    let mut wide = uplink("eth0", &["192.168.1.0/24"]);
    wide.mtu = 9000;
    let uplinks = [wide, uplink("eth1", &["fd99::/64"])];
    let mtu = |endpoint: &str| remotes::tunnel_mtu(addr(endpoint), &uplinks);
    assert_eq!((mtu("192.168.1.7"), mtu("192.168.2.7"), mtu("fd99::7")), (8950, 1450, 1430));
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
        let pod_cidrs = pod_cidrs.into_iter().map(|cidr| (pool("default"), cidr)).collect();
        RemoteNode { name: name(&format!("n{of}")), addresses: addresses.collect(), pod_cidrs }
    })
}

fn any_fabric() -> impl Strategy<Value = Fabric> {
    let route = (any_prefix(), prop::option::of(0u8..3)).prop_map(|(dst, via)| {
        let hop = |host: u8| vec![Some(gateway(&format!("192.168.0.{host}"), "eth0"))];
        ForeignRoute {
            table: MAIN,
            dst,
            metric: 0,
            leads: via.map_or(Leads::Nowhere, |host| Leads::Out(hop(host))),
        }
    });
    let states = [Neighbour::Confirmed, Neighbour::Known, Neighbour::Asked, Neighbour::Failed];
    let neighbours = prop::collection::btree_map(
        (0u8..4).prop_map(|host| gateway(&format!("192.168.0.{host}"), "eth0")),
        prop::sample::select(states.to_vec()),
        0..4,
    );
    (prop::collection::vec(route, 0..6), neighbours).prop_map(|(routes, neighbours)| {
        let rule = |family: Family| {
            (family, Rule { priority: 1, dst: family.default_route(), table: Some(MAIN), suppressed: None })
        };
        Fabric::new(routes, Family::BOTH.map(rule).to_vec(), neighbours)
    })
}

fn any_input() -> impl Strategy<Value = PlanInput> {
    let own = prop::collection::vec(any_prefix(), 0..3);
    let modes = prop::sample::select(vec![Mode::Auto, Mode::Direct, Mode::Tunnel]);
    let exceptions = prop::collection::vec((any_prefix(), modes.clone()), 0..3);
    let silent = prop::collection::btree_set((0u8..4).prop_map(|host| [192, 168, 0, host].into()), 0..3);
    (own, prop::collection::vec(any_node(), 0..6), any_fabric(), modes, exceptions, any::<bool>(), silent)
        .prop_map(|(own_pod_cidrs, nodes, fabric, mode, exceptions, tunnels, silent)| PlanInput {
            own_pod_cidrs,
            uplinks: vec![
                uplink("eth0", &["192.168.0.0/24", "fc00::/64"]),
                uplink("eth1", &["192.168.1.0/24"]),
            ],
            nodes,
            policies: [(pool("default"), Policy { mode, exceptions })].into(),
            fabric,
            silent,
            tunnel: tunnels.then(|| "rhumb_vxlan".parse().expect("valid")),
            ..PlanInput::default()
        })
}

proptest! {
    #[test]
    fn every_gateway_is_a_neighbour_of_the_prefixs_family(input in any_input()) {
        for (prefix, route) in once(&input).routes {
            let HostRoute::Via { gateway, ifname: Some(ifname) } = route else { continue };
            prop_assert_eq!(Family::of(gateway), prefix.family());
            let reach = input.uplinks.iter().find(|reach| reach.ifname == ifname).expect("a known link");
            prop_assert!(reach.on_link.iter().any(|subnet| subnet.contains(gateway)));
        }
    }

    #[test]
    fn routes_to_other_nodes_overlap_with_nothing(input in any_input()) {
        let (plan, memory) = plan(&input, &Memory::default(), Instant::now());
        let own = plan.routes.iter().filter(|(_, route)| **route == HostRoute::Unreachable).map(|(own, _)| own);
        let all: Vec<Prefix> = own.chain(memory.0.keys()).copied().collect();
        for prefix in memory.0.keys() {
            prop_assert!(all.iter().filter(|other| other.overlaps(*prefix)).eq([prefix]), "{}", prefix);
        }
    }

    #[test]
    fn every_claim_has_exactly_one_way_or_a_problem(input in any_input()) {
        let (plan, memory) = plan(&input, &Memory::default(), Instant::now());
        for node in &input.nodes {
            for (_, cidr) in &node.pod_cidrs {
                let told = |problem: &Problem| match problem {
                    Problem::NoWay { prefix, .. } | Problem::Overlap { prefix, .. } => prefix == cidr,
                };
                let chosen = memory.0.get(cidr).is_some_and(|choice| choice.way.is_some());
                prop_assert!(chosen || plan.problems.iter().any(told), "{}", cidr);
            }
        }
        for own in &input.own_pod_cidrs {
            prop_assert_eq!(plan.routes.get(own), Some(&HostRoute::Unreachable));
        }
    }

    #[test]
    fn routes_and_entries_of_the_datapath_say_the_same_way(input in any_input()) {
        let (plan, memory) = plan(&input, &Memory::default(), Instant::now());
        for (prefix, choice) in &memory.0 {
            let (route, remote) = (plan.routes.get(prefix), plan.remotes[prefix]);
            prop_assert!(remote.keep_source && !remote.node);
            match &choice.way {
                Some(Way::Neighbour(gateway)) => {
                    let ours = HostRoute::Via { gateway: gateway.addr, ifname: Some(gateway.ifname.clone()) };
                    prop_assert_eq!((route, remote.tunnel), (Some(&ours), None));
                }
                Some(Way::Fabric { .. }) | None => prop_assert_eq!((route, remote.tunnel), (None, None)),
                Some(Way::Tunnel { endpoint }) => {
                    prop_assert_eq!(remote.tunnel, Some(*endpoint));
                    let Some(HostRoute::Tunnel { mtu, .. }) = route else { panic!("no route to {prefix}") };
                    prop_assert_eq!(*mtu, u32::from(remote.mtu));
                }
            }
        }
    }

    #[test]
    fn whatever_came_before_the_plan_settles_and_then_rests(before in any_input(), input in any_input()) {
        let start = Instant::now();
        let (_, memory) = plan(&before, &Memory::default(), start);
        let (first, memory) = plan(&input, &memory, start);
        let (again, memory) = plan(&input, &memory, start);
        prop_assert_eq!((&again.routes, &again.remotes, again.next), (&first.routes, &first.remotes, first.next));
        prop_assert_eq!(again.changes, vec![]);
        let later = start + input.hold_down.longest();
        let (settled, memory) = plan(&input, &memory, later);
        prop_assert_eq!(settled.next, None);
        prop_assert_eq!(plan(&input, &memory, later + Duration::from_secs(3600)).0.changes, vec![]);
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter(input in any_input().prop_filter("names differ", |input| {
        let names: BTreeSet<_> = input.nodes.iter().map(|node| &node.name).collect();
        names.len() == input.nodes.len()
    })) {
        let mut reversed = input.clone();
        reversed.nodes.reverse();
        reversed.own_pod_cidrs.reverse();
        let order = |input: &PlanInput| {
            let plan = once(input);
            (plan.routes, plan.problems, plan.gateways)
        };
        prop_assert_eq!(order(&reversed), order(&input));
    }
}
