// SPDX-License-Identifier: Apache-2.0

use cargo_metadata::{DependencyKind, Package};

use super::Finding;
use super::source::Source;

/// Libraries that only some crates may use in their programs; everybody else goes through these crates.
const WRAPPED: &[(&str, &[&str])] = &[
    ("anyhow", &["rhumb-agent", "rhumb-bgp", "rhumb-operator", "rhumb-integration", "xtask"]),
    ("aws-config", &["rhumb-cloud-aws"]),
    ("aws-sdk-ec2", &["rhumb-cloud-aws"]),
    // Also the layouts, behind a feature for the user side; and the labs, which look at attachments behind the
    // agent's back.
    ("aya", &["rhumb-ebpf", "rhumb-ebpf-common", "rhumb-integration"]),
    ("aya-ebpf", &["rhumb-ebpf-programs"]),
    ("bgpkit-parser", &["rhumb-bgp"]),
    ("cargo_metadata", &["xtask"]),
    (
        "clap",
        &["rhumb-agent", "rhumb-bgp", "rhumb-cloud-fake", "rhumb-operator", "rhumb-integration", "xtask"],
    ),
    ("hyper", &["rhumb-agent", "rhumb-operator", "rhumb-cloud-fake"]),
    ("hyper-util", &["rhumb-agent", "rhumb-operator", "rhumb-cloud-fake"]),
    ("inotify", &["rhumb-api"]),
    ("k8s-openapi", &["rhumb-api"]),
    ("netlink-packet-core", &["rhumb-routing"]),
    ("netlink-packet-route", &["rhumb-routing"]),
    ("netlink-sys", &["rhumb-routing"]),
    ("rtnetlink", &["rhumb-routing"]),
    (
        "tokio",
        &[
            "rhumb-api",
            "rhumb-routing",
            "rhumb-bgp",
            "rhumb-bgp-feed",
            "rhumb-cloud",
            "rhumb-cloud-aws",
            "rhumb-cloud-fake",
            "rhumb-process",
            "rhumb-agent",
            "rhumb-operator",
        ],
    ),
    ("tracing-subscriber", &["rhumb-process"]),
];

/// Finds wrapped libraries outside the crates that wrap them; tests may use what they like.
pub(crate) fn wrapped(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let dependencies = package.dependencies.iter();
        for dependency in dependencies.filter(|dependency| dependency.kind == DependencyKind::Normal) {
            findings.extend(used_by(&dependency.name, &package.name));
        }
    }
    findings
}

fn used_by(library: &str, package: &str) -> Option<Finding> {
    let (_, allowed) = WRAPPED.iter().find(|(name, _)| *name == library)?;
    let what = format!("may not use {library}: it belongs to {}", allowed.join(", "));
    (!allowed.contains(&package)).then(|| Finding::new(package, what))
}

/// Finds manifests of the workspace that do not take its lints.
pub(crate) fn lints(packages: &[Package], sources: &[Source]) -> Vec<Finding> {
    let manifests = packages.iter().map(|package| package.manifest_path.as_str().replace('\\', "/"));
    manifests
        .filter_map(|manifest| {
            let source = sources.iter().filter(|source| source.name() == "Cargo.toml");
            let source = source.filter(|source| manifest.ends_with(&format!("/{}", source.path)));
            takes_lints(source.max_by_key(|source| source.path.len())?)
        })
        .collect()
}

fn takes_lints(manifest: &Source) -> Option<Finding> {
    let mut lines = manifest.text.lines();
    let inherited = lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true");
    // A workspace of its own has nothing to inherit from.
    let own = manifest.text.lines().any(|line| line == "[workspace]");
    (!inherited && !own).then(|| Finding::new(&manifest.path, "`[lints] workspace = true` is missing"))
}

#[cfg(test)]
mod tests {
    use super::super::source::source;
    use super::*;

    #[test]
    fn a_wrapped_library_is_found_outside_its_crates() {
        assert_eq!(used_by("aya", "rhumb-ebpf"), None);
        assert_eq!(used_by("serde", "rhumb-agent"), None);
        assert!(used_by("aya", "rhumb-agent").is_some());
        assert!(used_by("tokio", "rhumb-cni").is_some());
    }

    #[test]
    fn a_manifest_without_lints_is_found() {
        let with = source("ipam/Cargo.toml", "[package]\n[lints]\nworkspace = true\n");
        assert_eq!(takes_lints(&with), None);
        assert!(takes_lints(&source("ipam/Cargo.toml", "[package]\n")).is_some());
        assert!(takes_lints(&source("ipam/Cargo.toml", "[package]\n[lints]\n[dependencies]\n")).is_some());
    }
}
