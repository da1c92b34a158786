// SPDX-License-Identifier: Apache-2.0
//! Which crate may know which: rooms know only `model`, and what one needs from another travels as a value through
//! the agent or the operator. `ebpf-common` knows nobody, as it is also compiled for the kernel.

use cargo_metadata::Package;

use super::Finding;

const ARROWS: &[(&str, &[&str])] = &[
    ("rhumb-model", &[]),
    // How the long-lived programs begin and end.
    ("rhumb-process", &[]),
    ("rhumb-api", &["rhumb-model"]),
    ("rhumb-ipam", &["rhumb-model"]),
    ("rhumb-routing", &["rhumb-model"]),
    // The speaker is a program of its own in the routing room; the agent knows only what the two say to each other.
    ("rhumb-bfd", &["rhumb-model"]),
    ("rhumb-bgp-feed", &["rhumb-model"]),
    ("rhumb-bgp", &["rhumb-model", "rhumb-bgp-feed", "rhumb-bfd", "rhumb-routing", "rhumb-process"]),
    ("rhumb-cni", &["rhumb-model"]),
    ("rhumb-ebpf", &["rhumb-model", "rhumb-ebpf-common"]),
    ("rhumb-ebpf-common", &[]),
    ("rhumb-ebpf-programs", &["rhumb-ebpf-common"]),
    (
        "rhumb-agent",
        &[
            "rhumb-model",
            "rhumb-api",
            "rhumb-ipam",
            "rhumb-routing",
            "rhumb-bgp-feed",
            "rhumb-cloud",
            "rhumb-ebpf",
            "rhumb-cni",
            "rhumb-process",
        ],
    ),
    ("rhumb-cloud", &["rhumb-model"]),
    // The only crate that names the SDK, linked by the operator alone. Both have the double in their tests.
    ("rhumb-cloud-aws", &["rhumb-model", "rhumb-cloud", "rhumb-cloud-fake"]),
    ("rhumb-cloud-fake", &["rhumb-model", "rhumb-cloud"]),
    (
        "rhumb-operator",
        &[
            "rhumb-model",
            "rhumb-api",
            "rhumb-ipam",
            "rhumb-cloud",
            "rhumb-cloud-aws",
            "rhumb-cloud-fake",
            "rhumb-process",
        ],
    ),
    // It starts the programs as a user would, and links none of them; the pure plan it runs on a virtual clock, at the
    // pace of the pure buckets.
    (
        "rhumb-integration",
        &["rhumb-model", "rhumb-api", "rhumb-cni", "rhumb-ipam", "rhumb-cloud", "rhumb-cloud-fake"],
    ),
    ("xtask", &[]),
];

/// Finds every arrow that the table does not have, and every crate that is not in it.
pub(crate) fn check(packages: &[Package]) -> Vec<Finding> {
    let ours: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    packages
        .iter()
        .flat_map(|package| {
            let inner = package.dependencies.iter().map(|dependency| dependency.name.as_str());
            let inner: Vec<&str> = inner.filter(|name| ours.contains(name)).collect();
            arrows(&package.name, &inner)
        })
        .collect()
}

fn arrows(from: &str, to: &[&str]) -> Vec<Finding> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == from) else {
        return vec![Finding::new(from, "this crate has no row in xtask/src/tidy/arrows.rs")];
    };
    let forbidden = to.iter().filter(|name| !allowed.contains(name) && **name != from);
    forbidden.map(|name| Finding::new(from, format!("may not depend on {name}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_that_imports_a_room_is_found() {
        assert_eq!(arrows("rhumb-ipam", &["rhumb-model"]), []);
        assert_eq!(
            arrows("rhumb-ipam", &["rhumb-model", "rhumb-api"]),
            [Finding::new("rhumb-ipam", "may not depend on rhumb-api")]
        );
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(arrows("rhumb-new", &[]).len(), 1);
    }

    #[test]
    fn the_table_has_no_circle() {
        let mut known: Vec<&str> = Vec::new();
        while known.len() < ARROWS.len() {
            let next = ARROWS
                .iter()
                .find(|(name, to)| !known.contains(name) && to.iter().all(|name| known.contains(name)))
                .expect("some crate depends only on known ones");
            known.push(next.0);
        }
    }
}
