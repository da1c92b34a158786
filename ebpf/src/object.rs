// SPDX-License-Identifier: Apache-2.0
//! The kernel side as a file, and how it enters the kernel.

use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{MapError, MapInfo, MapType};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use rhumb_ebpf_common::Reason;
use rhumb_ebpf_common::event::{Limit, RING, Watch};
use rhumb_ebpf_common::layout::{
    Address, COUNTERS, Churn, Config, Count, Ct, CtKey, ENTRIES, Endpoint, Epoch, FLOWS, FRAGMENTS, Fragment,
    FragmentKey, HostPortKey, HostPortValue, Link, NO_PREALLOC, Nat, NatKey, PREFIXES, PrefixKey, Remote,
    UPLINKS, Uplink,
};

use crate::Hook;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rhumb.bpf.o"));

/// How often a load that a signal interrupted is tried.
const LOAD_ATTEMPTS: usize = 10;

/// Why the programs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A pinned map cannot be looked at.
    #[error("look at pinned map {}", path.display())]
    Look {
        /// Where it is pinned.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// A pinned map has another layout than the programs expect.
    #[error(
        "pinned map {} has another layout ({found}) than these programs need ({needed}): it is of another version \
         or not ours; `rhumb` of the version that made it can remove it, or remove the directory when no pod runs",
        path.display()
    )]
    Layout {
        /// Where it is pinned.
        path: PathBuf,
        /// What is there.
        found: Layout,
        /// What is needed.
        needed: Layout,
    },
    /// The object cannot be read, or its maps cannot be made.
    #[error("make the maps of the datapath")]
    Maps(#[source] Box<EbpfError>),
    /// A program is missing in the object.
    #[error("find program {0} in the object")]
    Absent(Hook),
    /// The kernel does not take a program.
    #[error("load program {hook}")]
    Program {
        /// Which program.
        hook: Hook,
        /// What the kernel said, with the verifier's log.
        #[source]
        source: Box<ProgramError>,
    },
}

/// What two versions of a map must agree on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layout {
    pub(crate) kind: MapType,
    key: u32,
    value: u32,
    pub(crate) entries: u32,
    flags: u32,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, key, value, entries, flags } = self;
        write!(f, "{kind:?}, key {key} bytes, value {value} bytes, {entries} entries, flags {flags:#x}")
    }
}

const fn layout<K, V>(kind: MapType, entries: u32, flags: u32) -> Layout {
    // Sizes of a few dozen bytes, asserted where the types are.
    Layout { kind, key: size_of::<K>() as u32, value: size_of::<V>() as u32, entries, flags }
}

/// The pin of the value that says what somebody wants to hear of packets.
pub(crate) const WATCH: &str = "watch";
/// Its name in the object: that of a section, as it is a variable there.
const WATCH_SECTION: &str = ".bss.watch";
/// The pin of the number that ends what flows keep of their ways.
pub(crate) const EPOCH: &str = "epoch";
/// Its name in the object, as above.
const EPOCH_SECTION: &str = ".bss.epoch";

/// Every map by its name, which is also the name of its pin.
pub(crate) const MAPS: [(&str, Layout); 15] = [
    ("pods", layout::<Address, Endpoint>(MapType::Hash, ENTRIES, NO_PREALLOC)),
    ("links", layout::<u32, Link>(MapType::Hash, ENTRIES, NO_PREALLOC)),
    ("host_ports", layout::<HostPortKey, HostPortValue>(MapType::Hash, ENTRIES, NO_PREALLOC)),
    ("ct", layout::<CtKey, Ct>(MapType::LruHash, FLOWS, 0)),
    ("nat", layout::<NatKey, Nat>(MapType::LruHash, FLOWS, 0)),
    ("uplinks", layout::<u32, Uplink>(MapType::Hash, UPLINKS, NO_PREALLOC)),
    ("fragments", layout::<FragmentKey, Fragment>(MapType::LruHash, FRAGMENTS, 0)),
    ("ipcache", layout::<PrefixKey, Remote>(MapType::LpmTrie, PREFIXES, NO_PREALLOC)),
    ("config", layout::<u32, Config>(MapType::Array, 1, 0)),
    ("counters", layout::<u32, Count>(MapType::PerCpuArray, COUNTERS, 0)),
    ("churn", layout::<u32, Churn>(MapType::PerCpuArray, Churn::MAPS, 0)),
    ("events", layout::<(), ()>(MapType::RingBuf, RING, 0)),
    ("event_limits", layout::<u32, Limit>(MapType::PerCpuArray, Reason::ROOM, 0)),
    (WATCH, layout::<u32, Watch>(MapType::Array, 1, 0)),
    (EPOCH, layout::<u32, Epoch>(MapType::Array, 1, 0)),
];

/// The maps whose size the configuration says.
pub(crate) const SIZED: [&str; 2] = ["ct", "nat"];

/// Refuses pinned maps that these programs cannot use.
pub(crate) fn check_pinned(maps: &Path, flows: u32) -> Result<(), LoadError> {
    for (name, mut needed) in MAPS {
        if SIZED.contains(&name) {
            needed.entries = flows;
        }
        let path = maps.join(name);
        if !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path)
            .map_err(|source| LoadError::Look { path: path.clone(), source: Box::new(source) })?;
        let kind = info
            .map_type()
            .map_err(|source| LoadError::Look { path: path.clone(), source: Box::new(source) })?;
        let found = Layout {
            kind,
            key: info.key_size(),
            value: info.value_size(),
            entries: info.max_entries(),
            flags: info.map_flags(),
        };
        if found != needed {
            return Err(LoadError::Layout { path, found, needed });
        }
    }
    Ok(())
}

/// Loads the programs; maps are those pinned in `maps`, or made and pinned there.
pub(crate) fn load(maps: &Path, flows: u32) -> Result<Ebpf, LoadError> {
    check_pinned(maps, flows)?;
    let mut loader = EbpfLoader::new();
    // The programs follow no kernel structures, so the kernel's own type information is not read.
    loader.btf(None);
    for (name, _) in MAPS {
        let in_object = match name {
            WATCH => WATCH_SECTION,
            EPOCH => EPOCH_SECTION,
            name => name,
        };
        loader.map_pin_path(in_object, maps.join(name));
    }
    for name in SIZED {
        loader.map_max_entries(name, flows);
    }
    let mut object = loader.load(OBJECT).map_err(|error| LoadError::Maps(Box::new(error)))?;
    for hook in Hook::ALL {
        let program = program(&mut object, hook)?;
        load_program(program).map_err(|source| LoadError::Program { hook, source: Box::new(source) })?;
    }
    Ok(object)
}

/// Loads a program. The verifier gives up with EAGAIN when the thread has a signal to take, for example because
/// another thread ends; that says nothing about the program.
fn load_program(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    for _ in 1..LOAD_ATTEMPTS {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock => {
            }
            result => return result,
        }
    }
    program.load()
}

/// The program of a hook.
pub(crate) fn program(object: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier, LoadError> {
    object
        .program_mut(hook.as_str())
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Absent(hook))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rhumb_ebpf_common::layout::VERSION;

    use super::*;

    #[test]
    fn the_document_names_every_pin_and_no_other() {
        let document = include_str!("../../docs/reference/kernel-objects.md");
        let told = |folder: &str| -> BTreeSet<&str> {
            let (_, after) =
                document.split_once(&format!("\nv{VERSION}/{folder}/{{")).expect("the document has it");
            after.split('}').next().expect("a part").split(',').collect()
        };
        assert_eq!(told("maps"), MAPS.map(|(name, _)| name).into());
        assert_eq!(told("programs"), Hook::ALL.iter().map(|hook| hook.as_str()).collect());
    }
}
