// SPDX-License-Identifier: Apache-2.0
//! What the variables of a case stand for before its first step.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::recorder::{FAILER, PLUGIN, RECORDER};
use super::site::{Plugins, Site};
use super::variables::Variables;

/// MAC address of the interface that another plugin makes.
pub(crate) const FOREIGN_MAC: &str = "02:77:00:00:00:05";
/// Address of the interface that another plugin makes.
pub(crate) const FOREIGN_ADDRESS: &str = "10.1.0.5/16";
const NEW_MAC: &str = "c2:aa:bb:cc:dd:ee";

/// Variables of one run of a case; `number` is of no other run.
///
/// # Errors
/// When the agent or the store do not tell which address is free.
pub(crate) fn variables(
    site: &Site,
    plugins: &Plugins,
    number: usize,
    version: &str,
    supported: &[String],
) -> Result<Variables> {
    let netns = format!("/run/netns/{}-c{number}", site.lab().id());
    let file: PathBuf = plugins.path().join(format!("file{number}"));
    let host = format!("ext{number}");
    let mut variables = Variables::default();
    variables.set("V", version);
    variables.set("PLUGIN", PLUGIN);
    variables.set("CID", format!("{}-c{number}", site.lab().id()));
    variables.set("NS", netns.clone());
    variables.set("PATH", plugins.path().display().to_string());
    variables.set("SUPPORTED", supported.to_vec());
    variables.set("HOSTIF", host.clone());
    variables.set("MAC", FOREIGN_MAC);
    variables.set("NEWMAC", NEW_MAC);
    variables.set("NODEIP", site.node().addresses[0].to_string());
    variables.set("FILE", file.display().to_string());
    variables.set("RECORDER", RECORDER);
    variables.set("FAILER", FAILER);
    if let Some(free) = free_address(site, number)? {
        variables.set("FREEIP", free.to_string());
    }
    for version in supported {
        variables.set(&format!("prev({version})"), foreign_result(version, &host, &netns));
    }
    Ok(variables)
}

/// An address of the pool that nobody holds: far from where the agent hands out its next ones, and another one for
/// each run, because a released one rests.
fn free_address(site: &Site, number: usize) -> Result<Option<IpAddr>> {
    let leases = site.view()?.leases;
    for prefix in site.pod_cidrs()?.into_iter().filter(|prefix| prefix.addr().is_ipv4()) {
        let usable = prefix.size().saturating_sub(2).max(1);
        let offsets = (0..usable).map(|step| usable - (number as u128 + step) % usable);
        let mut addresses = offsets.filter_map(|offset| prefix.nth(offset));
        if let Some(address) = addresses.find(|address| !leases.contains_key(address)) {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// The result of another plugin, as the cases have it.
fn foreign_result(version: &str, host: &str, netns: &str) -> Value {
    let mut ip = json!({"address": FOREIGN_ADDRESS, "gateway": "10.1.0.1", "interface": 2});
    if version < "1.0.0" {
        ip["version"] = json!("4");
    }
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": "cni0", "mac": "00:11:22:33:44:55"},
            {"name": host, "mac": "55:44:33:22:11:11"},
            {"name": "eth0", "mac": FOREIGN_MAC, "sandbox": netns},
        ],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["10.1.0.1"]},
    })
}
