// SPDX-License-Identifier: Apache-2.0
//! Debian's 6.1 kernel: its package, unpacked below `target/`, never installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::run::{output, run};

/// Debian's kernel for virtual machines: the same source as the other flavours, a third of their size.
const PACKAGES: &str = "linux-image-6.1.0-";
const FLAVOUR: &str = "-cloud-amd64";

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The bootable image.
    pub(super) image: PathBuf,
    /// Folder of its modules.
    modules: PathBuf,
}

impl Kernel {
    /// The kernel kept in `cache`, else the newest that the package lists have, which is downloaded and kept there.
    ///
    /// # Errors
    /// No package is known, or it cannot be downloaded or unpacked.
    pub(super) fn find(cache: &Path) -> anyhow::Result<Self> {
        let unpacked = cache.join("kernel");
        if !unpacked.exists() {
            fetch(cache, &unpacked)?;
        }
        let image = only(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))?;
        let modules = only(&unpacked.join("lib/modules"), |_| true)?;
        Ok(Self { image, modules })
    }

    /// These modules and those they need, each after what it needs, as name and content.
    ///
    /// # Errors
    /// Names the module that the kernel does not have.
    pub(super) fn modules(&self, wanted: &[&str]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut order = Order { kernel: self, done: BTreeSet::new(), modules: Vec::new() };
        wanted.iter().try_for_each(|name| order.add(name))?;
        Ok(order.modules)
    }

    /// The file of a module; names differ from file names in `-` and `_`.
    fn module(&self, name: &str) -> Option<PathBuf> {
        let listed = fs::read_to_string(self.modules.join("modules.order")).ok()?;
        let is_it = |path: &&str| {
            let stem = path.rsplit('/').next().and_then(|file| file.strip_suffix(".ko"));
            stem.is_some_and(|stem| stem.replace('-', "_") == name)
        };
        listed.lines().find(is_it).map(|path| self.modules.join(path))
    }
}

/// Modules in an order in which they can be loaded.
struct Order<'a> {
    kernel: &'a Kernel,
    done: BTreeSet<String>,
    modules: Vec<(String, Vec<u8>)>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> anyhow::Result<()> {
        let name = name.replace('-', "_");
        if !self.done.insert(name.clone()) {
            return Ok(());
        }
        let path =
            self.kernel.module(&name).with_context(|| format!("the kernel package has no module {name}"))?;
        let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        for needed in needs(&content) {
            self.add(&needed)?;
        }
        self.modules.push((name, content));
        Ok(())
    }
}

/// The modules that a module says it needs.
fn needs(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|bytes| bytes == FIELD) else { return Vec::new() };
    let value = module[at + FIELD.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn fetch(cache: &Path, unpacked: &Path) -> anyhow::Result<()> {
    let loading = cache.join("loading");
    if loading.exists() {
        fs::remove_dir_all(&loading).with_context(|| format!("remove {}", loading.display()))?;
    }
    fs::create_dir_all(&loading).with_context(|| format!("make {}", loading.display()))?;
    // Lists that were never loaded have no such package, old ones a package that the mirror has no more.
    if download(&loading).is_err() {
        run(Command::new("apt-get").args(["update", "-q"])).context("refresh the package lists")?;
        download(&loading).context(
            "get Debian's 6.1 kernel, under which every program is tried (needs apt-get and a Debian mirror that \
             has bookworm or its security updates)",
        )?;
    }
    let package = only(&loading, |name| name.ends_with(".deb"))?;
    let content = loading.join("content");
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&content))?;
    fs::rename(&content, unpacked).with_context(|| format!("keep {}", unpacked.display()))?;
    fs::remove_dir_all(&loading).with_context(|| format!("remove {}", loading.display()))
}

fn download(folder: &Path) -> anyhow::Result<()> {
    let listed = output(Command::new("apt-cache").args(["pkgnames", PACKAGES])).unwrap_or_default();
    let Some(package) = newest(&listed) else {
        bail!("no package {PACKAGES}*{FLAVOUR} in the package lists")
    };
    // As the user of apt-get, who may not be the owner of the folder: a warning of apt-get says so, and nothing is lost.
    run(Command::new("apt-get").args(["download", "-q", package]).current_dir(folder))
}

/// The package with the highest number.
fn newest(listed: &str) -> Option<&str> {
    let number = |name: &str| name.strip_prefix(PACKAGES)?.strip_suffix(FLAVOUR)?.parse::<u32>().ok();
    let numbered = listed.lines().filter_map(|name| Some((number(name)?, name)));
    numbered.max().map(|(_, name)| name)
}

/// The one entry of a folder that is wanted.
fn only(folder: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        if wanted(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    ensure!(found.len() == 1, "{} has {} of what is looked for, not one", folder.display(), found.len());
    Ok(found.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_that_of_the_highest_number() {
        let listed = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-41-cloud-amd64\n\
                      linux-image-6.1.0-50-amd64\nlinux-image-6.1.0-44-cloud-amd64-dbg\n";
        assert_eq!(newest(listed), Some("linux-image-6.1.0-41-cloud-amd64"));
        assert_eq!(newest(""), None);
    }

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(
            needs(b"ELF\0license=GPL\0depends=udp_tunnel,ip6_udp_tunnel\0retpoline=Y\0"),
            ["udp_tunnel", "ip6_udp_tunnel"]
        );
        assert!(needs(b"ELF\0license=GPL\0depends=\0").is_empty());
        assert!(needs(b"ELF\0").is_empty());
    }
}
