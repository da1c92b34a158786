// SPDX-License-Identifier: Apache-2.0
//! Many flows through one address of a node: who gets a port, and whose answer comes back to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rhumb_integration::lab::{AgentOptions, Lab, Namespace, Pod, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

/// Ports of each pod; all pods use the same ones, so that most flows want a port that is taken.
const FIRST_PORT: u16 = 10_000;
const SERVER_PORT: u16 = 9;
/// Questions under way before a pod waits for answers.
const WINDOW: usize = 64;
const PATIENCE: Duration = Duration::from_millis(100);
/// How often a flow without an answer asks again: queues between namespaces are short.
const ROUNDS: usize = 3;

#[test]
fn flows_get_ports_as_long_as_there_are_any_and_answers_find_their_flow() {
    for family in ["v4", "v6"] {
        let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("masq") }).expect("the lab is built");
        lab.start_operator().expect("started");
        // The lab's world has addresses of documentation, which stay untranslated unless the file says otherwise.
        let file = lab.home().join("ip-masq-agent");
        std::fs::write(&file, "nonMasqueradeCIDRs: [10.0.0.0/8, 192.168.0.0/16, 'fd00::/8']\n")
            .expect("written");
        let args = vec!["--ip-masq-config".to_owned(), file.display().to_string()];
        lab.node_mut(0).start_agent_with(AgentOptions { args, ..AgentOptions::default() }).expect("started");
        let pods: Vec<Pod> =
            ["a", "b", "c"].map(|name| lab.node(0).add_pod("default", name).expect("added")).into();
        let (server, node) = server_and_node(&lab, family);
        let wanted = 25_000;

        let world = World::start(lab.client());
        let answered: usize = std::thread::scope(|scope| {
            let asked = |(number, pod)| scope.spawn(move || ask_all(pod, number, server, wanted));
            let asking: Vec<_> = (0..).zip(&pods).map(asked).collect();
            asking.into_iter().map(|thread| thread.join().expect("asked").expect("asks")).sum()
        });
        let seen = world.stop();

        eprintln!("{family}: {answered} of {} flows were answered", 3 * usize::from(wanted));
        assert!(seen.keys().all(|(from, _)| *from == node), "{:?}", seen.keys().next());
        assert!(seen.values().all(|flows| flows.len() == 1), "a port of the node stood for two flows");
        let refused = packets(&lab, "nat_exhausted");
        assert!(answered >= 60_000, "{answered} flows have a port");
        assert!(answered == 3 * usize::from(wanted) || refused > 0, "refused flows are counted");
        for pod in pods {
            lab.node(0).del_pod(pod).expect("deleted");
        }
        lab.close().expect("closed");
    }
}

fn server_and_node(lab: &Lab, family: &str) -> (IpAddr, IpAddr) {
    let addresses = &lab.node(0).addresses;
    let node = addresses.iter().find(|address| address.is_ipv4() == (family == "v4"));
    let server = Lab::CLIENT[usize::from(family == "v6")].parse().expect("an address");
    (server, *node.expect("a node has addresses of both families"))
}

fn packets(lab: &Lab, reason: &str) -> u64 {
    let counted = lab.node(0).packets().expect("the agent answers");
    counted.iter().filter(|(_, name, _)| name == reason).map(|(.., packets)| packets).sum()
}

/// Which flows, by their payload, were seen behind each address and port.
type Seen = BTreeMap<(IpAddr, u16), BTreeSet<[u8; 4]>>;

/// A server out in the world that sends back what it gets, and remembers from where.
struct World<'a> {
    namespace: &'a Namespace,
    stop: std::sync::Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Seen>,
    port: u16,
}

impl<'a> World<'a> {
    fn start(namespace: &'a Namespace) -> Self {
        let bound = namespace.run(|| Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, SERVER_PORT))?));
        let socket = bound.expect("the port is free");
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 8 << 20).expect("a large buffer");
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let (stopping, seen) = (std::sync::Arc::clone(&stop), Mutex::new(Seen::new()));
        let thread = std::thread::spawn(move || {
            let mut payload = [0; 64];
            while !stopping.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut payload) else { continue };
                if let Ok(flow) = <[u8; 4]>::try_from(&payload[..length]) {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.entry((from.ip().to_canonical(), from.port())).or_default().insert(flow);
                }
                // A full queue drops the answer, and the flow asks again.
                drop(socket.send_to(&payload[..length], from));
            }
            seen.into_inner().unwrap_or_else(PoisonError::into_inner)
        });
        Self { namespace, stop, thread, port: SERVER_PORT }
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let wake = || {
            let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?;
            Ok(socket.send_to(&[], (Ipv6Addr::LOCALHOST, self.port))?)
        };
        self.namespace.run(wake).expect("woken");
        self.thread.join().expect("it ends")
    }
}

/// Asks from `count` ports of the pod, each with its own payload, until answered; gives how many were. An answer with
/// the payload of another flow is an error.
fn ask_all(pod: &Pod, number: u8, server: IpAddr, count: u16) -> Result<usize> {
    let own = if server.is_ipv4() { pod.v4() } else { pod.v6() };
    pod.namespace.run(|| {
        let socket = Raw::open(own, server)?;
        let mut open: BTreeSet<u16> = (FIRST_PORT..FIRST_PORT + count).collect();
        for _ in 0..ROUNDS {
            let ports: Vec<u16> = open.iter().copied().collect();
            for window in ports.chunks(WINDOW) {
                for port in window {
                    socket.ask(*port, payload(number, *port))?;
                }
                let mut left: BTreeSet<u16> = window.iter().copied().collect();
                let deadline = Instant::now() + PATIENCE;
                while !left.is_empty()
                    && let Some((port, answer)) = socket.answer(deadline)?
                {
                    if answer != payload(number, port) {
                        bail!("port {port} of pod {number} got the answer {answer:?}");
                    }
                    left.remove(&port);
                    open.remove(&port);
                }
            }
        }
        Ok(usize::from(count) - open.len())
    })
}

fn payload(pod: u8, port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [pod, 0x72, high, low]
}

/// UDP from any port over one socket.
struct Raw {
    socket: rustix::fd::OwnedFd,
    own: IpAddr,
    server: IpAddr,
}

impl Raw {
    fn open(own: IpAddr, server: IpAddr) -> Result<Self> {
        let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, Some(ipproto::UDP))
            .context("open a raw socket")?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 8 << 20)?;
        Ok(Self { socket, own, server })
    }

    fn ask(&self, port: u16, payload: [u8; 4]) -> Result<()> {
        let mut datagram = Vec::with_capacity(12);
        for word in [port, SERVER_PORT, 12, 0] {
            datagram.extend(word.to_be_bytes());
        }
        datagram.extend(payload);
        let sum = checksum(self.own, self.server, &datagram);
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        let target = SocketAddr::new(self.server, 0);
        loop {
            match rustix::net::sendto(&self.socket, &datagram, SendFlags::empty(), &target) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => {
                    poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(error).context("send a datagram"),
            }
        }
    }

    /// The next answer: its port here and its payload; `None` after the deadline.
    fn answer(&self, deadline: Instant) -> Result<Option<(u16, [u8; 4])>> {
        let mut packet = [0u8; 256];
        loop {
            match rustix::net::recv(&self.socket, &mut packet[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    // IPv4 hands out its header too.
                    let header = if self.own.is_ipv4() { usize::from(packet[0] & 0x0f) * 4 } else { 0 };
                    let datagram = &packet[header..length];
                    let from_server = datagram.get(..2) == Some(&SERVER_PORT.to_be_bytes());
                    if let (true, Some(port), Some(payload)) =
                        (from_server, datagram.get(2..4), datagram.get(8..12))
                    {
                        let port = u16::from_be_bytes([port[0], port[1]]);
                        return Ok(Some((port, payload.try_into()?)));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left.try_into()?))?;
                }
                Err(error) => return Err(error).context("receive a datagram"),
            }
        }
    }
}

/// The checksum of a datagram with its pseudo-header (RFC 768, RFC 8200), whose own field is zero.
fn checksum(from: IpAddr, to: IpAddr, datagram: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend([0, 17, 0, u8::try_from(datagram.len()).expect("a short datagram")]);
    bytes.extend(datagram);
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    match !u16::try_from(folded).expect("two folds leave sixteen bits") {
        0 => 0xffff,
        sum => sum,
    }
}
