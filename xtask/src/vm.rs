// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask vm`: the datapath on the oldest kernel that rhumb runs on, Debian's 6.1, in a virtual machine.
//!
//! ```text
//!  target/vm/kernel/   Debian's package, unpacked ──┐
//!  busybox, ip, tc, …; built programs and tests ────┼─► target/vm/image.cpio ─► qemu ─► console ─► verdict
//!  init: mounts, modules, one check after another ──┘
//! ```
//! The checks are the tests of this tree and the demo, as they are built for the host; each ends with its exit code on
//! the console.

mod archive;
mod image;
mod kernel;
mod machine;
mod report;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use self::image::{PROGRAMS, Placed, inside};
use self::kernel::Kernel;
use self::report::{MARK, Report};
use crate::build::{self, Profile};
use crate::run::{cargo, line};
use crate::workspace::Workspace;

/// Far above what all checks take on two busy processors.
const LIMIT: Duration = Duration::from_secs(600);

/// The instructions that the verifier walked through, by kernel.
const VERIFIED: &str = "ebpf/tests/verified.txt";

/// Something that is run in the machine.
struct Check {
    name: &'static str,
    /// The package whose test file of this name it is; none for a program.
    package: Option<&'static str>,
    /// What is run when nothing is asked for: emulated, the verifier takes seconds for each load of the programs.
    short: &'static str,
    /// What is run when this check is asked for.
    whole: &'static str,
}

/// How much of a check is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Short,
    Whole,
}

const CHECKS: &[Check] = &[
    Check {
        name: "root_verifier",
        package: Some("rhumb-ebpf"),
        short: "programs_do_not_grow_unseen",
        // Its other test measures time, which an emulated processor does not have.
        whole: "programs_do_not_grow_unseen",
    },
    Check {
        name: "root_traffic",
        package: Some("rhumb-ebpf"),
        short: "pods_reach_each_other_without_the_host_stack pods_and_the_wire_reach_each_other \
                pods_reach_the_world_with_the_nodes_address",
        whole: "",
    },
    Check {
        name: "root_tunnel_traffic",
        package: Some("rhumb-ebpf"),
        short: "pods_reach_each_other_through_the_tunnel",
        whole: "",
    },
    Check {
        name: "root_filters",
        package: Some("rhumb-routing"),
        short: "a_program_sees_packets_of_its_hook_alone what_ours_leaves_to_the_next",
        whole: "",
    },
    Check { name: "rhumb-demo", package: None, short: "", whole: "" },
    Check { name: "root_journeys", package: Some("rhumb-ebpf"), short: NONE, whole: "" },
    Check { name: "root_tunnel", package: Some("rhumb-ebpf"), short: NONE, whole: "" },
];

/// A check that is run only when it is asked for.
const NONE: &str = "none";

/// The programs that the demo starts.
const STARTED: &[&str] = &["rhumb-agent", "rhumb-bgp", "rhumb-operator", "rhumb-cni", "rhumb", "rhumb-lab"];

/// Builds what is run, boots the kernel, runs the checks of these names and judges; without a name, as much of the checks
/// as takes about two minutes. `UPDATE=1` takes over the counts of the verifier.
///
/// # Errors
/// Something is missing, or a check fails; the console is printed then.
pub(crate) fn run(workspace: &Workspace, names: &[String]) -> anyhow::Result<()> {
    let wanted = |check: &&Check| {
        if names.is_empty() { check.short != NONE } else { names.iter().any(|name| name == check.name) }
    };
    let checks: Vec<&Check> = CHECKS.iter().filter(wanted).collect();
    ensure!(
        !checks.is_empty(),
        "the checks are {}",
        CHECKS.iter().map(|check| check.name).collect::<Vec<_>>().join(", ")
    );
    let cache = workspace.target().join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let kernel = Kernel::find(&cache)?;
    let image = cache.join("image.cpio");
    let extent = if names.is_empty() { Extent::Short } else { Extent::Whole };
    let update = std::env::var_os("UPDATE").is_some();
    image::write(&image, &kernel, &programs(workspace, &checks)?, &init(workspace, &checks, extent, update))?;
    println!("booting {}", kernel.image.display());
    let console = machine::run(&kernel.image, &image, LIMIT)?;
    let report = Report::read(&console);
    let names: Vec<&str> = checks.iter().map(|check| check.name).collect();
    if let Err(error) = report.judge(&names) {
        println!("{console}");
        return Err(error);
    }
    if update && !report.lines.is_empty() {
        let path = workspace.root().join(VERIFIED);
        let text = report.lines.join("\n") + "\n";
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    for line in console.lines().filter(|line| line.starts_with("test ") || line.contains(MARK)) {
        println!("{line}");
    }
    Ok(())
}

/// Everything that is started, and the file that is compared with.
fn programs(workspace: &Workspace, checks: &[&Check]) -> anyhow::Result<Vec<Placed>> {
    let built = Profile::Dev.folder(workspace);
    let stripped = workspace.target().join("vm/stripped");
    fs::create_dir_all(&stripped).with_context(|| format!("make {}", stripped.display()))?;
    let mut placed =
        vec![Placed { from: workspace.root().join(VERIFIED), to: inside(&workspace.root().join(VERIFIED)) }];
    if checks.iter().any(|check| check.package.is_none()) {
        build::programs(workspace, Profile::Dev)?;
    }
    let mut place = |name: &str, from: &Path| {
        strip(from, &stripped.join(name))
            .map(|from| placed.push(Placed { from, to: format!("{PROGRAMS}/{name}") }))
    };
    for check in checks {
        match check.package {
            Some(package) => place(check.name, &test(workspace, package, check.name)?)?,
            None => place(check.name, &built.join(check.name))?,
        }
    }
    if checks.iter().any(|check| check.package.is_none()) {
        for name in STARTED {
            place(name, &built.join(name))?;
        }
    }
    Ok(placed)
}

/// Builds a test file; where it is.
fn test(workspace: &Workspace, package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let mut build = cargo(workspace.root());
    build.args(["test", "--no-run", "-p", package, "--test", name]);
    println!("$ {}", line(&build));
    let output = build.stdin(Stdio::null()).output().context("start cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "build {name}: {said}");
    executable(&said).with_context(|| format!("cargo did not say where {name} is: {said}"))
}

/// The path in a line like `Executable tests/root_x.rs (target/debug/deps/root_x-0123)`.
fn executable(said: &str) -> Option<PathBuf> {
    let line = said.lines().find(|line| line.trim_start().starts_with("Executable "))?;
    line.rsplit_once('(')?.1.strip_suffix(')').map(PathBuf::from)
}

/// A copy of a program without its debug information, kept until the program changes.
fn strip(from: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let built = modified(from).with_context(|| format!("look at {}", from.display()))?;
    if !modified(to).is_ok_and(|kept| kept > built) {
        // Part of what links programs, like the linker itself.
        crate::run::run(Command::new("strip").arg("-o").arg(to).arg(from))?;
    }
    Ok(to.to_owned())
}

/// The first process of the machine.
fn init(workspace: &Workspace, checks: &[&Check], extent: Extent, update: bool) -> String {
    let mut script = format!(
        "#!/bin/sh
export PATH=/usr/bin HOME=/root TERM=dumb RHUMB_BIN_DIR=/{PROGRAMS} RUST_BACKTRACE=0 {update}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
for module in /modules/*; do insmod $module || echo \"$module not loaded\"; done
ip link set lo up
check() {{
    name=$1; shift
    echo \"{MARK} start $name\"
    \"$@\" 2>&1
    echo \"{MARK} end $name $?\"
}}
cd /root
echo \"{MARK} kernel $(uname -r)\"
",
        update = if update { "UPDATE=1" } else { "" },
    );
    for Check { name, package, short, whole } in checks {
        let args = match extent {
            Extent::Short => short,
            Extent::Whole => whole,
        };
        // As many as the machine has processors.
        let threads = if package.is_some() { "--test-threads=2" } else { "" };
        writeln!(script, "check {name} /{PROGRAMS}/{name} {args} {threads}").expect("a string takes it");
    }
    let verified = workspace.root().join(VERIFIED);
    if update {
        writeln!(script, "while read -r line; do echo \"{MARK} line $line\"; done < {}", verified.display())
            .expect("a string takes it");
    }
    script.push_str("poweroff -f\n");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_where_a_test_is() {
        let said =
            "   Compiling x\n    Finished\n  Executable tests/root_x.rs (/t/debug/deps/root_x-0123abcd)\n";
        assert_eq!(executable(said), Some("/t/debug/deps/root_x-0123abcd".into()));
        assert_eq!(executable("    Finished\n"), None);
    }
}
