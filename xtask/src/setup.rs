// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask setup`: what rhumb needs beside rustup's stable toolchain, why, and how it is installed.
//!
//! The kernel-side programs need a compiler with a BPF core library and bpf-linker. Debian 12 ships such a compiler;
//! where rustup's nightly with rust-src is there, that one serves, and Debian's packages are left out.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::run::{output, run};

/// What the set-up is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Building all crates, the BPF programs among them.
    Build,
    /// Formatting and lints.
    Check,
    /// Labs: the demo, root tests, conformance cases and benches.
    Lab,
    /// The virtual machine with the oldest kernel.
    Machine,
}

/// Debian packages that are installed together.
struct Packages {
    part: Part,
    names: &'static [&'static str],
    why: &'static str,
}

const BPF_COMPILER: Packages = Packages {
    part: Part::Build,
    names: &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"],
    why: "Rust compiler with a core library for BPF",
};

// A transaction of its own: it has been seen to fail among many others, and to install alone.
const LLVM: Packages = Packages {
    part: Part::Build,
    names: &["llvm-22-dev"],
    why: "the LLVM of that compiler, for building bpf-linker",
};

const LAB: Packages = Packages {
    part: Part::Lab,
    names: &[
        "iproute2",
        "util-linux",
        "bpftool",
        "iptables",
        "ethtool",
        "containernetworking-plugins",
        "libfaketime",
    ],
    why: "labs: namespaces and links, a look into BPF, the reference plugins to chain with and to measure beside, clocks that run fast",
};

// Services are kept from starting: the labs start each of them in a namespace, as many as they need.
const ROUTERS: Packages = Packages {
    part: Part::Lab,
    names: &["bird2", "frr", "gobgpd", "exabgp", "openbgpd", "nftables"],
    why: "labs: other BGP and BFD speakers to speak with",
};

/// The services of those packages.
const ROUTER_SERVICES: &[(&str, &[&str])] = &[
    ("bird2", &["bird"]),
    ("frr", &["frr"]),
    ("gobgpd", &["gobgpd"]),
    ("exabgp", &["exabgp"]),
    ("openbgpd", &["openbgpd", "bgplgd"]),
];

/// Debian's packages ask this program whether they may start a service; 101 is no.
const POLICY: &str = "/usr/sbin/policy-rc.d";

const PYTHON: Packages = Packages {
    part: Part::Lab,
    names: &["python3-venv"],
    why: "an environment for the peers of the EC2 double",
};

/// The client and the other double that the EC2 double is compared with, from PyPI.
const EC2_PEERS: &[&str] = &["boto3==1.44.5", "moto[ec2,server]==5.2.5"];

const MACHINE: Packages = Packages {
    part: Part::Machine,
    names: &["qemu-system-x86", "busybox-static"],
    why: "a virtual machine with Debian's 6.1 kernel, the oldest that rhumb runs on",
};

const LINKER: &str = "0.13.0";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Installs what `parts` need and is not there; says so in one line when all of it is.
pub(crate) fn install(parts: &[Part]) -> anyhow::Result<()> {
    let mut work = Work { updated: false, installed: false };
    if parts.contains(&Part::Check) {
        work.component("rustfmt", "fmt", "checking the format of the sources")?;
        work.component("clippy", "clippy", "lints")?;
    }
    if parts.contains(&Part::Build) {
        match BpfToolchain::detect() {
            BpfToolchain::Nightly | BpfToolchain::Own => work.linker_by_cargo(&[])?,
            BpfToolchain::Debian => {
                work.packages(&BPF_COMPILER)?;
                work.debian_linker()?;
            }
        }
    }
    if parts.contains(&LAB.part) {
        work.packages(&LAB)?;
        work.routers()?;
        work.ec2_peers()?;
    }
    if parts.contains(&MACHINE.part) {
        work.packages(&MACHINE)?;
    }
    if !work.installed {
        println!("setup: nothing to install");
    }
    Ok(())
}

/// Which compiler builds the kernel side; `ebpf/build.rs` chooses in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BpfToolchain {
    /// Debian's rustc with its BPF core library.
    Debian,
    /// rustup's nightly with rust-src.
    Nightly,
    /// The one that `RHUMB_BPF_RUSTC` names.
    Own,
}

impl BpfToolchain {
    fn detect() -> Self {
        if std::env::var_os("RHUMB_BPF_RUSTC").is_some() {
            return Self::Own;
        }
        let missing = missing(BPF_COMPILER.names);
        let nightly = output(Command::new("rustup").args(["+nightly", "component", "list", "--installed"]))
            .is_some_and(|components| components.lines().any(|line| line.starts_with("rust-src")));
        if !missing.is_empty() && nightly { Self::Nightly } else { Self::Debian }
    }
}

struct Work {
    updated: bool,
    installed: bool,
}

impl Work {
    fn packages(&mut self, packages: &Packages) -> anyhow::Result<()> {
        let missing = missing(packages.names);
        if missing.is_empty() {
            return Ok(());
        }
        println!("setup: {} ({})", missing.join(" "), packages.why);
        if !Path::new("/usr/bin/apt-get").exists() {
            bail!("no apt-get here: install the equivalent of {} by hand", missing.join(" "));
        }
        if !crate::preflight::is_root() {
            bail!("installing needs root: run `apt-get install {}` as root", missing.join(" "));
        }
        self.installed = true;
        if !self.updated {
            run(Command::new("apt-get").args(["update", "-q"])).context("refresh the package lists")?;
            self.updated = true;
        }
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive");
        run(install.args(["install", "-q", "-y", "--no-install-recommends"]).args(missing))
    }

    /// The other speakers. Those that are installed here do not start, at the next boot either.
    fn routers(&mut self) -> anyhow::Result<()> {
        let missing = missing(ROUTERS.names);
        if missing.is_empty() {
            return Ok(());
        }
        let quiet = Quiet::begin()?;
        self.packages(&ROUTERS)?;
        drop(quiet);
        if Path::new("/run/systemd/system").exists() {
            let installed = ROUTER_SERVICES.iter().filter(|(package, _)| missing.contains(package));
            let services = installed.flat_map(|(_, services)| *services);
            run(Command::new("systemctl").args(["disable", "--quiet"]).args(services))?;
        }
        Ok(())
    }

    /// A Python of their own, in the folder where the tests of the double look for it.
    fn ec2_peers(&mut self) -> anyhow::Result<()> {
        let folder = ec2_peers_folder()?;
        let pip = folder.join("bin/pip");
        let installed = output(Command::new(&pip).args(["freeze", "--quiet"])).unwrap_or_default();
        let there = |peer: &&str| {
            let (name, version) = peer.split_once("==").unwrap_or((peer, ""));
            let name = name.split('[').next().unwrap_or(name);
            installed.lines().any(|line| line == format!("{name}=={version}"))
        };
        if EC2_PEERS.iter().all(there) {
            return Ok(());
        }
        println!(
            "setup: {} in {} (the EC2 double is compared with them)",
            EC2_PEERS.join(" "),
            folder.display()
        );
        let has_venv = output(Command::new("python3").args(["-c", "import ensurepip"])).is_some();
        if !has_venv {
            self.packages(&PYTHON)?;
        }
        self.installed = true;
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&pip).args(["install", "--quiet", "--disable-pip-version-check"]).args(EC2_PEERS))
    }

    fn component(&mut self, name: &str, subcommand: &str, why: &str) -> anyhow::Result<()> {
        if output(Command::new("cargo").args([subcommand, "--version"])).is_some() {
            return Ok(());
        }
        println!("setup: {name} ({why})");
        self.installed = true;
        run(Command::new("rustup").args(["component", "add", name]))
    }

    fn debian_linker(&mut self) -> anyhow::Result<()> {
        if linker_is_there(Some(LINKER)) {
            return Ok(());
        }
        self.packages(&LLVM)?;
        self.linker_by_cargo(&["--no-default-features", "--features", "llvm-22"])
    }

    fn linker_by_cargo(&mut self, features: &[&str]) -> anyhow::Result<()> {
        let wanted = if features.is_empty() { None } else { Some(LINKER) };
        if linker_is_there(wanted) {
            return Ok(());
        }
        println!("setup: bpf-linker {LINKER} (links the BPF programs; built from source, some two minutes)");
        self.installed = true;
        let mut install = Command::new("cargo");
        install.args(["install", "bpf-linker", "--version", LINKER, "--force"]).args(features);
        if !features.is_empty() {
            install.env("LLVM_PREFIX", LLVM_PREFIX);
        }
        run(&mut install)
    }
}

/// While it lives, no package starts a service. A policy that is there already stays in force.
struct Quiet {
    ours: bool,
}

impl Quiet {
    fn begin() -> anyhow::Result<Self> {
        if Path::new(POLICY).exists() || !crate::preflight::is_root() {
            return Ok(Self { ours: false });
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o755).open(POLICY).context(POLICY)?;
        file.write_all(b"#!/bin/sh\nexit 101\n").context(POLICY)?;
        Ok(Self { ours: true })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            println!("setup: remove {POLICY} by hand, or no service starts on this machine: {error}");
        }
    }
}

/// `RHUMB_EC2_PEERS`, else in the user's cache.
fn ec2_peers_folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("RHUMB_EC2_PEERS") {
        return Ok(PathBuf::from(folder));
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("HOME or RHUMB_EC2_PEERS, for the peers of the EC2 double")?.join("rhumb/ec2-peers"))
}

fn linker_is_there(version: Option<&str>) -> bool {
    let Some(printed) = output(Command::new("bpf-linker").arg("--version")) else { return false };
    version.is_none_or(|version| printed.split_whitespace().any(|word| word == version))
}

/// Which of the Debian packages are not installed.
fn missing(names: &[&'static str]) -> Vec<&'static str> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).args(names);
    // It prints the known ones and fails when one is unknown, so its exit code says nothing.
    let printed = query.output().map(|output| output.stdout).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    let installed: Vec<&str> = printed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    names.iter().copied().filter(|name| !installed.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_nobody_knows_is_missing() {
        assert_eq!(missing(&["no-such-package-anywhere"]), ["no-such-package-anywhere"]);
    }

    #[test]
    fn a_linker_of_another_version_does_not_serve() {
        assert!(!linker_is_there(Some("0.0.0")));
    }
}
