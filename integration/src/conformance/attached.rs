// SPDX-License-Identifier: Apache-2.0
//! Which BPF programs the kernel runs at an interface, and how to take them away behind the agent's back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};

use super::observe;
use crate::lab::Namespace;

/// The two hooks of a clsact qdisc.
const HOOKS: [&str; 2] = ["ingress", "egress"];

/// Names of the programs attached to an interface of a namespace: by tcx, ingress first, then as filters.
///
/// # Errors
/// When there is no such interface, or the kernel does not tell.
pub(crate) fn programs(namespace: &Namespace, ifname: &str) -> Result<Vec<String>> {
    let mut names = namespace.run(|| {
        let mut names = Vec::new();
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            let (_, found) = SchedClassifier::query_tcx(ifname, hook)
                .with_context(|| format!("ask which programs are attached to {ifname}"))?;
            names.extend(found.iter().map(|program| program.name_as_str().unwrap_or("?").to_owned()));
        }
        anyhow::Ok(names)
    })?;
    for hook in HOOKS {
        names.extend(filters(namespace, ifname, hook)?);
    }
    Ok(names)
}

/// Names of the BPF programs that are filters of an interface.
fn filters(namespace: &Namespace, ifname: &str, hook: &str) -> Result<Vec<String>> {
    let output = namespace
        .command("tc")
        .args(["-j", "filter", "show", "dev", ifname, hook])
        .output()
        .context("run tc")?;
    ensure!(
        output.status.success(),
        "tc filter show dev {ifname}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let options = shown.as_array().into_iter().flatten().map(|filter| &filter["options"]);
    let programs = options.filter(|options| options["prog"].is_object() || options["bpf_name"].is_string());
    Ok(programs.map(|options| options["prog"]["name"].as_str().unwrap_or("?").to_owned()).collect())
}

/// Names of the interfaces of a namespace that have programs; one that goes away meanwhile has none.
///
/// # Errors
/// As [`programs`].
pub(crate) fn interfaces(namespace: &Namespace) -> Result<BTreeSet<String>> {
    let mut with = BTreeSet::new();
    for ifname in observe::links(namespace)?.into_keys() {
        match programs(namespace, &ifname) {
            Ok(found) if found.is_empty() => {}
            Ok(_) => drop(with.insert(ifname)),
            Err(error) if observe::links(namespace)?.contains_key(&ifname) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(with)
}

/// Detaches every program from an interface: filters, and through the links pinned below `pins` under its name.
///
/// # Errors
/// When programs are attached afterwards, or none were before.
pub(crate) fn detach(namespace: &Namespace, ifname: &str, pins: &Path) -> Result<()> {
    ensure!(!programs(namespace, ifname)?.is_empty(), "no program is attached to {ifname}");
    let mut files = Vec::new();
    walk(pins, &mut files)?;
    for file in files.iter().filter(|file| is_of(file.strip_prefix(pins).unwrap_or(file), ifname)) {
        if let Some(id) = link_id(file)? {
            bpftool(&["link", "detach", "id", &id.to_string()])?;
        }
    }
    for hook in HOOKS {
        if !filters(namespace, ifname, hook)?.is_empty() {
            let status = namespace.command("tc").args(["filter", "del", "dev", ifname, hook]).status()?;
            ensure!(status.success(), "tc filter del dev {ifname} {hook}: {status}");
        }
    }
    let left = programs(namespace, ifname)?;
    ensure!(left.is_empty(), "{ifname} still has {left:?}; the pins are {files:?}");
    Ok(())
}

/// Whether a pin is of an interface: pins of attachments are named `HOOK:IFNAME`.
fn is_of(pin: &Path, ifname: &str) -> bool {
    pin.to_string_lossy().rsplit(['/', ':']).next() == Some(ifname)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// The id of a pinned link; none where the pin is of something else.
fn link_id(pin: &Path) -> Result<Option<u64>> {
    let output = Command::new("bpftool")
        .args(["-j", "link", "show", "pinned"])
        .arg(pin)
        .output()
        .context("run bpftool")?;
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(shown["id"].as_u64())
}

fn bpftool(args: &[&str]) -> Result<()> {
    let output = Command::new("bpftool").args(args).output().context("run bpftool")?;
    ensure!(output.status.success(), "bpftool {args:?}: {}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_belongs_to_the_interface_that_its_name_ends_with() {
        assert!(is_of(Path::new("v1/links/from_wire:eth0"), "eth0"));
        assert!(!is_of(Path::new("v1/links/from_wire:eth01"), "eth0"));
        assert!(!is_of(Path::new("v1/maps/eth0s"), "eth0"));
    }
}
