// SPDX-License-Identifier: Apache-2.0
//! What the speaker has to know after a restart: the last configuration that it took, and which boot it was.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rhumb_bgp_feed::Snapshot;
use serde::{Deserialize, Serialize};

/// Name of the file in the state directory.
const NAME: &str = "bgp.json";
/// Version of the file's form.
const VERSION: u32 = 1;
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    /// The configuration; after another boot without routes.
    pub(crate) snapshot: Snapshot,
    /// Whether the machine has run without a break since.
    pub(crate) same_boot: bool,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    boot: &'a str,
    snapshot: &'a Snapshot,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    boot: String,
    snapshot: Snapshot,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("understand {path}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("understand {path}: it has version {version}, and {VERSION} is known")]
    Version { path: PathBuf, version: u32 },
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// The file in a state directory.
#[derive(Debug, Clone)]
pub(crate) struct StateFile {
    path: PathBuf,
    boot: String,
}

impl StateFile {
    /// The file of this directory, which is made if it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub(crate) fn open(directory: &Path) -> Result<Self, StateError> {
        let path = directory.join(NAME);
        let written = fs::create_dir_all(directory);
        written.map_err(|source| StateError::Write { path: path.clone(), source })?;
        // Without an answer every start is one after a boot, which is the careful guess.
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Ok(StateFile { path, boot })
    }

    /// What was saved last; `None` on the first start.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub(crate) fn load(&self) -> Result<Option<Saved>, StateError> {
        let path = || self.path.clone();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Read { path: path(), source }),
        };
        let read: Read =
            serde_json::from_slice(&text).map_err(|source| StateError::Parse { path: path(), source })?;
        if read.version != VERSION {
            return Err(StateError::Version { path: path(), version: read.version });
        }
        let mut snapshot = read.snapshot;
        let same_boot = !self.boot.is_empty() && read.boot == self.boot;
        if !same_boot {
            // Nothing on this machine forwards yet: routes are told when the agent says that they hold.
            snapshot.instances.iter_mut().for_each(|instance| instance.routes.clear());
        }
        Ok(Some(Saved { snapshot, same_boot }))
    }

    /// Saves in one step: whenever the process is killed there is the old file or the new one. Nobody else can read
    /// it, for there are keys in it. It does not wait for the disk; that is [`StateFile::sync`], without which a
    /// machine that loses its power can come up with a file that is not understood, and begins as if for the first
    /// time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, snapshot: &Snapshot) -> Result<(), StateError> {
        self.write(snapshot).map_err(|source| StateError::Write { path: self.path.clone(), source })
    }

    /// Waits until what was saved is on the disk.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn sync(&self) -> Result<(), StateError> {
        let synced = File::open(&self.path).and_then(|file| file.sync_all());
        let synced = synced.and_then(|()| match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        });
        synced.map_err(|source| StateError::Write { path: self.path.clone(), source })
    }

    fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        let written = Written { version: VERSION, boot: &self.boot, snapshot };
        file.write_all(&serde_json::to_vec(&written)?)?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rhumb_model::Revision;

    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::open(&directory.path().join("bgp")).unwrap();
        assert_eq!(file.load().unwrap(), None);
        let snapshot = Snapshot { revision: Revision(7), instances: Vec::new() };
        assert!(file.sync().is_err());
        file.save(&snapshot).unwrap();
        file.sync().unwrap();
        assert_eq!(file.load().unwrap(), Some(Saved { snapshot, same_boot: true }));
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn after_another_boot_no_route_is_told_that_nobody_says_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::open(directory.path()).unwrap();
        let snapshot: Snapshot = serde_json::from_value(serde_json::json!({"revision": 1, "instances": [{
            "name": "main", "asn": 65000, "router_id": "192.0.2.1", "listen": [], "cluster_id": null, "multipath": 1,
            "own": [], "peers": [], "routes": [{
                "prefix": "10.1.0.0/24", "kind": "pod_cidr", "next_hop": "own", "discard": false,
                "attributes": {"communities": [], "large_communities": [], "local_pref": null, "med": null},
                "recipients": "all", "exceptions": {},
            }],
        }]}))
        .unwrap();
        StateFile { boot: "before".to_owned(), ..file.clone() }.save(&snapshot).unwrap();
        let saved = file.load().unwrap().unwrap();
        assert!(!saved.same_boot);
        assert_eq!(saved.snapshot.instances[0].routes, []);
        file.save(&snapshot).unwrap();
        assert_eq!(file.load().unwrap().unwrap().snapshot, snapshot);
    }

    #[test]
    fn a_file_that_is_no_state_is_an_error_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::open(directory.path()).unwrap();
        fs::write(&file.path, "{}").unwrap();
        assert!(file.load().unwrap_err().to_string().ends_with("bgp.json"));
    }
}
