// SPDX-License-Identifier: Apache-2.0

use anyhow::Result;

use crate::lab::{Lab, Namespace};

/// The same cluster without rhumb: pods on plain veth pairs, routed by the kernel, two nodes on one bridge.
#[derive(Debug)]
pub(super) struct Twin {
    /// Two pods on the first node, one on the second; pod `n` has the addresses of [`Twin::addresses`].
    pub(super) pods: [Namespace; 3],
    _nodes: [Namespace; 2],
    _segment: Namespace,
}

impl Twin {
    /// Addresses of a pod, IPv4 first.
    pub(super) fn addresses(pod: usize) -> [String; 2] {
        let node = Self::node_of(pod);
        [format!("10.97.{node}.{}", pod + 2), format!("fd00:97:{node}::{}", pod + 2)]
    }

    fn node_of(pod: usize) -> usize {
        usize::from(pod == 2)
    }

    /// Makes it beside a lab, under the lab's name.
    pub(super) fn build(lab: &Lab) -> Result<Self> {
        let segment = lab.namespace("t-segment")?;
        segment.ip("link add br0 type bridge\nlink set br0 up")?;
        let nodes = [lab.namespace("t-n0")?, lab.namespace("t-n1")?];
        for (number, node) in nodes.iter().enumerate() {
            let other = 1 - number;
            segment.ip(&format!(
                "link add n{number} type veth peer name eth0 netns {}\nlink set n{number} master br0 up",
                node.name()
            ))?;
            node.sysctl("net/ipv4/ip_forward", "1")?;
            node.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            node.ip(&format!(
                "link set eth0 up
                address add 192.168.97.{number}/31 dev eth0
                address add fd00:96::{number}/64 dev eth0 nodad
                route add 10.97.{other}.0/24 via 192.168.97.{other}
                route add fd00:97:{other}::/64 via fd00:96::{other}"
            ))?;
        }
        let pods = [lab.namespace("t-p0")?, lab.namespace("t-p1")?, lab.namespace("t-p2")?];
        for (number, pod) in pods.iter().enumerate() {
            let [v4, v6] = Self::addresses(number);
            let node = &nodes[Self::node_of(number)];
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
        Ok(Self { pods, _nodes: nodes, _segment: segment })
    }
}
