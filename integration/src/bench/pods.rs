// SPDX-License-Identifier: Apache-2.0

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::report::{Aim, Measure, Report, percentile};
use crate::lab::{CniCall, Lab, Namespace, Pod, Spec};

const ROUNDS: usize = 100;
const PODS: usize = 100;
const RESTARTS: usize = 5;
const IDLE: Duration = Duration::from_secs(10);
/// Where Debian's containernetworking-plugins are.
const PEERS: &str = "/usr/lib/cni";
const NOTE: &str =
    "Plugins run directly, interleaved round by round; ours gives both families, the peers give IPv4 only.";

/// Latency of ADD and DEL beside the reference plugins, and what pods cost the agent.
///
/// # Errors
/// When the lab does not start, or a call of a plugin fails.
pub fn pods() -> Result<Report> {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("bpods") })?;
    lab.start()?;
    let mut report = Report::new("pods", NOTE);
    latency(&lab, &mut report)?;
    plugin(&lab, &mut report)?;
    agent(&mut lab, &mut report)?;
    lab.close()?;
    Ok(report)
}

/// Milliseconds that ADD and DEL took.
#[derive(Debug, Default)]
struct Times {
    add: Vec<f64>,
    del: Vec<f64>,
}

fn latency(lab: &Lab, report: &mut Report) -> Result<()> {
    let host = lab.namespace("peers")?;
    let peers = [("ptp", ptp(lab)), ("bridge", bridge(lab))];
    let mut ours = Times::default();
    let mut theirs = [Times::default(), Times::default()];
    for round in 0..ROUNDS {
        let node = lab.node(0);
        let pod = node.make_container("default", &format!("pod-{round}"))?;
        let network = node.network();
        ours.add.push(time(|command| Ok(node.cni(&pod.call(command, &network))?.success()?.elapsed), "ADD")?);
        ours.del.push(time(|command| Ok(node.cni(&pod.call(command, &network))?.success()?.elapsed), "DEL")?);
        for ((name, network), times) in peers.iter().zip(&mut theirs) {
            let netns = lab.namespace(&format!("{name}{round}"))?;
            let call = |command: &str| peer(&host, name, network, &netns, command);
            times.add.push(time(call, "ADD")?);
            times.del.push(time(call, "DEL")?);
        }
    }
    let [ptp, bridge] = theirs;
    let no_slower = Aim::RatioAtMost(1.0);
    for (name, ours, ptp, bridge) in
        [("ADD", &ours.add, &ptp.add, &bridge.add), ("DEL", &ours.del, &ptp.del, &bridge.del)]
    {
        report.add(Measure::beside(format!("{name} p50"), "ms", ours, ("ptp", ptp), no_slower));
        report.add(Measure::beside(format!("{name} p50"), "ms", ours, ("bridge", bridge), Aim::None));
        let p99 = |samples: &[f64]| vec![percentile(samples, 99)];
        report.add(Measure::beside(format!("{name} p99"), "ms", &p99(ours), ("ptp", &p99(ptp)), Aim::None));
        report.add(Measure::beside(
            format!("{name} p99"),
            "ms",
            &p99(ours),
            ("bridge", &p99(bridge)),
            Aim::None,
        ));
    }
    report.add(Measure::alone("ADD p50, budget", "ms", &ours.add, Aim::AtMost(20.0)));
    Ok(())
}

fn time(call: impl Fn(&str) -> Result<Duration>, command: &str) -> Result<f64> {
    Ok(call(command)?.as_secs_f64() * 1000.0)
}

fn peer(host: &Namespace, name: &str, network: &Value, netns: &Namespace, command: &str) -> Result<Duration> {
    let program = Path::new(PEERS).join(name);
    ensure!(
        program.is_file(),
        "{} is not there: install Debian's containernetworking-plugins (apt-get install containernetworking-plugins)",
        program.display()
    );
    let path = netns.path().display().to_string();
    let mut call = CniCall::new(command, network.to_string()).about(netns.name(), &path, "eth0");
    call.path = Some(PEERS.to_owned());
    Ok(call.run(&program, host)?.success().with_context(|| format!("{command} of {name}"))?.elapsed)
}

fn ptp(lab: &Lab) -> Value {
    json!({"cniVersion": "1.0.0", "name": "ptp", "type": "ptp", "ipam": host_local(lab, "10.98.0.0/16")})
}

fn bridge(lab: &Lab) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "bridge", "type": "bridge", "bridge": "peer0", "isGateway": true,
        "ipam": host_local(lab, "10.99.0.0/16"),
    })
}

fn host_local(lab: &Lab, subnet: &str) -> Value {
    let data: PathBuf = lab.home().join("host-local");
    json!({
        "type": "host-local", "dataDir": data,
        "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}],
    })
}

/// The plugin as a program: its size, and how long it takes when it has nothing to do.
fn plugin(lab: &Lab, report: &mut Report) -> Result<()> {
    let size = std::fs::metadata(lab.binaries().path("rhumb-cni"))?.len();
    report.add(Measure::alone("size of the plugin", "MB", &[size as f64 / 1e6], Aim::AtMost(5.0)));
    let version = CniCall::new("VERSION", json!({"cniVersion": "1.1.0"}).to_string());
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(lab.node(0).cni(&version)?.success()?.elapsed.as_secs_f64() * 1000.0);
    }
    report.add(Measure::alone("VERSION p50, start to end", "ms", &times, Aim::AtMost(5.0)));
    Ok(())
}

/// The agent: memory, idle load, and start with pods to restore.
fn agent(lab: &mut Lab, report: &mut Report) -> Result<()> {
    let mib = |kib: u64| kib as f64 / 1024.0;
    let fresh = lab.node(0).agent_rss_kib()?;
    report.add(Measure::alone("agent memory, no pods", "MiB", &[mib(fresh)], Aim::None));
    let pods = (0..PODS).map(|number| lab.node(0).add_pod("default", &format!("stay-{number}")));
    let pods = pods.collect::<Result<Vec<Pod>>>()?;
    let full = lab.node(0).agent_rss_kib()?;
    report.add(Measure::alone(&format!("agent memory, {PODS} pods"), "MiB", &[mib(full)], Aim::AtMost(30.0)));

    let before = lab.node_mut(0).agent()?.cpu_time()?;
    let started = Instant::now();
    // Idle time is what is measured.
    std::thread::sleep(IDLE);
    let used = lab.node_mut(0).agent()?.cpu_time()? - before;
    let share = 100.0 * used.as_secs_f64() / started.elapsed().as_secs_f64();
    report.add(Measure::alone(&format!("agent, idle with {PODS} pods"), "% CPU", &[share], Aim::AtMost(0.2)));

    let mut times = Vec::new();
    for _ in 0..RESTARTS {
        lab.node_mut(0).stop_agent()?;
        let started = Instant::now();
        lab.node_mut(0).start_agent()?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    let name = format!("start to ready, {PODS} pods restored");
    report.add(Measure::alone(&name, "ms", &times, Aim::AtMost(1000.0)));
    for pod in pods {
        lab.node(0).del_pod(pod)?;
    }
    Ok(())
}
