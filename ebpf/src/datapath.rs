// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::pin::PinError;
use aya::programs::SchedClassifier;
use rhumb_ebpf_common::layout::{FLOWS, VERSION};
use tracing::{debug, info, warn};

use crate::attachments::{self, AttachError, Attachments};
use crate::bpffs::{self, BpffsError};
use crate::counters::{Counter, CounterError, Counters};
use crate::entries::EntryError;
use crate::epoch::Epoch;
use crate::events::{self, EventError, Events, Untold};
use crate::features::{Feature, features};
use crate::flows::FlowTable;
use crate::migrate::{MigrateError, Migration};
use crate::object::{self, LoadError, MAPS};
use crate::pressure::Pressure;
use crate::sweep::Sweep;
use crate::trial::{self, Ran, Trial, TrialError};
use crate::{Endpoints, Hook, HostPorts, Ipcache, PodLinks, Remote, RemotePrefix, TunnelLinks, Uplinks};

/// Where the datapath lives.
#[derive(Debug, Clone)]
pub struct Config {
    /// A directory of our own on a BPF file system, for example `/sys/fs/bpf/rhumb`; it is made when it is absent, and
    /// the file system mounted at its parent. No part of the name below the mount may contain a dot.
    pub bpffs: PathBuf,
    /// How many flows are remembered, and how many of them masqueraded. The memory is taken at once: about 384 bytes for
    /// each.
    pub flows: u32,
}

impl Config {
    /// How many flows are remembered unless somebody says otherwise: 48 MiB.
    pub const FLOWS: u32 = FLOWS;

    /// A datapath in the directory `bpffs`, as large as it is by default.
    pub fn new(bpffs: PathBuf) -> Self {
        Self { bpffs, flows: Self::FLOWS }
    }
}

/// Why the datapath cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// The kernel lacks something.
    #[error("kernel lacks {} (linux {} and later): {}", .0.name, .0.since, .0.lost)]
    Kernel(Feature),
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A program cannot be pinned.
    #[error("pin program {hook}")]
    Pin {
        /// Which program.
        hook: Hook,
        /// What the kernel said.
        #[source]
        source: PinError,
    },
    /// A pinned program cannot take the place of the one before.
    #[error("replace the pin of program {hook}")]
    Replace {
        /// Which program.
        hook: Hook,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An existing attachment cannot be taken over.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The state of another layout cannot be taken over.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A map cannot be opened.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The counters cannot be opened.
    #[error(transparent)]
    Counters(#[from] CounterError),
}

/// Why something of ours could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("remove {}", path.display())]
pub struct PurgeError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What the reconcile loop keeps in its desired state.
#[derive(Debug)]
pub struct Targets {
    /// Pods by address.
    pub endpoints: Endpoints,
    /// Pods by interface.
    pub pod_links: PodLinks,
    /// Ports of the node that lead to pods.
    pub host_ports: HostPorts,
    /// What is behind prefixes elsewhere, and how it is reached.
    pub ipcache: Ipcache,
    /// The tunnel that encapsulated packets enter.
    pub tunnel_links: TunnelLinks,
    /// Addresses that pods' packets leave with.
    pub uplinks: Uplinks,
    /// Programs on interfaces.
    pub attachments: Attachments,
}

/// A loaded program.
#[derive(Debug)]
pub struct Program {
    /// What it is for.
    pub hook: Hook,
    /// The kernel's number for it.
    pub id: u32,
    /// A descriptor of it.
    pub fd: OwnedFd,
}

/// The loaded programs and their maps.
#[derive(Debug)]
pub struct Datapath {
    root: PathBuf,
    maps: PathBuf,
    programs: PathBuf,
    links: PathBuf,
    migration: Migration,
    flows: u32,
    counters: Counters,
    epoch: Epoch,
}

impl Datapath {
    /// Loads the programs, takes over what is pinned, and lets existing attachments run the new programs.
    ///
    /// # Errors
    /// [`OpenError`] says what is missing or does not fit. What is attached goes on running then.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        bpffs::prepare(&config.bpffs)?;
        for lacking in features().into_iter().filter(|feature| !feature.present) {
            let Some(instead) = lacking.instead else { return Err(OpenError::Kernel(lacking)) };
            info!(
                feature = lacking.name,
                since = lacking.since,
                lost = lacking.lost,
                instead,
                "kernel feature replaced"
            );
        }
        let version = config.bpffs.join(format!("v{VERSION}"));
        let [maps, programs, links] = ["maps", "programs", "links"].map(|part| version.join(part));
        for directory in [&maps, &programs, &links] {
            bpffs::make(directory)?;
        }
        let migration = Migration::new(&config.bpffs, &maps, &links);
        migration.prepare(config.flows)?;
        let mut object = object::load(&maps, config.flows)?;
        migration.carry()?;
        let epoch = Epoch::open(&maps)?;
        // Before the programs run that read it; it also says how long a moment is.
        epoch.advance()?;
        for hook in Hook::ALL {
            let program = object::program(&mut object, hook)?;
            take_over(program, hook, &migration.old_links())?;
            take_over(program, hook, &links)?;
            replace_pin(program, hook, &programs)?;
        }
        migration.move_links()?;
        info!(dir = %config.bpffs.display(), "datapath loaded");
        let counters = Counters::open(&maps)?;
        Ok(Self {
            root: config.bpffs.clone(),
            maps,
            programs,
            links,
            migration,
            flows: config.flows,
            counters,
            epoch,
        })
    }

    /// Ends what [`Datapath::open`] began when it found another layout of the maps, or maps of another size. To be called
    /// when no program from before runs any more; does nothing when there is nothing to end.
    ///
    /// # Errors
    /// [`MigrateError`] says what could not be carried over or removed; calling again goes on.
    pub fn finish_migration(&self) -> Result<(), MigrateError> {
        self.migration.finish()
    }

    /// Hands out the targets; each call opens them anew.
    ///
    /// # Errors
    /// [`OpenError`] names the map or program that cannot be opened.
    pub fn targets(&self) -> Result<Targets, OpenError> {
        Ok(Targets {
            endpoints: Endpoints::open(&self.maps, self.epoch())?,
            pod_links: PodLinks::open(&self.maps, self.epoch())?,
            host_ports: HostPorts::open(&self.maps)?,
            ipcache: Ipcache::open(&self.maps, self.epoch())?,
            tunnel_links: TunnelLinks::open(&self.maps, self.epoch())?,
            uplinks: Uplinks::open(&self.maps, self.epoch())?,
            attachments: Attachments::open(&self.programs, &self.links)?,
        })
    }

    /// What ends the ways that flows keep, for whoever hears that one changed. The targets do it by themselves.
    pub fn epoch(&self) -> Epoch {
        self.epoch.clone()
    }

    /// What removes flows and mappings whose time is over; to be used for as long as the node runs.
    pub fn sweep(&self) -> Sweep {
        Sweep::new(&self.maps, self.flows)
    }

    /// The loaded programs, for whoever attaches them in a way of its own.
    ///
    /// # Errors
    /// [`AttachError::Program`] when a program cannot be opened.
    pub fn programs(&self) -> Result<Vec<Program>, AttachError> {
        Hook::ALL
            .into_iter()
            .map(|hook| {
                let failed = |source| AttachError::Program { hook, source: Box::new(source) };
                let program = SchedClassifier::from_pin(self.programs.join(hook.as_str())).map_err(failed)?;
                let id = program.info().map_err(failed)?.id();
                let fd = program.fd().map_err(failed)?.try_clone().map_err(|error| failed(error.into()))?;
                Ok(Program {
                    hook,
                    id,
                    fd: fd.as_fd().try_clone_to_owned().map_err(|error| failed(error.into()))?,
                })
            })
            .collect()
    }

    /// What became of all packets so far; counters that never counted are left out.
    ///
    /// # Errors
    /// [`CounterError`] when the kernel does not give them.
    pub fn counters(&self) -> Result<Vec<Counter>, CounterError> {
        self.counters.read()
    }

    /// What the programs tell of single packets.
    ///
    /// # Errors
    /// [`EventError::Open`] names the map that cannot be opened.
    pub fn events(&self) -> Result<Events, EventError> {
        Events::open(&self.maps)
    }

    /// Packets that the programs did not tell of, by reason.
    ///
    /// # Errors
    /// [`EventError`] when the kernel does not give them.
    pub fn untold(&self) -> Result<Vec<Untold>, EventError> {
        events::untold(&self.maps)
    }

    /// Counts how full the maps are.
    pub fn pressure(&self) -> Pressure {
        Pressure::new(&self.maps)
    }

    /// Reads some of the flows and mappings, wherever there is time for it.
    pub fn flow_table(&self) -> FlowTable {
        FlowTable::new(&self.maps)
    }

    /// What the datapath knows about addresses elsewhere, as the kernel has it now.
    ///
    /// # Errors
    /// [`EntryError`] when the kernel does not give it.
    pub fn ipcache(&self) -> Result<BTreeMap<RemotePrefix, Remote>, EntryError> {
        Ipcache::open(&self.maps, self.epoch())?.read()
    }

    /// Runs a program on a packet in memory.
    ///
    /// # Errors
    /// [`TrialError`] when the kernel does not run it.
    pub fn run(&self, hook: Hook, trial: &Trial<'_>) -> Result<Ran, TrialError> {
        trial::run(&self.programs, hook, trial)
    }

    /// Median time that a program takes for a packet, over `rounds` of 250 runs. The packet needs 255 hops, as every
    /// run takes one.
    ///
    /// # Errors
    /// [`TrialError`] when the kernel does not run it.
    pub fn cost(&self, hook: Hook, trial: &Trial<'_>, rounds: usize) -> Result<Duration, TrialError> {
        trial::cost(&self.programs, hook, trial, rounds)
    }

    /// How many instructions the verifier walked through for each program.
    ///
    /// # Errors
    /// [`AttachError::Program`] when a program cannot be looked at.
    pub fn verified_instructions(&self) -> Result<Vec<(Hook, u32)>, AttachError> {
        Hook::ALL
            .into_iter()
            .map(|hook| {
                let failed = |source| AttachError::Program { hook, source: Box::new(source) };
                let program = SchedClassifier::from_pin(self.programs.join(hook.as_str())).map_err(failed)?;
                let info = program.info().map_err(failed)?;
                Ok((hook, info.verified_instruction_count().unwrap_or(0)))
            })
            .collect()
    }

    /// Removes everything of ours: attachments first, then programs and maps. Others' pins stay, and so does a
    /// directory that has some.
    ///
    /// # Errors
    /// The first [`PurgeError`], after everything else was removed.
    pub fn purge(self) -> Result<(), PurgeError> {
        let mut first = None;
        let mut note = |result: Result<(), PurgeError>| {
            if let Err(error) = result {
                first.get_or_insert(error);
            }
        };
        for point in attachments::list(&self.links).unwrap_or_default() {
            note(remove(&self.links.join(point.pin_name())));
        }
        for hook in Hook::ALL {
            note(remove(&self.programs.join(hook.as_str())));
            note(remove(&self.programs.join(incoming(hook))));
        }
        for (name, _) in MAPS {
            note(remove(&self.maps.join(name)));
        }
        if let Err(error) = self.migration.finish() {
            warn!(%error, "state of an earlier version stays");
        }
        let version = self.root.join(format!("v{VERSION}"));
        for directory in [&self.links, &self.programs, &self.maps, &version, &self.root] {
            note(remove_if_empty(directory));
        }
        first.map_or(Ok(()), Err)
    }
}

/// Lets every pinned link of `hook` run `program`.
fn take_over(program: &mut SchedClassifier, hook: Hook, links: &Path) -> Result<(), AttachError> {
    if !links.exists() {
        return Ok(());
    }
    for point in attachments::list(links)?.into_iter().filter(|point| point.hook == hook) {
        let Some(pin) = attachments::pinned(links, &point)? else { continue };
        if !attachments::repoint(program, &point, pin)? {
            attachments::unpin(links, &point)?;
            debug!(%point, "link of a vanished interface removed");
        }
    }
    Ok(())
}

/// Puts the program's pin in the place of the one before, in one step.
fn replace_pin(program: &mut SchedClassifier, hook: Hook, programs: &Path) -> Result<(), OpenError> {
    let new = programs.join(incoming(hook));
    remove(&new).map_err(|error| OpenError::Replace { hook, source: error.source })?;
    program.pin(&new).map_err(|source| OpenError::Pin { hook, source })?;
    std::fs::rename(&new, programs.join(hook.as_str())).map_err(|source| OpenError::Replace { hook, source })
}

fn incoming(hook: Hook) -> String {
    format!("new:{hook}")
}

fn remove(path: &Path) -> Result<(), PurgeError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(PurgeError { path: path.to_owned(), source }),
    }
}

fn remove_if_empty(path: &Path) -> Result<(), PurgeError> {
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        Err(source) => Err(PurgeError { path: path.to_owned(), source }),
    }
}
