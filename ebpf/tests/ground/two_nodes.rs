// SPDX-License-Identifier: Apache-2.0
//! Two nodes with a pod each, and a router between them that knows nothing of pods.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use futures::executor::block_on;
use rhumb_ebpf::{
    AttachPoint, Attached, Endpoint, EndpointAddr, Hook, IfIndex, PodLink, Reason, Remote, RemotePrefix,
    TUNNEL_MAC, Targets, TunnelLink, has_tcx,
};
use rhumb_model::{IfName, MacAddr, Prefix, Target as _};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, RecvFlags, SocketType, eth, recv, socket};

use super::{Ground, Namespace};

pub(crate) const PORT: u16 = 8472;
pub(crate) const TUNNEL: &str = "rhumb_vxlan";
pub(crate) const ONE: Place = Place {
    node: ("192.0.2.1", "2001:db8:1::1"),
    gateway: ("192.0.2.254", "2001:db8:1::fe"),
    pod: ("10.1.0.2", "fd00:1::2"),
    pods: ("10.1.0.0/24", "fd00:1::/64"),
    seed: 0x10,
};
pub(crate) const TWO: Place = Place {
    node: ("198.51.100.1", "2001:db8:2::1"),
    gateway: ("198.51.100.254", "2001:db8:2::fe"),
    pod: ("10.2.0.2", "fd00:2::2"),
    pods: ("10.2.0.0/24", "fd00:2::/64"),
    seed: 0x20,
};

/// Addresses of a node, of both families.
pub(crate) struct Place {
    pub(crate) node: (&'static str, &'static str),
    pub(crate) gateway: (&'static str, &'static str),
    pub(crate) pod: (&'static str, &'static str),
    pub(crate) pods: (&'static str, &'static str),
    /// Also the number of the node.
    pub(crate) seed: u64,
}

/// Which family encapsulated packets are of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Underlay {
    V4,
    V6,
}

impl Underlay {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// What fits into a tunnel over links of 1500 bytes.
    pub(crate) fn mtu(self) -> u16 {
        match self {
            Self::V4 => 1450,
            Self::V6 => 1430,
        }
    }

    pub(crate) fn of<T>(self, pair: (T, T)) -> T {
        match self {
            Self::V4 => pair.0,
            Self::V6 => pair.1,
        }
    }
}

/// A node and its pod.
pub(crate) struct Side {
    pub(crate) place: &'static Place,
    pub(crate) node: Namespace,
    pub(crate) pod: Namespace,
    pub(crate) ground: Ground,
    pub(crate) targets: Targets,
}

/// The two nodes and what is between them.
pub(crate) struct TwoNodes {
    pub(crate) one: Side,
    pub(crate) two: Side,
    pub(crate) router: Namespace,
}

impl TwoNodes {
    pub(crate) fn new(underlay: Underlay) -> Self {
        let router = Namespace::new();
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            router.sysctl(key, "1");
        }
        let [mut one, mut two] = [&ONE, &TWO].map(|place| Side::new(place, &router));
        one.knows(&TWO, underlay);
        two.knows(&ONE, underlay);
        Self { one, two, router }
    }
}

impl Side {
    fn new(place: &'static Place, router: &Namespace) -> Self {
        let ground = Ground::new();
        let targets = ground.targets();
        let [node, pod] = [(); 2].map(|()| Namespace::new());
        let port = format!("to{:x}", place.seed);
        node.ip(&format!("link add wire type veth peer name {port} netns {}", router.0));
        for (namespace, link, addrs) in [(&node, "wire", place.node), (router, &port, place.gateway)] {
            namespace.ip(&format!("address add {}/24 dev {link}", addrs.0));
            namespace.ip(&format!("address add {}/64 dev {link} nodad", addrs.1));
            namespace.ip(&format!("link set {link} up"));
        }
        for gateway in [place.gateway.0, place.gateway.1] {
            node.ip(&format!("route add default via {gateway}"));
        }
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            node.sysctl(key, "1");
        }
        let mac = MacAddr::new(TUNNEL_MAC).expect("unicast");
        node.ip(&format!("link add {TUNNEL} address {mac} type vxlan dstport {PORT} external nolearning"));
        node.ip(&format!("link set {TUNNEL} addrgenmode none arp off"));
        node.ip(&format!("link set {TUNNEL} up"));
        let mut side = Self { place, node, pod, ground, targets };
        side.attach("wire", Hook::FromWire);
        side.attach(TUNNEL, Hook::FromTunnel);
        side.attach(TUNNEL, Hook::ToTunnel);
        let link = TunnelLink {
            port: PORT,
            v4: Some(place.node.0.parse().expect("an address")),
            v6: Some(place.node.1.parse().expect("an address")),
        };
        let ifindex = IfIndex(side.node.ifindex(TUNNEL));
        block_on(side.targets.tunnel_links.put(&ifindex, &link)).expect("put");
        side.add_pod();
        side
    }

    fn attach(&mut self, ifname: &str, hook: Hook) {
        if !has_tcx() {
            return self.ground.filter(&self.node, ifname, hook);
        }
        let key = AttachPoint { ifname: IfName::new(ifname).expect("a name"), hook };
        let value = Attached { ifindex: self.node.ifindex(ifname) };
        let attachments = &mut self.targets.attachments;
        self.node.inside(|| block_on(attachments.put(&key, &value)).expect("attached"));
    }

    fn add_pod(&mut self) {
        let (mac, host_mac) = (MacAddr::from_seed(self.place.seed), MacAddr::from_seed(self.place.seed + 1));
        let (v4, v6) = self.place.pod;
        self.node.ip(&format!(
            "link add pod address {host_mac} type veth peer name eth0 address {mac} netns {}",
            self.pod.0
        ));
        self.node.ip("address add fe80::1/64 dev pod nodad");
        self.node.ip("link set pod up");
        self.pod.ip("link set eth0 up");
        self.pod.ip(&format!("address add {v4}/32 dev eth0"));
        self.pod.ip(&format!("address add {v6}/128 dev eth0 nodad"));
        self.pod.ip("route add default via 169.254.1.1 dev eth0 onlink");
        self.pod.ip("route add default via fe80::1 dev eth0");
        self.pod.run("sh", &["-c", "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range"]);
        for (addr, prefix) in
            [(format!("{v4}/32"), self.place.pods.0), (format!("{v6}/128"), self.place.pods.1)]
        {
            self.node.ip(&format!("route add {addr} dev pod"));
            self.node.ip(&format!("route add unreachable {prefix} metric 4294901760"));
        }
        let ifindex = self.node.ifindex("pod");
        let link = PodLink {
            v4: Some(v4.parse().expect("an address")),
            v6: Some(v6.parse().expect("an address")),
            mac,
            host_mac,
            chained: false,
            host_ports: false,
            interface: None,
        };
        block_on(self.targets.pod_links.put(&IfIndex(ifindex), &link)).expect("put");
        for addr in [v4, v6] {
            let endpoint = self.endpoint();
            block_on(self.targets.endpoints.put(&EndpointAddr(ip(addr)), &endpoint)).expect("put");
        }
        self.attach("pod", Hook::FromPod);
        self.attach("pod", Hook::ToPod);
    }

    /// Where the pod is.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let [mac, host_mac] = [0, 1].map(|seed| MacAddr::from_seed(self.place.seed + seed));
        Endpoint { ifindex: self.node.ifindex("pod"), mac, host_mac, shaped: false }
    }

    /// Puts what an agent puts for another node whose pods only the tunnel reaches.
    fn knows(&mut self, other: &Place, underlay: Underlay) {
        let (tunnel, mtu) = (Some(ip(underlay.of(other.node))), underlay.mtu());
        let pods = Remote { tunnel, mtu, keep_source: true, owner: other.seed, ..Remote::default() };
        for (prefix, source) in [(other.pods.0, self.place.node.0), (other.pods.1, self.place.node.1)] {
            self.remote(prefix.parse().expect("a prefix"), pods);
            self.node.ip(&format!("route add {prefix} dev {TUNNEL} mtu {mtu} src {source}"));
        }
        for addr in [other.node.0, other.node.1] {
            self.remote(Prefix::host(ip(addr)), Remote { node: true, ..pods });
        }
    }

    pub(crate) fn remote(&mut self, prefix: Prefix, remote: Remote) {
        block_on(self.targets.ipcache.put(&RemotePrefix(prefix), &remote)).expect("put");
    }

    pub(crate) fn count(&self, hook: Hook, reason: Reason) -> u64 {
        self.ground.count(hook, reason)
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// How much memory a capture may take: a stream is read when it is over.
const ROOM: usize = 64 << 20;

/// Sees every frame of a namespace from when it was opened.
pub(crate) struct Capture(OwnedFd);

/// An outer packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outer {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    pub(crate) ports: (u16, u16),
    pub(crate) length: usize,
}

impl Capture {
    pub(crate) fn open(namespace: &Namespace) -> Self {
        let socket = namespace.inside(|| {
            socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::ALL)).expect("root may capture")
        });
        set_socket_recv_buffer_size_force(&socket, ROOM).expect("root may take memory");
        Self(socket)
    }

    /// The frames so far.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 1 << 17];
        let mut seen = Vec::new();
        while let Ok((length, _)) = recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
            seen.push(buffer[..length].to_vec());
        }
        seen
    }

    /// The IP packets so far, as far as they have ports.
    pub(crate) fn packets(&self) -> Vec<Outer> {
        let mut seen = Vec::new();
        for frame in self.frames() {
            let (v6, protocol, at) = match frame[12..14] {
                [8, 0] => (false, frame[23], 34),
                [0x86, 0xdd] => (true, frame[20], 54),
                _ => continue,
            };
            // Neighbour discovery and reports of listeners have no ports.
            if !matches!(protocol, 0 | 58) {
                let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
                let ports = (port(at), port(at + 2));
                seen.push(Outer { v6, udp: protocol == 17, ports, length: frame.len() - 14 });
            }
        }
        seen
    }
}
