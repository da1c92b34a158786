// SPDX-License-Identifier: Apache-2.0
//! The file that tells the container runtime to call our plugin (CNI specification 1.1.0, section 1).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rhumb_model::Target;
use serde_json::json;

/// Name of our file: early in the order, so that the runtime takes it before others.
const NAME: &str = "05-rhumb.conflist";

/// Name of a file in the runtime's configuration directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConfFileName(&'static str);

impl std::fmt::Display for ConfFileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// The file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub(crate) struct ConfFileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What the file says: `cniVersion` is what every runtime in use reads, `cniVersions` lets newer ones choose.
pub(crate) fn content(network: &str, socket: &Path) -> BTreeMap<ConfFileName, String> {
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": network,
        "plugins": [{
            "type": "rhumb-cni",
            "agentSocket": socket,
            "capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true},
        }],
    });
    [(ConfFileName(NAME), format!("{list:#}\n"))].into()
}

/// The files of ours in the runtime's configuration directory.
#[derive(Debug)]
pub(crate) struct ConfFiles {
    dir: PathBuf,
}

impl ConfFiles {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn write(&self, key: &ConfFileName, value: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        // The runtime reads names that end in .conf, .conflist or .json: this one is invisible to it.
        let draft = self.dir.join(format!(".{key}.tmp"));
        let mut file = File::create(&draft)?;
        file.write_all(value.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, self.dir.join(key.0))?;
        File::open(&self.dir)?.sync_all()
    }
}

impl Target for ConfFiles {
    type Key = ConfFileName;
    type Value = String;
    type Error = ConfFileError;

    fn kind(&self) -> &'static str {
        "CNI configuration"
    }

    async fn observe(&mut self) -> Result<BTreeMap<ConfFileName, String>, ConfFileError> {
        let path = self.dir.join(NAME);
        match fs::read(&path) {
            Ok(bytes) => Ok([(ConfFileName(NAME), String::from_utf8_lossy(&bytes).into_owned())].into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(source) => Err(ConfFileError { action: "read", path, source }),
        }
    }

    async fn put(&mut self, key: &ConfFileName, value: &String) -> Result<(), ConfFileError> {
        self.write(key, value).map_err(|source| ConfFileError {
            action: "write",
            path: self.dir.join(key.0),
            source,
        })
    }

    async fn remove(&mut self, key: &ConfFileName) -> Result<(), ConfFileError> {
        let path = self.dir.join(key.0);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ConfFileError { action: "remove", path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_model::law;
    use std::time::Instant;

    #[test]
    fn the_law_holds_and_files_of_others_survive() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("10-other.conflist"), "theirs").expect("written");
        fs::write(dir.path().join(NAME), [0xff, 0xfe]).expect("written");
        let states = [content("a", Path::new("/x")), content("b", Path::new("/y")), BTreeMap::new()];
        let now = Instant::now();
        let target = ConfFiles::new(dir.path().to_owned());
        let target = futures::executor::block_on(law::converges(target, &states, now)).expect("lawful");
        futures::executor::block_on(law::survives_any_single_failure(target, &states, now)).expect("lawful");
        let left: Vec<_> = fs::read_dir(dir.path()).expect("read").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["10-other.conflist"]);
        assert_eq!(fs::read_to_string(dir.path().join("10-other.conflist")).expect("read"), "theirs");
    }

    #[test]
    fn the_list_names_our_plugin_and_no_reserved_key() {
        let files = content("rhumb", Path::new("/run/rhumb/agent.sock"));
        let list: serde_json::Value =
            serde_json::from_str(files.values().next().expect("one file")).expect("JSON");
        assert_eq!(list["plugins"][0]["type"], "rhumb-cni");
        for reserved in ["runtimeConfig", "args", "prevResult"] {
            assert!(list["plugins"][0].get(reserved).is_none(), "{reserved}");
        }
    }
}
