// SPDX-License-Identifier: Apache-2.0
//! The demo: a small cluster, four pods through the real plugin, real requests, and an account of it for a person.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rhumb_model::Prefix;
use serde_json::Value;

use crate::lab::{HttpServer, Lab, Namespace, Pod, Process, Spec, http_post};
use crate::print::{Paint, Table, millis};

const PATH: &str = "/v1/request-landing";
const ANSWER: &str = "Ship landed";
const PATIENCE: Duration = Duration::from_secs(3);
/// Pods and the node, counted from 0, on which each runs.
const CAST: [(&str, usize); 4] = [("deathstar-1", 0), ("deathstar-2", 1), ("xwing", 0), ("tiefighter", 1)];

/// The death star's server, in the namespace of the calling process.
///
/// # Errors
/// When port 80 is taken, or the socket fails.
pub fn serve() -> Result<()> {
    HttpServer::serve_for_life(80, PATH, ANSWER)
}

/// Whether the lab stays up after the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is removed.
    Remove,
    /// It stays, and the account says how to enter it.
    Keep,
}

struct Actor {
    pod: Pod,
    node: usize,
}

/// One request and what became of it.
struct Journey<'a> {
    from: String,
    to: &'a str,
    way: &'static str,
    took: Vec<Result<Duration>>,
}

/// Plays the demo; gives whether every request was answered.
///
/// # Errors
/// When the lab cannot be built or started, a pod cannot be made, or `out` cannot be written.
pub fn play(after: After, paint: Paint, out: &mut impl Write) -> Result<bool> {
    let started = Instant::now();
    writeln!(
        out,
        "{}",
        paint.bold("rhumb: two nodes, a router, a client, all network namespaces of this machine")
    )?;
    let spec = Spec::named("demo");
    let mut lab = if after == After::Keep { Lab::build_to_keep(spec)? } else { Lab::build(spec)? };
    lab.start()?;
    writeln!(out, "  operator and agents ready after {}\n", millis(started.elapsed()))?;

    let actors = CAST.map(|(name, node)| Ok(Actor { pod: lab.node(node).add_pod("default", name)?, node }));
    let actors = actors.into_iter().collect::<Result<Vec<Actor>>>()?;
    tell_pods(&lab, &actors, paint, out)?;
    tell_routes(&lab, paint, out)?;

    let deathstars: Vec<&Actor> =
        actors.iter().filter(|actor| actor.pod.name.starts_with("deathstar")).collect();
    let servers =
        deathstars.iter().map(|star| lab.start_program("rhumb-demo", &["serve"], &star.pod.namespace));
    let servers = servers.collect::<Result<Vec<Process>>>()?;
    let journeys = travel(&lab, &actors, &deathstars);
    let landed = tell_journeys(&journeys, paint, out)?;
    drop(servers);

    tell_counters(&lab, paint, out)?;
    if after == After::Keep {
        tell_how_to_enter(&lab, &actors, paint, out)?;
        for mut actor in actors {
            actor.pod.namespace.keep();
        }
        lab.keep()?;
    } else {
        for actor in actors {
            lab.node(actor.node).del_pod(actor.pod)?;
        }
        lab.close()?;
    }
    Ok(landed)
}

fn travel<'a>(lab: &Lab, actors: &'a [Actor], deathstars: &[&'a Actor]) -> Vec<Journey<'a>> {
    let mut journeys = Vec::new();
    let ships = actors.iter().filter(|actor| !actor.pod.name.starts_with("deathstar"));
    let mut starts: Vec<(String, &Namespace, Option<usize>)> =
        ships.map(|ship| (ship.pod.name.clone(), &ship.pod.namespace, Some(ship.node))).collect();
    for (number, node) in lab.nodes().iter().enumerate() {
        starts.push((format!("node {}", node.name), node.namespace(), Some(number)));
    }
    starts.push(("client".to_owned(), lab.client(), None));
    for (from, namespace, node) in starts {
        for star in deathstars {
            let way = match node {
                Some(node) if node == star.node => "same node",
                Some(_) => "across nodes",
                None => "through the router",
            };
            let took = star.pod.addresses.iter().map(|address| land(namespace, *address)).collect();
            journeys.push(Journey { from: from.clone(), to: &star.pod.name, way, took });
        }
    }
    journeys
}

fn land(from: &Namespace, to: IpAddr) -> Result<Duration> {
    let reply = http_post(from, SocketAddr::new(to, 80), PATH, PATIENCE)?;
    anyhow::ensure!(
        reply.status == 200 && reply.body == ANSWER,
        "answered {} {:?}",
        reply.status,
        reply.body
    );
    Ok(reply.elapsed)
}

fn tell_pods(lab: &Lab, actors: &[Actor], paint: Paint, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", paint.bold("Pods, made by the CNI plugin"))?;
    let mut table = Table::new(["pod", "node", "IPv4", "IPv6", "ADD"]);
    for Actor { pod, node } in actors {
        let node = lab.node(*node).name.clone();
        table.row([pod.name.clone(), node, pod.v4().to_string(), pod.v6().to_string(), millis(pod.added_in)]);
    }
    Ok(writeln!(out, "{}", table.lines(paint))?)
}

/// Every prefix once, and each node's way to it.
fn tell_routes(lab: &Lab, paint: Paint, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", paint.bold("Routes, made by the agents"))?;
    let mut ways: BTreeMap<Prefix, Vec<String>> = BTreeMap::new();
    for (place, node) in lab.nodes().iter().enumerate() {
        let routes = node.show("route list")?;
        for route in routes.as_array().context("a list of routes")? {
            let word = |name: &str| route.get(name).and_then(Value::as_str).unwrap_or_default();
            let way = match word("kind") {
                "local" => format!("dev {}", word("dev")),
                "direct" => format!("via {} dev {}", word("gateway"), word("dev")),
                "fabric" => format!("the network's route via {}", word("via")),
                "tunnel" => format!("tunnel to {}", word("gateway")),
                "unreachable" => "own, unreachable unless a pod has it".to_owned(),
                _ => "no way".to_owned(),
            };
            let cells =
                ways.entry(word("prefix").parse()?).or_insert_with(|| vec![String::new(); lab.nodes().len()]);
            cells[place] = way;
        }
    }
    tell_by_node(
        lab,
        ["prefix"],
        ways.into_iter().map(|(prefix, cells)| ([prefix.to_string()], cells)),
        paint,
        out,
    )
}

/// A table with a column per node.
fn tell_by_node<const N: usize>(
    lab: &Lab,
    titles: [&str; N],
    rows: impl Iterator<Item = ([String; N], Vec<String>)>,
    paint: Paint,
    out: &mut impl Write,
) -> Result<()> {
    let names = lab.nodes().iter().map(|node| format!("on {}", node.name));
    let mut table = Table::with_titles(titles.map(str::to_owned).into_iter().chain(names));
    for (keys, cells) in rows {
        table.add(keys.into_iter().chain(cells));
    }
    Ok(writeln!(out, "{}", table.lines(paint))?)
}

fn tell_journeys(journeys: &[Journey<'_>], paint: Paint, out: &mut impl Write) -> Result<bool> {
    writeln!(out, "{}", paint.bold(&format!("POST {PATH}")))?;
    let mut table = Table::new(["from", "to", "way", "IPv4", "IPv6"]);
    let mut failures = Vec::new();
    for journey in journeys {
        let cells: Vec<String> =
            journey.took.iter().map(|took| took.as_ref().map_or("no".into(), |t| millis(*t))).collect();
        let [v4, v6] = cells.try_into().ok().context("a pod has an address of each family")?;
        table.row([journey.from.clone(), journey.to.to_owned(), journey.way.to_owned(), v4, v6]);
        failures.extend(journey.took.iter().filter_map(|took| took.as_ref().err()));
    }
    write!(out, "{}", table.lines(paint))?;
    for failure in &failures {
        writeln!(out, "  {}", paint.bad(&format!("{failure:#}")))?;
    }
    let requests: usize = journeys.iter().map(|journey| journey.took.len()).sum();
    let verdict = format!("{} of {requests} requests answered \"{ANSWER}\"", requests - failures.len());
    writeln!(out, "  {}\n", if failures.is_empty() { paint.good(&verdict) } else { paint.bad(&verdict) })?;
    Ok(failures.is_empty())
}

fn tell_how_to_enter(lab: &Lab, actors: &[Actor], paint: Paint, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", paint.bold("The lab stays up"))?;
    let mut table = Table::new(["to enter", "run"]);
    let pods = actors.iter().map(|actor| (actor.pod.name.as_str(), &actor.pod.namespace));
    let nodes = lab.nodes().iter().map(|node| (node.name.as_str(), node.namespace()));
    let others = [("router", lab.router()), ("client", lab.client())];
    for (what, namespace) in pods.chain(nodes).chain(others) {
        table.row([what.to_owned(), format!("nsenter --net={} bash", namespace.path().display())]);
    }
    write!(out, "{}", table.lines(paint))?;
    for node in lab.nodes() {
        let rhumb = lab.binaries().path("rhumb");
        writeln!(out, "  {} --run-dir {} status", rhumb.display(), node.run_dir().display())?;
    }
    let ship = actors.iter().find(|actor| actor.pod.name == "xwing").context("the xwing is there")?;
    let star =
        actors.iter().find(|actor| actor.pod.name == "deathstar-2").context("the death star is there")?;
    let netns = ship.pod.namespace.path().display();
    writeln!(out, "  nsenter --net={netns} curl -X POST http://{}{PATH}", star.pod.v4())?;
    writeln!(out, "  objects: {}   logs: {}", lab.store_dir().display(), lab.home().display())?;
    Ok(writeln!(out, "  remove it: cargo xtask lab down")?)
}

/// Packets by reason and direction, and the agent's memory, per node.
fn tell_counters(lab: &Lab, paint: Paint, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", paint.bold("Packets by reason, as the datapath counted them"))?;
    let mut counts: BTreeMap<[String; 2], Vec<String>> = BTreeMap::new();
    for (place, node) in lab.nodes().iter().enumerate() {
        for (direction, reason, packets) in node.packets()? {
            let cells =
                counts.entry([direction, reason]).or_insert_with(|| vec!["0".to_owned(); lab.nodes().len()]);
            cells[place] = packets.to_string();
        }
    }
    tell_by_node(lab, ["direction", "reason"], counts.into_iter(), paint, out)?;
    let memory: Vec<String> = lab
        .nodes()
        .iter()
        .map(|node| Ok(format!("{} {:.1} MiB", node.name, node.agent_rss_kib()? as f64 / 1024.0)))
        .collect::<Result<_>>()?;
    Ok(writeln!(out, "Resident memory of the agents: {}\n", memory.join(", "))?)
}
