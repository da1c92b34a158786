// SPDX-License-Identifier: Apache-2.0
//! The same cluster without rhumb, in the shapes that people compare with.

use anyhow::Result;

use crate::lab::{Lab, Namespace};

/// Pods of two nodes on one bridge: two pods on the first node, one on the second.
#[derive(Debug)]
pub(super) struct Twin {
    /// The pods; pod `n` has the addresses of [`Twin::addresses`].
    pub(super) pods: [Namespace; 3],
    /// The nodes; pod `n` is behind the link `p<n>` of its node.
    pub(super) nodes: [Namespace; 2],
    _segment: Namespace,
}

/// The cluster's pods, for rules that tell them from the world.
const CLUSTER: [&str; 2] = ["10.97.0.0/16", "fd00:97::/32"];

impl Twin {
    /// Addresses of a pod, IPv4 first.
    pub(super) fn addresses(pod: usize) -> [String; 2] {
        let node = node_of(pod);
        [format!("10.97.{node}.{}", pod + 2), format!("fd00:97:{node}::{}", pod + 2)]
    }

    /// Pods on plain veth pairs, routed by the kernel.
    pub(super) fn plain(lab: &Lab) -> Result<Self> {
        let (segment, nodes) = machines(lab, "t")?;
        for (number, node) in nodes.iter().enumerate() {
            let other = 1 - number;
            node.ip(&format!(
                "route add 10.97.{other}.0/24 via 192.168.97.{other}
                route add fd00:97:{other}::/64 via fd00:96::{other}"
            ))?;
        }
        let pods = [lab.namespace("t-p0")?, lab.namespace("t-p1")?, lab.namespace("t-p2")?];
        for (number, pod) in pods.iter().enumerate() {
            let [v4, v6] = Self::addresses(number);
            let node = &nodes[node_of(number)];
            node.ip(&format!("link add p{number} type veth peer name eth0 netns {}", pod.name()))?;
            node.ip(&format!(
                "link set p{number} up
                address add 169.254.1.1/32 dev p{number}
                address add fe80::1/64 dev p{number} nodad
                route add {v4}/32 dev p{number}
                route add {v6}/128 dev p{number}"
            ))?;
            pod.ip(&format!(
                "link set eth0 up
                address add {v4}/32 dev eth0
                address add {v6}/128 dev eth0 nodad
                route add default via 169.254.1.1 dev eth0 onlink
                route add default via fe80::1 dev eth0"
            ))?;
        }
        Ok(Self { pods, nodes, _segment: segment })
    }

    /// Flannel's shape: pods on a bridge of their node, nodes joined by the kernel's VXLAN, neighbours written down; with
    /// `rules` also the NAT and filter rules that it keeps.
    pub(super) fn overlay(lab: &Lab, rules: bool) -> Result<Self> {
        let letter = if rules { "f" } else { "x" };
        let (segment, nodes) = machines(lab, letter)?;
        for (number, node) in nodes.iter().enumerate() {
            let other = 1 - number;
            node.ip(&format!(
                "link add cni0 type bridge
                link set cni0 mtu 1450 up
                address add 10.97.{number}.1/24 dev cni0
                address add fd00:97:{number}::1/64 dev cni0 nodad
                link add flannel.1 address 02:97:00:00:00:0{number} type vxlan id 1 dstport 8472 \
                    local 192.168.97.{number} dev eth0 nolearning
                link set flannel.1 mtu 1450 up
                address add 10.97.{number}.0/32 dev flannel.1
                address add fd00:97:{number}::/128 dev flannel.1 nodad
                neighbour add 10.97.{other}.0 lladdr 02:97:00:00:00:0{other} dev flannel.1 nud permanent
                neighbour add fd00:97:{other}:: lladdr 02:97:00:00:00:0{other} dev flannel.1 nud permanent
                route add 10.97.{other}.0/24 via 10.97.{other}.0 dev flannel.1 onlink
                route add fd00:97:{other}::/64 via fd00:97:{other}:: dev flannel.1 onlink"
            ))?;
            let forward = format!(
                "fdb append 02:97:00:00:00:0{other} dev flannel.1 dst 192.168.97.{other} self permanent"
            );
            run(node, "bridge", &forward)?;
            if rules {
                write_rules(node, number)?;
            }
        }
        let name = |pod: usize| lab.namespace(&format!("{letter}-p{pod}"));
        let pods = [name(0)?, name(1)?, name(2)?];
        for (number, pod) in pods.iter().enumerate() {
            let ([v4, v6], place) = (Self::addresses(number), node_of(number));
            let node = &nodes[place];
            node.ip(&format!("link add p{number} mtu 1450 type veth peer name eth0 netns {}", pod.name()))?;
            node.ip(&format!("link set p{number} master cni0 up"))?;
            pod.ip(&format!(
                "link set eth0 mtu 1450 up
                address add {v4}/24 dev eth0
                address add {v6}/64 dev eth0 nodad
                route add default via 10.97.{place}.1
                route add default via fd00:97:{place}::1"
            ))?;
        }
        Ok(Self { pods, nodes, _segment: segment })
    }
}

fn node_of(pod: usize) -> usize {
    usize::from(pod == 2)
}

/// Two routers on one bridge.
fn machines(lab: &Lab, letter: &str) -> Result<(Namespace, [Namespace; 2])> {
    let segment = lab.namespace(&format!("{letter}-segment"))?;
    segment.ip("link add br0 type bridge\nlink set br0 up")?;
    let nodes = [lab.namespace(&format!("{letter}-n0"))?, lab.namespace(&format!("{letter}-n1"))?];
    for (number, node) in nodes.iter().enumerate() {
        segment.ip(&format!(
            "link add n{number} type veth peer name eth0 netns {}\nlink set n{number} master br0 up",
            node.name()
        ))?;
        node.sysctl("net/ipv4/ip_forward", "1")?;
        node.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        node.ip(&format!(
            "link set eth0 up
            address add 192.168.97.{number}/31 dev eth0
            address add fd00:96::{number}/64 dev eth0 nodad"
        ))?;
    }
    Ok((segment, nodes))
}

/// What Flannel keeps in `nat` and `filter`: pods' traffic within the cluster stays, the rest is masqueraded.
fn write_rules(node: &Namespace, number: usize) -> Result<()> {
    let own = [format!("10.97.{number}.0/24"), format!("fd00:97:{number}::/64")];
    let groups = ["224.0.0.0/4", "ff00::/8"];
    for (family, program) in ["iptables", "ip6tables"].into_iter().enumerate() {
        let (cluster, own, group) = (CLUSTER[family], &own[family], groups[family]);
        for rule in [
            "-t nat -N POSTRTG".to_owned(),
            "-t nat -A POSTROUTING -j POSTRTG".to_owned(),
            "-t nat -A POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN".to_owned(),
            format!("-t nat -A POSTRTG -s {own} -d {cluster} -j RETURN"),
            format!("-t nat -A POSTRTG -s {cluster} -d {own} -j RETURN"),
            format!("-t nat -A POSTRTG ! -s {cluster} -d {own} -j RETURN"),
            format!("-t nat -A POSTRTG -s {cluster} ! -d {group} -j MASQUERADE --random-fully"),
            format!("-t nat -A POSTRTG ! -s {cluster} -d {cluster} -j MASQUERADE --random-fully"),
            format!("-A FORWARD -s {cluster} -j ACCEPT"),
            format!("-A FORWARD -d {cluster} -j ACCEPT"),
        ] {
            run(node, program, &rule)?;
        }
    }
    Ok(())
}

fn run(node: &Namespace, program: &str, args: &str) -> Result<()> {
    let mut command = node.command(program);
    let output = command.args(args.split_whitespace()).output()?;
    anyhow::ensure!(
        output.status.success(),
        "{program} {args} in {}: {}",
        node.name(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
