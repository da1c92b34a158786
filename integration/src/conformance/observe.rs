// SPDX-License-Identifier: Apache-2.0
//! What a network namespace looks like, as `ip` and `tc` tell it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::lab::Namespace;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its index.
    pub(crate) index: u64,
    /// Index of the other end of its pair, in the other end's namespace.
    pub(crate) peer: Option<u64>,
    /// MAC address, in lower case.
    pub(crate) mac: String,
    /// MTU in bytes.
    pub(crate) mtu: u64,
    /// Whether it is up.
    pub(crate) up: bool,
}

/// Every link of a namespace by its name, without the loopback.
///
/// # Errors
/// When `ip` does not tell.
pub(crate) fn links(namespace: &Namespace) -> Result<BTreeMap<String, Link>> {
    let list = json(&namespace.ip_show("-j link show")?)?;
    let links = list.as_array().into_iter().flatten().filter(|link| link["link_type"] != "loopback");
    Ok(links
        .map(|link| {
            let flags = link["flags"].as_array().into_iter().flatten();
            let up = flags.into_iter().any(|flag| flag == "UP");
            let name = link["ifname"].as_str().unwrap_or_default().to_owned();
            let mac = link["address"].as_str().unwrap_or_default().to_lowercase();
            let index = link["ifindex"].as_u64().unwrap_or_default();
            (
                name,
                Link {
                    index,
                    peer: link["link_index"].as_u64(),
                    mac,
                    mtu: link["mtu"].as_u64().unwrap_or(0),
                    up,
                },
            )
        })
        .collect())
}

/// Addresses of a link, with the length of their subnet, without those that the kernel made itself.
///
/// # Errors
/// When there is no such link.
pub(crate) fn addresses(namespace: &Namespace, ifname: &str) -> Result<Vec<IpNetwork>> {
    let mut all = all_addresses(namespace)?;
    all.remove(ifname).with_context(|| format!("there is no {ifname} in {}", namespace.name()))
}

/// Addresses of every link of a namespace, as [`addresses`] has them.
///
/// # Errors
/// When `ip` does not tell.
pub(crate) fn all_addresses(namespace: &Namespace) -> Result<BTreeMap<String, Vec<IpNetwork>>> {
    let list = json(&namespace.ip_show("-j address show")?)?;
    let links = list.as_array().into_iter().flatten();
    Ok(links
        .map(|link| {
            let entries = link["addr_info"].as_array().into_iter().flatten();
            let set = entries.filter(|entry| entry["scope"] != "link").filter_map(|entry| {
                let address: IpAddr = entry["local"].as_str()?.parse().ok()?;
                IpNetwork::new(address, u8::try_from(entry["prefixlen"].as_u64()?).ok()?).ok()
            });
            (link["ifname"].as_str().unwrap_or_default().to_owned(), set.collect())
        })
        .collect())
}

/// Routes of a family (4 or 6) in every table of a namespace.
///
/// # Errors
/// When `ip` does not tell.
pub(crate) fn routes(namespace: &Namespace, family: u8) -> Result<Vec<Value>> {
    let list = json(&namespace.ip_show(&format!("-j -{family} route show table all"))?)?;
    Ok(list.as_array().cloned().unwrap_or_default())
}

/// Policy rules of both families.
///
/// # Errors
/// When `ip` does not tell.
pub(crate) fn rules(namespace: &Namespace) -> Result<Vec<String>> {
    let mut rules = Vec::new();
    for family in [4, 6] {
        rules.extend(namespace.ip_show(&format!("-{family} rule show"))?.lines().map(str::to_owned));
    }
    Ok(rules)
}

/// Neighbours of both families, with what is known about them.
///
/// # Errors
/// When `ip` does not tell.
pub(crate) fn neighbours(namespace: &Namespace) -> Result<Vec<Value>> {
    let list = json(&namespace.ip_show("-j neigh show")?)?;
    Ok(list.as_array().cloned().unwrap_or_default())
}

/// Queueing disciplines of a namespace.
///
/// # Errors
/// When `tc` does not tell.
pub(crate) fn qdiscs(namespace: &Namespace) -> Result<Vec<Value>> {
    let output = namespace.command("tc").args(["-j", "qdisc", "show"]).output().context("run tc")?;
    ensure!(output.status.success(), "tc qdisc: {}", String::from_utf8_lossy(&output.stderr).trim());
    let list = json(&String::from_utf8_lossy(&output.stdout))?;
    Ok(list.as_array().cloned().unwrap_or_default())
}

/// Whether something of `ip`'s is about this address.
pub(crate) fn is_about(entry: &Value, address: IpAddr) -> bool {
    let text = entry["dst"].as_str().unwrap_or_default();
    text.parse() == Ok(address) || text.parse().is_ok_and(|network: IpNetwork| is_host(network, address))
}

fn is_host(network: IpNetwork, address: IpAddr) -> bool {
    network.ip() == address && network.prefix() == if address.is_ipv4() { 32 } else { 128 }
}

/// `ip -j` prints nothing at all where there is nothing.
fn json(text: &str) -> Result<Value> {
    if text.trim().is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    serde_json::from_str(text).with_context(|| format!("read {text:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_about_a_single_address_only() {
        let address: IpAddr = "10.0.0.1".parse().expect("an address");
        assert!(is_about(&json!({"dst": "10.0.0.1"}), address));
        assert!(is_about(&json!({"dst": "10.0.0.1/32"}), address));
        assert!(!is_about(&json!({"dst": "10.0.0.1/24"}), address));
        assert!(!is_about(&json!({"dst": "default"}), address));
    }
}
