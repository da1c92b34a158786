// SPDX-License-Identifier: Apache-2.0
//! From one layout of the maps to the next, while packets flow.
//!
//! ```text
//!  open    maps whose layout stayed are pinned in the new directory too; what the others hold is carried over;
//!          links run the new programs from now on; filters of pods run the old ones until the agent replaces them
//!  finish  what the old programs remembered meanwhile is carried over as well; the old pins are removed
//! ```
//! Until `finish` the old directory is whole: an agent that is killed in between begins again at the same place. A map
//! of flows whose size was changed, or whose entries have grown, goes the same way, under the name `was:MAP` beside the
//! new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError, MapInfo};
use aya::pin::PinError;
use rhumb_ebpf_common::ct::{Side, state, times};
use rhumb_ebpf_common::layout::{Ct, CtKey, EarlierCt, Flow, FlowKey, Nat, NatKey};
use tracing::info;

use crate::Hook;
use crate::attachments;
use crate::object::{MAPS, SIZED};
use crate::tick;

const TCP: u8 = 6;
/// `BPF_NOEXIST`: what the new programs remember already stays.
const IF_ABSENT: u64 = 1;

/// Why the state of another layout cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A map cannot be opened.
    #[error("open map {} to take it over", path.display())]
    Open {
        /// Where it is pinned.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// A map cannot be pinned in its new place.
    #[error("pin map at {}", path.display())]
    Pin {
        /// The new place.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: PinError,
    },
    /// Entries cannot be carried from one map to the next.
    #[error("carry entries of map {} over", path.display())]
    Carry {
        /// The old map.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// A pin cannot be moved or removed.
    #[error("move or remove {}", path.display())]
    Move {
        /// The pin.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Where the state of this layout and of the one before are.
#[derive(Debug, Clone)]
pub(crate) struct Migration {
    old: PathBuf,
    maps: PathBuf,
    links: PathBuf,
}

impl Migration {
    /// From `v1` below `root` to the directories of this version.
    pub(crate) fn new(root: &Path, maps: &Path, links: &Path) -> Self {
        Self { old: root.join("v1"), maps: maps.to_owned(), links: links.to_owned() }
    }

    /// Brings what the new programs take as it is to its new place. Before the programs are loaded.
    pub(crate) fn prepare(&self, flows: u32) -> Result<(), MigrateError> {
        for (name, _) in MAPS {
            let (old, new) = (self.old.join("maps").join(name), self.maps.join(name));
            if old.exists() && !new.exists() {
                let map = MapData::from_pin(&old)
                    .map_err(|source| MigrateError::Open { path: old.clone(), source: Box::new(source) })?;
                map.pin(&new).map_err(|source| MigrateError::Pin { path: new.clone(), source })?;
            }
        }
        for name in SIZED {
            let map = self.maps.join(name);
            if map.exists() && is_other(name, &map, flows)? {
                // With an earlier change not finished yet, the map in the middle has what is young.
                rename(&map, &self.was(name))?;
            }
        }
        Ok(())
    }

    /// Where the links of the version before are pinned.
    pub(crate) fn old_links(&self) -> PathBuf {
        self.old.join("links")
    }

    /// Brings the links to their new place. After they run the new programs.
    pub(crate) fn move_links(&self) -> Result<(), MigrateError> {
        for point in attachments::list(&self.old_links()).unwrap_or_default() {
            let name = point.pin_name();
            rename(&self.old_links().join(&name), &self.links.join(&name))?;
        }
        Ok(())
    }

    /// Copies what the old maps hold and the new ones do not. Before the switch, so that the new programs find it, and
    /// after it, for what came meanwhile.
    pub(crate) fn carry(&self) -> Result<(), MigrateError> {
        let now = tick::now();
        let ct = self.maps.join("ct");
        carry(&self.old.join("maps/flows"), &ct, |key: &FlowKey, flow: &Flow| known(key, flow, now))?;
        let was = self.was("ct");
        if was.exists() && look(&was)?.value_size() as usize == size_of::<EarlierCt>() {
            carry(&was, &ct, |key: &CtKey, flow: &EarlierCt| (*key, flow.carried()))?;
        } else {
            carry(&was, &ct, |key: &CtKey, flow: &Ct| (*key, *flow))?;
        }
        carry(&self.was("nat"), &self.maps.join("nat"), |key: &NatKey, nat: &Nat| (*key, *nat))
    }

    /// Ends the migration: the old programs run nowhere any more.
    pub(crate) fn finish(&self) -> Result<(), MigrateError> {
        self.carry()?;
        for name in SIZED {
            remove(&self.was(name))?;
        }
        if !self.old.exists() {
            return Ok(());
        }
        for (name, _) in MAPS {
            remove(&self.old.join("maps").join(name))?;
        }
        remove(&self.old.join("maps/flows"))?;
        for hook in Hook::ALL {
            remove(&self.old.join("programs").join(hook.as_str()))?;
        }
        for part in ["links", "programs", "maps", ""] {
            remove_if_empty(&self.old.join(part))?;
        }
        info!(from = %self.old.display(), "flows migrated");
        Ok(())
    }

    fn was(&self, name: &str) -> PathBuf {
        self.maps.join(format!("was:{name}"))
    }
}

/// A flow of version 1 in the words of this one: the other side opened it.
fn known(key: &FlowKey, flow: &Flow, now: u32) -> (CtKey, Ct) {
    let (ct, pod) = CtKey::of_sides((key.pod, key.pod_port), (key.peer, key.peer_port), key.protocol);
    let state = if key.protocol == TCP { state::ESTABLISHED } else { state::STREAM };
    let (expires, refresh) = times(state, now);
    let mut known = Ct { expires, refresh, state, created: now, ..Ct::default() };
    if pod == Side::Low {
        known.flags |= Ct::OPENER_HIGH;
    }
    if flow.kind == Flow::HOST_PORT {
        known.translate(Ct::HOST_PORT, flow.addr, flow.port);
    } else {
        known.divert(pod);
    }
    (ct, known)
}

/// Copies the entries of the map pinned at `old`, if there is one, into that at `new`.
fn carry<K: Pod, V: Pod, NewKey: Pod, NewValue: Pod>(
    old: &Path,
    new: &Path,
    translate: impl Fn(&K, &V) -> (NewKey, NewValue),
) -> Result<(), MigrateError> {
    if !old.exists() {
        return Ok(());
    }
    let source: HashMap<MapData, K, V> = open(old)?;
    let mut target: HashMap<MapData, NewKey, NewValue> = open(new)?;
    let failed = |source| MigrateError::Carry { path: old.to_owned(), source: Box::new(source) };
    for entry in source.iter() {
        let (key, value) = entry.map_err(failed)?;
        let (key, value) = translate(&key, &value);
        match target.insert(key, value, IF_ABSENT) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(failed)?,
        }
    }
    Ok(())
}

fn open<K: Pod, V: Pod>(path: &Path) -> Result<HashMap<MapData, K, V>, MigrateError> {
    MapData::from_pin(path)
        .and_then(Map::from_map_data)
        .and_then(HashMap::try_from)
        .map_err(|source| MigrateError::Open { path: path.to_owned(), source: Box::new(source) })
}

/// Whether a map of flows has another size than it is to have, or entries of an earlier kind.
fn is_other(name: &str, map: &Path, flows: u32) -> Result<bool, MigrateError> {
    let info = look(map)?;
    let earlier = name == "ct" && info.value_size() as usize == size_of::<EarlierCt>();
    Ok(earlier || info.max_entries() != flows)
}

fn look(path: &Path) -> Result<MapInfo, MigrateError> {
    MapInfo::from_pin(path)
        .map_err(|source| MigrateError::Open { path: path.to_owned(), source: Box::new(source) })
}

fn rename(from: &Path, to: &Path) -> Result<(), MigrateError> {
    fs::rename(from, to).map_err(|source| MigrateError::Move { path: from.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), MigrateError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(MigrateError::Move { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn remove_if_empty(path: &Path) -> Result<(), MigrateError> {
    match fs::remove_dir(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        result => result.map_err(|source| MigrateError::Move { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::to_words;
    use proptest::prelude::*;
    use rhumb_ebpf_common::ct::From;

    proptest! {
        #[test]
        fn a_flow_of_version_1_is_that_of_its_pod(
            pod: std::net::IpAddr, peer: std::net::IpAddr, ports: ([u8; 2], [u8; 2]), tcp: bool, host_port: bool,
        ) {
            prop_assume!(pod != peer && pod.is_ipv4() == peer.is_ipv4());
            let key = FlowKey {
                pod: to_words(pod), peer: to_words(peer), pod_port: ports.0, peer_port: ports.1,
                protocol: if tcp { TCP } else { 17 }, padding: [0; 3],
            };
            let kind = if host_port { Flow::HOST_PORT } else { Flow::STACK };
            let flow = Flow { addr: [7; 4], port: [0, 80], kind, ..Flow::default() };
            let (ct, known) = known(&key, &flow, 100);
            let (_, side) = CtKey::of_sides((key.pod, key.pod_port), (key.peer, key.peer_port), key.protocol);
            prop_assert_eq!(ct.side(side), (key.pod, key.pod_port));
            prop_assert_eq!(known.from(side), From::Replier);
            prop_assert!(known.is_diverted(side) && !known.is_diverted(side.other()));
            prop_assert_eq!(known.has(side.stack()), !host_port);
            prop_assert!(!known.is_expired(200));
        }
    }
}
