// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Node;

/// Number with which our routes are marked.
const PROTOCOL: &str = "114";

/// Everything that pods leave on a node, each named in a line: links, routes, map entries, pins, leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint(BTreeSet<String>);

impl Footprint {
    /// Looks at the kernel and at the BPF file system, and asks the agent for leases and attachments.
    ///
    /// # Errors
    /// When something cannot be looked at, or an address is leased twice.
    pub fn of(node: &Node) -> Result<Self> {
        let mut lines = BTreeSet::new();
        for line in node.namespace().ip_show("-o link show")?.lines() {
            let name = line.split(": ").nth(1).context("a link has a name")?;
            lines.insert(format!("link {name}"));
        }
        for family in ["-4", "-6"] {
            let routes =
                node.namespace().ip_show(&format!("{family} route show table all proto {PROTOCOL}"))?;
            lines.extend(routes.lines().map(|line| format!("route {}", line.trim())));
        }
        pins(node.bpffs(), node.bpffs(), &mut lines)?;
        let mut leased = BTreeSet::new();
        for ip in list(node, "ip list")?.iter().filter(|ip| ip["state"] == "leased") {
            ensure!(leased.insert(ip["address"].to_string()), "{} is leased twice", ip["address"]);
            lines.insert(format!("lease {} of {}", ip["address"], ip["attachment"]));
        }
        for pod in list(node, "pod list")? {
            lines.insert(format!("attachment {}", pod["attachment"]));
        }
        let queue = node.run_dir().join(rhumb_cni::protocol::QUEUE_DIR);
        for entry in fs::read_dir(queue).into_iter().flatten().flatten() {
            lines.insert(format!("queued {}", entry.file_name().to_string_lossy()));
        }
        Ok(Self(lines))
    }

    /// Looks until nothing differs from this footprint: what the agent does after it answered may take a moment.
    ///
    /// # Errors
    /// Names what still differs when `patience` is over.
    pub fn returns(&self, node: &Node, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let now = Self::of(node)?;
            if *self == now {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let more: Vec<_> = now.0.difference(&self.0).collect();
                let fewer: Vec<_> = self.0.difference(&now.0).collect();
                bail!("on {}: left over {more:#?}; gone {fewer:#?}", node.name);
            }
        }
    }
}

fn list(node: &Node, what: &str) -> Result<Vec<Value>> {
    node.show(what)?.as_array().cloned().with_context(|| format!("rhumb {what} shows a list"))
}

/// Every pin; of those that are hash maps, every key.
fn pins(root: &Path, folder: &Path, lines: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            pins(root, &path, lines)?;
            continue;
        }
        let name = path.strip_prefix(root)?.display().to_string();
        for key in keys(&path)? {
            lines.insert(format!("entry {key} of {name}"));
        }
        lines.insert(format!("pin {name}"));
    }
    Ok(())
}

/// The keys of a pinned hash map; none of arrays, whose keys are always there, of flows, which come and go with
/// traffic, and of pins that are no maps.
fn keys(pin: &Path) -> Result<Vec<String>> {
    let bpftool = |verb: &str| -> Result<Value> {
        let output = Command::new("bpftool")
            .args(["-j", "map", verb, "pinned"])
            .arg(pin)
            .output()
            .context("run bpftool")?;
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    };
    let kind = bpftool("show")?["type"].as_str().unwrap_or_default().to_owned();
    if !matches!(kind.as_str(), "hash" | "lpm_trie") {
        return Ok(Vec::new());
    }
    let entries = bpftool("dump")?;
    let entries = entries.as_array().with_context(|| format!("bpftool dumps {}", pin.display()))?;
    Ok(entries.iter().map(|entry| entry["key"].to_string().replace('"', "")).collect())
}
