// SPDX-License-Identifier: Apache-2.0
//! Real traffic: two pods, their node and a machine on the wire, each a network namespace.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use ground::{Ground, Namespace};
use rhumb_ebpf::{
    AttachPoint, Attached, Endpoint, EndpointAddr, Hook, HostPort, HostPortBackend, IfIndex, PodLink, Reason,
    Targets, Uplink, has_tcx,
};
use rhumb_model::{IfName, MacAddr, Target as _};
use rustix::net::{AddressFamily, SocketType, ipproto};

const PATIENCE: Duration = Duration::from_secs(10);
const A: Pod = Pod { name: "rha", v4: "10.1.0.2", v6: "fd00:1::2", seed: 0xa };
const B: Pod = Pod { name: "rhb", v4: "10.1.0.3", v6: "fd00:1::3", seed: 0xb };
const NODE: (&str, &str) = ("192.0.2.1", "2001:db8::1");
const FAR: (&str, &str) = ("192.0.2.9", "2001:db8::9");

struct Pod {
    name: &'static str,
    v4: &'static str,
    v6: &'static str,
    seed: u64,
}

impl Pod {
    fn mac(&self) -> MacAddr {
        MacAddr::from_seed(self.seed)
    }

    fn host_mac(&self) -> MacAddr {
        MacAddr::from_seed(self.seed | 0x100)
    }
}

struct Cluster {
    ground: Ground,
    targets: Targets,
    node: Namespace,
    far: Namespace,
    a: Namespace,
    b: Namespace,
}

impl Cluster {
    fn new() -> Self {
        let ground = Ground::new();
        let targets = ground.targets();
        let [node, far, a, b] = [(); 4].map(|()| Namespace::new());
        node.ip(&format!("link add wire type veth peer name eth0 netns {}", far.0));
        for (namespace, link, addrs) in [(&node, "wire", NODE), (&far, "eth0", FAR)] {
            namespace.ip_all(&format!(
                "address add {}/24 dev {link}
                address add {}/64 dev {link} nodad
                link set {link} up\n",
                addrs.0, addrs.1
            ));
        }
        far.ip_all(&format!("route add 10.1.0.0/24 via {}\nroute add fd00:1::/64 via {}\n", NODE.0, NODE.1));
        let mut cluster = Self { ground, targets, node, far, a, b };
        cluster.attach("wire", Hook::FromWire);
        cluster.node.sysctl("net/ipv4/ip_forward", "1");
        cluster.node.sysctl("net/ipv6/conf/all/forwarding", "1");
        cluster.pod(&A, |_| {});
        cluster.pod(&B, |_| {});
        cluster
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

    fn pod(&mut self, pod: &Pod, with: impl Fn(&mut PodLink)) {
        let namespace = if pod.name == A.name { &self.a } else { &self.b };
        let (mac, host_mac, name) = (pod.mac(), pod.host_mac(), pod.name);
        self.node.ip_all(&format!(
            "link add {name} address {host_mac} type veth peer name eth0 address {mac} netns {}
            address add fe80::1/64 dev {name} nodad
            link set {name} up
            route add {}/32 dev {name}
            route add {}/128 dev {name}\n",
            namespace.0, pod.v4, pod.v6
        ));
        namespace.ip_all(&format!(
            "link set eth0 up
            address add {}/32 dev eth0
            address add {}/128 dev eth0 nodad
            route add default via 169.254.1.1 dev eth0 onlink
            route add default via fe80::1 dev eth0\n",
            pod.v4, pod.v6
        ));
        self.entries(pod, with);
        self.attach(name, Hook::FromPod);
        self.attach(name, Hook::ToPod);
    }

    fn entries(&mut self, pod: &Pod, with: impl Fn(&mut PodLink)) {
        let ifindex = self.node.ifindex(pod.name);
        let mut link = PodLink {
            v4: Some(pod.v4.parse().expect("an address")),
            v6: Some(pod.v6.parse().expect("an address")),
            mac: pod.mac(),
            host_mac: pod.host_mac(),
            chained: false,
            host_ports: false,
            interface: None,
        };
        with(&mut link);
        block_on(self.targets.pod_links.put(&IfIndex(ifindex), &link)).expect("put");
        if !link.chained {
            self.endpoint(pod, false);
        }
    }

    fn endpoint(&mut self, pod: &Pod, shaped: bool) {
        let ifindex = self.node.ifindex(pod.name);
        for addr in [pod.v4, pod.v6] {
            let value = Endpoint { ifindex, mac: pod.mac(), host_mac: pod.host_mac(), shaped };
            let key = EndpointAddr(addr.parse().expect("an address"));
            block_on(self.targets.endpoints.put(&key, &value)).expect("put");
        }
    }

    fn count(&self, hook: Hook, reason: Reason) -> u64 {
        self.ground.count(hook, reason)
    }
}

fn socket(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse::<IpAddr>().expect("an address"), port)
}

/// Listens at an address where another listener may have been until now: a process that another test is just starting
/// has a copy of it for a moment.
fn listen(namespace: &Namespace, addr: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match namespace.inside(|| TcpListener::bind(addr)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            bound => return bound.expect("bound"),
        }
    }
}

/// Receives a datagram; a machine that is paused and goes on interrupts the wait, which then begins anew.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => return received,
        }
    }
}

/// Sends a few hundred kilobytes to `to` and back over TCP; the address that the server saw.
fn exchange(server: (&Namespace, SocketAddr), client: &Namespace, to: SocketAddr) -> IpAddr {
    let listener = listen(server.0, server.1);
    let data: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).take(400_000).collect();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let (mut stream, peer) = listener.accept().expect("accepted");
            let mut seen = vec![0; data.len()];
            stream.read_exact(&mut seen).expect("received");
            stream.write_all(&seen).expect("sent");
            peer.ip()
        });
        let mut stream = client
            .inside(|| TcpStream::connect_timeout(&to, PATIENCE))
            .unwrap_or_else(|error| panic!("connect {to}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.write_all(&data).expect("sent");
        let mut back = vec![0; data.len()];
        stream.read_exact(&mut back).expect("received");
        assert!(back == data);
        serving.join().expect("served")
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn pods_reach_each_other_without_the_host_stack() {
    let cluster = Cluster::new();
    for (from, to) in [(A.v4, B.v4), (A.v6, B.v6)] {
        let seen = exchange((&cluster.b, socket(to, 8080)), &cluster.a, socket(to, 8080));
        assert_eq!(seen, ip(from));
    }
    assert!(cluster.count(Hook::FromPod, Reason::ForwardedLocal) > 10);
    assert!(cluster.count(Hook::FromPod, Reason::AnsweredArp) > 0);
    assert!(cluster.count(Hook::FromPod, Reason::AnsweredNd) > 0);
    assert_eq!(cluster.count(Hook::ToPod, Reason::DeliveredTracked), 0);
    assert_eq!(cluster.count(Hook::FromPod, Reason::ForwardedRemote), 0);
}

#[test]
fn pods_and_the_wire_reach_each_other() {
    let cluster = Cluster::new();
    for (pod, far) in [(A.v4, FAR.0), (A.v6, FAR.1)] {
        assert_eq!(exchange((&cluster.far, socket(far, 80)), &cluster.a, socket(far, 80)), ip(pod));
        assert_eq!(exchange((&cluster.a, socket(pod, 80)), &cluster.far, socket(pod, 80)), ip(far));
    }
    assert!(cluster.count(Hook::FromPod, Reason::ForwardedRemote) > 10);
    assert!(cluster.count(Hook::FromWire, Reason::ForwardedLocal) > 10);
    assert_eq!(cluster.count(Hook::ToPod, Reason::DeliveredTracked), 0);
}

#[test]
fn the_node_reaches_its_pods_and_they_reach_it() {
    let cluster = Cluster::new();
    for (pod, node) in [(A.v4, NODE.0), (A.v6, NODE.1)] {
        exchange((&cluster.a, socket(pod, 80)), &cluster.node, socket(pod, 80));
        assert_eq!(exchange((&cluster.node, socket(node, 80)), &cluster.a, socket(node, 80)), ip(pod));
    }
    assert!(cluster.count(Hook::FromPod, Reason::ToStack) > 10);
    assert!(cluster.count(Hook::FromPod, Reason::NeighbourAnswer) > 0);
    assert_eq!(cluster.count(Hook::ToPod, Reason::DeliveredTracked), 0);
}

#[test]
fn host_ports_work_from_the_wire_and_from_pods() {
    let mut cluster = Cluster::new();
    cluster.entries(&B, |link| link.host_ports = true);
    for (node, pod, far, near) in [(NODE.0, B.v4, FAR.0, A.v4), (NODE.1, B.v6, FAR.1, A.v6)] {
        let key = HostPort { addr: ip(node), port: 8888, protocol: 6 };
        let value = HostPortBackend { addr: ip(pod), port: 80 };
        block_on(cluster.targets.host_ports.put(&key, &value)).expect("put");
        let to = socket(node, 8888);
        assert_eq!(exchange((&cluster.b, socket(pod, 80)), &cluster.far, to), ip(far));
        assert_eq!(exchange((&cluster.b, socket(pod, 80)), &cluster.a, to), ip(near));
        let gateway = if pod.contains(':') { "fe80::1" } else { "169.254.1.1" };
        assert_eq!(exchange((&cluster.b, socket(pod, 80)), &cluster.b, to), ip(gateway));
    }
    assert!(cluster.count(Hook::FromWire, Reason::HostPortIn) > 10);
    assert!(cluster.count(Hook::FromPod, Reason::HostPortIn) > 10);
}

#[test]
fn what_the_stack_translated_returns_through_the_stack() {
    let cluster = Cluster::new();
    for (tool, to) in [("iptables", format!("{}:80", B.v4)), ("ip6tables", format!("[{}]:80", B.v6))] {
        cluster.node.run(
            tool,
            &[
                "-w",
                "-t",
                "nat",
                "-A",
                "PREROUTING",
                "-p",
                "tcp",
                "--dport",
                "9999",
                "-j",
                "DNAT",
                "--to-destination",
                &to,
            ],
        );
    }
    for (node, pod, far, near) in [(NODE.0, B.v4, FAR.0, A.v4), (NODE.1, B.v6, FAR.1, A.v6)] {
        let to = socket(node, 9999);
        assert_eq!(exchange((&cluster.b, socket(pod, 80)), &cluster.far, to), ip(far));
        assert_eq!(exchange((&cluster.b, socket(pod, 80)), &cluster.a, to), ip(near));
        // The pods' other flows still go straight.
        exchange((&cluster.a, socket(near, 80)), &cluster.b, socket(near, 80));
    }
    assert!(cluster.count(Hook::ToPod, Reason::DeliveredTracked) > 10);
    assert!(cluster.count(Hook::FromPod, Reason::StackReturn) > 10);
}

#[test]
fn a_shaped_pod_is_reached_through_its_queue() {
    let mut cluster = Cluster::new();
    cluster.node.run(
        "tc",
        &["qdisc", "add", "dev", B.name, "root", "tbf", "rate", "100mbit", "burst", "1mb", "latency", "50ms"],
    );
    cluster.endpoint(&B, true);
    for (pod, node) in [(B.v4, NODE.0), (B.v6, NODE.1)] {
        exchange((&cluster.b, socket(pod, 80)), &cluster.a, socket(pod, 80));
        exchange((&cluster.b, socket(pod, 80)), &cluster.far, socket(pod, 80));
        exchange((&cluster.node, socket(node, 80)), &cluster.b, socket(node, 80));
    }
    assert!(cluster.count(Hook::FromPod, Reason::ForwardedShaped) > 10);
    assert!(cluster.count(Hook::FromWire, Reason::ForwardedShaped) > 10);
    assert!(cluster.count(Hook::ToPod, Reason::Delivered) > 10);
    assert_eq!(cluster.count(Hook::ToPod, Reason::DeliveredTracked), 0);
}

#[test]
fn a_chained_pod_is_forwarded_by_the_stack() {
    let mut cluster = Cluster::new();
    cluster.node.ip(&format!("address add 169.254.1.1/32 dev {}", A.name));
    for addr in [A.v4, A.v6] {
        block_on(cluster.targets.endpoints.remove(&EndpointAddr(ip(addr)))).expect("removed");
    }
    cluster.entries(&A, |link| link.chained = true);
    for (pod, far) in [(A.v4, FAR.0), (A.v6, FAR.1)] {
        assert_eq!(exchange((&cluster.far, socket(far, 80)), &cluster.a, socket(far, 80)), ip(pod));
        assert_eq!(exchange((&cluster.a, socket(pod, 80)), &cluster.far, socket(pod, 80)), ip(far));
    }
    assert!(cluster.count(Hook::FromPod, Reason::Chained) > 10);
    assert_eq!(cluster.count(Hook::FromPod, Reason::ForwardedRemote), 0);
}

#[test]
fn a_spoofed_source_gets_nowhere() {
    let cluster = Cluster::new();
    cluster.a.ip("address add 10.1.0.77/32 dev lo");
    cluster.a.ip("address add fd00:1::77/128 dev lo nodad");
    for (spoofed, own, to) in [("10.1.0.77", A.v4, B.v4), ("fd00:1::77", A.v6, B.v6)] {
        let before = cluster.count(Hook::FromPod, Reason::SourceAddress);
        let receiver = cluster.b.inside(|| UdpSocket::bind(socket(to, 5000)).expect("bound"));
        receiver.set_read_timeout(Some(PATIENCE)).expect("set");
        let send = |from: &str, text: &[u8]| {
            let sender = cluster.a.inside(|| UdpSocket::bind(socket(from, 0)).expect("bound"));
            sender.send_to(text, socket(to, 5000)).expect("sent");
        };
        send(spoofed, b"spoofed");
        send(own, b"own");
        let mut buffer = [0; 16];
        let (length, from) = receive(&receiver, &mut buffer).expect("received");
        assert_eq!((&buffer[..length], from.ip()), (&b"own"[..], ip(own)));
        assert!(cluster.count(Hook::FromPod, Reason::SourceAddress) > before);
    }
}

#[test]
fn a_connection_survives_new_programs() {
    let mut cluster = Cluster::new();
    let listener = cluster.b.inside(|| TcpListener::bind(socket(B.v6, 80)).expect("bound"));
    let mut client =
        cluster.a.inside(|| TcpStream::connect_timeout(&socket(B.v6, 80), PATIENCE).expect("connected"));
    let (mut server, _) = listener.accept().expect("accepted");
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
    }
    for round in 0..3u8 {
        client.write_all(&[round; 1000]).expect("sent");
        let mut buffer = [0; 1000];
        server.read_exact(&mut buffer).expect("received");
        assert_eq!(buffer, [round; 1000]);
        let node = &cluster.node;
        let ground = &mut cluster.ground;
        node.inside(|| ground.reopen());
    }
    let retransmitted = cluster.a.run("cat", &["/proc/net/snmp"]);
    let tcp: Vec<&str> = retransmitted.lines().filter(|line| line.starts_with("Tcp:")).collect();
    let column = tcp[0].split_whitespace().position(|name| name == "RetransSegs").expect("a column");
    assert_eq!(tcp[1].split_whitespace().nth(column), Some("0"));
}

/// Lets packets of pods leave with the node's address, to a world that knows nothing of pods.
fn masquerade(cluster: &mut Cluster) {
    cluster.far.ip("route del 10.1.0.0/24");
    cluster.far.ip("route del fd00:1::/64");
    cluster.attach("wire", Hook::ToWire);
    let uplink = Uplink {
        v4: Some(NODE.0.parse().expect("an address")),
        v6: Some(NODE.1.parse().expect("an address")),
        mark: None,
    };
    let key = IfIndex(cluster.node.ifindex("wire"));
    block_on(cluster.targets.uplinks.put(&key, &uplink)).expect("put");
}

/// Asks `to` for an echo and gets it.
fn echo(from: &Namespace, to: IpAddr) {
    from.sysctl("net/ipv4/ping_group_range", "0 0");
    let (family, protocol, kind) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    let asking =
        from.inside(|| rustix::net::socket(family, SocketType::DGRAM, Some(protocol)).expect("made"));
    let asking = UdpSocket::from(asking);
    asking.set_read_timeout(Some(PATIENCE)).expect("set");
    asking.connect(SocketAddr::new(to, 0)).expect("connected");
    asking.send(&[kind, 0, 0, 0, 0, 0, 0, 1, b'?']).expect("sent");
    let mut answer = [0; 16];
    let (length, _) = receive(&asking, &mut answer).expect("answered");
    assert_eq!((length, answer[8]), (9, b'?'));
}

#[test]
fn pods_reach_the_world_with_the_nodes_address() {
    let mut cluster = Cluster::new();
    masquerade(&mut cluster);
    for (far, node) in [(FAR.0, NODE.0), (FAR.1, NODE.1)] {
        for from in [&cluster.a, &cluster.b, &cluster.node] {
            assert_eq!(exchange((&cluster.far, socket(far, 80)), from, socket(far, 80)), ip(node));
            echo(from, ip(far));
        }
    }
    assert!(cluster.count(Hook::ToWire, Reason::Masqueraded) > 10);
    assert!(cluster.count(Hook::ToWire, Reason::HostSent) > 10);
    assert!(cluster.count(Hook::FromWire, Reason::MasqueradeReturn) > 10);
    assert_eq!(cluster.count(Hook::ToPod, Reason::DeliveredTracked), 0);
}

#[test]
fn pods_with_one_port_and_their_node_get_each_its_own_answers() {
    let mut cluster = Cluster::new();
    masquerade(&mut cluster);
    for (far, unspecified) in [(FAR.0, "0.0.0.0"), (FAR.1, "::")] {
        let server = cluster.far.inside(|| UdpSocket::bind(socket(far, 7)).expect("bound"));
        // The node's own socket is there first: its port is not given to a pod.
        let clients = [&cluster.node, &cluster.a, &cluster.b].map(|namespace| {
            let client = namespace.inside(|| UdpSocket::bind(socket(unspecified, 5_555)).expect("bound"));
            client.connect(socket(far, 7)).expect("connected");
            client
        });
        for stream in clients.iter().chain([&server]) {
            stream.set_read_timeout(Some(PATIENCE)).expect("set");
        }
        let mut ports = std::collections::BTreeSet::new();
        for round in 0..3u8 {
            for (number, client) in (0u8..).zip(&clients) {
                // The last round is larger than the link, and travels in fragments.
                let text = vec![number; if round == 2 { 4_000 } else { 100 }];
                client.send(&text).expect("sent");
                let mut buffer = [0; 5_000];
                let (length, from) = receive(&server, &mut buffer).expect("received");
                assert_eq!(&buffer[..length], &text[..]);
                ports.insert((from, number));
                server.send_to(&buffer[..length], from).expect("sent");
                let (length, _) = receive(client, &mut buffer).expect("received");
                assert_eq!(&buffer[..length], &text[..]);
            }
        }
        let own: Vec<u16> = ports.iter().map(|(from, _)| from.port()).collect();
        assert_eq!(own.len(), 3, "{ports:?}");
        assert!(ports.iter().any(|(from, number)| (from.port(), *number) == (5_555, 0)), "{ports:?}");
    }
}

#[test]
fn an_error_from_the_world_reaches_the_pod_that_caused_it() {
    let mut cluster = Cluster::new();
    masquerade(&mut cluster);
    for (far, unspecified) in [(FAR.0, "0.0.0.0"), (FAR.1, "::")] {
        for namespace in [&cluster.a, &cluster.b] {
            let client = namespace.inside(|| UdpSocket::bind(socket(unspecified, 5_556)).expect("bound"));
            client.connect(socket(far, 9)).expect("connected");
            client.set_read_timeout(Some(PATIENCE)).expect("set");
            client.send(b"is anybody there").expect("sent");
            let error = receive(&client, &mut [0; 16]).expect_err("nobody is");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
    }
}
