// SPDX-License-Identifier: Apache-2.0
//! Effects on and of other plugins: those before, behind and below ours.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::conformance::attached;
use crate::conformance::call::{Outcome, execute};
use crate::conformance::observe;
use crate::conformance::recorder::{self, Call};
use crate::conformance::result;
use crate::conformance::scene::Scene;
use crate::conformance::traffic::{self, PATIENCE};

/// Port of the node that portmap is told to lead to the container's port 80.
const PORT: u16 = 18088;

pub(super) fn attached_to_the_pair(scene: &mut Scene<'_>) -> Result<()> {
    let host = scene.text("HOSTIF")?;
    let programs = attached::programs(scene.site.host(), &host)?;
    ensure!(!programs.is_empty(), "no program is attached to {host}");
    Ok(())
}

pub(super) fn only_the_peer_is_touched(scene: &mut Scene<'_>) -> Result<()> {
    let path = scene.made()?.var("CNI_NETNS").to_owned();
    let ifname = scene.made()?.var("CNI_IFNAME").to_owned();
    let inner = observe::links(scene.namespace(&path)?)?;
    let peer = inner.get(&ifname).and_then(|link| link.peer).context("the interface has no peer")?;
    let links = observe::links(scene.site.host())?;
    let peer = links.iter().find(|(_, link)| link.index == peer).map(|(name, _)| name.clone());
    let peer = peer.context("the peer is not on the node")?;
    let now = attached::interfaces(scene.site.host())?;
    let new: Vec<_> = now.difference(&scene.before.attached).collect();
    ensure!(new == [&peer], "programs were attached to {new:?}, the peer is {peer}");
    let others_unchanged = scene.before.links.iter().filter(|(name, _)| **name != peer);
    for (name, before) in others_unchanged {
        ensure!(links.get(name) == Some(before), "{name} is now {:?} and was {before:?}", links.get(name));
    }
    Ok(())
}

fn record(scene: &Scene<'_>) -> Result<Vec<Call>> {
    let calls = recorder::calls(scene.plugins.path())?;
    Ok(calls.into_iter().skip(scene.before.recorded).collect())
}

/// The recorder was called with a command during this step.
pub(super) fn recorded(scene: &mut Scene<'_>, command: &str) -> Result<()> {
    let commands: Vec<String> = record(scene)?.into_iter().map(|call| call.command).collect();
    ensure!(commands.iter().any(|called| called == command), "it was called with {commands:?}");
    Ok(())
}

pub(super) fn recorded_add_then_del(scene: &mut Scene<'_>) -> Result<()> {
    let commands: Vec<String> = record(scene)?.into_iter().map(|call| call.command).collect();
    ensure!(commands == ["ADD", "DEL"], "it was called with {commands:?}");
    Ok(())
}

pub(super) fn recorded_identically(scene: &mut Scene<'_>) -> Result<()> {
    let made = scene.made()?;
    let calls = record(scene)?;
    let call = calls.first().context("the recorder was not called")?;
    let seen: Value = serde_json::from_str(&call.stdin).context("read what the recorder was given")?;
    ensure!(Some(&seen) == made.config.as_ref(), "its stdin was {seen}");
    ensure!(call.env == made.env, "its variables were {:?}", call.env);
    Ok(())
}

pub(super) fn recorder_address_is_used(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let told = result::addresses(&subject.result);
    let set = observe::addresses(scene.namespace(&subject.netns)?, &subject.ifname)?;
    let leased: IpNetwork =
        recorder::address(&subject.container).parse().context("read the recorder's lease")?;
    for (place, list) in [("result", &told), ("interface", &set)] {
        ensure!(list.iter().any(|network| network.ip() == leased.ip()), "{place}: {list:?} without {leased}");
    }
    Ok(())
}

/// Runs portmap of the reference plugins behind this step's ADD, in the newest version that it speaks.
fn portmap(scene: &Scene<'_>, command: &str) -> Result<Outcome> {
    let program = scene.plugins.path().join("portmap");
    let subject = scene.subject()?;
    let mut env: BTreeMap<String, String> = scene.container_env(command, &subject.container, &subject.netns);
    env.insert("CNI_IFNAME".to_owned(), subject.ifname.clone());
    env.insert("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let mut version_env = env.clone();
    version_env.insert("CNI_COMMAND".to_owned(), "VERSION".to_owned());
    let ours = &scene.version;
    let told = execute(&program, scene.site.host(), &version_env, &json!({"cniVersion": ours}).to_string())?;
    let told = told.json().unwrap_or_default();
    let spoken = told["supportedVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let version =
        spoken.filter(|version| *version <= ours.as_str()).max().context("portmap has no version")?;
    let mut previous = subject.result.clone();
    previous["cniVersion"] = json!(version);
    let config = json!({
        "cniVersion": version,
        "name": "podnet",
        "type": "portmap",
        "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": [{"hostPort": PORT, "containerPort": 80, "protocol": "tcp"}]},
        "prevResult": previous,
    });
    execute(&program, scene.site.host(), &env, &config.to_string())
}

pub(super) fn portmap_accepts(scene: &mut Scene<'_>) -> Result<()> {
    let outcome = portmap(scene, "ADD")?;
    ensure!(outcome.succeeded(), "portmap: {outcome}");
    let given = scene.subject()?.result["ips"].clone();
    let passed = outcome.json().unwrap_or_default()["ips"].clone();
    ensure!(given.as_array().map(Vec::len) == passed.as_array().map(Vec::len), "portmap passed on {passed}");
    let removed = portmap(scene, "DEL")?;
    ensure!(removed.succeeded(), "portmap DEL: {removed}");
    Ok(())
}

pub(super) fn portmap_port_works(scene: &mut Scene<'_>) -> Result<()> {
    let outcome = portmap(scene, "ADD")?;
    ensure!(outcome.succeeded(), "portmap: {outcome}");
    let looked = portmap_port_answers(scene);
    let removed = portmap(scene, "DEL")?;
    looked?;
    ensure!(removed.succeeded(), "portmap DEL: {removed}");
    Ok(())
}

fn portmap_port_answers(scene: &Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let inside = scene.namespace(&subject.netns)?;
    for address in subject.addresses() {
        let server = traffic::tcp(inside, address, 80)?;
        let target: SocketAddr = scene.node_at(address, PORT);
        for client in scene.site.outside() {
            ensure!(
                traffic::tcp_answered(client, target, &server, PATIENCE)?,
                "{target} from {} does not lead to the container",
                client.name()
            );
        }
    }
    Ok(())
}

/// DEL runs in reverse order, so whatever portmap had made was gone when ours was called; it still did its work.
pub(super) fn works_after_later_plugins(scene: &mut Scene<'_>) -> Result<()> {
    ensure!(scene.made()?.outcome.succeeded(), "{}", scene.made()?.outcome);
    super::addresses::free(scene)?;
    super::addresses::endpoint_gone(scene)?;
    super::interfaces::host_end_gone(scene)
}
