// SPDX-License-Identifier: Apache-2.0
//! Effects on links, routes and queueing disciplines.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::conformance::attachment::Attachment;
use crate::conformance::observe;
use crate::conformance::result;
use crate::conformance::scene::Scene;

pub(super) fn inner_up(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let links = observe::links(scene.namespace(&subject.netns)?)?;
    let link = links.get(&subject.ifname).with_context(|| format!("there are only {:?}", links.keys()))?;
    ensure!(link.up, "{} is down", subject.ifname);
    Ok(())
}

/// The container's interface is gone; a namespace that is gone has none either.
pub(super) fn inner_gone(scene: &mut Scene<'_>) -> Result<()> {
    let made = scene.made()?;
    let subject = scene.subject().ok();
    let path = match made.var("CNI_NETNS") {
        "" => subject.map_or(String::new(), |subject| subject.netns.clone()),
        path => path.to_owned(),
    };
    let ifname = made.var("CNI_IFNAME");
    let Ok(namespace) = scene.namespace(&path) else { return Ok(()) };
    ensure!(!observe::links(namespace)?.contains_key(ifname), "{ifname} is still in {path}");
    Ok(())
}

/// What the container's namespace has is what it had before the step, whether or not that is anything.
pub(super) fn inner_gone_if_any(scene: &mut Scene<'_>) -> Result<()> {
    let path = scene.made()?.var("CNI_NETNS").to_owned();
    let Ok(namespace) = scene.namespace(&path) else { return Ok(()) };
    let now: BTreeSet<String> = observe::links(namespace)?.into_keys().collect();
    let before: BTreeSet<String> =
        scene.before.inner.get(&path).into_iter().flat_map(|links| links.keys().cloned()).collect();
    let more: Vec<_> = now.difference(&before).collect();
    ensure!(more.is_empty(), "{path} now has {more:?}");
    Ok(())
}

pub(super) fn inner_none_added(scene: &mut Scene<'_>) -> Result<()> {
    let path = scene.made()?.var("CNI_NETNS").to_owned();
    let ifname = scene.made()?.var("CNI_IFNAME").to_owned();
    let now = observe::links(scene.namespace(&path)?)?;
    let before = scene.before.inner.get(&path);
    let more: Vec<_> = now
        .keys()
        .filter(|name| **name != ifname && before.is_none_or(|links| !links.contains_key(*name)))
        .collect();
    ensure!(more.is_empty(), "{path} now has {more:?}");
    Ok(())
}

pub(super) fn inner_mac(scene: &mut Scene<'_>, mac: &str) -> Result<()> {
    let subject = scene.subject()?;
    let links = observe::links(scene.namespace(&subject.netns)?)?;
    let link = links.get(&subject.ifname).context("the interface is not there")?;
    ensure!(link.mac == mac, "it has {}", link.mac);
    let (_, told) =
        result::container_interface(&subject.result, &subject.ifname).context("not in the result")?;
    ensure!(told["mac"] == mac, "the result says {}", told["mac"]);
    Ok(())
}

pub(super) fn inner_equals_result(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let namespace = scene.namespace(&subject.netns)?;
    let links = observe::links(namespace)?;
    let link = links.get(&subject.ifname).context("the interface is not there")?;
    let (index, told) =
        result::container_interface(&subject.result, &subject.ifname).context("not in the result")?;
    let mac = told["mac"].as_str().unwrap_or_default();
    ensure!(mac.eq_ignore_ascii_case(&link.mac), "MAC {} in the result, {} on the link", mac, link.mac);
    // Versions before 1.1.0 have no MTU in the result; the configuration may still have asked for one.
    let wanted = told["mtu"].as_u64().or(subject.config["mtu"].as_u64());
    ensure!(wanted.is_none_or(|mtu| mtu == link.mtu), "MTU {wanted:?} promised, {} on the link", link.mtu);
    let set = observe::addresses(namespace, &subject.ifname)?;
    let ips = subject.result["ips"].as_array().into_iter().flatten();
    let promised: Vec<_> = ips
        .filter(|ip| ip["interface"].as_u64().is_none_or(|at| at == index as u64))
        .filter_map(|ip| ip["address"].as_str()?.parse().ok())
        .collect();
    let same = promised.len() == set.len() && promised.iter().all(|network| set.contains(network));
    ensure!(same && !promised.is_empty(), "addresses {promised:?} in the result, {set:?} on the link");
    Ok(())
}

pub(super) fn default_route(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let namespace = scene.namespace(&subject.netns)?;
    for address in subject.addresses() {
        let family = if address.is_ipv4() { 4 } else { 6 };
        let routes = observe::routes(namespace, family)?;
        let found =
            routes.iter().any(|route| route["dst"] == "default" && route["dev"] == subject.ifname.as_str());
        ensure!(found, "no default route of family {family} over {}", subject.ifname);
    }
    Ok(())
}

/// The first interface of a name is as before the step, and carries traffic.
pub(super) fn first_unchanged(scene: &mut Scene<'_>) -> Result<()> {
    let made = scene.made()?;
    let (path, ifname) = (made.var("CNI_NETNS").to_owned(), made.var("CNI_IFNAME").to_owned());
    unchanged(scene, &path, &ifname)?;
    let key = format!("{}/{ifname}", made.var("CNI_CONTAINERID"));
    let first = scene.attachments.iter().find(|attachment| attachment.key() == key);
    scene.works(first.with_context(|| format!("ADD never made {key}"))?)
}

pub(super) fn foreign_untouched(scene: &mut Scene<'_>) -> Result<()> {
    let made = scene.made()?;
    let (path, ifname) = (made.var("CNI_NETNS").to_owned(), made.var("CNI_IFNAME").to_owned());
    unchanged(scene, &path, &ifname)
}

fn unchanged(scene: &Scene<'_>, path: &str, ifname: &str) -> Result<()> {
    let namespace = scene.namespace(path)?;
    let before = scene.before.inner.get(path).and_then(|links| links.get(ifname));
    let now = observe::links(namespace)?;
    ensure!(before.is_some(), "{ifname} was not there before");
    ensure!(now.get(ifname) == before, "{ifname} is now {:?} and was {before:?}", now.get(ifname));
    let addresses = observe::addresses(namespace, ifname)?;
    let before = scene.before.inner_addresses.get(&(path.to_owned(), ifname.to_owned()));
    ensure!(Some(&addresses) == before, "{ifname} now has {addresses:?} and had {before:?}");
    Ok(())
}

/// Links of an attachment on the node: those of its result.
fn gone(scene: &Scene<'_>, attachment: &Attachment) -> Result<()> {
    let links = observe::links(scene.site.host())?;
    let names = scene.host_ends(attachment);
    ensure!(!names.is_empty(), "the result of {} names no interface of the host", attachment.key());
    let left: Vec<_> = names.iter().filter(|name| links.contains_key(*name)).collect();
    ensure!(left.is_empty(), "{left:?} is still there");
    Ok(())
}

pub(super) fn host_end_gone(scene: &mut Scene<'_>) -> Result<()> {
    gone(scene, scene.subject()?)
}

pub(super) fn host_end_gone_of(scene: &mut Scene<'_>, container: &str, ifname: &str) -> Result<()> {
    gone(scene, scene.attachment(container, ifname)?)
}

pub(super) fn host_end_up(scene: &mut Scene<'_>) -> Result<()> {
    let names = scene.host_ends(scene.subject()?);
    ensure!(!names.is_empty(), "the result names no interface of the host");
    let links = observe::links(scene.site.host())?;
    for name in names {
        ensure!(links.get(&name).is_some_and(|link| link.up), "{name} is {:?}", links.get(&name));
    }
    Ok(())
}

pub(super) fn host_unchanged(scene: &mut Scene<'_>) -> Result<()> {
    same_links(scene, &scene.before.links.keys().cloned().collect())
}

pub(super) fn host_as_at_the_start(scene: &mut Scene<'_>) -> Result<()> {
    let start: BTreeSet<String> = scene.start.links.keys().cloned().collect();
    // A pair that the case itself made as another plugin's is its own to remove.
    let foreign = scene.text("HOSTIF")?;
    let now: BTreeSet<String> = observe::links(scene.site.host())?.into_keys().collect();
    let more: Vec<_> = now.difference(&start).filter(|name| **name != foreign).collect();
    ensure!(more.is_empty(), "the node now has {more:?}");
    Ok(())
}

fn same_links(scene: &Scene<'_>, before: &BTreeSet<String>) -> Result<()> {
    let now: BTreeSet<String> = observe::links(scene.site.host())?.into_keys().collect();
    ensure!(now == *before, "the node's links differ by {:?}", now.symmetric_difference(before));
    Ok(())
}

pub(super) fn rules_as_at_the_start(scene: &mut Scene<'_>) -> Result<()> {
    let now = observe::rules(scene.site.host())?;
    ensure!(now == scene.start.rules, "rules {now:?} instead of {:?}", scene.start.rules);
    Ok(())
}

pub(super) fn no_qdisc(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let names = scene.host_ends(subject);
    let is_ours =
        |qdisc: &&Value| qdisc["kind"] == "tbf" || names.iter().any(|name| qdisc["dev"] == name.as_str());
    let left: Vec<Value> = observe::qdiscs(scene.site.host())?.iter().filter(is_ours).cloned().collect();
    ensure!(left.is_empty(), "on the node: {left:?}");
    if let Ok(namespace) = scene.namespace(&subject.netns) {
        let shaping: Vec<Value> =
            observe::qdiscs(namespace)?.into_iter().filter(|qdisc| qdisc["kind"] == "tbf").collect();
        ensure!(shaping.is_empty(), "in the container: {shaping:?}");
    }
    Ok(())
}

pub(super) fn no_routes_or_neighbours(scene: &mut Scene<'_>) -> Result<()> {
    // The kernel takes neighbours of a link that goes away in its own time.
    scene.eventually(Duration::from_secs(2), |scene| {
        let subject = scene.subject()?;
        for address in subject.addresses() {
            let mut entries = observe::routes(scene.site.host(), if address.is_ipv4() { 4 } else { 6 })?;
            entries.extend(observe::neighbours(scene.site.host())?);
            let left: Vec<_> = entries.iter().filter(|entry| observe::is_about(entry, address)).collect();
            ensure!(left.is_empty(), "left: {left:?}");
        }
        Ok(())
    })
}
