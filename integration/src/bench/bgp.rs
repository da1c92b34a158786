// SPDX-License-Identifier: Apache-2.0

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::report::{Aim, Measure, Report};
use crate::lab::Binaries;

/// Names the harness: a program that puts a speaker between one that tells routes and one that hears them.
const HARNESS: &str = "RHUMB_BGP_BENCH";
const ROUTES: u32 = 100_000;
/// Runs of each speaker, one after the other, so that all have the same machine.
const RUNS: usize = 3;
/// Routes of the node itself that nobody is told: the harness counts the largest table, and from here on that is ours.
const OWN: u32 = 64;
const NOTE: &str = "100,000 IPv4 routes, 200 to an UPDATE with attributes of its own, from one peer to another through each speaker in turn; \
    CPU of all its threads until the last route was told (with the kernel: until it is in the kernel as well). Medians of three runs.";

/// What the harness says of a run.
#[derive(Debug, Clone, Deserialize)]
struct Run {
    /// Seconds until the last route was told.
    out: Option<f64>,
    /// Seconds until the last route was in the kernel.
    fib: Option<f64>,
    /// Processor time in seconds.
    cpu: f64,
    /// Memory in MB, at the end and at most.
    rss: f64,
    hwm: f64,
}

/// Whether routes are put into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    With,
    Without,
}

struct Harness {
    script: PathBuf,
    speaker: PathBuf,
    folder: tempfile::TempDir,
}

/// The speaker beside BIRD, FRR, GoBGP and OpenBGPD: processor time, memory, latency.
///
/// # Errors
/// When the harness is not named, or a run of it fails.
pub fn bgp() -> Result<Report> {
    let script = std::env::var_os(HARNESS).map(PathBuf::from);
    let Some(script) = script else { bail!("{HARNESS} is to name the harness (bgpbench.py)") };
    let harness =
        Harness { script, speaker: Binaries::find()?.path("rhumb-bgp"), folder: tempfile::tempdir()? };
    let mut report = Report::new("bgp", NOTE);
    tables(&harness, &mut report)?;
    one_route(&harness, &mut report)?;
    Ok(report)
}

fn tables(harness: &Harness, report: &mut Report) -> Result<()> {
    let (without, with) = (Kernel::Without, Kernel::With);
    let mut alone: [Vec<Run>; 5] = Default::default();
    let mut kernel: [Vec<Run>; 3] = Default::default();
    for _ in 0..RUNS {
        for (runs, name) in alone.iter_mut().zip(["rhumb", "bird", "frr", "openbgpd", "gobgp"]) {
            runs.push(harness.run(name, ROUTES, 200, without)?);
        }
        for (runs, name) in kernel.iter_mut().zip(["rhumb", "bird", "frr"]) {
            runs.push(harness.run(name, ROUTES, 200, with)?);
        }
    }
    let cpu = |runs: &[Run]| runs.iter().map(|run| 1000.0 * run.cpu).collect::<Vec<_>>();
    let [ours, bird, frr, openbgpd, gobgp] = &alone;
    let name = || "CPU, no kernel".to_owned();
    for (peer, runs, aim) in [
        ("frr", frr, Aim::RatioAtMost(0.5)),
        ("openbgpd", openbgpd, Aim::RatioAtMost(0.5)),
        ("bird", bird, Aim::None),
        ("gobgp", gobgp, Aim::None),
    ] {
        report.add(Measure::beside(name(), "ms", &cpu(ours), (peer, &cpu(runs)), aim));
    }
    let [ours_kernel, bird_kernel, frr_kernel] = &kernel;
    let name = || "CPU, with kernel routes".to_owned();
    for (peer, runs, aim) in
        [("frr", frr_kernel, Aim::RatioAtMost(0.3)), ("bird", bird_kernel, Aim::RatioAtMost(1.5))]
    {
        report.add(Measure::beside(name(), "ms", &cpu(ours_kernel), (peer, &cpu(runs)), aim));
    }
    let fib = |runs: &[Run]| -> Result<Vec<f64>> {
        runs.iter()
            .map(|run| run.fib.map(|time| 1000.0 * time).context("routes are not in the kernel"))
            .collect()
    };
    let name = || "time until in the kernel".to_owned();
    for (peer, runs) in [("frr", frr_kernel), ("bird", bird_kernel)] {
        report.add(Measure::beside(name(), "ms", &fib(ours_kernel)?, (peer, &fib(runs)?), Aim::None));
    }
    let resident = |runs: &[Run]| runs.iter().map(|run| run.rss).collect::<Vec<_>>();
    let most = |runs: &[Run]| runs.iter().map(|run| run.hwm).collect::<Vec<_>>();
    report.add(Measure::alone("memory, no kernel", "MB", &resident(ours), Aim::AtMost(60.0)));
    report.add(Measure::alone("memory, with kernel routes", "MB", &resident(ours_kernel), Aim::AtMost(60.0)));
    report.add(Measure::alone("memory at most, with kernel routes", "MB", &most(ours_kernel), Aim::None));
    for (peer, runs) in [("bird", bird_kernel), ("frr", frr_kernel)] {
        let name = "memory, with kernel routes".to_owned();
        report.add(Measure::beside(name, "MB", &resident(ours_kernel), (peer, &resident(runs)), Aim::None));
    }
    Ok(())
}

fn one_route(harness: &Harness, report: &mut Report) -> Result<()> {
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..RUNS {
        for (times, name) in times.iter_mut().zip(["rhumb", "bird", "frr"]) {
            let run = harness.run(name, 1, 1, Kernel::Without)?;
            times.push(1000.0 * run.out.context("the route does not arrive")?);
        }
    }
    let [ours, bird, frr] = &times;
    report.add(Measure::alone("one route through", "ms", ours, Aim::AtMost(2.0)));
    for (peer, times) in [("bird", bird), ("frr", frr)] {
        report.add(Measure::beside("one route through".to_owned(), "ms", ours, (peer, times), Aim::None));
    }
    Ok(())
}

impl Harness {
    fn run(&self, name: &str, routes: u32, pack: u32, kernel: Kernel) -> Result<Run> {
        let mut command = Command::new("python3");
        command.arg(&self.script).arg("run");
        command.args(["--routes", &routes.to_string(), "--pack", &pack.to_string()]);
        if kernel == Kernel::Without {
            command.arg("--nofib");
        }
        if name == "rhumb" {
            command.args(["--dut", "cmd", "--cmd", &self.speaker_with(kernel)?]);
        } else {
            command.args(["--dut", name]);
        }
        let watch = (name == "rhumb").then(|| Watch::start(self.speaker.clone()));
        let output = command.output().with_context(|| format!("run {}", self.script.display()))?;
        let (said, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the harness failed for {name}: {said}{wrong}");
        let line = said.lines().find(|line| line.starts_with('{')).context("the harness says nothing")?;
        let mut run: Run = serde_json::from_str(line).with_context(|| format!("understand {line}"))?;
        if let (Some(watch), Some(fib)) = (watch, run.fib) {
            run.cpu = watch.until(Duration::from_secs_f64(fib))?;
        }
        Ok(run)
    }

    /// The command line of ours, with a configuration for the harness' addresses and systems.
    fn speaker_with(&self, kernel: Kernel) -> Result<String> {
        let (table, file) = match kernel {
            Kernel::With => ("7268", "with.json"),
            Kernel::Without => ("0", "without.json"),
        };
        let path = self.folder.path().join(file);
        std::fs::write(&path, configuration().to_string())?;
        Ok(format!("exec {} --config {} --table {table}", quoted(&self.speaker)?, quoted(&path)?))
    }
}

/// Looks at the processor time of a process while it runs. The harness adds up the threads that there are, and the
/// speaker's writes to the kernel are made by threads that end.
struct Watch {
    stop: Arc<AtomicBool>,
    samples: JoinHandle<Vec<(Instant, u64)>>,
}

/// Time between two looks, and time without work after which work counts as the routes'.
const LOOK: Duration = Duration::from_millis(10);
const IDLE: Duration = Duration::from_secs(1);
/// Ticks in a second, in which the kernel tells processor time.
const TICKS: f64 = 100.0;

impl Watch {
    fn start(program: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let samples = std::thread::spawn(move || {
            let mut samples = Vec::new();
            let mut found = None;
            while !stopped.load(Ordering::Relaxed) {
                found = found.or_else(|| process_of(&program));
                samples.extend(found.and_then(ticks).map(|ticks| (Instant::now(), ticks)));
                std::thread::sleep(LOOK);
            }
            samples
        });
        Self { stop, samples }
    }

    /// Seconds of processor time from the first work after a pause on, until so long after it.
    fn until(self, after: Duration) -> Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.samples.join().map_err(|_| anyhow::anyhow!("the watch broke off"))?;
        let mut quiet: Option<(Instant, u64)> = None;
        for (at, ticks) in &samples {
            match quiet {
                Some((since, before)) if *ticks > before && at.duration_since(since) >= IDLE => {
                    // A little longer: a tick that was begun is told when it is over.
                    let end = *at + after + 5 * LOOK;
                    let last = samples.iter().take_while(|(at, _)| *at <= end).last();
                    return Ok((last.map_or(*ticks, |(_, ticks)| *ticks) - before) as f64 / TICKS);
                }
                Some((_, before)) if *ticks == before => {}
                Some(_) | None => quiet = Some((*at, *ticks)),
            }
        }
        bail!("the speaker did nothing")
    }
}

/// The process that runs a program.
fn process_of(program: &Path) -> Option<u32> {
    let all =
        std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut all = all;
    all.find(|process: &u32| {
        std::fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|exe| exe == program)
    })
}

/// Its processor time, in user and in system mode, with that of threads that have ended (proc(5)).
fn ticks(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn quoted(path: &Path) -> Result<&str> {
    let text = path.to_str().context("a path that is text")?;
    ensure!(!text.contains([' ', '\'', '"']), "a path without blanks and quotes: {text}");
    Ok(text)
}

fn configuration() -> Value {
    let own: Vec<Value> = (0..OWN).map(discarded).collect();
    json!({
        "revision": 1,
        "instances": [{
            "name": "bench", "asn": 65000, "router_id": "198.18.1.1", "listen": ["0.0.0.0:179"],
            "cluster_id": null, "multipath": 1, "own": [], "peers": [peer(1), peer(2)], "routes": own,
        }],
    })
}

/// A route of the node that nobody is told and that drops packets: it is in the kernel.
fn discarded(number: u32) -> Value {
    json!({
        "prefix": format!("198.51.{number}.0/24"), "kind": "pool", "next_hop": "own", "discard": true,
        "attributes": {"communities": [], "large_communities": [], "local_pref": null, "med": null},
        "recipients": {"only": []}, "exceptions": {},
    })
}

fn peer(number: u32) -> Value {
    let changes = json!({
        "local_pref": null, "med": null, "prepend": 0, "remove_communities": [], "add_communities": [],
        "remove_large_communities": [], "add_large_communities": [],
    });
    let all = json!({
        "prefixes": [], "communities": [], "large_communities": [], "kinds": [], "neighbours": [],
    });
    let policy = json!({"rules": [{"name": "all", "match": all, "action": {"accept": changes}}]});
    json!({
        "key": format!("peer{number}"), "address": {"ip": format!("198.18.{number}.2")},
        "asn": {"number": 65000 + number}, "port": 179, "local_asn": null, "local_address": null,
        "source_interface": null, "md5": null, "ttl": "direct", "passive": true,
        "timers": {"hold_time": 90, "keepalive": 30, "connect_retry": 5},
        "families": [{
            "family": "ipv4", "max_prefixes": null, "extended_next_hop": false, "next_hop_self": false,
        }],
        "graceful_restart": null, "import": policy, "export": policy, "route_reflector_client": false,
        "bfd": null, "shutdown": null,
    })
}
