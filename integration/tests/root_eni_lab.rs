// SPDX-License-Identifier: Apache-2.0
//! Two nodes with three interfaces each in a VPC that drops what EC2 would, with strict reverse path filters: pods on
//! every interface reach each other, the VPC and the world, and are reached, and whatever answers leaves by the interface
//! that it was asked at.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rhumb_integration::ec2::{Interface, Vpc, nft, node_config};
use rhumb_integration::lab::{Lab, Namespace, Node, Pod, Spec, Wait};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);
/// Somewhere in the world where no rule says that pods are known by their own addresses.
const WORLD: &str = "9.9.9.9";
const WORLD_V6: &str = "2600::9";
/// The first host port; each pod has the next.
const HOST_PORT: u16 = 30_000;

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

/// Connects, says a word, hears it back; gives as whom the other side knew the caller.
fn exchange(
    from: &Namespace,
    bound: Option<IpAddr>,
    to: SocketAddr,
    inside: &Namespace,
    listen: u16,
) -> Result<IpAddr> {
    use std::io::{Read, Write};
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let listener = inside.run(|| Ok(TcpListener::bind((any, listen))?))?;
    listener.set_nonblocking(true)?;
    let mut caller = from.run(|| {
        let domain =
            if to.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
        match bound {
            None => Ok(TcpStream::connect_timeout(&to, PATIENCE)?),
            Some(addr) => {
                let socket = rustix::net::socket(domain, rustix::net::SocketType::STREAM, None)?;
                rustix::net::bind(&socket, &SocketAddr::new(addr, 0))?;
                rustix::net::connect(&socket, &to)?;
                Ok(TcpStream::from(socket))
            }
        }
    })?;
    caller.set_read_timeout(Some(PATIENCE))?;
    caller.set_write_timeout(Some(PATIENCE))?;
    let (mut called, peer) = listener.accept().context("the connection was accepted by somebody else")?;
    called.set_nonblocking(false)?;
    called.set_read_timeout(Some(PATIENCE))?;
    let mut heard = [0; 4];
    caller.write_all(b"ask!")?;
    called.read_exact(&mut heard)?;
    ensure!(&heard == b"ask!");
    called.write_all(b"told")?;
    caller.read_exact(&mut heard)?;
    ensure!(&heard == b"told");
    Ok(peer.ip().to_canonical())
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            bail!("{what}: not within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

struct Ground {
    lab: Lab,
    pods: Vec<(usize, u8, u16, Pod)>,
}

/// The lab with a pod on every interface. The later interfaces appear while the agents run already.
fn ground(name: &str, masquerade: bool) -> Result<Ground> {
    let mut lab = Lab::build(Spec { pool_v4: None, pool_v6: None, ..Spec::named(name) })?;
    lab.store().delete("PodPool", "", "default")?;
    lab.client()
        .ip(&format!("address add {WORLD}/32 dev eth0\naddress add {WORLD_V6}/128 dev eth0 nodad"))?;
    lab.router()
        .ip(&format!("route add {WORLD} via 203.0.113.10\nroute add {WORLD_V6} via 2001:db8:cc::10"))?;
    {
        let vpc = Vpc::around(&lab)?;
        for number in 0..2 {
            vpc.attach(lab.node(number), &interfaces(number)[0])?;
            for key in ["all", "default", "eth0"] {
                lab.node(number).namespace().sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "1")?;
            }
            lab.store().apply(&node_config(lab.node(number), &interfaces(number), masquerade, 1))?;
        }
    }
    for number in 0..2 {
        let options = rhumb_integration::lab::AgentOptions { wait: Wait::Ready, ..Default::default() };
        lab.node_mut(number).start_agent_with(options)?;
    }
    let vpc = Vpc::at(&lab);
    for number in 0..2 {
        for interface in &interfaces(number)[1..] {
            vpc.attach(lab.node(number), interface)?;
        }
        let node = lab.node(number);
        until("every interface has its rules", || {
            let rules = node.namespace().ip_show("rule")?;
            Ok((7300..7303).all(|table| rules.contains(&format!("lookup {table}"))))
        })?;
    }
    let mut pods = Vec::new();
    for number in 0..2 {
        for index in 0..3_u8 {
            let port = HOST_PORT + u16::try_from(pods.len()).expect("few");
            pods.push((number, index, port, pod(lab.node(number), number, index, port)?));
        }
    }
    Ok(Ground { lab, pods })
}

#[test]
fn pods_on_every_interface_reach_each_other_and_the_world_and_are_reached() {
    let Ground { lab, pods } = ground("eni", true).expect("a lab");
    let vpc = Vpc::at(&lab);
    let world: [IpAddr; 2] = [WORLD.parse().expect("valid"), WORLD_V6.parse().expect("valid")];
    let work = || -> Result<()> {
        for (number, index, _, from) in &pods {
            for (_, _, _, to) in &pods {
                if from.container == to.container {
                    continue;
                }
                for (own, addr) in [(from.v4(), to.v4()), (from.v6(), to.v6())] {
                    let seen = exchange(&from.namespace, None, (addr, 8080).into(), &to.namespace, 8080)
                        .with_context(|| format!("from {own} to {addr}"))?;
                    ensure!(seen == own, "{own} is known to {addr} as {seen}");
                }
            }
            // The node's first address, where nobody knows the pod's.
            let seen = exchange(&from.namespace, None, (world[0], 80).into(), lab.client(), 80)
                .with_context(|| format!("from {} to the world", from.v4()))?;
            ensure!(seen == lab.node(*number).addresses[0], "{} is known to the world as {seen}", from.v4());
            let seen = exchange(&from.namespace, None, (world[1], 80).into(), lab.client(), 80)
                .with_context(|| format!("from {} to the world", from.v6()))?;
            ensure!(seen == from.v6(), "{} is known to the world as {seen}", from.v6());
            // Straight to the pod, as a load balancer with targets by address does, also with a caller of the world.
            let port = interfaces(*number)[usize::from(*index)].port();
            for (caller, addr) in [(world[0], from.v4()), (world[1], from.v6())] {
                let before = vpc.counters()?[&format!("in_{port}")];
                exchange(lab.client(), Some(caller), (addr, 8080).into(), &from.namespace, 8080)
                    .with_context(|| format!("from {caller} to {addr}"))?;
                let after = vpc.counters()?[&format!("in_{port}")];
                ensure!(after >= before + 3, "{addr} answered {} packets by {port}", after - before);
            }
        }
        Ok(())
    };
    let worked = work();
    let counters = vpc.counters().expect("told");
    worked.unwrap_or_else(|error| panic!("{error:#}; {counters:?}"));
    assert_eq!(vpc.dropped().expect("told"), 0, "{counters:?}");
    lab.close().expect("closed");
}

#[test]
fn a_host_port_answers_by_the_interface_that_it_was_asked_at() {
    let Ground { lab, pods } = ground("enihp", true).expect("a lab");
    let vpc = Vpc::at(&lab);
    let caller: IpAddr = WORLD.parse().expect("valid");
    let work = || -> Result<()> {
        for (number, _, host_port, pod) in &pods {
            for interface in &interfaces(*number) {
                let addr: IpAddr = interface.primary.parse()?;
                let before = vpc.counters()?[&format!("in_{}", interface.port())];
                let seen =
                    exchange(lab.client(), Some(caller), (addr, *host_port).into(), &pod.namespace, 8080)
                        .with_context(|| format!("host port {host_port} at {addr} for {}", pod.v4()))?;
                ensure!(seen == caller, "the caller is known as {seen}");
                let after = vpc.counters()?[&format!("in_{}", interface.port())];
                ensure!(after >= before + 3, "{} packets by {}", after - before, interface.port());
            }
        }
        Ok(())
    };
    let worked = work();
    let counters = vpc.counters().expect("told");
    worked.unwrap_or_else(|error| panic!("{error:#}; {counters:?}"));
    assert_eq!(vpc.dropped().expect("told"), 0, "{counters:?}");
    lab.close().expect("closed");
}

/// As kube-proxy does it: the stack translates, with and without hiding the caller behind the node.
#[test]
fn what_the_hosts_stack_translates_returns_by_the_interface_that_it_came_in_by() {
    let Ground { lab, pods } = ground("eninp", true).expect("a lab");
    let vpc = Vpc::at(&lab);
    let caller: IpAddr = WORLD.parse().expect("valid");
    let work = || -> Result<()> {
        for hide in [false, true] {
            for (number, index, host_port, pod) in &pods {
                let node = lab.node(*number).namespace();
                let node_port = host_port + 1000;
                let post = if hide {
                    format!(
                        "chain post {{ type nat hook postrouting priority 100; ip daddr {} masquerade; }}",
                        pod.v4()
                    )
                } else {
                    String::new()
                };
                nft(node, &format!(
                    "table ip kube {{
                        chain pre {{ type nat hook prerouting priority -100; tcp dport {node_port} dnat to {}:8080; }}
                        {post}
                    }}", pod.v4()
                ))?;
                for interface in &interfaces(*number) {
                    let addr: IpAddr = interface.primary.parse()?;
                    let before = vpc.counters()?[&format!("in_{}", interface.port())];
                    let seen =
                        exchange(lab.client(), Some(caller), (addr, node_port).into(), &pod.namespace, 8080)
                            .with_context(|| {
                                format!("at {addr} for eth{index}'s {}, hidden {hide}", pod.v4())
                            })?;
                    ensure!((seen == caller) != hide, "the caller is known as {seen}");
                    let after = vpc.counters()?[&format!("in_{}", interface.port())];
                    ensure!(after >= before + 3, "{} packets by {}", after - before, interface.port());
                }
                nft(node, "delete table ip kube")?;
            }
        }
        Ok(())
    };
    let worked = work();
    let counters = vpc.counters().expect("told");
    worked.unwrap_or_else(|error| panic!("{error:#}; {counters:?}"));
    assert_eq!(vpc.dropped().expect("told"), 0, "{counters:?}");
    lab.close().expect("closed");
}

#[test]
fn where_another_translates_pods_leave_by_their_own_interface_and_wiped_rules_come_back() {
    let Ground { lab, pods } = ground("eniext", false).expect("a lab");
    let vpc = Vpc::at(&lab);
    let world: IpAddr = WORLD.parse().expect("valid");
    let work = || -> Result<()> {
        let node = lab.node(0).namespace();
        let before = node.ip_show("rule")?;
        node.ip("rule flush\nrule add lookup main priority 32766\nrule add lookup default priority 32767")?;
        until("the rules are back", || Ok(node.ip_show("rule")? == before))?;
        for (_, _, _, pod) in &pods {
            let seen = exchange(&pod.namespace, None, (world, 80).into(), lab.client(), 80)
                .with_context(|| format!("from {} to the world", pod.v4()))?;
            ensure!(seen == pod.v4(), "{} is known to the world as {seen}", pod.v4());
        }
        Ok(())
    };
    let worked = work();
    let counters = vpc.counters().expect("told");
    worked.unwrap_or_else(|error| panic!("{error:#}; {counters:?}"));
    assert_eq!(vpc.dropped().expect("told"), 0, "{counters:?}");
    lab.close().expect("closed");
}
