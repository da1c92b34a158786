// SPDX-License-Identifier: Apache-2.0
//! Whether this machine can run the datapath and its labs: every probe names what is lost without it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::bail;

/// The oldest kernel that the tests run on.
const KERNEL_FLOOR: (u32, u32) = (6, 1);

/// Capability bits of linux/capability.h.
const CAPABILITIES: &[(u32, &str)] = &[(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// Something that must be so, and what is lost when it is not.
struct Probe {
    what: &'static str,
    lost: &'static str,
    found: fn() -> Result<(), String>,
}

/// What can be seen without any package, before anything is installed.
const MACHINE: &[Probe] = &[
    Probe {
        what: "root",
        lost: "no namespaces, links or BPF programs can be made",
        found: || if is_root() { Ok(()) } else { Err("the effective user is not 0".into()) },
    },
    Probe {
        what: "capabilities",
        lost: "links, namespaces, mounts and BPF are refused to this process",
        found: capabilities,
    },
    Probe {
        what: "kernel 6.1 or newer",
        lost: "addresses of pods carry no mark (5.18), and nothing was tried on an older kernel",
        found: || kernel(&read("/proc/sys/kernel/osrelease")),
    },
    Probe {
        what: "the bpf system call",
        lost: "no BPF program can be loaded (CONFIG_BPF_SYSCALL)",
        found: || exists("/proc/sys/kernel/unprivileged_bpf_disabled"),
    },
    Probe {
        what: "bpffs",
        lost: "links and maps cannot be pinned, so that they would not outlive the agent (CONFIG_BPF_SYSCALL)",
        found: || filesystem("bpf"),
    },
    Probe {
        what: "network namespaces",
        lost: "no pods and no lab nodes (CONFIG_NET_NS)",
        found: || exists("/proc/self/ns/net"),
    },
    Probe {
        what: "IPv6",
        lost: "every pod has addresses of both families (CONFIG_IPV6, ipv6.disable=0)",
        found: || exists("/proc/net/if_inet6"),
    },
];

/// What is tried in namespaces of its own, with the tools that the set-up installed.
const KERNEL: &[Probe] = &[
    Probe {
        what: "veth in a new network namespace",
        lost: "no pod links (CONFIG_VETH, CONFIG_NET_NS)",
        found: || attempt(&["--net"], "ip link add rhprobe type veth peer name rhprobe1"),
    },
    Probe {
        what: "a bridge in a new network namespace",
        lost: "labs join their nodes with bridges (CONFIG_BRIDGE)",
        found: || attempt(&["--net"], "ip link add rhprobe type bridge"),
    },
    Probe {
        what: "creating and pinning a BPF map",
        lost: "the datapath keeps its state in pinned maps (CONFIG_BPF_SYSCALL, CAP_BPF)",
        found: || {
            attempt(
                &["--mount"],
                "d=$(mktemp -d) && trap 'umount $d 2>/dev/null; rmdir $d' EXIT && mount -t bpf bpf $d && \
                 bpftool map create $d/probe type hash key 4 value 4 entries 1 name rhprobe",
            )
        },
    },
    Probe {
        what: "clsact filters",
        lost: "the programs cannot be put on pods' links (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF, CONFIG_NET_CLS_ACT)",
        found: || {
            attempt(
                &["--net"],
                "ip link add rhprobe type veth peer name rhprobe1 && tc qdisc add dev rhprobe clsact && \
                 tc filter add dev rhprobe ingress bpf direct-action bytecode '1,6 0 0 0'",
            )
        },
    },
    Probe {
        what: "rate limits by TBF",
        lost: "bandwidth limits of pods (CONFIG_NET_SCH_TBF)",
        found: || {
            attempt(
                &["--net"],
                "ip link add rhprobe type veth peer name rhprobe1 && \
                 tc qdisc add dev rhprobe root tbf rate 1mbit burst 32kb latency 50ms",
            )
        },
    },
];

/// Whether the effective user is root.
pub(crate) fn is_root() -> bool {
    status_field(&read("/proc/self/status"), "Uid:")
        .and_then(|ids| ids.split_whitespace().nth(1).map(str::to_owned))
        == Some("0".to_owned())
}

/// Looks at the machine; fails with everything that is missing.
pub(crate) fn machine() -> anyhow::Result<()> {
    check(MACHINE)
}

/// Tries what the labs will do; fails with everything that is missing. Needs the set-up.
pub(crate) fn kernel_features() -> anyhow::Result<()> {
    check(KERNEL)
}

fn check(probes: &[Probe]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for Probe { what, lost, found } in probes {
        if let Err(why) = found() {
            missing.push(format!("  {what}: {why}\n    without it: {lost}"));
        }
    }
    if !missing.is_empty() {
        bail!(
            "this machine lacks\n{}\n`cargo xtask test --unprivileged` runs the tests that need none of this",
            missing.join("\n")
        );
    }
    Ok(())
}

fn capabilities() -> Result<(), String> {
    let status = read("/proc/self/status");
    let field = status_field(&status, "CapEff:").ok_or("/proc/self/status has no CapEff")?;
    let set = u64::from_str_radix(field.trim(), 16).map_err(|error| error.to_string())?;
    let absent: Vec<&str> =
        CAPABILITIES.iter().filter(|(bit, _)| set & (1 << bit) == 0).map(|(_, name)| *name).collect();
    if absent.is_empty() { Ok(()) } else { Err(format!("{} missing", absent.join(", "))) }
}

fn status_field(status: &str, name: &str) -> Option<String> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

fn kernel(release: &str) -> Result<(), String> {
    let release = release.trim();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_FLOOR { Ok(()) } else { Err(format!("this is {release}")) }
}

fn filesystem(name: &str) -> Result<(), String> {
    let known = read("/proc/filesystems").lines().any(|line| line.split_whitespace().last() == Some(name));
    if known { Ok(()) } else { Err(format!("{name} is not in /proc/filesystems")) }
}

fn exists(path: &str) -> Result<(), String> {
    if Path::new(path).exists() { Ok(()) } else { Err(format!("{path} is absent")) }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn attempt(namespaces: &[&str], script: &str) -> Result<(), String> {
    let output = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", script])
        .output()
        .map_err(|error| format!("start unshare: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for enough in ["6.1.0-32-amd64\n", "6.18.44-fc-v595", "10.0"] {
            assert_eq!(kernel(enough), Ok(()), "{enough}");
        }
        for old in ["6.0.0-6-amd64", "5.15", "", "unknown"] {
            assert!(kernel(old).is_err(), "{old}");
        }
    }

    #[test]
    fn every_probe_that_fails_is_named_with_its_loss() {
        let probe = |what| Probe { what, lost: "much", found: || Err("absent".into()) };
        let there = Probe { what: "there", lost: "nothing", found: || Ok(()) };
        let text = check(&[probe("one"), there, probe("two")]).expect_err("two are missing").to_string();
        assert!(text.contains("one: absent\n    without it: much"), "{text}");
        assert!(text.contains("two: absent"), "{text}");
        assert!(!text.contains("there"), "{text}");
    }

    #[test]
    fn a_field_of_the_status_file_is_found_by_its_name() {
        let status = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        assert_eq!(status_field(status, "CapEff:").as_deref(), Some("\t000001ffffffffff"));
        assert_eq!(status_field(status, "Uid:"), None);
    }
}
