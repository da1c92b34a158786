// SPDX-License-Identifier: Apache-2.0
//! What the virtual machine boots into: busybox, the tools of labs, the programs under test, and what these link to.

use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::archive::Archive;
use super::kernel::Kernel;
use crate::run::output;

/// Where the programs under test lie.
pub(super) const PROGRAMS: &str = "rhumb";

/// Modules that labs and tests need: links, clsact filters, rate limits, tunnels, and iptables for what others translate.
const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "sch_tbf",
    "vxlan",
    "nft_compat",
    "nft_chain_nat",
    "xt_nat",
    "xt_tcpudp",
    "xt_MASQUERADE",
];

/// Programs of the host that labs and tests start; busybox has the others.
const TOOLS: &[&str] = &["ip", "tc", "nsenter", "unshare", "setpriv", "iptables", "ip6tables"];

/// The extensions of iptables, which it opens by name.
const EXTENSIONS: &str = "/usr/lib/x86_64-linux-gnu/xtables";

/// Names under which busybox is called.
const BUSYBOX: &[&str] = &[
    "sh", "cat", "echo", "env", "insmod", "kill", "ls", "mkdir", "mount", "ping", "poweroff", "printf", "rm",
    "sleep", "sysctl", "true", "uname",
];

/// A file that goes into the machine under another path than it has here.
pub(super) struct Placed {
    /// Where it is.
    pub(super) from: PathBuf,
    /// Where it will be, without the first `/`.
    pub(super) to: String,
}

/// Writes the image to `path`.
///
/// # Errors
/// Names what is not there or cannot be read.
pub(super) fn write(path: &Path, kernel: &Kernel, programs: &[Placed], init: &str) -> anyhow::Result<()> {
    let file = fs::File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file))?;
    for folder in ["proc", "sys", "tmp", "run", "etc", "root", "var"] {
        archive.directory(folder)?;
    }
    archive.file("init", init.as_bytes())?;
    let busybox = find("busybox")?;
    archive.file("usr/bin/busybox", &read(&busybox)?)?;
    for name in BUSYBOX {
        archive.link(&format!("usr/bin/{name}"), "busybox")?;
    }
    for folder in ["bin", "sbin", "usr/sbin"] {
        archive.link(folder, "/usr/bin")?;
    }
    for (at, (name, module)) in kernel.modules(MODULES)?.into_iter().enumerate() {
        archive.file(&format!("modules/{at:02}-{name}.ko"), &module)?;
    }
    for tool in TOOLS {
        let from = find(tool)?;
        archive.file(&format!("usr/bin/{tool}"), &read(&from)?)?;
        libraries(&mut archive, &from)?;
    }
    for entry in fs::read_dir(EXTENSIONS).with_context(|| format!("list {EXTENSIONS}"))? {
        let from = entry?.path();
        archive.file(&inside(&from), &read(&from)?)?;
        libraries(&mut archive, &from)?;
    }
    for Placed { from, to } in programs {
        archive.file(to, &read(from)?)?;
        libraries(&mut archive, from)?;
    }
    archive.finish().with_context(|| format!("write {}", path.display()))
}

/// Adds the shared libraries that a program is linked with, and its loader.
fn libraries<W: std::io::Write>(archive: &mut Archive<W>, program: &Path) -> anyhow::Result<()> {
    // It fails for what is not dynamic, which needs nothing then.
    let Some(listed) = output(Command::new("ldd").arg(program)) else { return Ok(()) };
    for library in needed(&listed) {
        if !archive.has(&inside(library)) {
            archive.file(&inside(library), &read(library)?)?;
        }
    }
    Ok(())
}

/// The files that `ldd` names.
fn needed(listed: &str) -> impl Iterator<Item = &Path> {
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(Path::new)
}

/// The path of a file in the machine, where it is the same as here.
pub(super) fn inside(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// Looks for a program where root would.
fn find(name: &str) -> anyhow::Result<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = folders.into_iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed: `cargo xtask setup` does it"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    ensure!(!content.is_empty(), "{} is empty", path.display());
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_a_program_is_linked_with_are_named_with_their_paths() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let needed: Vec<_> = needed(listed).collect();
        assert_eq!(
            needed,
            [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
    }
}
