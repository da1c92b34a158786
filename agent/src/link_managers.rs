// SPDX-License-Identifier: Apache-2.0
//! Other programs that look after the node's interfaces, and would take away what rhumb puts there: systemd-networkd and
//! NetworkManager. What they say in their files is read; nothing of theirs is changed.
//!
//! | file | says |
//! |---|---|
//! | `/run/systemd/netif/state` | that networkd runs, or did since the machine started |
//! | `/run/systemd/netif/links/INDEX` | `ADMIN_STATE`: whether networkd looks after an interface |
//! | `networkd.conf` and `networkd.conf.d/*.conf` (networkd.conf(5)) | whether it removes routes and rules of others |
//! | `/run/NetworkManager/devices/INDEX` | `managed`: whether NetworkManager looks after an interface |

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of systemd's configuration, the one that counts most first.
const CONFIGURED: [&str; 4] = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];

/// An interface that the cloud gave the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// Index.
    pub(crate) ifindex: u32,
    /// Name.
    pub(crate) ifname: String,
    /// Whether it is not the one that the node began with.
    pub(crate) later: bool,
}

/// Where the programs have their files.
#[derive(Debug, Clone)]
pub(crate) struct LinkManagers {
    root: PathBuf,
}

impl Default for LinkManagers {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

impl LinkManagers {
    /// What the programs would do to interfaces, each with what to do against it; nothing when they leave them alone.
    pub(crate) fn dangers(&self, interfaces: &[Given]) -> Vec<String> {
        if interfaces.is_empty() {
            return Vec::new();
        }
        let mut dangers = Vec::new();
        if self.root.join("run/systemd/netif/state").exists() {
            self.add_networkd(interfaces, &mut dangers);
        }
        let device = |given: &&Given| {
            let file = self.root.join(format!("run/NetworkManager/devices/{}", given.ifindex));
            given.later && settings(&file).get("device.managed").is_some_and(|value| is_true(value))
        };
        if let Some(names) = names(interfaces.iter().filter(device)) {
            dangers.push(format!(
                "NetworkManager configures {names}: list them in unmanaged-devices of [keyfile] and reload it"
            ));
        }
        dangers
    }

    fn add_networkd(&self, interfaces: &[Given], dangers: &mut Vec<String>) {
        let kept = self.networkd();
        let keeps = |key: &str| kept.get(&format!("Network.{key}")).is_some_and(|value| is_false(value));
        let manages = |given: &&Given| {
            let file = self.root.join(format!("run/systemd/netif/links/{}", given.ifindex));
            settings(&file).get(".ADMIN_STATE").is_some_and(|state| state != "unmanaged")
        };
        if !keeps("ManageForeignRoutingPolicyRules") {
            dangers.push(
                "systemd-networkd removes the rules of others when it starts: set ManageForeignRoutingPolicyRules=no in \
                 [Network] of networkd.conf and restart it"
                    .to_owned(),
            );
        }
        if let Some(names) = names(interfaces.iter().filter(manages))
            && !keeps("ManageForeignRoutes")
        {
            dangers.push(format!(
                "systemd-networkd removes the routes of others by {names} when it starts: set ManageForeignRoutes=no in \
                 [Network] of networkd.conf and restart it"
            ));
        }
        if let Some(names) = names(interfaces.iter().filter(|given| given.later).filter(manages)) {
            dangers.push(format!(
                "systemd-networkd configures {names}: match them by a .network file with Unmanaged=yes in [Link]"
            ));
        }
    }

    /// What networkd's configuration says: the first main file, and over it drop-ins in the order of their names, of
    /// which one hides those of the same name in folders that count less (systemd.syntax(7), networkd.conf(5)).
    fn networkd(&self) -> BTreeMap<String, String> {
        let folders = || CONFIGURED.iter().map(|folder| self.root.join(folder));
        let main = folders().map(|folder| folder.join("networkd.conf")).find(|file| file.exists());
        let mut all = main.map(|file| settings(&file)).unwrap_or_default();
        let mut drop_ins = BTreeMap::new();
        for folder in folders() {
            let entries = fs::read_dir(folder.join("networkd.conf.d")).into_iter().flatten().flatten();
            let files = entries
                .map(|entry| entry.path())
                .filter(|file| file.extension().is_some_and(|e| e == "conf"));
            for file in files {
                drop_ins.entry(file.file_name().map(ToOwned::to_owned)).or_insert(file);
            }
        }
        all.extend(drop_ins.values().flat_map(|file| settings(file)));
        all
    }
}

/// Names for people; nothing when there are none.
fn names<'a>(interfaces: impl Iterator<Item = &'a Given>) -> Option<String> {
    let names: Vec<&str> = interfaces.map(|given| given.ifname.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The values of a file in sections, by `SECTION.KEY`; nothing when it is not there or cannot be read.
fn settings(file: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let (mut found, mut section) = (BTreeMap::new(), "");
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=') {
            found.insert(format!("{section}.{}", key.trim_end()), value.trim_start().to_owned());
        }
    }
    found
}

/// As systemd.syntax(7) and GLib's key files have it.
fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

fn is_false(value: &str) -> bool {
    ["0", "no", "n", "false", "f", "off"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, LinkManagers) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().expect("below the root")).expect("made");
            fs::write(file, text).expect("written");
        }
        let root = folder.path().to_owned();
        (folder, LinkManagers { root })
    }

    fn given() -> Vec<Given> {
        let given =
            |ifindex: u32, ifname: &str| Given { ifindex, ifname: ifname.to_owned(), later: ifindex > 2 };
        vec![given(2, "ens5"), given(3, "ens6"), given(4, "ens7")]
    }

    /// As files of systemd 252 on Amazon Linux 2023 and Debian 12 say it.
    fn link(state: &str) -> String {
        format!(
            "# This is private data. Do not parse.\nADMIN_STATE={state}\nOPER_STATE=routable\nREQUIRED_FOR_ONLINE=yes\n"
        )
    }

    const STATE: (&str, &str) =
        ("run/systemd/netif/state", "# This is private data. Do not parse.\nOPER_STATE=routable\n");

    #[test]
    fn where_nobody_else_looks_after_interfaces_there_is_no_danger() {
        // The folder of links is made by systemd also where networkd never ran.
        let (_folder, managers) = root(&[
            ("run/systemd/netif/links/.keep", ""),
            ("run/NetworkManager/devices/2", "[device]\nmanaged=true\n"),
            ("run/NetworkManager/devices/3", "[device]\nmanaged=false\nroute-metric-default-aspired=100\n"),
        ]);
        assert_eq!(managers.dangers(&given()), Vec::<String>::new());
        let (_folder, managers) = root(&[STATE]);
        assert_eq!(managers.dangers(&[]), Vec::<String>::new(), "the cloud gave no interface");
    }

    #[test]
    fn networkd_as_it_comes_would_take_rules_routes_and_addresses_away() {
        let (configured, unmanaged) = (link("configured"), link("unmanaged"));
        let (_folder, managers) = root(&[
            STATE,
            ("run/systemd/netif/links/2", &configured),
            ("run/systemd/netif/links/3", &configured),
            ("run/systemd/netif/links/4", &unmanaged),
            (
                "etc/systemd/networkd.conf",
                "[Network]\n#ManageForeignRoutes=no\n#ManageForeignRoutingPolicyRules=no\n",
            ),
        ]);
        let dangers = managers.dangers(&given());
        assert_eq!(dangers.len(), 3, "{dangers:?}");
        assert!(dangers[0].contains("ManageForeignRoutingPolicyRules=no"), "{dangers:?}");
        assert!(dangers[1].contains("by ens5, ens6 when") && dangers[1].contains("ManageForeignRoutes=no"));
        assert!(
            dangers[2].contains("configures ens6:") && dangers[2].contains("Unmanaged=yes"),
            "{dangers:?}"
        );
    }

    #[test]
    fn networkd_that_was_told_to_leave_everything_alone_is_no_danger() {
        let (configured, unmanaged) = (link("configured"), link("unmanaged"));
        let (_folder, managers) = root(&[
            STATE,
            ("run/systemd/netif/links/2", &configured),
            ("run/systemd/netif/links/3", &unmanaged),
            ("usr/lib/systemd/networkd.conf.d/10-eks.conf", "[Network]\nManageForeignRoutes = off\n"),
            (
                "etc/systemd/networkd.conf.d/20.conf",
                "[DHCP]\nDUIDType=link\n[Network]\nManageForeignRoutingPolicyRules=No\n",
            ),
        ]);
        assert_eq!(managers.dangers(&given()), Vec::<String>::new());
    }

    #[test]
    fn a_drop_in_goes_over_the_main_file_and_hides_its_namesake() {
        let both = "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n";
        let files = [
            STATE,
            ("etc/systemd/networkd.conf", both),
            ("usr/lib/systemd/networkd.conf.d/50.conf", "[Network]\nManageForeignRoutingPolicyRules=yes\n"),
            ("etc/systemd/networkd.conf.d/50.conf", ""),
        ];
        let (_folder, managers) = root(&files[..3]);
        assert_eq!(managers.dangers(&given()).len(), 1);
        let (_folder, managers) = root(&files);
        assert_eq!(managers.dangers(&given()), Vec::<String>::new());
        let (_folder, managers) = root(&[
            STATE,
            ("etc/systemd/networkd.conf", both),
            ("etc/systemd/networkd.conf.d/50.txt", "[Network]\nManageForeignRoutingPolicyRules=yes\n"),
        ]);
        assert_eq!(managers.dangers(&given()), Vec::<String>::new(), "another kind of file");
    }

    #[test]
    fn network_manager_is_a_danger_to_the_later_interfaces_that_it_manages() {
        let (_folder, managers) = root(&[
            ("run/NetworkManager/devices/2", "[device]\nmanaged=true\n"),
            ("run/NetworkManager/devices/4", "[device]\nmanaged=true\nconnection-uuid=1\n"),
        ]);
        let dangers = managers.dangers(&given());
        assert_eq!(dangers.len(), 1);
        assert!(
            dangers[0].contains("configures ens7:") && dangers[0].contains("unmanaged-devices"),
            "{dangers:?}"
        );
    }
}
