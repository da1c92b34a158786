// SPDX-License-Identifier: Apache-2.0
//! A VPC around a lab: every interface of a node has a link of its own to the router, which lets pass what EC2 would.
//!
//! ```text
//!   node n1                          router
//!   eth0  192.168.100.1   ────────── n1      gateway of every subnet, fe80:ec2::1 on every link
//!   eth1  192.168.101.10  ────────── n1e1    a frame with another MAC address: dropped, counted
//!   eth2  192.168.102.10  ────────── n1e2    a packet with a source that the interface has not: dropped, counted
//! ```
//! There are no neighbours but the router: subnets of a VPC only look like Ethernets.

mod cloud;
mod exchange;
mod netfilter;
mod port;
mod wire;

pub use cloud::{Cloud, State};
pub use exchange::{Ear, How, exchange, listen};
pub use netfilter::{Callers, Strict, elastic, nft, node_port};
pub use port::Port;
pub use wire::{Course, Flow, Leg, Traffic, Wire};

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::lab::{Lab, Namespace, Node};

/// Blocks of the VPC.
pub const VPC: [&str; 2] = ["192.168.100.0/22", "fd00:192::/64"];
/// The router of every subnet, IPv6.
pub const ROUTER_V6: &str = "fe80:ec2::1";

/// An interface of a node.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Number of the node, from 0.
    pub node: usize,
    /// Its place; 0 is the one that every node of a lab has.
    pub index: u8,
    /// Its own IPv4 address.
    pub primary: String,
    /// Its own IPv6 address.
    pub primary_v6: String,
    /// Blocks of pod addresses.
    pub blocks: Vec<String>,
}

impl Interface {
    /// Its id.
    pub fn id(&self) -> String {
        format!("eni-{:08x}{:08x}", self.node + 1, self.index)
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> String {
        format!("0a:ec:02:00:{:02x}:{:02x}", self.node + 1, self.index)
    }

    /// Name of the node's end, as the node calls it first.
    pub fn ifname(&self) -> String {
        format!("eth{}", self.index)
    }

    /// Name of the router's end.
    pub fn port(&self) -> String {
        if self.index == 0 {
            format!("n{}", self.node + 1)
        } else {
            format!("n{}e{}", self.node + 1, self.index)
        }
    }

    /// Its own addresses, IPv4 first.
    ///
    /// # Panics
    /// When they are none.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [&self.primary, &self.primary_v6].map(|addr| addr.parse().expect("an address"))
    }

    /// The router's end of its link.
    ///
    /// # Panics
    /// When its blocks are none.
    pub fn end(&self) -> Port {
        Port {
            name: self.port(),
            node: self.node,
            mac: self.mac().parse().expect("a MAC address"),
            own: self.addresses().into(),
            blocks: self.blocks.iter().map(|block| block.parse().expect("a prefix")).collect(),
        }
    }

    /// The router of its subnet.
    pub fn gateway(&self) -> String {
        if self.index == 0 { "192.168.100.254".to_owned() } else { format!("192.168.10{}.254", self.index) }
    }
}

/// What the router of a VPC knows.
#[derive(Debug)]
pub struct Vpc<'a> {
    router: &'a Namespace,
}

impl<'a> Vpc<'a> {
    /// Takes the nodes of a lab off their bridge: from now on each of their interfaces stands alone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn around(lab: &'a Lab) -> Result<Self> {
        let router = lab.router();
        router.ip("link set br0 down\nlink del br0")?;
        router.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        router.sysctl("net/ipv4/conf/default/rp_filter", "0")?;
        nft(router, "table netdev vpc { counter wrong_mac { }; counter wrong_source { }; }")?;
        Ok(Self { router })
    }

    /// The VPC that is around a lab already.
    pub fn at(lab: &'a Lab) -> Self {
        Self { router: lab.router() }
    }

    /// Attaches an interface: its link appears on the node, switched off and without addresses, unless it is the first.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&self, node: &Node, interface: &Interface) -> Result<()> {
        let (port, ifname) = (interface.end(), interface.ifname());
        if interface.index == 0 {
            node.namespace().ip(&format!("link set {ifname} address {}", port.mac))?;
            let defaults =
                "route replace default via 192.168.100.254\nroute replace default via fd00:192::fe";
            node.namespace().ip(defaults)?;
        } else {
            self.router.ip(&port.link(&ifname, node.namespace().name()))?;
        }
        port.open(self.router, &[format!("{}/32", interface.gateway()), "fd00:192::fe/128".to_owned()])?;
        port.route(self.router)
    }

    /// Packets by counter: `wrong_mac` and `wrong_source` were dropped, `in_PORT` came from the node by that link.
    ///
    /// # Errors
    /// When nft does not tell.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let output =
            self.router.command("nft").args(["-j", "list", "counters"]).output().context("run nft")?;
        let told: Value = serde_json::from_slice(&output.stdout).context("read what nft printed")?;
        let objects = told["nftables"].as_array().context("a list of objects")?;
        let counters = objects.iter().filter_map(|object| object.get("counter"));
        Ok(counters
            .filter_map(|counter| Some((counter["name"].as_str()?.to_owned(), counter["packets"].as_u64()?)))
            .collect())
    }

    /// How many packets the router dropped because EC2 would.
    ///
    /// # Errors
    /// When nft does not tell.
    pub fn dropped(&self) -> Result<u64> {
        let counters = self.counters()?;
        Ok(counters.iter().filter(|(name, _)| name.starts_with("wrong")).map(|(_, packets)| packets).sum())
    }
}

/// The NodeConfig of a node, as the operator would write it.
pub fn node_config(node: &Node, interfaces: &[Interface], masquerade: bool, generation: u64) -> Value {
    let told = interfaces.iter().map(|interface| {
        json!({
            "id": interface.id(), "mac": interface.mac(), "deviceIndex": interface.index,
            "gateway": interface.gateway(), "gatewayV6": ROUTER_V6,
            "primary": interface.primary, "primaryV6": interface.primary_v6, "pods": true,
        })
    });
    let blocks = interfaces.iter().flat_map(|interface| {
        let id = interface.id();
        interface.blocks.iter().map(move |block| json!({"pool": "default", "cidr": block, "interface": id}))
    });
    json!({
        "apiVersion": "rhumb.io/v1alpha1", "kind": "NodeConfig", "metadata": {"name": node.name},
        "spec": {
            "podCIDRs": blocks.collect::<Vec<_>>(),
            "eni": {
                "instance": "i-0123456789abcdef0", "zone": "eu-central-1a", "generation": generation,
                "interfaces": told.collect::<Vec<_>>(), "vpcCIDRs": VPC, "masquerade": masquerade,
            },
        },
    })
}
