// SPDX-License-Identifier: Apache-2.0
//! Nodes with agent, operator and speaker behind a pair of ToRs, one a BIRD and one an FRR, which are both the default
//! gateways of both families: both are found, others are when gateways change, and a node is drained by the command line
//! without a packet lost.

mod peers;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use peers::cluster::{advertisement, apply, everything, object, pod_cidrs, quick, routes, sessions, start};
use peers::{Bird, Frr, Net, Overheard, Peer, Said, until};
use rhumb_integration::lab::{Capture, Lab, Node, Pinger, Spec};
use rhumb_model::Prefix;
use serde_json::{Value, json};

const INTERVAL: Duration = Duration::from_millis(5);

/// Addresses that every node serves, beside its own.
const SERVED: [&str; 8] = [
    "192.0.2.81",
    "192.0.2.82",
    "192.0.2.83",
    "192.0.2.84",
    "2001:db8:80::1",
    "2001:db8:80::2",
    "2001:db8:80::3",
    "2001:db8:80::4",
];

/// The ToRs and the router of the lab as their spine.
///
/// ```text
///   client ─ router (spine) ┬─ t1, BIRD ─┬ n1
///                           └─ t2, FRR  ─┴ n2
/// ```
///
/// On the nodes' segment ToR T is 192.168.100.25T and fe80::25T, node N 192.168.100.N and fe80::N. The links to the spine
/// are 10.T.9.0/30 and fd00:T:9::/64.
struct Pair {
    spine: Bird,
    bird: Bird,
    frr: Frr,
}

const TIMES: &str = "connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 5;";

const KERNEL: &str = "
    protocol device {}
    protocol kernel k4 { merge paths on; ipv4 { import none; export where source = RTS_BGP; }; }
    protocol kernel k6 { merge paths on; ipv6 { import none; export where source = RTS_BGP; }; }
    filter heed {
        if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
        accept;
    }";

impl Pair {
    /// Puts the ToRs between nodes and router, and starts the three routers.
    fn start(lab: &Lab, net: &Net) -> Self {
        for tor in [1, 2] {
            let name = format!("t{tor}");
            let [low, high] =
                [1, 2].map(|end| [format!("10.{tor}.9.{end}/30"), format!("fd00:{tor}:9::{end}/64")]);
            net.link([(&name, "spine", &[&low[0], &low[1]]), ("router", &name, &[&high[0], &high[1]])]);
            let nodes = [
                format!("192.168.100.25{tor}/24"),
                format!("fd00:192::25{tor}/64"),
                format!("fe80::25{tor}/64"),
            ];
            let nodes = nodes.each_ref().map(String::as_str);
            net.link([(&name, "eth0", &nodes), ("router", &format!("{name}b"), &[])]);
            lab.router().ip(&format!("link set {name}b master br0")).expect("on the segment");
        }
        for (number, node) in (1..).zip(lab.nodes()) {
            let namespace = node.namespace();
            namespace.ip_show("-6 addr flush dev eth0 scope link").expect("flushed");
            namespace.ip(&format!("addr add fe80::{number}/64 dev eth0 nodad")).expect("added");
            gateways(node, &[1, 2]);
        }
        Self {
            spine: Bird::start(net, "router", "t1", &spine()),
            bird: Bird::start(net, "t1", "four1", &bird(lab.nodes().len())),
            frr: frr(net, lab.nodes().len()),
        }
    }
}

/// Makes these ToRs the node's default gateways of both families.
fn gateways(node: &Node, tors: &[u32]) {
    let hops = |prefix: &str| -> String {
        tors.iter().map(|tor| format!(" nexthop via {prefix}25{tor} dev eth0")).collect()
    };
    node.namespace().ip_show(&format!("route replace default{}", hops("192.168.100."))).expect("routed");
    node.namespace().ip_show("-6 route del default").expect("there was one");
    node.namespace().ip_show(&format!("-6 route add default{}", hops("fe80::"))).expect("routed");
}

fn spine() -> String {
    let tors = [1, 2].map(|tor| {
        format!(
            "protocol bgp t{tor} {{
                local 10.{tor}.9.2 as 65009; neighbor 10.{tor}.9.1 as 6500{tor}; {TIMES}
                ipv4 {{ import filter heed; export where source = RTS_DEVICE; next hop self; }};
                ipv6 {{ import filter heed; export where source = RTS_DEVICE; next hop address fd00:{tor}:9::2; }};
            }}"
        )
    });
    format!(
        "router id 10.1.9.2; {KERNEL} protocol direct {{ ipv4; ipv6; interface \"client\"; }} {}",
        tors.concat()
    )
}

fn bird(nodes: usize) -> String {
    let sessions: String = (1..=nodes)
        .map(|node| {
            format!(
                "protocol bgp four{node} {{
                    local 192.168.100.251 as 65001; neighbor 192.168.100.{node} as 65000; {TIMES}
                    ipv4 {{ import filter heed; export all; next hop self; }};
                }}
                protocol bgp six{node} {{
                    local fe80::251 as 65001; neighbor fe80::{node} % 'eth0' as 65000; {TIMES}
                    ipv6 {{ import filter heed; export all; next hop self; }};
                }}"
            )
        })
        .collect();
    format!(
        "router id 192.168.100.251; {KERNEL} {sessions}
        protocol bgp spine {{
            local 10.1.9.1 as 65001; neighbor 10.1.9.2 as 65009; {TIMES}
            ipv4 {{ import all; export all; next hop self; }};
            ipv6 {{ import all; export all; next hop address fd00:1:9::1; }};
        }}"
    )
}

/// FRR heeds GRACEFUL_SHUTDOWN of other systems by itself.
fn frr(net: &Net, nodes: usize) -> Frr {
    let neighbours = (1..=nodes).flat_map(|node| [format!("192.168.100.{node}"), format!("fe80::{node}")]);
    let neighbours: Vec<String> = neighbours.collect();
    let lines = |of: fn(&str) -> String| neighbours.iter().map(|address| of(address)).collect::<String>();
    let settings = lines(|address| {
        let link = if address.contains(':') {
            format!(" neighbor {address} interface eth0\n")
        } else {
            String::new()
        };
        format!(" neighbor {address} remote-as 65000\n neighbor {address} timers connect 1\n{link}")
    });
    let v4 =
        lines(
            |address| {
                if address.contains(':') { String::new() } else { format!("  neighbor {address} activate\n") }
            },
        );
    let v6 =
        lines(
            |address| {
                if address.contains(':') { format!("  neighbor {address} activate\n") } else { String::new() }
            },
        );
    let bgpd = format!(
        "router bgp 65002
 bgp router-id 192.168.100.252
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor 10.2.9.2 remote-as 65009
 neighbor 10.2.9.2 timers connect 1
{settings} address-family ipv4 unicast
  neighbor 10.2.9.2 activate
{v4} exit-address-family
 address-family ipv6 unicast
  neighbor 10.2.9.2 activate
  neighbor 10.2.9.2 route-map SELF out
{v6} exit-address-family
route-map SELF permit 10
 set ipv6 next-hop global fd00:2:9::1
"
    );
    Frr::start(net, "t2", "192.168.100.1", &[("bgpd", &bgpd)])
}

/// Nodes speak with their default gateways, and tell of their pods and of what `lo` has.
fn configure(lab: &Lab) {
    let peer = json!({
        "name": "tors", "asn": "external", "peerConfig": "tors", "defaultGateway": {"families": ["ipv4", "ipv6"]},
    });
    let cluster = json!({"instances": [{"name": "main", "asn": 65000, "listenPort": 179, "peers": [peer]}]});
    apply(
        lab,
        [
            object("BGPPeerConfig", "tors", json!({"timers": quick(), "import": everything()})),
            object("BGPClusterConfig", "tors", cluster),
            advertisement("pods", &json!({"type": "PodCIDR"})),
            advertisement("served", &json!({"type": "Interface", "interface": "lo"})),
        ],
    );
}

/// Names of the sessions with these ToRs.
fn names(tors: &[u32]) -> Vec<String> {
    let v4 = tors.iter().map(|tor| format!("main/tors/192.168.100.25{tor}"));
    let v6 = tors.iter().map(|tor| format!("main/tors/fe80::25{tor}%eth0"));
    v4.chain(v6).collect()
}

/// How many next hops of ours a route of a kernel has.
fn ways(net: &Net, namespace: &str, table: &str, prefix: &str) -> usize {
    net.kernel_route(namespace, table, prefix).map_or(0, |route| route.matches(" via ").count())
}

#[test]
fn both_gateways_of_a_default_route_are_peers_and_those_that_come_later_take_their_place() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("bgpe") }).expect("the lab is built");
    let net = Net::in_lab(&lab, &["t1", "t2"]);
    let pair = Pair::start(&lab, &net);
    configure(&lab);
    start(&mut lab);
    let lab = lab;
    until("four sessions", || sessions(lab.node(0)) == names(&[1, 2]));
    let peers = lab.node(0).show("bgp peers").expect("answered");
    let addresses: Vec<&Value> =
        peers.as_array().into_iter().flatten().map(|peer| &peer["address"]).collect();
    assert_eq!(addresses, ["192.168.100.251", "192.168.100.252", "fe80::251%eth0", "fe80::252%eth0"]);

    // Packets are spread both ways.
    for (prefix, hop) in [("203.0.113.0/24", "192.168.100.25"), ("2001:db8:cc::/64", "fe80::25")] {
        until("the node spreads packets", || {
            let route = net.kernel_route("n1", "7268", prefix).unwrap_or_default();
            [1, 2].iter().all(|tor| route.contains(&format!("via {hop}{tor} dev eth0")))
        });
    }
    for prefix in pod_cidrs(&lab, 0) {
        until("the spine spreads packets", || ways(&net, "router", "main", &prefix) == 2);
    }

    // One is left: the other's sessions end. Then it is the other one.
    gateways(lab.node(0), &[1]);
    until("one ToR is left", || sessions(lab.node(0)) == names(&[1]));
    until("FRR was told", || !pair.frr.is_established());
    until("one way is left", || ways(&net, "n1", "7268", "2001:db8:cc::/64") == 1);
    gateways(lab.node(0), &[2]);
    until("the other ToR in its place", || sessions(lab.node(0)) == names(&[2]));
    until("BIRD was told", || !pair.bird.is_established());
    for prefix in pod_cidrs(&lab, 0) {
        until("the spine goes by the other", || {
            net.kernel_route("router", "main", &prefix)
                .is_some_and(|route| route.contains(":2:9::1") || route.contains("10.2.9.1"))
        });
    }
}

/// What a node says when it leaves: of everything that others are to be preferred, then that it is gone, then why it ends.
fn takes_its_leave(told: &[Said], prefixes: &BTreeSet<Prefix>) {
    let at = |wanted: &dyn Fn(&Said) -> bool| told.iter().position(wanted);
    let last = |wanted: &dyn Fn(&Said) -> bool| told.iter().rposition(wanted);
    let shunned: BTreeSet<Prefix> = told
        .iter()
        .filter_map(|said| if let Said::Shun(prefix) = said { Some(*prefix) } else { None })
        .collect();
    let withdrawn: BTreeSet<Prefix> = told
        .iter()
        .filter_map(|said| if let Said::Withdraw(prefix) = said { Some(*prefix) } else { None })
        .collect();
    assert_eq!((&shunned, &withdrawn), (prefixes, prefixes), "{told:?}");
    let is_shun = |said: &Said| matches!(said, Said::Shun(_));
    let is_withdraw = |said: &Said| matches!(said, Said::Withdraw(_));
    // Cease, administrative shutdown, or a hard reset with that in it.
    let is_end = |said: &Said| matches!(said, Said::End(6, 2 | 9, text) if text.contains("maintenance"));
    assert!(last(&is_shun) < at(&is_withdraw), "{told:?}");
    assert_eq!((last(&is_end), at(&is_end)), (Some(told.len() - 1), Some(told.len() - 1)), "{told:?}");
}

#[test]
fn a_node_is_drained_by_the_command_line_and_no_packet_is_lost() {
    let mut lab = Lab::build(Spec::named("bgpd")).expect("the lab is built");
    let net = Net::in_lab(&lab, &["t1", "t2"]);
    let pair = Pair::start(&lab, &net);
    for node in lab.nodes() {
        for address in SERVED {
            let length = if address.contains(':') { "128" } else { "32" };
            node.namespace().ip(&format!("addr add {address}/{length} dev lo")).expect("added");
        }
    }
    configure(&lab);
    start(&mut lab);
    let lab = lab;
    for tor in ["t1", "t2"] {
        for address in SERVED {
            until("a ToR has both nodes", || ways(&net, tor, "main", address) == 2);
        }
    }
    for address in SERVED {
        until("the spine has both ToRs", || ways(&net, "router", "main", address) == 2);
    }
    for node in lab.nodes() {
        for prefix in ["203.0.113.0/24", "2001:db8:cc::/64"] {
            until("a node has both ToRs", || ways(&net, &node.name, "7268", prefix) == 2);
        }
    }

    let pods = [0, 1].map(|node| lab.node(node).add_pod("default", "pod").expect("attached"));
    let ping = |from, to| Pinger::start(from, to, INTERVAL).expect("answered");
    let mut pingers: Vec<Pinger> =
        SERVED.iter().map(|address| ping(lab.client(), address.parse().expect("valid"))).collect();
    pingers.extend([pods[0].v4(), pods[0].v6()].map(|pod| ping(&pods[1].namespace, pod)));
    let capture = Capture::open(lab.node(0).namespace()).expect("opened");
    let client: Vec<IpAddr> = Lab::CLIENT.map(|text| text.parse().expect("valid")).into();
    let is_asked = || capture.take().iter().any(|packet| client.contains(&packet.from));
    until("the node has a part of the packets", is_asked);

    let overheard = ["t1", "t2"].map(|tor| Overheard::begin(&net, tor));
    assert_eq!(lab.node(0).show("bgp drain --reason maintenance").expect("answered"), "done");
    assert_eq!(sessions(lab.node(0)), [""; 0]);
    for tor in ["t1", "t2"] {
        for address in SERVED {
            until("nothing leads to the node", || ways(&net, tor, "main", address) == 1);
        }
        for prefix in pod_cidrs(&lab, 0) {
            assert_eq!(ways(&net, tor, "main", &prefix), 0, "{tor}");
        }
    }
    capture.take();
    for address in SERVED {
        rhumb_integration::lab::ping(lab.client(), address.parse().expect("valid"), INTERVAL * 1000)
            .expect("answered");
    }
    assert!(!is_asked(), "the node is still asked");
    for pinger in pingers {
        pinger.stop().expect("ended").all_answered().expect("nothing is lost");
    }

    // Each session by itself: one of each family with each ToR.
    let all: BTreeSet<Prefix> = SERVED.map(|address| Prefix::host(address.parse().expect("valid"))).into();
    let own: Vec<Prefix> = lab.node(0).pod_cidrs(lab.store()).expect("assigned");
    let all: BTreeSet<Prefix> = all.into_iter().chain(own).collect();
    let addresses: [IpAddr; 2] = ["192.168.100.1", "fe80::1"].map(|text| text.parse().expect("valid"));
    for overheard in &overheard {
        let told = overheard.take(&addresses);
        for address in &addresses {
            let of_family = all.iter().filter(|prefix| prefix.addr().is_ipv4() == address.is_ipv4());
            takes_its_leave(&told[address], &of_family.copied().collect());
        }
    }
    let note = lab.node(0).show("bgp explain 203.0.113.10").expect("answered");
    assert!(note["notes"].to_string().contains("being drained"), "{note}");

    lab.node(0).show("bgp undrain").expect("answered");
    for tor in ["t1", "t2"] {
        for address in SERVED {
            until("both nodes again", || ways(&net, tor, "main", address) == 2);
        }
    }
    assert!(pair.bird.is_established() && pair.frr.is_established() && pair.spine.is_established());
    assert!(!routes(lab.node(0), "out").is_empty());
}
