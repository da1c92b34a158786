// SPDX-License-Identifier: Apache-2.0
//! A node with two pods and an uplink, for packets that leave it and return: pods are map entries, interfaces are real.

use std::net::IpAddr;

use futures::executor::block_on;
use rhumb_ebpf::{
    Code, Endpoint, EndpointAddr, Hook, IfIndex, PodLink, Ran, Reason, Remote, RemotePrefix, Targets, Trial,
    Uplink,
};
use rhumb_model::{MacAddr, Target as _};

use super::{Ground, Namespace};

pub(crate) const POD_A: (&str, &str) = ("10.1.0.2", "fd00:1::2");
pub(crate) const POD_B: (&str, &str) = ("10.1.0.3", "fd00:1::3");
pub(crate) const NODE: (&str, &str) = ("192.0.2.1", "2001:db8::1");
pub(crate) const FAR: (&str, &str) = ("198.51.100.9", "2001:db8:9::9");
pub(crate) const HOST_A: [u8; 6] = [2, 0, 0, 0, 0xa, 1];
pub(crate) const HOST_B: [u8; 6] = [2, 0, 0, 0, 0xb, 1];
pub(crate) const MAC_A: [u8; 6] = [2, 0, 0, 0, 0xa, 2];
pub(crate) const MAC_B: [u8; 6] = [2, 0, 0, 0, 0xb, 2];
pub(crate) const WIRE: [u8; 6] = [2, 0, 0, 0, 0xe, 1];
pub(crate) const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xe, 2];

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) struct Router {
    pub(crate) namespace: Namespace,
    pub(crate) ground: Ground,
    pub(crate) targets: Targets,
    pub(crate) pod_a: u32,
    pub(crate) pod_b: u32,
    pub(crate) wire: u32,
}

impl Router {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new();
        for (name, mac) in [("hosta", HOST_A), ("hostb", HOST_B), ("wire", WIRE)] {
            let mac = MacAddr::new(mac).expect("unicast");
            namespace.ip(&format!("link add {name} address {mac} type veth peer name {name}-p"));
            namespace.ip(&format!("link set {name} up"));
            namespace.ip(&format!("link set {name}-p up"));
        }
        namespace.sysctl("net/ipv4/ip_forward", "1");
        namespace.sysctl("net/ipv6/conf/all/forwarding", "1");
        namespace.ip(&format!("address add {}/24 dev wire", NODE.0));
        namespace.ip(&format!("address add {}/64 dev wire nodad", NODE.1));
        let router = MacAddr::new(ROUTER).expect("unicast");
        for (gateway, far) in [("192.0.2.254", "198.51.100.0/24"), ("2001:db8::fe", "2001:db8:9::/64")] {
            namespace.ip(&format!("neighbour add {gateway} lladdr {router} dev wire nud permanent"));
            namespace.ip(&format!("route add {far} via {gateway}"));
        }
        let ground = Ground::new();
        let targets = ground.targets();
        let [pod_a, pod_b, wire] = ["hosta", "hostb", "wire"].map(|name| namespace.ifindex(name));
        let mut node = Self { namespace, ground, targets, pod_a, pod_b, wire };
        node.pod(pod_a, POD_A, (MAC_A, HOST_A));
        node.pod(pod_b, POD_B, (MAC_B, HOST_B));
        node.uplink(Some(NODE.0), Some(NODE.1));
        node
    }

    fn pod(&mut self, ifindex: u32, addrs: (&str, &str), macs: ([u8; 6], [u8; 6])) {
        let (mac, host_mac) =
            (MacAddr::new(macs.0).expect("unicast"), MacAddr::new(macs.1).expect("unicast"));
        let link = PodLink {
            v4: Some(addrs.0.parse().expect("an address")),
            v6: Some(addrs.1.parse().expect("an address")),
            mac,
            host_mac,
            chained: false,
            host_ports: false,
            interface: None,
        };
        block_on(self.targets.pod_links.put(&IfIndex(ifindex), &link)).expect("put");
        for addr in [addrs.0, addrs.1] {
            let endpoint = Endpoint { ifindex, mac, host_mac, shaped: false };
            block_on(self.targets.endpoints.put(&EndpointAddr(address(addr)), &endpoint)).expect("put");
        }
    }

    /// Who pod A is.
    pub(crate) fn link_a(&self) -> PodLink {
        PodLink {
            v4: Some(POD_A.0.parse().expect("an address")),
            v6: Some(POD_A.1.parse().expect("an address")),
            mac: MacAddr::new(MAC_A).expect("unicast"),
            host_mac: MacAddr::new(HOST_A).expect("unicast"),
            chained: false,
            host_ports: false,
            interface: None,
        }
    }

    /// Where pod B is.
    pub(crate) fn endpoint_b(&self) -> Endpoint {
        let [mac, host_mac] = [MAC_B, HOST_B].map(|mac| MacAddr::new(mac).expect("unicast"));
        Endpoint { ifindex: self.pod_b, mac, host_mac, shaped: false }
    }

    /// The addresses that packets of pods leave with.
    pub(crate) fn uplink(&mut self, v4: Option<&str>, v6: Option<&str>) {
        let uplink = Uplink {
            v4: v4.map(|v4| v4.parse().expect("an address")),
            v6: v6.map(|v6| v6.parse().expect("an address")),
            mark: None,
        };
        block_on(self.targets.uplinks.put(&IfIndex(self.wire), &uplink)).expect("put");
    }

    /// A prefix towards which pods keep their addresses.
    pub(crate) fn keep(&mut self, prefix: &str) {
        let key = RemotePrefix(prefix.parse().expect("a prefix"));
        let remote = Remote { keep_source: true, ..Remote::default() };
        block_on(self.targets.ipcache.put(&key, &remote)).expect("put");
    }

    pub(crate) fn ran(&self, hook: Hook, trial: Trial<'_>) -> Ran {
        self.namespace.inside(|| self.ground.datapath().run(hook, &trial).expect("the kernel runs it"))
    }

    /// Runs the packet, and checks that exactly one counter moved, by one packet and its bytes.
    pub(crate) fn run(&self, hook: Hook, ifindex: u32, packet: &[u8]) -> (Reason, Code, Vec<u8>) {
        let before = self.ground.counters();
        let ran = self.ran(hook, Trial { ingress_ifindex: ifindex, ..Trial::new(packet, ifindex) });
        let moved: Vec<_> =
            self.ground.counters().into_iter().filter(|counter| !before.contains(counter)).collect();
        let [counter] = moved[..] else { panic!("not one counter moved: {moved:?}") };
        let old =
            before.iter().find(|old| (old.reason, old.direction) == (counter.reason, counter.direction));
        let (packets, bytes) = old.map_or((0, 0), |old| (old.packets, old.bytes));
        assert_eq!((counter.packets - packets, counter.bytes - bytes), (1, packet.len() as u64));
        (counter.reason, ran.code, ran.packet)
    }

    /// What a packet of pod A looks like when it has left the node; it must be forwarded and masqueraded.
    pub(crate) fn leaves(&self, packet: &[u8]) -> Vec<u8> {
        self.leaves_from(self.pod_a, packet)
    }

    pub(crate) fn leaves_from(&self, pod: u32, packet: &[u8]) -> Vec<u8> {
        let (reason, _, out) = self.run(Hook::FromPod, pod, packet);
        assert_eq!(reason, Reason::ForwardedRemote);
        let (reason, code, out) = self.run(Hook::ToWire, self.wire, &out);
        assert_eq!((reason, code), (Reason::Masqueraded, Code::Next));
        out
    }

    /// What a packet from the wire looks like in the pod; it must be an answer to a masqueraded one.
    pub(crate) fn returns(&self, packet: &[u8]) -> Vec<u8> {
        let (reason, code, out) = self.run(Hook::FromWire, self.wire, packet);
        assert_eq!((reason, code), (Reason::MasqueradeReturn, Code::Redirect));
        out
    }
}
