// SPDX-License-Identifier: Apache-2.0

use serde_json::json;

use super::{Bird, Net, Snapshot, Speaker, bfd, peer, until};

/// AS of node `number`.
fn node_as(number: u32) -> u32 {
    4_200_000_100 + number
}

/// Two ToRs, each with a link to every node and to a spine; a client behind the spine, a pod behind each node. ToRs and
/// spine run BIRD with BFD, nodes `rhumb-bgp`.
///
/// ```text
///   client 10.200.1.2 ─ spine ┬─ t1 ─┬ n1 ─ p1 10.100.1.2
///                             │    ╲╱├ n2 ─ p2 10.100.2.2
///                             └─ t2 ─┴ n3 ─ p3 10.100.3.2
/// ```
///
/// IPv6 is fd00:200:1::2 and fd00:100:N::2. The links of ToR T are 10.T.N.0/30 and fd00:T:N::/64; N is 9 for the spine.
pub(crate) struct Fabric<'a> {
    // Dropped in this order.
    pub(crate) nodes: Vec<Speaker<'a>>,
    pub(crate) routers: Vec<Bird>,
    pub(crate) net: &'a Net,
}

pub(crate) const NODES: [u32; 3] = [1, 2, 3];
const TORS: [u32; 2] = [1, 2];
const SPINE: u32 = 9;

impl Net {
    /// Hosts behind both ends of a pair, inside of what the ends tell each other: `pod` behind ours, 10.100.1.2 and
    /// fd00:100:1::2, and `client` behind the peer, 10.200.1.2 and fd00:200:1::2.
    pub(crate) fn pair_with_hosts() -> Self {
        let mut net = Self::pair();
        for (router, host, number) in [("a", "pod", 100), ("b", "client", 200)] {
            net.add(host);
            // Longer than what is told, so that the peer's own route of that is not in the way.
            net.host(router, host, (&format!("10.{number}.1"), 25), (&format!("fd00:{number}:1:"), 80));
        }
        net
    }

    /// The namespaces and links of a [`Fabric`].
    pub(crate) fn fabric() -> Self {
        let mut names: Vec<String> = ["client", "spine", "t1", "t2"].map(str::to_owned).into();
        names.extend(NODES.iter().flat_map(|node| [format!("n{node}"), format!("p{node}")]));
        let net = Self::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for tor in TORS {
            for (far, number) in
                NODES.map(|node| (format!("n{node}"), node)).into_iter().chain([("spine".into(), SPINE)])
            {
                let v4 = |low: u8| format!("10.{tor}.{number}.{low}/30");
                let v6 = |low: u8| format!("fd00:{tor}:{number}::{low}/64");
                let near = format!("t{tor}");
                net.link([(&near, &far, &[&v4(1), &v6(1)]), (&far, &near, &[&v4(2), &v6(2)])]);
            }
        }
        net.host("spine", "client", ("10.200.1", 24), ("fd00:200:1:", 64));
        for node in NODES {
            let (v4, v6) = (format!("10.100.{node}"), format!("fd00:100:{node}:"));
            net.host(&format!("n{node}"), &format!("p{node}"), (&v4, 24), (&v6, 64));
        }
        net
    }

    /// A link from a router to a host behind it, with the host's default routes.
    pub(crate) fn host(
        &self,
        router: &str,
        host: &str,
        (v4, v4_length): (&str, u8),
        (v6, v6_length): (&str, u8),
    ) {
        let ends = [1, 2].map(|low| [format!("{v4}.{low}/{v4_length}"), format!("{v6}:{low}/{v6_length}")]);
        self.link([(router, host, &[&ends[0][0], &ends[0][1]]), (host, "eth0", &[&ends[1][0], &ends[1][1]])]);
        for gateway in [format!("{v4}.1"), format!("{v6}:1")] {
            self.namespace(host).ip(&format!("route add default via {gateway}")).expect("routed");
        }
    }
}

impl<'a> Fabric<'a> {
    /// Starts everybody; each node tells of its pod's blocks and of `services`.
    pub(crate) fn start(net: &'a Net, services: impl Fn(u32) -> Vec<String>) -> Self {
        let mut routers = vec![Bird::start(net, "spine", "t1", &spine())];
        routers.extend(TORS.map(|tor| Bird::start(net, &format!("t{tor}"), "spine", &tor_config(tor))));
        let nodes = NODES.map(|node| {
            let mut snapshot = Snapshot::new(node_as(node), &format!("10.1.{node}.2"));
            for tor in TORS {
                let address = json!({ "ip": format!("10.{tor}.{node}.1") });
                let mut peer = peer(&format!("t{tor}"), address, json!({ "number": 65000 + tor }));
                peer["bfd"] = bfd();
                snapshot.add_peer(peer);
            }
            let own = [format!("10.100.{node}.0/24"), format!("fd00:100:{node}::/64")];
            let mut routes: Vec<String> = own.into_iter().chain(services(node)).collect();
            routes.sort_by_key(|prefix| prefix.contains(':'));
            for prefix in routes {
                snapshot.add_route(&prefix);
            }
            Speaker::start(net, &format!("n{node}"), &snapshot)
        });
        let fabric = Self { nodes: nodes.into(), routers, net };
        fabric.settle();
        fabric
    }

    /// Waits until every packet has two ways, in both directions, and every session its BFD.
    fn settle(&self) {
        for node in NODES {
            for (prefix, back) in [
                (format!("10.100.{node}.0/24"), "10.200.1.0/24"),
                (format!("fd00:100:{node}::/64"), "fd00:200:1::/64"),
            ] {
                until("the spine has two ways to a node", || self.ways("spine", "main", &prefix) == 2);
                until("a node has two ways to the client", || {
                    self.ways(&format!("n{node}"), super::speaker::TABLE, back) == 2
                });
            }
            let speaker = &self.nodes[node as usize - 1];
            for tor in ["t1", "t2"] {
                until("BFD is up", || speaker.peer(tor)["bfd"] == "up");
            }
        }
    }

    /// How many next hops the route to a prefix has.
    pub(crate) fn ways(&self, namespace: &str, table: &str, prefix: &str) -> usize {
        let route = self.net.kernel_route(namespace, table, prefix);
        route.map_or(0, |route| route.matches(" via ").count())
    }
}

const COMMON: &str = r#"
    protocol device {}
    protocol kernel k4 { merge paths on; ipv4 { import none; export where source = RTS_BGP; }; }
    protocol kernel k6 { merge paths on; ipv6 { import none; export where source = RTS_BGP; }; }
    protocol bfd { interface "*" { min rx interval 50 ms; min tx interval 50 ms; multiplier 3; }; }
    filter heed {
        if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
        accept;
    }
    template bgp fast {
        connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 5;
        bfd on;
    }
"#;

fn tor_config(tor: u32) -> String {
    let mut config = format!("router id 10.{tor}.9.1;\n{COMMON}\n");
    let neighbours = NODES.map(|node| (format!("n{node}"), node, node_as(node)));
    for (name, number, asn) in neighbours.into_iter().chain([("spine".to_owned(), SPINE, 65009)]) {
        config.push_str(&format!(
            "protocol bgp {name} from fast {{
                local 10.{tor}.{number}.1 as {}; neighbor 10.{tor}.{number}.2 as {asn};
                ipv4 {{ import filter heed; export all; next hop self; }};
                ipv6 {{ import filter heed; export all; next hop self; next hop address fd00:{tor}:{number}::1; }};
            }}\n",
            65000 + tor
        ));
    }
    config
}

fn spine() -> String {
    let mut config = format!(
        "router id 10.1.9.2;\n{COMMON}
        protocol static s4 {{ ipv4; route 10.200.1.0/24 via 10.200.1.2; }}
        protocol static s6 {{ ipv6; route fd00:200:1::/64 via fd00:200:1::2; }}\n"
    );
    for tor in TORS {
        config.push_str(&format!(
            "protocol bgp t{tor} from fast {{
                local 10.{tor}.9.2 as 65009; neighbor 10.{tor}.9.1 as {};
                ipv4 {{ import filter heed; export where source = RTS_STATIC; next hop self; }};
                ipv6 {{ import filter heed; export where source = RTS_STATIC; next hop address fd00:{tor}:9::2; }};
            }}\n",
            65000 + tor
        ));
    }
    config
}
