// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask test`: every check of the project, stage by stage.
//!
//! A stage that fails does not keep the later ones from running, unless they need what it makes; the summary at the
//! end names each. A test that was skipped (cargo's `ignored`) is a failure.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::build::{self, Profile};
use crate::integration::program;
use crate::run::{cargo, line, run};
use crate::setup::{self, Part};
use crate::workspace::Workspace;
use crate::{lint, preflight, tidy, vm};

/// The crates that build or run BPF programs.
const PRIVILEGED: &[&str] = &["rhumb-ebpf", "rhumb-agent", "rhumb-integration"];

/// Tests that ask a program of these crates, by what their names have in common.
const BY_COMMAND: &str = "rhumb_ip_explain";

/// The files of cases that every run checks.
const CNI_CASES: &[&str] = &["integration/cases/cni.yaml", "integration/cases/cni-more.yaml"];

/// Everything.
pub(crate) fn run_all(workspace: &Workspace) -> anyhow::Result<()> {
    preflight::machine()?;
    setup::install(&[Part::Build, Part::Check, Part::Lab, Part::Machine])?;
    preflight::kernel_features()?;
    let tests = Workspace::tests(workspace.packages());

    let mut stages = Stages::default();
    stages.run("tidy", || tidy::run(workspace));
    stages.run("lint", || lint::run_all(workspace));
    if stages.run("build", || build::programs(workspace, Profile::Dev)) {
        let mut plain = cargo(workspace.root());
        plain.args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]).args(by_name(&tests.plain));
        stages.tests("unit and property tests", &mut plain);
        stages.tests(
            "documentation tests",
            cargo(workspace.root()).args(["test", "--workspace", "--no-fail-fast", "--doc"]),
        );
        if !tests.root.is_empty() {
            let mut root = cargo(workspace.root());
            root.args(["test", "--workspace", "--no-fail-fast"]).args(by_name(&tests.root));
            // Labs share the kernel's BPF objects, cgroups and processors.
            root.args(["--", "--test-threads=1"]);
            stages.tests("tests on the real kernel", &mut root);
        }
        stages.run("kernel 6.1", || vm::run(workspace, &[]));
        for file in CNI_CASES {
            stages.run("conformance cni", || {
                let cases = workspace.root().join(file);
                run(program(workspace, Profile::Dev, "rhumb-conformance").args(["cni", "--cases"]).arg(cases))
            });
        }
        stages.run("demo", || run(&mut program(workspace, Profile::Dev, "rhumb-demo")));
    }
    stages.finish()
}

/// What needs no root, no BPF toolchain and no namespaces.
pub(crate) fn run_unprivileged(workspace: &Workspace) -> anyhow::Result<()> {
    setup::install(&[Part::Check])?;
    let packages: Vec<_> =
        workspace.packages().iter().filter(|package| !PRIVILEGED.contains(&package.name.as_str())).collect();
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let tests = Workspace::tests(packages.iter().copied());

    let mut stages = Stages::default();
    stages.run("tidy", || tidy::run(workspace));
    stages.run("lint", || lint::run_some(workspace, &names));
    let chosen: Vec<&str> = names.iter().flat_map(|name| ["-p", name]).collect();
    let mut plain = cargo(workspace.root());
    plain.args(["test", "--no-fail-fast", "--lib", "--bins"]).args(&chosen).args(by_name(&tests.plain));
    plain.args(["--", "--skip", BY_COMMAND]);
    stages.tests("unit and property tests", &mut plain);
    stages.tests(
        "documentation tests",
        cargo(workspace.root()).args(["test", "--no-fail-fast", "--doc"]).args(&chosen),
    );
    println!("\nleft out by --unprivileged:");
    println!("  crates that build or load BPF programs: {}", PRIVILEGED.join(", "));
    println!("  tests on the real kernel: {}", tests.root.join(", "));
    println!("  tests that ask a program of those crates: {BY_COMMAND}");
    println!("  the datapath and the demo on kernel 6.1 in a virtual machine");
    println!("  conformance cni ({}), demo", CNI_CASES.join(", "));
    stages.finish()
}

fn by_name(tests: &[String]) -> impl Iterator<Item = &str> {
    tests.iter().flat_map(|name| ["--test", name])
}

/// What ran, how it went and how long it took.
#[derive(Default)]
struct Stages {
    rows: Vec<(&'static str, Duration, Result<(), String>)>,
    counts: Counts,
}

impl Stages {
    /// Runs one stage; returns whether it went well.
    fn run(&mut self, name: &'static str, stage: impl FnOnce() -> anyhow::Result<()>) -> bool {
        println!("\n== {name}");
        let start = Instant::now();
        let result = stage().map_err(|error| format!("{error:#}"));
        if let Err(error) = &result {
            println!("{name}: {error}");
        }
        let ok = result.is_ok();
        self.rows.push((name, start.elapsed(), result));
        ok
    }

    /// Runs a cargo test command and counts.
    fn tests(&mut self, name: &'static str, command: &mut Command) {
        let mut counts = Counts::default();
        self.run(name, || count(command, &mut counts));
        self.counts.add(&counts);
    }

    fn finish(self) -> anyhow::Result<()> {
        println!("\n== summary");
        for (name, time, result) in &self.rows {
            let verdict = if result.is_ok() { "ok" } else { "FAILED" };
            println!("{name:<26} {verdict:<7} {:>6.1} s", time.as_secs_f64());
        }
        let Counts { passed, failed, ignored } = self.counts;
        println!("tests: {passed} passed, {failed} failed, {ignored} skipped");
        let failed: Vec<&str> =
            self.rows.iter().filter(|(_, _, result)| result.is_err()).map(|(name, ..)| *name).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

/// Tests as cargo counts them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// Takes a line like `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; …`.
    fn take(&mut self, line: &str) {
        let Some((_, numbers)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in numbers.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Runs `command`, passes its lines on, and counts the tests in them.
fn count(command: &mut Command, counts: &mut Counts) -> anyhow::Result<()> {
    let line = line(command);
    println!("$ {line}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {line}"))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    for text in BufReader::new(stdout).lines() {
        let text = text.with_context(|| format!("read what {line} prints"))?;
        println!("{text}");
        counts.take(&text);
    }
    let status = child.wait().with_context(|| format!("wait for {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    if counts.ignored > 0 {
        bail!("{line}: {} tests were skipped", counts.ignored);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_several_test_programs_add_up() {
        let mut counts = Counts::default();
        counts.take("running 3 tests");
        counts.take(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        counts.take("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(counts, Counts { passed: 5, failed: 4, ignored: 1 });
    }

    #[test]
    fn a_skipped_test_is_a_failure() {
        let mut counts = Counts::default();
        let mut command = Command::new("echo");
        command.arg("test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured");
        assert!(count(&mut command, &mut counts).is_err());
    }

    #[test]
    fn a_failed_stage_is_named_and_the_next_one_runs() {
        let mut stages = Stages::default();
        assert!(!stages.run("first", || bail!("broken")));
        assert!(stages.run("second", || Ok(())));
        assert_eq!(stages.finish().expect_err("one failed").to_string(), "failed: first");
    }
}
