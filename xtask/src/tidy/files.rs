// SPDX-License-Identifier: Apache-2.0

use super::Finding;
use super::source::Source;

/// A file has no more lines than this.
const MAX_LINES: usize = 800;

/// Files that may be longer, each with its reason.
const LONG: &[(&str, &str)] = &[];

/// Names that say nothing about what is inside.
const NAMES: &[&str] = &[
    "utils.rs",
    "util.rs",
    "helpers.rs",
    "helper.rs",
    "manager.rs",
    "handler.rs",
    "misc.rs",
    "types.rs",
    "common.rs",
];

/// Folders whose licence the kernel must accept.
const KERNEL_SIDE: &[&str] = &["ebpf/common/", "ebpf/programs/"];

/// Length, name and licence line of a file.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !source.is_rust() && !is_script(source) {
        return findings;
    }
    let lines = source.text.lines().count();
    if lines > MAX_LINES && !LONG.iter().any(|(path, _)| *path == source.path) {
        findings
            .push(Finding::new(&source.path, format!("{lines} lines, the limit is {MAX_LINES}: split it")));
    }
    if let Some(name) = forbidden_name(&source.path) {
        findings.push(Finding::new(&source.path, format!("{name} says nothing: name what is inside")));
    }
    let wanted = if KERNEL_SIDE.iter().any(|folder| source.path.starts_with(folder)) {
        "MIT OR GPL-2.0-only"
    } else {
        "Apache-2.0"
    };
    // In two parts, as tools take the joined words for the licence of this file.
    let tag = concat!("SPDX-License-", "Identifier:");
    let first = source.text.lines().find(|line| !line.starts_with("#!/")).unwrap_or_default();
    if first.trim_start_matches(['/', '#', ' ']) != format!("{tag} {wanted}") {
        findings.push(Finding::new(&source.path, format!("the first line is not `{tag} {wanted}`")));
    }
    findings
}

fn is_script(source: &Source) -> bool {
    source.text.starts_with("#!/") || source.path.ends_with(".sh")
}

/// The part of a path that is a forbidden file or folder name.
fn forbidden_name(path: &str) -> Option<&str> {
    // `ebpf/common` is the customary name of the crate that both sides share.
    let path = path.strip_prefix("ebpf/common/").unwrap_or(path);
    path.split('/').find(|part| NAMES.contains(part) || NAMES.contains(&format!("{part}.rs").as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::source::source;
    use super::*;

    fn licensed(path: &str, licence: &str, rest: &str) -> Source {
        source(path, &format!("// {}{licence}\n{rest}", concat!("SPDX-License-", "Identifier: ")))
    }

    #[test]
    fn a_short_licensed_file_is_in_order() {
        assert_eq!(check(&licensed("ipam/src/pool.rs", "Apache-2.0", "")), []);
        assert_eq!(check(&licensed("ebpf/common/src/layout.rs", "MIT OR GPL-2.0-only", "")), []);
    }

    #[test]
    fn a_file_without_its_licence_is_found() {
        assert_eq!(check(&source("ipam/src/pool.rs", "fn f() {}\n")).len(), 1);
        assert_eq!(check(&source("ipam/src/pool.rs", "")).len(), 1);
        assert_eq!(check(&licensed("ebpf/programs/src/act.rs", "Apache-2.0", "")).len(), 1);
        assert_eq!(check(&source(".ci/run", "#!/usr/bin/env bash\nset -e\n")).len(), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(check(&licensed("ipam/src/pool.rs", "Apache-2.0", &"x\n".repeat(MAX_LINES))).len(), 1);
    }

    #[test]
    fn a_name_that_says_nothing_is_found() {
        for path in ["ipam/src/utils.rs", "agent/src/handler/mod.rs", "ebpf/common/src/misc.rs"] {
            assert_eq!(
                check(&licensed(
                    path,
                    if path.starts_with("ebpf") { "MIT OR GPL-2.0-only" } else { "Apache-2.0" },
                    ""
                ))
                .len(),
                1,
                "{path}"
            );
        }
    }
}
