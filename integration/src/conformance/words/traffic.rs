// SPDX-License-Identifier: Apache-2.0
//! Effects that only traffic shows.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::conformance::attachment::Attachment;
use crate::conformance::scene::Scene;
use crate::conformance::traffic::{self, PATIENCE, SILENCE};
use crate::lab::{Namespace, ping};

/// Rates that the case asks for, to and from the container, in bit/s, and how far a measurement may be off.
const TO: f64 = 10e6;
const FROM: f64 = 20e6;
const OFF: f64 = 0.2;
/// How long a rate is measured, and how often at most.
const TIME: Duration = Duration::from_secs(3);
const MEASUREMENTS: usize = 3;
/// Bytes to let pass before measuring: the burst of 8 Mbit and what lies in buffers.
const BURST: u64 = 1_800_000;
/// Source port of the client that stays the same.
const SOURCE: u16 = 40_053;

pub(super) fn first_works(scene: &mut Scene<'_>) -> Result<()> {
    scene.works(scene.attachment("${CID}", "eth0")?)
}

pub(super) fn subject_works(scene: &mut Scene<'_>) -> Result<()> {
    scene.works(scene.subject()?)
}

/// The container that came last and is still there.
fn newest<'s>(scene: &'s Scene<'_>) -> Result<&'s Attachment> {
    scene.attachments.iter().rev().find(|attachment| !attachment.removed).context("no container is left")
}

pub(super) fn newest_works(scene: &mut Scene<'_>) -> Result<()> {
    scene.works(newest(scene)?)
}

/// Every container but the one that this step is about.
pub(super) fn other_works(scene: &mut Scene<'_>) -> Result<()> {
    let container = scene.made()?.var("CNI_CONTAINERID").to_owned();
    let others: Vec<_> =
        scene.attachments.iter().filter(|other| other.container != container && !other.removed).collect();
    ensure!(!others.is_empty(), "there is no other container");
    others.into_iter().try_for_each(|other| scene.works(other))
}

pub(super) fn host_pings(scene: &mut Scene<'_>) -> Result<()> {
    let addresses = scene.subject()?.addresses();
    ensure!(!addresses.is_empty(), "the result has no address");
    for address in addresses {
        ping(scene.site.host(), address, PATIENCE)?;
    }
    Ok(())
}

pub(super) fn pairwise(scene: &mut Scene<'_>) -> Result<()> {
    let subjects = scene.subjects();
    ensure!(subjects.len() > 1, "a single container has nobody to reach");
    for place in 0..subjects.first().map_or(0, |subject| subject.addresses().len()) {
        let member = |subject: &&Attachment| -> Result<(&Namespace, IpAddr)> {
            let address = subject.addresses().get(place).copied().context("an address is missing")?;
            Ok((scene.namespace(&subject.netns)?, address))
        };
        let members = subjects.iter().map(member).collect::<Result<Vec<_>>>()?;
        let unreached = traffic::unreached_pairs(&members)?;
        ensure!(
            unreached.is_empty(),
            "{} of {} pairs do not reach each other, for example {:?}",
            unreached.len(),
            members.len() * (members.len() - 1),
            unreached.first()
        );
    }
    Ok(())
}

/// One entry of `portMappings`.
struct Mapping {
    host_port: u16,
    container_port: u16,
    protocol: String,
    host_ip: Option<IpAddr>,
}

/// The port mappings of a configuration.
fn mappings(config: &Value) -> Vec<Mapping> {
    let list = config.pointer("/runtimeConfig/portMappings").and_then(Value::as_array);
    let port = |entry: &Value, key: &str| entry[key].as_u64().and_then(|port| u16::try_from(port).ok());
    list.into_iter()
        .flatten()
        .filter_map(|entry| {
            Some(Mapping {
                host_port: port(entry, "hostPort")?,
                container_port: port(entry, "containerPort")?,
                protocol: entry["protocol"].as_str().unwrap_or("tcp").to_lowercase(),
                host_ip: entry["hostIP"].as_str().and_then(|text| text.parse().ok()),
            })
        })
        .collect()
}

pub(super) fn tcp_port_of_the_node(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let inside = scene.namespace(&subject.netns)?;
    for address in subject.addresses() {
        let server = traffic::tcp(inside, address, 80)?;
        for client in scene.site.outside() {
            let target = scene.node_at(address, 18080);
            ensure!(
                traffic::tcp_answered(client, target, &server, PATIENCE)?,
                "{target} from {} does not lead to the container",
                client.name()
            );
        }
    }
    Ok(())
}

pub(super) fn udp_port_of_one_address(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let inside = scene.namespace(&subject.netns)?;
    let node: IpAddr = scene.text("NODEIP")?.parse().context("read ${NODEIP}")?;
    let server = traffic::udp(inside, node, 53)?;
    // The node gets one more address on its uplink, to which the port must stay closed.
    let other: IpAddr = [192, 168, 100, 250].into();
    scene.site.host().ip(&format!("address add {other}/24 dev eth0"))?;
    let look = || -> Result<()> {
        for client in scene.site.outside() {
            ping(client, other, PATIENCE)?;
            let socket = traffic::udp(client, node, 0)?;
            let open = SocketAddr::new(node, 18053);
            ensure!(
                traffic::udp_answered(&socket, open, &server, PATIENCE)?,
                "{open} from {} does not lead to the container",
                client.name()
            );
            let closed = SocketAddr::new(other, 18053);
            ensure!(
                !traffic::udp_answered(&socket, closed, &server, SILENCE)?,
                "{closed} from {} leads to the container too",
                client.name()
            );
        }
        Ok(())
    };
    let looked = look();
    scene.site.host().ip(&format!("address del {other}/24 dev eth0"))?;
    looked
}

pub(super) fn host_ports_closed(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let mappings = mappings(&subject.config);
    ensure!(!mappings.is_empty(), "ADD had no port mappings");
    // The old namespace still serves the ports: whatever would arrive there would be answered.
    let inside = scene.namespace(&subject.netns)?;
    for mapping in mappings {
        let address = mapping.host_ip.unwrap_or(scene.site.node().addresses[0]);
        let target = SocketAddr::new(address, mapping.host_port);
        for client in scene.site.outside() {
            let open = if mapping.protocol == "udp" {
                let server = traffic::udp(inside, address, mapping.container_port)?;
                traffic::udp_answered(&traffic::udp(client, address, 0)?, target, &server, SILENCE)?
            } else {
                let server = traffic::tcp(inside, address, mapping.container_port)?;
                traffic::tcp_answered(client, target, &server, SILENCE)?
            };
            ensure!(
                !open,
                "{target}/{} from {} still leads to the container",
                mapping.protocol,
                client.name()
            );
        }
    }
    Ok(())
}

/// A datagram from the client's fixed port to the mapped UDP port is answered by `attachment`.
fn answered_by(scene: &Scene<'_>, attachment: &Attachment) -> Result<()> {
    let mapping = mappings(&attachment.config).into_iter().find(|mapping| mapping.protocol == "udp");
    let mapping = mapping.context("ADD had no UDP port mapping")?;
    let inside = scene.namespace(&attachment.netns)?;
    let address = mapping.host_ip.unwrap_or(scene.site.node().addresses[0]);
    let server = traffic::udp(inside, address, mapping.container_port)?;
    let client = scene.site.lab().client();
    let socket = traffic::udp(client, address, SOURCE)?;
    let target = SocketAddr::new(address, mapping.host_port);
    ensure!(
        traffic::udp_answered(&socket, target, &server, PATIENCE)?,
        "{target} from port {SOURCE} of {} is not answered by {}",
        client.name(),
        attachment.key()
    );
    Ok(())
}

pub(super) fn fixed_source_port(scene: &mut Scene<'_>) -> Result<()> {
    answered_by(scene, scene.subject()?)
}

pub(super) fn new_container_answers(scene: &mut Scene<'_>) -> Result<()> {
    answered_by(scene, newest(scene)?)
}

pub(super) fn rates_are_limited(scene: &mut Scene<'_>) -> Result<()> {
    let subject = scene.subject()?;
    let inside = scene.namespace(&subject.netns)?;
    let client = scene.site.lab().client();
    let address = subject.address()?;
    let outside = crate::conformance::site::Site::client_address(address);
    let to = || rate_is(TO, "to", || traffic::tcp_rate(client, inside, address, BURST, TIME));
    let from = || rate_is(FROM, "from", || traffic::tcp_rate(inside, client, outside, BURST, TIME));
    std::thread::scope(|scope| {
        let to = scope.spawn(to);
        let from = from();
        let Ok(to) = to.join() else { bail!("the thread of a measurement panicked") };
        to.and(from)
    })
}

/// Measures until the rate is as wanted: a busy machine makes one measurement too low, a wrong limit makes all wrong.
fn rate_is(wanted: f64, name: &str, measure: impl Fn() -> Result<f64>) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..MEASUREMENTS {
        let rate = measure()?;
        if (rate - wanted).abs() <= wanted * OFF {
            return Ok(());
        }
        seen.push(format!("{:.1}", rate / 1e6));
    }
    bail!("{} Mbit/s {name} the container instead of {:.0}", seen.join(", then "), wanted / 1e6)
}
