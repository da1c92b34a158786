// SPDX-License-Identifier: Apache-2.0
//! What others do to packets by the kernel's packet filter: kube-proxy, elastic addresses, strict filters.

use std::io::Write;
use std::net::IpAddr;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rhumb_model::Prefix;
use serde_json::Value;

use crate::lab::Namespace;

/// Lets nft carry out what a text says, inside of a namespace.
///
/// # Errors
/// When nft refuses.
pub fn nft(namespace: &Namespace, text: &str) -> Result<()> {
    let mut child = namespace
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run nft")?;
    child.stdin.take().context("nft reads")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// What a pod sees of who called a port of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Their addresses (`externalTrafficPolicy: Local`).
    Shown,
    /// An address of the node.
    Hidden,
}

/// Leads a port of the node's own addresses to a pod's port, TCP and UDP, as kube-proxy does.
///
/// It stays until the test ends: without it the stack translates nothing any more, and the last packets of a connection
/// would leave as the pod sent them.
///
/// # Errors
/// When nft refuses.
pub fn node_port(node: &Namespace, port: u16, (pod, to): (IpAddr, u16), callers: Callers) -> Result<()> {
    let (table, ip, pod) = match pod {
        IpAddr::V4(pod) => ("ip", "ip", pod.to_string()),
        IpAddr::V6(pod) => ("ip6", "ip6", format!("[{pod}]")),
    };
    let post = match callers {
        Callers::Shown => String::new(),
        Callers::Hidden => format!(
            "chain post {{ type nat hook postrouting priority 100;
                meta l4proto {{ tcp, udp }} ct original proto-dst {port} masquerade; }}"
        ),
    };
    nft(
        node,
        &format!(
            "table {table} kube{port} {{
                chain pre {{ type nat hook prerouting priority -100;
                    fib daddr type local meta l4proto {{ tcp, udp }} th dport {port} dnat {ip} to {pod}:{to}; }}
                {post}
            }}"
        ),
    )
}

/// Gives an address of a VPC one that the world knows: the internet gateway translates each into the other.
///
/// # Errors
/// When nft refuses.
pub fn elastic(router: &Namespace, vpc: Prefix, public: IpAddr, private: IpAddr) -> Result<()> {
    let name = public.to_string().replace('.', "_");
    nft(
        router,
        &format!(
            r#"table ip elastic{name} {{
                chain pre {{ type nat hook prerouting priority -100; ip daddr {public} dnat to {private}; }}
                chain post {{ type nat hook postrouting priority 100;
                    ip saddr {private} ip daddr != {vpc} snat to {public}; }}
            }}"#
        ),
    )
}

/// A node that drops what came in by another link than its answers would leave by: for IPv4 as strict filters by reverse
/// path do; for IPv6 by a rule of the packet filter, as the kernel has no such filter.
#[derive(Debug)]
pub struct Strict<'a>(&'a Namespace);

impl<'a> Strict<'a> {
    /// Switches it on, for links that will come as well.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put(node: &'a Namespace) -> Result<Self> {
        for key in ["all", "default", "eth0"] {
            node.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "1")?;
        }
        nft(
            node,
            "table ip6 strict {
                counter dropped { }
                chain pre {
                    type filter hook prerouting priority -150; policy accept;
                    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
                    fib saddr . mark . iif oif missing counter name dropped drop
                }
            }",
        )?;
        Ok(Self(node))
    }

    /// A node on which it is on already.
    pub fn at(node: &'a Namespace) -> Self {
        Self(node)
    }

    /// Checks that it is still on, on each of these links, and how many packets of either family it dropped.
    ///
    /// # Errors
    /// When somebody switched it off, or nobody tells.
    pub fn dropped(&self, links: impl IntoIterator<Item = String>) -> Result<[u64; 2]> {
        let read = |path: String| self.0.run(move || Ok(std::fs::read_to_string(path)?));
        for link in links.into_iter().chain(["all".to_owned()]) {
            let mode = read(format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"))?;
            ensure!(mode.trim() == "1", "the filter by reverse path of {link} is {mode}");
        }
        let netstat = read("/proc/thread-self/net/netstat".to_owned())?;
        let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let mut row = || Some(lines.next()?.split(' '));
        let (mut names, mut values) = (row().context("names")?, row().context("values")?);
        let place = names.position(|name| name == "IPReversePathFilter").context("it is counted")?;
        let v4 = values.nth(place).context("as many values as names")?.parse()?;
        let told =
            self.0.command("nft").args(["-j", "list", "counters", "ip6"]).output().context("run nft")?;
        let told: Value = serde_json::from_slice(&told.stdout).context("read what nft printed")?;
        let mut objects = told["nftables"].as_array().into_iter().flatten();
        let counter = objects.find(|object| object["counter"]["table"] == "strict").context("a counter")?;
        Ok([v4, counter["counter"]["packets"].as_u64().context("packets")?])
    }
}
