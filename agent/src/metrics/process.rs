// SPDX-License-Identifier: Apache-2.0
//! The agent's own process, as the kernel counts it (proc(5)).

use std::fs;

use super::catalogue::{CPU_SECONDS, OPEN_FDS, RESIDENT, START_TIME, VIRTUAL};
use super::registry::Sample;

/// Resident memory of this process in KiB; 0 where the kernel does not say.
pub(crate) fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Everything about the process that can be read.
pub(super) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let ticks = rustix::param::clock_ticks_per_second();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = machine.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<u64>().ok());
    if let Some(stat) = Stat::parse(&stat) {
        samples.push(Sample::new(&CPU_SECONDS, &[], seconds(stat.used, ticks)));
        samples.push(Sample::new(&VIRTUAL, &[], stat.virtual_bytes));
        if let Some(boot) = boot {
            samples.push(Sample::new(&START_TIME, &[], seconds(boot * ticks + stat.started, ticks)));
        }
    }
    samples.push(Sample::new(&RESIDENT, &[], resident_kib() * 1024));
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is that of the folder itself.
        let count = u64::try_from(open.count()).unwrap_or(u64::MAX).saturating_sub(1);
        samples.push(Sample::new(&OPEN_FDS, &[], count));
    }
    samples
}

fn seconds(ticks: u64, per_second: u64) -> f64 {
    let (whole, rest) = (ticks / per_second.max(1), ticks % per_second.max(1));
    // Both are far below the 52 bits of a double.
    whole as f64 + rest as f64 / per_second.max(1) as f64
}

/// Of `/proc/self/stat`, what is counted.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Ticks of processor time, in user and kernel mode.
    used: u64,
    /// Ticks since boot at which the process started.
    started: u64,
    virtual_bytes: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program may contain blanks and parentheses.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
        Some(Self { used: number(14)? + number(15)?, started: number(22)?, virtual_bytes: number(23)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let text =
            "7 (a ) b) S 1 7 7 0 -1 4194560 5 0 0 0 11 22 0 0 20 0 1 0 333 4096 5 18446744073709551615\n";
        assert_eq!(Stat::parse(text), Some(Stat { used: 33, started: 333, virtual_bytes: 4096 }));
        assert_eq!(Stat::parse("nothing"), None);
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let samples = samples();
        assert_eq!(samples.len(), 5, "{samples:?}");
        assert!(resident_kib() > 0);
    }
}
