// SPDX-License-Identifier: Apache-2.0
//! Real traffic between pods of two nodes that only the tunnel joins: network namespaces, with a router between them
//! that knows nothing of pods.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use futures::executor::block_on;
use ground::Namespace;
use ground::two_nodes::{Capture, ONE, PORT, TUNNEL, TWO, TwoNodes, Underlay, ip};
use rhumb_ebpf::{Direction, EndpointAddr, Hook, HostPort, HostPortBackend, Reason, Remote, RemotePrefix};
use rhumb_model::{Prefix, Target as _};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Timeout, set_ip_mtu_discover, set_ip_ttl, set_ipv6_unicast_hops, set_socket_timeout,
};
use rustix::net::{AddressFamily, SocketType, connect, ipproto};

const PATIENCE: Duration = Duration::from_secs(10);
/// How often is sent again what may be lost while a path's MTU is learned.
const ATTEMPTS: usize = 20;

fn at(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(addr), port)
}

/// Sends `bytes` to `to` and back over TCP; the address that the server saw.
fn exchange(server: &Namespace, client: &Namespace, to: SocketAddr, bytes: usize) -> IpAddr {
    let listener = server.inside(|| TcpListener::bind(to).expect("bound"));
    // Nobody comes when the client gives up.
    set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE)).expect("set");
    let data: Vec<u8> = (0u32..).flat_map(u32::to_le_bytes).take(bytes).collect();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let (mut stream, peer) = listener.accept().expect("accepted");
            stream.set_read_timeout(Some(PATIENCE)).expect("set");
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

/// A socket for echo requests to `to`.
fn pinger(from: &Namespace, to: IpAddr, hops: u8) -> UdpSocket {
    let socket = from.inside(|| {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = rustix::net::socket(family, SocketType::DGRAM, Some(protocol)).expect("a ping socket");
        match to {
            IpAddr::V4(_) => set_ip_ttl(&socket, hops.into()).expect("set"),
            IpAddr::V6(_) => set_ipv6_unicast_hops(&socket, Some(hops)).expect("set"),
        }
        connect(&socket, &SocketAddr::new(to, 0)).expect("connected");
        UdpSocket::from(socket)
    });
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket
}

/// Asks `to` for an echo of a message of `length` bytes until it comes.
fn ping(from: &Namespace, to: &str, length: usize) {
    let to = ip(to);
    let socket = pinger(from, to, 64);
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    let mut message = vec![5; length];
    message[..8].copy_from_slice(&[if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 0, 0, 0, 1]);
    let mut answer = vec![0; length + 1];
    for _ in 0..ATTEMPTS {
        // The first may find out that it was too large.
        if socket.send(&message).is_ok() && socket.recv(&mut answer).is_ok_and(|got| got == length) {
            return;
        }
    }
    panic!("{to} does not answer an echo request of {length} bytes");
}

/// Sends `length` bytes until they are received.
fn datagram(from: &UdpSocket, to: &UdpSocket, length: usize) {
    to.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    let mut buffer = vec![0; length + 1];
    for _ in 0..ATTEMPTS {
        match from.send(&vec![9; length]) {
            // What is known to be too large is refused at once.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            sent => drop(sent),
        }
        if to.recv(&mut buffer).is_ok_and(|got| got == length) {
            return;
        }
    }
    panic!("{length} bytes do not arrive");
}

fn udp(from: &Namespace, to: &Namespace, addrs: (&str, &str)) -> (UdpSocket, UdpSocket) {
    let receiver = to.inside(|| UdpSocket::bind(at(addrs.1, 0)).expect("bound"));
    let sender = from.inside(|| UdpSocket::bind(at(addrs.0, 0)).expect("bound"));
    sender.connect(receiver.local_addr().expect("bound")).expect("connected");
    (sender, receiver)
}

/// The next datagram and its sender.
fn received(socket: &UdpSocket) -> (Vec<u8>, IpAddr) {
    let mut buffer = [0; 64];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => return (buffer[..length].to_vec(), from.ip().to_canonical()),
            // A wait with a limit ends when the thread has a signal to take.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("nothing is received: {error}"),
        }
    }
}

/// Both families of the pods' addresses.
const PODS: [(&str, &str); 2] = [(ONE.pod.0, TWO.pod.0), (ONE.pod.1, TWO.pod.1)];

#[test]
fn pods_reach_each_other_through_the_tunnel() {
    for underlay in Underlay::BOTH {
        let nodes = TwoNodes::new(underlay);
        let (one, two) = (&nodes.one, &nodes.two);
        let capture = Capture::open(&nodes.router);
        for (near, far) in PODS {
            ping(&one.pod, far, 64);
            ping(&two.pod, near, 64);
            for _ in 0..20 {
                let (sender, receiver) = udp(&one.pod, &two.pod, (near, far));
                datagram(&sender, &receiver, 100);
            }
        }
        let seen = capture.packets();
        assert!(seen.len() > 40, "{seen:?}");
        for packet in &seen {
            assert_eq!((packet.v6, packet.udp, packet.ports.1), (underlay == Underlay::V6, true, PORT));
        }
        let sources: BTreeSet<u16> = seen.iter().map(|packet| packet.ports.0).collect();
        assert!(sources.len() > 10, "{sources:?}");
        for (near, far) in PODS {
            assert_eq!(exchange(&two.pod, &one.pod, at(far, 80), 400_000), ip(near));
            assert_eq!(exchange(&one.pod, &two.pod, at(near, 80), 400_000), ip(far));
        }
        for side in [one, two] {
            assert!(side.count(Hook::FromPod, Reason::ForwardedTunnel) > 100);
            assert!(side.count(Hook::FromTunnel, Reason::ForwardedLocal) > 100);
            let by_device = side.count(Hook::ToTunnel, Reason::TunnelKeyed);
            match underlay {
                // Until the neighbour is known.
                Underlay::V4 => assert!(by_device < 10, "{by_device}"),
                Underlay::V6 => assert_eq!(by_device, side.count(Hook::FromPod, Reason::ForwardedTunnel)),
            }
            assert_eq!(side.count(Hook::FromTunnel, Reason::TunnelSource), 0);
        }
    }
}

#[test]
fn a_pod_learns_the_mtu_of_the_tunnel() {
    for underlay in Underlay::BOTH {
        let nodes = TwoNodes::new(underlay);
        let (one, two) = (&nodes.one, &nodes.two);
        let capture = Capture::open(&nodes.router);
        for (near, far) in PODS {
            let route = format!("route get {far}");
            assert!(!one.pod.ip(&route).contains(" mtu "), "nothing is known yet");
            let headers = if near.contains(':') { 48 } else { 28 };
            let (sender, receiver) = udp(&one.pod, &two.pod, (near, far));
            datagram(&sender, &receiver, 1500 - headers);
            assert!(
                one.pod.ip(&route).contains(&format!(" mtu {}", underlay.mtu())),
                "{}",
                one.pod.ip(&route)
            );
            // An echo of the full length goes through in parts, and so does its answer.
            ping(&one.pod, far, 1500 - headers + 8);
        }
        assert!(one.count(Hook::FromPod, Reason::AnsweredTooBig) > 0);
        let longest = capture.packets().iter().map(|packet| packet.length).max();
        assert!(longest.is_some_and(|length| length <= 1500), "{longest:?}");
    }
}

#[test]
fn segments_of_full_length_teach_a_pod_the_mtu() {
    for underlay in Underlay::BOTH {
        let nodes = TwoNodes::new(underlay);
        let (one, two) = (&nodes.one, &nodes.two);
        for (near, far) in PODS {
            assert_eq!(exchange(&two.pod, &one.pod, at(far, 80), 400_000), ip(near));
            let route = one.pod.ip(&format!("route get {far}"));
            assert!(route.contains(&format!(" mtu {}", underlay.mtu())), "{route}");
        }
        assert!(one.count(Hook::FromPod, Reason::AnsweredTooBig) > 0);
        assert_eq!(one.count(Hook::FromPod, Reason::TooBig), 0);
    }
}

#[test]
fn what_may_be_cut_up_arrives_whole() {
    for underlay in Underlay::BOTH {
        let nodes = TwoNodes::new(underlay);
        let (one, two) = (&nodes.one, &nodes.two);
        let (sender, receiver) = udp(&one.pod, &two.pod, PODS[0]);
        set_ip_mtu_discover(&sender, Ipv4PathMtuDiscovery::DONT).expect("set");
        for length in [1400, 1472, 1473, 4000, 20_000] {
            datagram(&sender, &receiver, length);
        }
        assert!(one.count(Hook::FromPod, Reason::TooBig) >= 3);
        assert!(one.count(Hook::ToTunnel, Reason::Encapsulated) >= 6);
        assert_eq!(one.count(Hook::FromPod, Reason::AnsweredTooBig), 0);
        assert!(!one.pod.ip(&format!("route get {}", PODS[0].1)).contains(" mtu "));
    }
}

#[test]
fn nodes_and_pods_of_each_other_talk_through_the_tunnel() {
    for underlay in Underlay::BOTH {
        let nodes = TwoNodes::new(underlay);
        let (one, two) = (&nodes.one, &nodes.two);
        for (node, pod, far) in [(ONE.node.0, TWO.pod.0, TWO.node.0), (ONE.node.1, TWO.pod.1, TWO.node.1)] {
            assert_eq!(exchange(&two.pod, &one.node, at(pod, 80), 400_000), ip(node));
            assert_eq!(exchange(&one.node, &two.pod, at(node, 80), 400_000), ip(pod));
            // Nodes among themselves need no tunnel.
            assert_eq!(exchange(&two.node, &one.node, at(far, 80), 400_000), ip(node));
        }
        assert!(one.count(Hook::ToTunnel, Reason::Encapsulated) > 10);
        assert!(one.count(Hook::FromTunnel, Reason::ToStack) > 10);
        assert!(two.count(Hook::FromPod, Reason::ForwardedTunnel) > 10);
    }
}

#[test]
fn every_hop_of_the_way_is_seen() {
    for underlay in Underlay::BOTH {
        let nodes = TwoNodes::new(underlay);
        let (one, two) = (&nodes.one, &nodes.two);
        for (_, far) in PODS {
            let (kind, column) =
                if far.contains(':') { ([128], "Icmp6InTimeExcds") } else { ([8], "InTimeExcds") };
            for (hops, seen) in [(1, 1), (2, 2), (3, 2)] {
                let socket = pinger(&one.pod, ip(far), hops);
                socket.send(&[kind[0], 0, 0, 0, 0, 0, 0, 1]).expect("sent");
                if hops == 3 {
                    socket.recv(&mut [0; 8]).expect("the pod answers");
                }
                until(|| statistic(&one.pod, column) == seen);
            }
        }
        assert!(one.count(Hook::FromPod, Reason::TimeExceeded) >= 2);
        assert!(two.count(Hook::FromTunnel, Reason::TimeExceeded) >= 2);
        assert!(two.count(Hook::ToTunnel, Reason::Encapsulated) >= 2);
    }
}

/// Waits until something is so that nobody tells of.
fn until(so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain");
        std::thread::yield_now();
    }
}

/// A counter of a namespace's stack.
fn statistic(namespace: &Namespace, name: &str) -> u64 {
    let v6 = namespace.run("cat", &["/proc/net/snmp6"]);
    let mut columns = v6.lines().filter_map(|line| line.split_once(char::is_whitespace));
    if let Some((_, value)) = columns.find(|(column, _)| *column == name) {
        return value.trim().parse().expect("a number");
    }
    let v4 = namespace.run("cat", &["/proc/net/snmp"]);
    let icmp: Vec<Vec<&str>> = v4
        .lines()
        .filter(|line| line.starts_with("Icmp:"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let column = icmp[0].iter().position(|column| *column == name).expect("a column");
    icmp[1][column].parse().expect("a number")
}

/// A VXLAN packet's payload: its header, and a frame with a datagram.
fn encapsulated(src: &str, dst: &str, text: &[u8]) -> Vec<u8> {
    let mut frame =
        ground::frame::Frame::udp(src, dst, (7, 5000)).macs(rhumb_ebpf::TUNNEL_MAC, *b"\x06rhumb");
    frame.payload = text.to_vec();
    [&[8, 0, 0, 0, 0, 0, 0, 0][..], &frame.bytes()].concat()
}

#[test]
fn only_the_node_that_has_the_source_may_send_for_it_and_only_to_pods_here() {
    for underlay in Underlay::BOTH {
        let mut nodes = TwoNodes::new(underlay);
        let outer = at(underlay.of(TWO.node), PORT);
        let (node, stranger) = (underlay.of(ONE.node), underlay.of(TWO.gateway));
        let direct: Prefix = "10.7.0.0/24".parse().expect("a prefix");
        let direct_of = |owner: u64| Remote { keep_source: true, owner, ..Remote::default() };
        nodes.two.remote(direct, direct_of(ONE.seed));
        let others: Prefix = "10.8.0.0/24".parse().expect("a prefix");
        nodes.two.remote(others, direct_of(0x99));
        let nobodys: Prefix = "10.0.0.0/8".parse().expect("a prefix");
        nodes.two.remote(nobodys, direct_of(0));
        let two = &nodes.two;
        let receiver = two.pod.inside(|| UdpSocket::bind(at("::", 5000)).expect("bound"));
        receiver.set_read_timeout(Some(PATIENCE)).expect("set");
        let send = |from: &Namespace, addr: &str, inner: (&str, &str), text: &str| {
            let socket = from.inside(|| UdpSocket::bind(at(addr, 0)).expect("bound"));
            socket.send_to(&encapsulated(inner.0, inner.1, text.as_bytes()), outer).expect("sent");
        };
        let count = |reason| two.count(Hook::FromTunnel, reason);
        let dropped = |reason, work: &dyn Fn()| {
            let before = count(reason);
            work();
            until(|| count(reason) == before + 1);
        };
        for (pod, here, own) in [(ONE.pod.0, TWO.pod.0, ONE.node.0), (ONE.pod.1, TWO.pod.1, ONE.node.1)] {
            dropped(Reason::TunnelSource, &|| send(&nodes.router, stranger, (pod, here), "stranger"));
            for unknown in ["10.9.0.9", "fd00:9::9", here] {
                if unknown.contains(':') == pod.contains(':') {
                    dropped(Reason::TunnelSource, &|| {
                        send(&nodes.one.node, node, (unknown, here), "unknown")
                    });
                }
            }
            let onwards = if pod.contains(':') {
                ["2001:db8:2::fe", "fd00:1::9"]
            } else {
                ["198.51.100.254", "10.1.0.9"]
            };
            for away in onwards {
                dropped(Reason::TunnelDestination, &|| send(&nodes.one.node, node, (pod, away), "onwards"));
            }
            for source in [pod, own] {
                send(&nodes.one.node, node, (source, here), source);
                assert_eq!(received(&receiver), (source.as_bytes().to_vec(), ip(source)));
            }
        }
        // The node's address of the other family is the same node.
        let (other, there) = if underlay == Underlay::V4 {
            (ONE.node.1, at(TWO.node.1, PORT))
        } else {
            (ONE.node.0, at(TWO.node.0, PORT))
        };
        let socket = nodes.one.node.inside(|| UdpSocket::bind(at(other, 0)).expect("bound"));
        socket.send_to(&encapsulated(ONE.pod.0, TWO.pod.0, b"other"), there).expect("sent");
        assert_eq!(received(&receiver), (b"other".to_vec(), ip(ONE.pod.0)));
        // The way back to these is direct; the node that has them may still take the tunnel, nobody else may.
        dropped(Reason::TunnelSource, &|| send(&nodes.router, stranger, ("10.7.0.7", TWO.pod.0), "stranger"));
        send(&nodes.one.node, node, ("10.7.0.7", TWO.pod.0), "changing ways");
        assert_eq!(received(&receiver), (b"changing ways".to_vec(), ip("10.7.0.7")));
        for others in ["10.8.0.8", "10.9.0.9"] {
            dropped(Reason::TunnelSource, &|| send(&nodes.one.node, node, (others, TWO.pod.0), "of others"));
        }
        // By the other family outside too, even when the way back is a tunnel to this one.
        socket.send_to(&encapsulated("10.7.0.7", TWO.pod.0, b"other family"), there).expect("sent");
        assert_eq!(received(&receiver), (b"other family".to_vec(), ip("10.7.0.7")));
        dropped(Reason::TunnelSource, &|| {
            socket.send_to(&encapsulated("10.8.0.8", TWO.pod.0, b"of others"), there).expect("sent");
        });
    }
}

#[test]
fn a_flow_out_of_the_tunnel_is_good_for_the_node_that_sends_it_and_for_the_pod_that_has_it() {
    for underlay in Underlay::BOTH {
        let mut nodes = TwoNodes::new(underlay);
        let outer = at(underlay.of(TWO.node), PORT);
        let bound =
            |from: &Namespace, addr: &str| from.inside(|| UdpSocket::bind(at(addr, 0)).expect("bound"));
        let node = bound(&nodes.one.node, underlay.of(ONE.node));
        let stranger = bound(&nodes.router, underlay.of(TWO.gateway));
        let receiver = nodes.two.pod.inside(|| UdpSocket::bind(at("::", 5000)).expect("bound"));
        receiver.set_read_timeout(Some(PATIENCE)).expect("set");
        for (pod, here) in PODS {
            let key = EndpointAddr(ip(here));
            let endpoint = nodes.two.endpoint();
            for round in 0..20_u8 {
                let packet = encapsulated(pod, here, &[round]);
                for _ in 0..3 {
                    node.send_to(&packet, outer).expect("sent");
                    assert_eq!(received(&receiver), (vec![round], ip(pod)));
                }
                let refused = nodes.two.count(Hook::FromTunnel, Reason::TunnelSource);
                stranger.send_to(&packet, outer).expect("sent");
                until(|| nodes.two.count(Hook::FromTunnel, Reason::TunnelSource) == refused + 1);
                node.send_to(&packet, outer).expect("sent");
                assert_eq!(received(&receiver), (vec![round], ip(pod)));
                let absent = nodes.two.count(Hook::FromTunnel, Reason::TunnelDestination);
                block_on(nodes.two.targets.endpoints.remove(&key)).expect("removed");
                node.send_to(&packet, outer).expect("sent");
                until(|| nodes.two.count(Hook::FromTunnel, Reason::TunnelDestination) == absent + 1);
                block_on(nodes.two.targets.endpoints.put(&key, &endpoint)).expect("put");
            }
        }
    }
}

#[test]
fn a_pod_cannot_reach_the_tunnel_of_a_node() {
    for underlay in Underlay::BOTH {
        let nodes = TwoNodes::new(underlay);
        let (one, two) = (&nodes.one, &nodes.two);
        let arrived = || -> u64 {
            let counters = two.ground.counters();
            let tunnelled = counters.iter().filter(|counter| counter.direction == Direction::FromTunnel);
            tunnelled.map(|counter| counter.packets).sum()
        };
        let before = arrived();
        let own = underlay.of(ONE.pod);
        let socket = one.pod.inside(|| UdpSocket::bind(at(own, 0)).expect("bound"));
        let forged = encapsulated(underlay.of(ONE.pod), underlay.of(TWO.pod), b"forged");
        for node in [underlay.of(ONE.node), underlay.of(TWO.node)] {
            socket.send_to(&forged, at(node, PORT)).expect("sent");
        }
        until(|| one.count(Hook::FromPod, Reason::SpoofedTunnel) == 2);
        assert_eq!(arrived(), before);
    }
}

#[test]
fn what_another_nodes_programs_left_on_a_packet_counts_for_nothing_here() {
    let mut nodes = TwoNodes::new(Underlay::V4);
    // Neither node takes the other's pods for its concern: the fabric and the hosts' stacks forward.
    for prefix in [TWO.pods.0, TWO.pods.1] {
        let key = RemotePrefix(prefix.parse().expect("a prefix"));
        block_on(nodes.one.targets.ipcache.remove(&key)).expect("removed");
        nodes.one.node.ip(&format!("route del {prefix} dev {TUNNEL}"));
    }
    for (prefix, gateway) in [(TWO.pods.0, TWO.node.0), (TWO.pods.1, TWO.node.1)] {
        nodes.router.ip(&format!("route add {prefix} via {gateway}"));
    }
    for addr in [TWO.pod.0, TWO.pod.1] {
        block_on(nodes.two.targets.endpoints.remove(&EndpointAddr(ip(addr)))).expect("removed");
    }
    for (near, far) in PODS {
        let (sender, receiver) = udp(&nodes.one.pod, &nodes.two.pod, (near, far));
        datagram(&sender, &receiver, 100);
    }
    assert!(nodes.two.count(Hook::ToPod, Reason::DeliveredTracked) >= 2);
}

#[test]
fn a_pod_reaches_a_host_port_of_the_other_node_through_the_tunnel() {
    for underlay in Underlay::BOTH {
        let mut nodes = TwoNodes::new(underlay);
        for (node, pod) in [(TWO.node.0, TWO.pod.0), (TWO.node.1, TWO.pod.1)] {
            let key = HostPort { addr: ip(node), port: 8_888, protocol: 6 };
            let value = HostPortBackend { addr: ip(pod), port: 80 };
            block_on(nodes.two.targets.host_ports.put(&key, &value)).expect("put");
        }
        for (from, pod, node) in [(ONE.pod.0, TWO.pod.0, TWO.node.0), (ONE.pod.1, TWO.pod.1, TWO.node.1)] {
            let listener = nodes.two.pod.inside(|| TcpListener::bind(at(pod, 80)).expect("bound"));
            let serving = std::thread::spawn(move || {
                let (mut stream, peer) = listener.accept().expect("accepted");
                stream.write_all(b"hello").expect("sent");
                peer.ip()
            });
            let client = nodes.one.pod.inside(|| TcpStream::connect_timeout(&at(node, 8_888), PATIENCE));
            let mut client = client.unwrap_or_else(|error| panic!("connect {node} {underlay:?}: {error}"));
            client.set_read_timeout(Some(PATIENCE)).expect("set");
            let mut said = String::new();
            client.read_to_string(&mut said).expect("received");
            assert_eq!((said.as_str(), serving.join().expect("served")), ("hello", ip(from)));
        }
        assert!(nodes.two.count(Hook::FromTunnel, Reason::HostPortIn) > 5);
        for side in [&nodes.one, &nodes.two] {
            assert_eq!(side.count(Hook::FromTunnel, Reason::TunnelSource), 0);
        }
    }
}
