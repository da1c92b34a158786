// SPDX-License-Identifier: Apache-2.0
//! Effects on addresses and on what the agent knows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;

use crate::conformance::attachment::Attachment;
use crate::conformance::result;
use crate::conformance::scene::Scene;

/// How long the agent may take for what was queued while it was down.
const SOON: Duration = Duration::from_secs(5);

/// Checks that nobody leases these addresses and that the attachment has no lease.
fn are_free(scene: &Scene<'_>, attachment: &Attachment) -> Result<()> {
    let view = scene.site.view()?;
    let key = attachment.key();
    let held: Vec<_> = view
        .leases
        .iter()
        .filter(|(address, holder)| **holder == key || attachment.addresses().contains(address))
        .collect();
    ensure!(held.is_empty(), "leased: {held:?}");
    Ok(())
}

pub(super) fn free(scene: &mut Scene<'_>) -> Result<()> {
    are_free(scene, scene.subject()?)
}

pub(super) fn free_of(scene: &mut Scene<'_>, container: &str, ifname: &str) -> Result<()> {
    are_free(scene, scene.attachment(container, ifname)?)
}

pub(super) fn all_free(scene: &mut Scene<'_>) -> Result<()> {
    let subjects = scene.subjects();
    ensure!(!subjects.is_empty(), "ADD made nothing that could be free");
    subjects.into_iter().try_for_each(|subject| are_free(scene, subject))
}

pub(super) fn endpoint_gone(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let view = scene.site.view()?;
    ensure!(!view.attachments.contains_key(&subject.key()), "the agent still has {}", subject.key());
    let delivered: Vec<_> =
        subject.addresses().into_iter().filter(|address| view.endpoints.contains(address)).collect();
    ensure!(delivered.is_empty(), "the endpoint map still has {delivered:?}");
    // Once no container of the case is left, the kernel itself can be asked for every map.
    let last = scene.attachments.iter().all(|attachment| attachment.removed) && scene.fillers.is_empty();
    let foreign = crate::conformance::observe::links(scene.site.host())?.contains_key(&scene.text("HOSTIF")?);
    if last && !foreign { scene.site.is_fresh() } else { Ok(()) }
}

pub(super) fn fifty_distinct(scene: &mut Scene<'_>) -> Result<()> {
    let subjects = scene.subjects();
    let addresses: Vec<_> = subjects.iter().flat_map(|subject| subject.addresses()).collect();
    let distinct: BTreeSet<_> = addresses.iter().collect();
    ensure!(
        distinct.len() >= 50 && distinct.len() == addresses.len(),
        "{} addresses, of which {} are distinct",
        addresses.len(),
        distinct.len()
    );
    Ok(())
}

pub(super) fn different(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let mine = subject.addresses();
    ensure!(!mine.is_empty(), "the result has no address");
    let others: Vec<_> =
        scene.attachments.iter().filter(|other| other.key() != subject.key() && !other.removed).collect();
    ensure!(!others.is_empty() || !scene.released.is_empty(), "there is no other address to differ from");
    for other in others {
        let shared: Vec<_> = other.addresses().into_iter().filter(|address| mine.contains(address)).collect();
        ensure!(shared.is_empty(), "{} has {shared:?} too", other.key());
    }
    let again: Vec<_> = mine.iter().filter(|address| scene.released.contains(address)).collect();
    ensure!(again.is_empty(), "{again:?} was had before");
    Ok(())
}

pub(super) fn differs_from_the_released(scene: &mut Scene<'_>) -> Result<()> {
    let mine = scene.subject()?.addresses();
    ensure!(!scene.released.is_empty(), "no address was released before");
    let again: Vec<_> = mine.iter().filter(|address| scene.released.contains(address)).collect();
    ensure!(again.is_empty(), "{again:?} was handed out again at once");
    Ok(())
}

/// Neither the edges of the pool's prefixes nor a gateway was handed out, and the rest was.
pub(super) fn no_edge_of_the_subnet(scene: &mut Scene<'_>) -> Result<()> {
    let prefixes = scene.site.pod_cidrs()?;
    let edges: Vec<IpAddr> = prefixes
        .iter()
        .filter(|prefix| prefix.addr().is_ipv4())
        .flat_map(|prefix| [prefix.addr(), prefix.last()])
        .collect();
    ensure!(!edges.is_empty(), "the node has no IPv4 prefix");
    let subjects = scene.subjects();
    let handed: Vec<IpAddr> = subjects.iter().flat_map(|subject| subject.addresses()).collect();
    ensure!(handed.len() >= 4, "only {handed:?} were handed out");
    let gateways: Vec<IpAddr> = subjects
        .iter()
        .flat_map(|subject| subject.result["ips"].as_array().into_iter().flatten())
        .filter_map(|ip| ip["gateway"].as_str()?.parse().ok())
        .collect();
    for address in &handed {
        ensure!(!edges.contains(address), "{address} is an edge of {prefixes:?}");
        ensure!(!gateways.contains(address), "{address} is a gateway");
    }
    Ok(())
}

/// The leases are those of before the step.
pub(super) fn none_allocated(scene: &mut Scene<'_>) -> Result<()> {
    let before = scene.before.view.as_ref().context("the agent was down before the step")?;
    same_leases(before.leases.keys(), scene)
}

/// The leases are those of before the case.
pub(super) fn as_at_the_start(scene: &mut Scene<'_>) -> Result<()> {
    let before = scene.start.view.as_ref().context("the agent was down before the case")?;
    same_leases(before.leases.keys(), scene)
}

fn same_leases<'a>(before: impl Iterator<Item = &'a IpAddr>, scene: &Scene<'_>) -> Result<()> {
    let before: BTreeSet<IpAddr> = before.copied().collect();
    let now = scene.site.view()?.leases;
    let more: Vec<_> = now.iter().filter(|(address, _)| !before.contains(address)).collect();
    ensure!(more.is_empty(), "leased: {more:?}");
    Ok(())
}

pub(super) fn nothing_removed(scene: &mut Scene<'_>) -> Result<()> {
    let before = scene.before.view.as_ref().context("the agent was down before the step")?;
    let now = scene.site.view()?;
    let leases: Vec<_> = before.leases.keys().filter(|key| !now.leases.contains_key(key)).collect();
    let attachments: Vec<_> =
        before.attachments.keys().filter(|key| !now.attachments.contains_key(*key)).collect();
    let endpoints: Vec<_> = before.endpoints.difference(&now.endpoints).collect();
    ensure!(
        leases.is_empty() && attachments.is_empty() && endpoints.is_empty(),
        "removed: leases {leases:?}, attachments {attachments:?}, endpoints {endpoints:?}"
    );
    let links = crate::conformance::observe::links(scene.site.host())?;
    let links: Vec<_> = scene.before.links.keys().filter(|name| !links.contains_key(*name)).collect();
    ensure!(links.is_empty(), "removed: links {links:?}");
    Ok(())
}

pub(super) fn pool_is_unused(scene: &mut Scene<'_>) -> Result<()> {
    let view = scene.site.view()?;
    ensure!(
        view.leases.is_empty() && view.attachments.is_empty() && view.endpoints.is_empty(),
        "left: leases {:?}, attachments {:?}, endpoints {:?}",
        view.leases,
        view.attachments.keys(),
        view.endpoints
    );
    Ok(())
}

/// Nothing is known of the container id, neither by the agent nor in the queue.
pub(super) fn nothing_of_this_id(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.made()?.var("CNI_CONTAINERID").to_owned();
    let left = scene.site.view()?.about(&id);
    ensure!(left.is_empty(), "left: {left:?}");
    let queued = queued_files(scene, &id)?;
    ensure!(queued.is_empty(), "queued: {queued:?}");
    none_allocated(scene)?;
    super::interfaces::host_unchanged(scene)
}

/// Files of the plugin's queue that speak of a container.
fn queued_files(scene: &Scene<'_>, container: &str) -> Result<Vec<String>> {
    let folder = scene.site.node().run_dir().join(rhumb_cni::protocol::QUEUE_DIR);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("list {}", folder.display()))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if name.contains(container) || text.is_ok_and(|text| text.contains(container)) {
            files.push(name);
        }
    }
    Ok(files)
}

/// DEL is in the queue, and is done when the agent is back.
pub(super) fn queued(scene: &mut Scene<'_>) -> Result<()> {
    let container = scene.made()?.var("CNI_CONTAINERID").to_owned();
    ensure!(!queued_files(scene, &container)?.is_empty(), "the queue has nothing of {container}");
    scene.site.start_agent()?;
    scene.eventually(SOON, |scene| are_free(scene, scene.subject()?))?;
    scene.eventually(SOON, |scene| {
        let left = queued_files(scene, &container)?;
        ensure!(left.is_empty(), "still queued: {left:?}");
        Ok(())
    })
}

pub(super) fn has_the_requested(scene: &mut Scene<'_>) -> Result<()> {
    let wanted: IpAddr = scene.text("FREEIP")?.parse().context("read ${FREEIP}")?;
    let networks = result::addresses(&scene.subject()?.result);
    ensure!(networks.iter().map(IpNetwork::ip).any(|address| address == wanted), "got {networks:?}");
    Ok(())
}

pub(super) fn known_as(scene: &mut Scene<'_>, pod: &str) -> Result<()> {
    let subject = scene.subject()?;
    let view = scene.site.view()?;
    let shown = view.attachments.get(&subject.key()).context("the agent does not know the attachment")?;
    ensure!(shown.pod.as_deref() == Some(pod), "the agent knows it as {:?}", shown.pod);
    ensure!(
        subject.addresses().iter().all(|address| shown.addresses.contains(address)),
        "the agent shows {:?}",
        shown.addresses
    );
    Ok(())
}

pub(super) fn other_stale_removed(scene: &mut Scene<'_>) -> Result<()> {
    let container = scene.text("stale")?;
    let stale = scene.attachment("${stale}", "eth0")?.clone();
    are_free(scene, &stale)?;
    let left = scene.site.view()?.about(&container);
    ensure!(left.is_empty(), "left: {left:?}");
    super::interfaces::host_end_gone_of(scene, "${stale}", "eth0")
}
