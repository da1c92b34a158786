// SPDX-License-Identifier: Apache-2.0

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::Deed;
use crate::conformance::attached;
use crate::conformance::attachment::Attachment;
use crate::conformance::scene::Scene;
use crate::conformance::stage::{FOREIGN_ADDRESS, FOREIGN_MAC};
use crate::lab::Wait;

/// Preparations.
pub(crate) const WORDS: &[(&str, Deed)] = &[
    ("DEL one of the other containers", del_a_filler),
    ("agent up but the datapath programs or the overlay device are gone", lose_the_uplink_programs),
    ("agent waits for its first object list", wait_for_objects),
    ("another plugin created a veth pair eth0/${HOSTIF} with 10.1.0.5/16", foreign_pair),
    ("change the MAC of eth0 to ${NEWMAC}, add a route and a second address", later_plugin),
    ("create a regular file ${FILE}", regular_file),
    ("create dummy eth0 in ${NS}", foreign_interface),
    ("delete and recreate the netns under the same path", recreate_namespace),
    ("delete netns ${NS}-b without DEL", |scene| delete_namespace(scene, "-b")),
    ("delete the netns", |scene| delete_namespace(scene, "")),
    ("delete the netns but keep its path in CNI_NETNS", |scene| delete_namespace(scene, "")),
    ("detach the datapath program or delete the endpoint entry of the container", lose_the_pod_programs),
    ("dummy eth0 already in ${NS}", foreign_interface),
    ("exhaust the pool", exhaust),
    ("exhaust the pool with other containers", exhaust),
    ("ip addr del ADDRESS dev eth0 in ${NS}", |scene| {
        let networks = super::result::addresses(&scene.attachment("${CID}", "eth0")?.result);
        let network = *networks.first().context("the result has no address")?;
        inside(scene, &format!("address del {network} dev eth0"))
    }),
    ("ip link del HOSTIF on the host", |scene| {
        let name = host_end(scene)?;
        scene.site.host().ip(&format!("link del {name}"))
    }),
    ("ip link del eth0 in ${NS}", |scene| inside(scene, "link del eth0")),
    ("ip link set eth0 down in ${NS}", |scene| inside(scene, "link set eth0 down")),
    ("ip route del default in ${NS}", |scene| inside(scene, "route del default")),
    ("make the agent fail after address allocation", |scene| {
        scene.site.node().arm("agent.add.after_journal", "error")
    }),
    ("start the agent", |scene| scene.site.start_agent()),
    ("stop the agent", |scene| scene.site.stop_agent()),
    ("stop the agent, datapath still loaded", |scene| scene.site.stop_agent()),
    ("the other plugin already removed eth0", |scene| {
        let path = scene.text("NS")?;
        scene.ensure_namespace(&path)
    }),
    ("two stale attachments, make the removal of one fail", two_stale_attachments),
];

/// Runs `ip` inside of `${NS}`, which is made when it is the first time.
fn inside(scene: &mut Scene<'_>, lines: &str) -> Result<()> {
    let path = scene.text("NS")?;
    scene.ensure_namespace(&path)?;
    scene.namespace(&path)?.ip(lines)
}

fn delete_namespace(scene: &mut Scene<'_>, suffix: &str) -> Result<()> {
    let path = scene.text("NS")? + suffix;
    scene.delete_namespace(&path);
    Ok(())
}

/// Another container takes the path over; where the step then removes the old one and looks at the new one, the new
/// one must be there before.
fn recreate_namespace(scene: &mut Scene<'_>) -> Result<()> {
    let path = scene.text("NS")?;
    scene.replace_namespace(&path)?;
    let looks = scene.coming.effects.iter().any(|word| word == super::effects::NEW_CONTAINER_WORKS);
    if looks && scene.coming.command == "DEL" {
        let container = scene.text("CID")? + "-new";
        let attachment = add(scene, container, path)?.context("ADD of the new container")?;
        scene.attachments.push(attachment);
    }
    Ok(())
}

/// Name of the host's end of `${CID}`'s eth0.
fn host_end(scene: &Scene<'_>) -> Result<String> {
    let attachment = scene.attachment("${CID}", "eth0")?;
    scene.host_ends(attachment).into_iter().next().context("the result has no interface of the host")
}

/// A bridge without ports stands in for a dummy: any interface that is not ours will do.
fn foreign_interface(scene: &mut Scene<'_>) -> Result<()> {
    inside(scene, "link add eth0 address 02:77:00:00:00:01 type bridge\naddress add 198.51.100.9/24 dev eth0")
}

fn regular_file(scene: &mut Scene<'_>) -> Result<()> {
    let path = scene.text("FILE")?;
    std::fs::write(&path, "no namespace\n").with_context(|| format!("write {path}"))?;
    scene.finally(move |_| Ok(std::fs::remove_file(path)?));
    Ok(())
}

fn foreign_pair(scene: &mut Scene<'_>) -> Result<()> {
    let (path, host) = (scene.text("NS")?, scene.text("HOSTIF")?);
    scene.ensure_namespace(&path)?;
    let name = scene.namespace(&path)?.name().to_owned();
    scene.site.host().ip(&format!(
        "link add {host} type veth peer name eth0 address {FOREIGN_MAC} netns {name}
        link set {host} up
        address add 10.1.0.1/16 dev {host}"
    ))?;
    scene.finally(move |scene| {
        let there = scene.site.host().ip_show(&format!("link show dev {host}")).is_ok();
        if there { scene.site.host().ip(&format!("link del {host}")) } else { Ok(()) }
    });
    inside(
        scene,
        &format!(
            "link set eth0 up
            address add {FOREIGN_ADDRESS} dev eth0
            route add default via 10.1.0.1"
        ),
    )
}

fn later_plugin(scene: &mut Scene<'_>) -> Result<()> {
    let mac = scene.text("NEWMAC")?;
    inside(
        scene,
        &format!(
            "link set dev eth0 address {mac}
            address add 198.51.100.77/32 dev eth0
            route add 198.51.100.128/25 dev eth0"
        ),
    )
}

fn lose_the_uplink_programs(scene: &mut Scene<'_>) -> Result<()> {
    scene.site.disturb();
    let node = scene.site.node();
    attached::detach(node.namespace(), "eth0", node.bpffs())
}

fn lose_the_pod_programs(scene: &mut Scene<'_>) -> Result<()> {
    let host = host_end(scene)?;
    scene.site.disturb();
    let node = scene.site.node();
    attached::detach(node.namespace(), &host, node.bpffs())
}

/// The agent runs on a store that is not there yet.
fn wait_for_objects(scene: &mut Scene<'_>) -> Result<()> {
    let absent = scene.plugins.path().join("no-store-yet");
    scene.finally(|scene| scene.site.stop_agent());
    scene.site.start_agent_oddly(|options| {
        options.store = Some(absent);
        options.wait = Wait::Serving;
    })
}

/// ADD of a container that the case does not name, by a suffix to those that it does.
fn add_beside(scene: &mut Scene<'_>, suffix: &str) -> Result<Option<Attachment>> {
    let (container, path) = (scene.text("CID")? + suffix, scene.text("NS")? + suffix);
    add(scene, container, path)
}

fn add(scene: &mut Scene<'_>, container: String, path: String) -> Result<Option<Attachment>> {
    scene.ensure_namespace(&path)?;
    let config = scene.podnet();
    let made = scene.run(scene.container_env("ADD", &container, &path), &config)?;
    Ok(made.outcome.succeeded().then(|| Attachment {
        container,
        ifname: "eth0".to_owned(),
        netns: path,
        result: made.outcome.json().unwrap_or_default(),
        config,
        removed: false,
    }))
}

fn exhaust(scene: &mut Scene<'_>) -> Result<()> {
    for number in 0..64 {
        match add_beside(scene, &format!("-f{number}"))? {
            Some(filler) => scene.fillers.push(filler),
            None if number == 0 => bail!("not even the first container got an address"),
            None => return Ok(()),
        }
    }
    bail!("64 containers did not exhaust the pool")
}

fn del_a_filler(scene: &mut Scene<'_>) -> Result<()> {
    let filler = scene.fillers.pop().context("no other container is left")?;
    let mut config = filler.config.clone();
    config["prevResult"] = filler.result.clone();
    let made = scene.run(scene.container_env("DEL", &filler.container, &filler.netns), &config)?;
    ensure!(made.outcome.succeeded(), "DEL of {}: {}", filler.container, made.outcome);
    Ok(())
}

fn two_stale_attachments(scene: &mut Scene<'_>) -> Result<()> {
    for suffix in ["-x", "-y"] {
        let attachment = add_beside(scene, suffix)?.context("ADD of a container that is to be stale")?;
        scene.attachments.push(attachment);
    }
    // Stale as a runtime leaves it behind: the container is gone, and nobody called DEL.
    let (gone, refusing) = (scene.text("NS")? + "-y", scene.text("CID")? + "-x");
    scene.delete_namespace(&gone);
    scene.variables.set("stale", json!(scene.text("CID")? + "-y"));
    scene.site.node().arm(&format!("agent.del.before_remove@{refusing}"), "error")
}
