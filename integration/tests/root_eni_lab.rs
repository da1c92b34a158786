// SPDX-License-Identifier: Apache-2.0
//! Two nodes with three interfaces each in a VPC that drops what EC2 would, with strict reverse path filters: pods on
//! every interface reach each other, the VPC and the world, and are reached, and whatever answers leaves by the interface
//! that it was asked at.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rhumb_integration::ec2::{
    Callers, Interface, Port, Strict, Vpc, Wire, exchange, listen, node_config, node_port,
};
use rhumb_integration::lab::{AgentOptions, Lab, Namespace, Node, Pod, Spec, Wait};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);
/// Somewhere in the world where no rule says that pods are known by their own addresses.
const WORLD: &str = "9.9.9.9";
const WORLD_V6: &str = "2600::9";
/// The first host port; each pod has the next.
const HOST_PORT: u16 = 30_000;
/// TCP, by its protocol number.
const TCP: u8 = 6;

/// The shape of an m5.large: three interfaces, with single addresses on the first node and prefixes on the second.
fn interfaces(node: usize) -> Vec<Interface> {
    let interface = |index: u8| {
        let (primary, primary_v6) = match index {
            0 => (format!("192.168.100.{}", node + 1), format!("fd00:192::{}", node + 1)),
            _ => (format!("192.168.10{index}.{}", 10 + node), format!("fd00:192::{index}:{}", node + 1)),
        };
        let mut blocks: Vec<String> = if node == 0 {
            (21..30).map(|last| format!("192.168.10{index}.{last}/32")).collect()
        } else {
            vec![format!("192.168.10{index}.64/28")]
        };
        blocks.push(format!("fd00:192:0:0:{}{index}::/80", node + 1));
        Interface { node, index, primary, primary_v6, blocks }
    };
    (0..3).map(interface).collect()
}

/// Makes a pod with these addresses and a host port.
fn pod(node: &Node, number: usize, index: u8, host_port: u16) -> Result<Pod> {
    let last = if number == 0 { 23 } else { 66 };
    let v4 = format!("192.168.10{index}.{last}");
    let v6 = format!("fd00:192:0:0:{}{index}::{last}", number + 1);
    let mut network = node.network();
    network["capabilities"] = json!({"ips": true, "portMappings": true});
    network["runtimeConfig"] = json!({
        "ips": [v4, v6],
        "portMappings": [{"hostPort": host_port, "containerPort": 8080, "protocol": "tcp"}],
    });
    let pod = node.make_container("default", &format!("p{number}{index}"))?;
    node.attach_as(pod, &network)
}

/// Waits until a node lends this many IPv4 addresses.
fn until_lent(lab: &Lab, node: usize, addresses: u64) -> Result<()> {
    let name = &lab.node(node).name;
    lab.store().wait_until(&format!("{addresses} addresses of {name}"), PATIENCE, |store| {
        let state = store.get("NodeState", "", name)?.unwrap_or_default();
        let mut pools = state["status"]["pools"].as_array().into_iter().flatten();
        Ok(pools.any(|pool| pool["family"] == "ipv4" && pool["capacity"] == addresses).then_some(()))
    })
}

/// What interfaces want of a node, as `ip` says it; rules of one priority come in the order in which they were put.
fn state(namespace: &Namespace) -> Result<Vec<String>> {
    let tables =
        (7299..7303).flat_map(|table| ["", "-6 "].map(|family| format!("{family}route show table {table}")));
    let addresses = ["eth1", "eth2"].map(|link| format!("-o address show dev {link} scope global"));
    let mut lines = Vec::new();
    for words in ["rule".to_owned(), "-6 rule".to_owned()].into_iter().chain(tables).chain(addresses) {
        let said = namespace.ip_show(&words)?;
        lines.extend(said.lines().map(|line| format!("{words}: {line}")));
    }
    lines.sort();
    Ok(lines)
}

/// Waits until a node has all of this again.
fn until_state(namespace: &Namespace, wanted: &[String]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = state(namespace)?;
        if found == wanted {
            return Ok(());
        }
        let other = |lines: &[String], than: &[String]| {
            lines.iter().filter(|line| !than.contains(line)).cloned().collect::<Vec<_>>().join("\n")
        };
        let (less, more) = (other(wanted, &found), other(&found, wanted));
        ensure!(Instant::now() < deadline, "after {PATIENCE:?} lacks\n{less}\nhas besides\n{more}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Who gives packets of pods to the world another source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Translates {
    /// The node, with the address of its first interface.
    Node,
    /// The node, with the address of the pod's own interface.
    Interface,
    /// Somebody behind the interface.
    Other,
}

struct Ground {
    lab: Lab,
    /// Saw every packet since the first interfaces were attached.
    wire: Wire,
    pods: Vec<Seat>,
    /// Hears what the world is asked, at port 80.
    world: TcpListener,
}

/// A pod on an interface.
struct Seat {
    /// Number of the node.
    node: usize,
    interface: Interface,
    host_port: u16,
    pod: Pod,
    /// Hears what the pod is asked, at port 8080.
    listener: TcpListener,
}

impl Ground {
    fn vpc(&self) -> Vpc<'_> {
        Vpc::at(&self.lab)
    }

    /// Ends a test: every flow had its requests and its answers on the links of the interfaces that have its addresses,
    /// and nothing was on a link that EC2 would drop there.
    fn finish(self, worked: Result<Vec<Asked>>) {
        let counters = self.vpc().counters().expect("told");
        let all: Vec<Port> = (0..2).flat_map(interfaces).map(|interface| interface.end()).collect();
        let traffic = self.wire.take(&self.vpc(), &all).expect("told");
        let wrong = traffic.dropped().join("\n");
        let asked = worked.unwrap_or_else(|error| panic!("{error:#}; {counters:?}\n{wrong}"));
        let dropped = self.vpc().dropped().expect("told");
        assert!(dropped == 0, "{counters:?}\n{wrong}");
        traffic.is_symmetric().unwrap_or_else(|error| panic!("{error:#}"));
        for (number, caller) in (0..).zip(world()) {
            for Asked { addr, port } in asked.iter().filter(|asked| asked.addr.is_ipv4() == (number == 0)) {
                traffic.has(caller, (*addr, *port), TCP).unwrap_or_else(|error| panic!("{error:#}"));
            }
        }
        self.lab.close().expect("closed");
    }
}

/// What the world asked.
struct Asked {
    addr: IpAddr,
    port: u16,
}

/// Addresses of the world, IPv4 first.
fn world() -> [IpAddr; 2] {
    [WORLD, WORLD_V6].map(|addr| addr.parse().expect("valid"))
}

/// The lab with a pod on every interface. The later interfaces appear while the agents run already.
///
/// `translates` is who translates what pods send to the world.
fn ground(name: &str, translates: Translates) -> Result<Ground> {
    let mut lab = Lab::build(Spec { pool_v4: None, pool_v6: None, ..Spec::named(name) })?;
    lab.store().delete("PodPool", "", "default")?;
    lab.client()
        .ip(&format!("address add {WORLD}/32 dev eth0\naddress add {WORLD_V6}/128 dev eth0 nodad"))?;
    lab.router()
        .ip(&format!("route add {WORLD} via 203.0.113.10\nroute add {WORLD_V6} via 2001:db8:cc::10"))?;
    let wire = {
        let vpc = Vpc::around(&lab)?;
        let wire = Wire::open(&vpc)?;
        for number in 0..2 {
            vpc.attach(lab.node(number), &interfaces(number)[0])?;
            Strict::put(lab.node(number).namespace())?;
            let masquerade = translates != Translates::Other;
            lab.store().apply(&node_config(lab.node(number), &interfaces(number), masquerade, 1))?;
        }
        wire
    };
    for number in 0..2 {
        let args = match translates {
            Translates::Node | Translates::Other => vec![],
            Translates::Interface => ["--eni-masquerade", "interface"].map(str::to_owned).into(),
        };
        let options = AgentOptions { wait: Wait::Ready, args, ..AgentOptions::default() };
        lab.node_mut(number).start_agent_with(options)?;
    }
    let vpc = Vpc::at(&lab);
    for number in 0..2 {
        for interface in &interfaces(number)[1..] {
            vpc.attach(lab.node(number), interface)?;
        }
        until_lent(&lab, number, [27, 48][number])?;
    }
    let mut pods = Vec::new();
    for interface in (0..2).flat_map(interfaces) {
        let Interface { node, index, .. } = interface;
        let host_port = HOST_PORT + u16::try_from(pods.len()).expect("few");
        let pod = pod(lab.node(node), node, index, host_port)?;
        let listener = listen(&pod.namespace, 8080)?;
        pods.push(Seat { node, interface, host_port, pod, listener });
    }
    let world = listen(lab.client(), 80)?;
    Ok(Ground { lab, wire, pods, world })
}

#[test]
fn pods_on_every_interface_reach_each_other_and_the_world_and_are_reached() {
    let ground = ground("eni", Translates::Node).expect("a lab");
    let Ground { lab, pods, .. } = &ground;
    let work = || -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        for from in pods {
            for to in pods.iter().filter(|to| to.pod.container != from.pod.container) {
                for (own, addr) in [(from.pod.v4(), to.pod.v4()), (from.pod.v6(), to.pod.v6())] {
                    let seen = exchange(&from.pod.namespace, None, (addr, 8080).into(), &to.listener)
                        .with_context(|| format!("from {own} to {addr}"))?;
                    ensure!(seen == own, "{own} is known to {addr} as {seen}");
                }
            }
            // The node's first address, where nobody knows the pod's; IPv6 is not translated.
            let node = lab.node(from.node).addresses[0];
            let known = [(from.pod.v4(), node), (from.pod.v6(), from.pod.v6())];
            for ((own, known), to) in known.into_iter().zip(world()) {
                let seen = exchange(&from.pod.namespace, None, (to, 80).into(), &ground.world)
                    .with_context(|| format!("from {own} to the world"))?;
                ensure!(seen == known, "{own} is known to the world as {seen}");
            }
            // Straight to the pod, as a load balancer with targets by address does, also with a caller of the world.
            for (caller, addr) in world().into_iter().zip([from.pod.v4(), from.pod.v6()]) {
                exchange(lab.client(), Some(caller), (addr, 8080).into(), &from.listener)
                    .with_context(|| format!("from {caller} to {addr}"))?;
                asked.push(Asked { addr, port: 8080 });
            }
        }
        Ok(asked)
    };
    let worked = work();
    ground.finish(worked);
}

#[test]
fn a_host_port_answers_by_the_interface_that_it_was_asked_at() {
    let ground = ground("enihp", Translates::Node).expect("a lab");
    let Ground { lab, pods, .. } = &ground;
    let work = || -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        for Seat { node, host_port: port, pod, listener, .. } in pods {
            for interface in &interfaces(*node) {
                for (caller, addr) in world().into_iter().zip(interface.addresses()) {
                    let seen = exchange(lab.client(), Some(caller), (addr, *port).into(), listener)
                        .with_context(|| format!("host port {port} at {addr} for {}", pod.v4()))?;
                    ensure!(seen == caller, "the caller is known as {seen}");
                    asked.push(Asked { addr, port: *port });
                }
            }
        }
        Ok(asked)
    };
    let worked = work();
    ground.finish(worked);
}

/// As kube-proxy does it: the stack translates, with and without hiding the caller behind the node.
#[test]
fn what_the_hosts_stack_translates_returns_by_the_interface_that_it_came_in_by() {
    let ground = ground("eninp", Translates::Node).expect("a lab");
    let Ground { lab, pods, .. } = &ground;
    let work = || -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        for Seat { node, interface: own, host_port, pod, listener } in pods {
            let namespace = lab.node(*node).namespace();
            for (port, callers) in [(host_port + 1000, Callers::Shown), (host_port + 2000, Callers::Hidden)] {
                node_port(namespace, port, (pod.v4(), 8080), callers)?;
                node_port(namespace, port, (pod.v6(), 8080), callers)?;
                for interface in &interfaces(*node) {
                    for (caller, addr) in world().into_iter().zip(interface.addresses()) {
                        let seen = exchange(lab.client(), Some(caller), (addr, port).into(), listener)
                            .with_context(|| {
                                format!("at {addr} for a pod of {}, {callers:?}", own.ifname())
                            })?;
                        ensure!(
                            (seen == caller) == (callers == Callers::Shown),
                            "the caller is known as {seen}"
                        );
                        asked.push(Asked { addr, port });
                    }
                }
            }
        }
        Ok(asked)
    };
    let worked = work();
    ground.finish(worked);
}

/// The kernel tells an agent nothing of addresses that it put itself, and an interface that is on already does not come up.
#[test]
fn an_interface_that_was_on_before_it_was_the_nodes_is_used_at_once() {
    let mut lab =
        Lab::build(Spec { nodes: 1, pool_v4: None, pool_v6: None, ..Spec::named("enion") }).expect("a lab");
    let mut work = || -> Result<()> {
        lab.store().delete("PodPool", "", "default")?;
        lab.client().ip(&format!("address add {WORLD}/32 dev eth0"))?;
        lab.router().ip(&format!("route add {WORLD} via 203.0.113.10"))?;
        let all = interfaces(0);
        // Without IPv6, whose addresses the kernel tells of later.
        let decide = |lab: &Lab, many: usize, generation: u64| {
            let mut config = node_config(lab.node(0), &all[..many], true, generation);
            for interface in config["spec"]["eni"]["interfaces"].as_array_mut().context("a list")? {
                let interface = interface.as_object_mut().context("an object")?;
                interface.retain(|key, _| !key.ends_with("V6"));
            }
            let blocks = config["spec"]["podCIDRs"].as_array_mut().context("a list")?;
            blocks.retain(|block| block["cidr"].as_str().is_some_and(|cidr| !cidr.contains(':')));
            lab.store().apply(&config)
        };
        let vpc = Vpc::around(&lab)?;
        vpc.attach(lab.node(0), &all[0])?;
        // As EC2's links are.
        jumbo(&lab, &all[0])?;
        decide(&lab, 1, 1)?;
        lab.node_mut(0).start_agent()?;

        let vpc = Vpc::at(&lab);
        let node = lab.node(0);
        vpc.attach(node, &all[1])?;
        jumbo(&lab, &all[1])?;
        node.namespace().ip("link set eth1 up")?;
        decide(&lab, 2, 2)?;
        let mut network = node.network();
        network["capabilities"] = json!({"ips": true, "portMappings": true});
        network["runtimeConfig"] = json!({
            "ips": ["192.168.101.23"],
            "portMappings": [{"hostPort": HOST_PORT, "containerPort": 8080, "protocol": "tcp"}],
        });
        until_lent(&lab, 0, 18)?;
        let pod = node.attach_as(node.make_container("default", "p")?, &network)?;
        let link = pod.namespace.ip_show("link show dev eth0")?;
        ensure!(link.contains("mtu 9001 "), "{link}");
        let listener = listen(&pod.namespace, 8080)?;
        for to in [(pod.v4(), 8080), (all[1].addresses()[0], HOST_PORT)] {
            let seen = exchange(lab.client(), Some(world()[0]), to.into(), &listener)
                .with_context(|| format!("from the world to {to:?}"))?;
            ensure!(seen == world()[0], "the caller is known as {seen}");
        }
        let dropped = vpc.dropped()?;
        ensure!(dropped == 0, "EC2 would have dropped {dropped} packets");
        Ok(())
    };
    work().unwrap_or_else(|error| panic!("{error:#}"));
    lab.close().expect("closed");
}

/// Gives both ends of an interface's link the MTU that EC2's have.
fn jumbo(lab: &Lab, interface: &Interface) -> Result<()> {
    lab.router().ip(&format!("link set {} mtu 9001", interface.port()))?;
    lab.node(interface.node).namespace().ip(&format!("link set {} mtu 9001", interface.ifname()))
}

#[test]
fn where_another_translates_pods_leave_by_their_own_interface_and_what_is_wiped_comes_back() {
    let ground = ground("eniext", Translates::Other).expect("a lab");
    let Ground { lab, pods, .. } = &ground;
    let work = || -> Result<Vec<Asked>> {
        let node = lab.node(0).namespace();
        let before = state(node)?;
        node.ip("rule flush\nrule add lookup main priority 32766\nrule add lookup default priority 32767")?;
        until_state(node, &before)?;
        for taken in ["-6 rule del priority 7263", "route flush table 7301", "-6 route flush table 7302"] {
            node.ip_show(taken)?;
        }
        until_state(node, &before)?;
        node.ip("address del 192.168.101.10/32 dev eth1\naddress del fd00:192::2:1/128 dev eth2")?;
        until_state(node, &before)?;
        // With the link the kernel takes routes along, and tells of those of IPv6 alone.
        node.ip("link set eth1 down")?;
        until_state(node, &before)?;
        for Seat { pod, .. } in pods {
            for (own, to) in [pod.v4(), pod.v6()].into_iter().zip(world()) {
                let seen = exchange(&pod.namespace, None, (to, 80).into(), &ground.world)
                    .with_context(|| format!("from {own} to the world"))?;
                ensure!(seen == own, "{own} is known to the world as {seen}");
            }
        }
        Ok(Vec::new())
    };
    let worked = work();
    ground.finish(worked);
}

#[test]
fn where_interfaces_translate_pods_leave_by_their_own_interface_with_its_address() {
    let ground = ground("eniown", Translates::Interface).expect("a lab");
    let Ground { lab, pods, .. } = &ground;
    let work = || -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        for Seat { interface, pod, listener, .. } in pods {
            let known = [interface.addresses()[0], pod.v6()];
            for ((own, to), known) in [pod.v4(), pod.v6()].into_iter().zip(world()).zip(known) {
                let seen = exchange(&pod.namespace, None, (to, 80).into(), &ground.world)
                    .with_context(|| format!("from {own} to the world"))?;
                ensure!(seen == known, "{own} is known to the world as {seen}");
                exchange(lab.client(), Some(to), (own, 8080).into(), listener)
                    .with_context(|| format!("from {to} to {own}"))?;
                asked.push(Asked { addr: own, port: 8080 });
            }
        }
        Ok(asked)
    };
    let worked = work();
    ground.finish(worked);
}
