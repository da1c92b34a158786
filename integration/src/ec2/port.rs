// SPDX-License-Identifier: Apache-2.0
//! The router's end of an interface's link.

use std::net::IpAddr;

use anyhow::Result;
use rhumb_model::{MacAddr, Prefix};

use super::{ROUTER_V6, nft};
use crate::lab::Namespace;

/// Marks routes to what an interface has.
const PROTOCOL: &str = "proto 250";
/// The interface as the router calls it, IPv6: it need not have an address of its own.
const NODE_V6: &str = "fe80::e";

/// The router's end of an interface's link, and what EC2 lets pass there.
#[derive(Debug, Clone)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Number of the node, from 0.
    pub node: usize,
    /// The Ethernet address of the other end.
    pub mac: MacAddr,
    /// The interface's own addresses, at most one of each family.
    pub own: Vec<IpAddr>,
    /// Its other addresses and its blocks.
    pub blocks: Vec<Prefix>,
}

impl Port {
    /// Whether the interface has this address.
    pub fn has(&self, addr: IpAddr) -> bool {
        self.own.contains(&addr) || self.blocks.iter().any(|block| block.contains(addr))
    }

    /// Words for `ip` that make the link, the other end in a namespace.
    pub(super) fn link(&self, ifname: &str, namespace: &str) -> String {
        let Self { name, mac, .. } = self;
        format!("link add {name} type veth peer name {ifname} address {mac} netns {namespace}")
    }

    /// Switches the link on; the router is known there by these addresses and the one that it has everywhere.
    pub(super) fn open(&self, router: &Namespace, addresses: &[String]) -> Result<()> {
        let name = &self.name;
        router.ip(&format!("link set {name} up"))?;
        router.sysctl(&format!("net/ipv4/conf/{name}/proxy_arp"), "1")?;
        router.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
        let everywhere = format!("{ROUTER_V6}/64");
        let all = addresses.iter().chain([&everywhere]);
        let lines: Vec<String> = all.map(|address| format!("address replace {address} dev {name}")).collect();
        router.ip(&lines.join("\n"))
    }

    /// Forgets all ways to what interfaces have.
    pub(super) fn forget_routes(router: &Namespace) -> Result<()> {
        for family in ["-4", "-6"] {
            router.ip_show(&format!("{family} route flush {PROTOCOL}"))?;
        }
        Ok(())
    }

    /// Sends there what the interface has, and lets nothing else come from there.
    pub(super) fn route(&self, router: &Namespace) -> Result<()> {
        let Self { name, mac, .. } = self;
        let mut batch = format!("neigh replace {NODE_V6} lladdr {mac} dev {name} nud permanent\n");
        for own in &self.own {
            batch.push_str(&format!("neigh replace {own} lladdr {mac} dev {name} nud permanent\n"));
            batch.push_str(&format!("route replace {own} dev {name} {PROTOCOL}\n"));
        }
        for block in &self.blocks {
            let own = self.own.iter().find(|own| own.is_ipv4() && block.addr().is_ipv4());
            let via = own.map_or_else(|| NODE_V6.to_owned(), ToString::to_string);
            batch.push_str(&format!("route replace {block} via {via} dev {name} onlink {PROTOCOL}\n"));
        }
        router.ip(&batch)?;
        self.guard(router)
    }

    /// Lets pass what EC2 would.
    fn guard(&self, router: &Namespace) -> Result<()> {
        let Self { name, mac, .. } = self;
        let pass = |v6: bool, word: &str| {
            let own = self.own.iter().map(|own| Prefix::host(*own));
            let all = own.chain(self.blocks.iter().copied()).filter(|block| block.addr().is_ipv6() == v6);
            let all: Vec<String> = all.map(|block| block.to_string()).collect();
            if all.is_empty() {
                return String::new();
            }
            format!("{word} saddr {{ {} }} counter name in_{name} accept", all.join(", "))
        };
        let chain = format!(
            r#"chain {name} {{ type filter hook ingress device "{name}" priority 0; policy drop; }}"#
        );
        nft(
            router,
            &format!(
                r#"table netdev vpc {{
                    counter in_{name} {{ }}
                    {chain}
                }}
                flush chain netdev vpc {name}
                table netdev vpc {{
                    chain {name} {{
                        ether saddr != {mac} counter name wrong_mac drop
                        ether type arp accept
                        {}
                        {}
                        ip6 saddr {{ fe80::/10, :: }} accept
                        counter name wrong_source drop
                    }}
                }}"#,
                pass(false, "ip"),
                pass(true, "ip6"),
            ),
        )
    }
}
