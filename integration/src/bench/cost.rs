// SPDX-License-Identifier: Apache-2.0
//! What the programs take for a packet under load, by the kernel's own clock.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aya::programs::SchedClassifier;
use aya::sys::{Stats, enable_stats};

use super::bpf;
use crate::lab::Namespace;

/// The kernel's clock for programs runs until this is dropped; else it is off, as it costs time itself.
#[derive(Debug)]
pub(super) struct Clock {
    _running: OwnedFd,
}

impl Clock {
    pub(super) fn start() -> Result<Self> {
        Ok(Self { _running: enable_stats(Stats::RunTime).context("let the kernel time programs")? })
    }
}

/// Time and runs of a program so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    nanoseconds: f64,
    count: u64,
}

impl Runs {
    /// Of the program pinned at `pin`.
    pub(super) fn of(pin: &Path) -> Result<Self> {
        let info = SchedClassifier::from_pin(pin)
            .map_err(anyhow::Error::from)
            .and_then(|program| Ok(program.info()?))
            .with_context(|| format!("look at program {}", pin.display()))?;
        Ok(Self { nanoseconds: info.run_time().as_secs_f64() * 1e9, count: info.run_count() })
    }

    /// Mean time of a run since `before`, in nanoseconds; `None` when there was none.
    pub(super) fn mean_since(self, before: Self) -> Option<f64> {
        let count = u32::try_from(self.count - before.count).ok().filter(|count| *count > 0)?;
        Some((self.nanoseconds - before.nanoseconds) / f64::from(count))
    }
}

/// Where a node's program is pinned.
pub(super) fn pin(bpffs: &Path, program: &str) -> Result<PathBuf> {
    let versions = fs::read_dir(bpffs).with_context(|| format!("list {}", bpffs.display()))?;
    let mut pins = versions.filter_map(|entry| Some(entry.ok()?.path().join("programs").join(program)));
    pins.find(|path| path.exists()).with_context(|| format!("no program {program} below {}", bpffs.display()))
}

/// A program that does nothing, on the way of packets into an interface: what it takes is the price of looking.
#[derive(Debug)]
pub(super) struct Nothing {
    pin: PathBuf,
}

impl Nothing {
    /// Puts it at the ingress of `link`, pinned in `bpffs`.
    pub(super) fn attach(namespace: &Namespace, link: &str, bpffs: &Path) -> Result<Self> {
        let nothing = Self { pin: bpffs.join("nothing") };
        bpf::pin(&bpf::load(&bpf::NOTHING)?, &nothing.pin)?;
        let pin = nothing.pin.display();
        for words in [
            format!("qdisc add dev {link} clsact"),
            format!("filter add dev {link} ingress bpf direct-action object-pinned {pin}"),
        ] {
            let output = namespace.command("tc").args(words.split_whitespace()).output().context("run tc")?;
            ensure!(
                output.status.success(),
                "tc {words}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(nothing)
    }

    pub(super) fn pin(&self) -> &Path {
        &self.pin
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        // The lab's own clean-up finds what stays.
        fs::remove_file(&self.pin).ok();
    }
}
