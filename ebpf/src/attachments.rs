// SPDX-License-Identifier: Apache-2.0
//! Programs on interfaces by tcx: one pinned link per interface and hook. The agent uses it for uplinks
//! and for the tunnel.
//!
//! Ours are attached behind whatever others have attached, and let go on to whatever others attach later: what they
//! watch they go on seeing, as long as the packet is left to the stack.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aya::pin::PinError;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use rhumb_model::{IfName, Target};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// `ENOLINK`: the interface of the link is gone.
const NO_LINK: i32 = 67;

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// What a pod sends: ingress of its host end.
    FromPod,
    /// What the host sends to a pod: egress of its host end.
    ToPod,
    /// What other machines send: ingress of an uplink.
    FromWire,
    /// What leaves the node: egress of an uplink.
    ToWire,
    /// What other nodes send through the tunnel: ingress of its device.
    FromTunnel,
    /// What enters the tunnel: egress of its device.
    ToTunnel,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 6] =
        [Self::FromPod, Self::ToPod, Self::FromWire, Self::ToWire, Self::FromTunnel, Self::ToTunnel];

    /// The name, which is also that of the program.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::FromWire => "from_wire",
            Self::ToWire => "to_wire",
            Self::FromTunnel => "from_tunnel",
            Self::ToTunnel => "to_tunnel",
        }
    }

    pub(crate) const fn side(self) -> TcAttachType {
        match self {
            Self::FromPod | Self::FromWire | Self::FromTunnel => TcAttachType::Ingress,
            Self::ToPod | Self::ToWire | Self::ToTunnel => TcAttachType::Egress,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One hook of one interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachPoint {
    /// The interface.
    pub ifname: IfName,
    /// The hook.
    pub hook: Hook,
}

impl AttachPoint {
    /// Name of the pin. A BPF file system allows no dot, an interface name no colon, so one stands for the other.
    pub(crate) fn pin_name(&self) -> String {
        format!("{}:{}", self.hook, self.ifname.as_str().replace('.', ":"))
    }

    pub(crate) fn from_pin_name(name: &str) -> Option<Self> {
        let (hook, ifname) = name.split_once(':')?;
        let hook = Hook::ALL.into_iter().find(|known| known.as_str() == hook)?;
        Some(Self { hook, ifname: IfName::new(ifname.replace(':', ".")).ok()? })
    }
}

impl fmt::Display for AttachPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.hook, self.ifname)
    }
}

/// What an attachment is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// Index of the interface: another interface under the same name is another attachment.
    pub ifindex: u32,
}

/// Why an attachment could not be read, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The pinned program cannot be opened.
    #[error("open program {hook}")]
    Program {
        /// Which program.
        hook: Hook,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// The directory of pins cannot be read.
    #[error("read links in {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The interface is not there.
    #[error("find interface {ifname}")]
    Interface {
        /// Its name.
        ifname: IfName,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The name belongs to another interface now.
    #[error("attach {point}: interface index is {found}, not {wanted}")]
    Replaced {
        /// Where.
        point: AttachPoint,
        /// Index now.
        found: u32,
        /// Index that was asked for.
        wanted: u32,
    },
    /// The kernel does not attach the program.
    #[error("attach {point}")]
    Attach {
        /// Where.
        point: AttachPoint,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// A link does not do what links do.
    #[error("handle the link of {point}")]
    Link {
        /// Where.
        point: AttachPoint,
        /// What the kernel said.
        #[source]
        source: LinkError,
    },
    /// The link cannot be pinned.
    #[error("pin the link of {point}")]
    Pin {
        /// Where.
        point: AttachPoint,
        /// What the kernel said.
        #[source]
        source: PinError,
    },
    /// A pin cannot be removed.
    #[error("remove the pin of {point}")]
    Unpin {
        /// Where.
        point: AttachPoint,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The attachments of this node, in the network namespace of the thread that asks.
#[derive(Debug)]
pub struct Attachments {
    links: PathBuf,
    programs: BTreeMap<Hook, (SchedClassifier, u32)>,
}

impl Attachments {
    pub(crate) fn open(programs: &Path, links: &Path) -> Result<Self, AttachError> {
        let mut opened = BTreeMap::new();
        for hook in Hook::ALL {
            let failed = |source| AttachError::Program { hook, source: Box::new(source) };
            let program = SchedClassifier::from_pin(programs.join(hook.as_str())).map_err(failed)?;
            let id = program.info().map_err(failed)?.id();
            opened.insert(hook, (program, id));
        }
        Ok(Self { links: links.to_owned(), programs: opened })
    }

    /// Whether the pinned link of `point` runs our program on the interface that has the name now, and its index.
    fn attached(&self, point: &AttachPoint) -> Result<Option<Attached>, AttachError> {
        let Some(pin) = pinned(&self.links, point)? else { return Ok(None) };
        let info =
            FdLink::from(pin).info().map_err(|source| AttachError::Link { point: point.clone(), source })?;
        let program = self.programs.get(&point.hook).map(|(_, id)| *id);
        if program != Some(info.program_id()) {
            return Ok(None);
        }
        let Ok(ifindex) = ifindex(&point.ifname) else { return Ok(None) };
        // The kernel refuses the same program twice on one hook, so the one that runs there is that of the link.
        let runs = match SchedClassifier::query_tcx(point.ifname.as_str(), point.hook.side()) {
            Ok((_, programs)) => programs.iter().any(|info| Some(info.id()) == program),
            Err(_) => false,
        };
        Ok(runs.then_some(Attached { ifindex }))
    }

    fn attach(&mut self, point: &AttachPoint) -> Result<(), AttachError> {
        let path = self.links.join(point.pin_name());
        if let Some(pin) = pinned(&self.links, point)? {
            if self.repoint(point, pin)? {
                return Ok(());
            }
            unpin(&self.links, point)?;
        }
        let failed = |source| AttachError::Attach { point: point.clone(), source: Box::new(source) };
        let (program, _) = self.programs.get_mut(&point.hook).expect("every hook was opened");
        let options = TcAttachOptions::TcxOrder(LinkOrder::last());
        let id =
            program.attach_with_options(point.ifname.as_str(), point.hook.side(), options).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        let link =
            FdLink::try_from(link).map_err(|source| AttachError::Link { point: point.clone(), source })?;
        link.pin(&path).map_err(|source| AttachError::Pin { point: point.clone(), source })?;
        Ok(())
    }

    /// Lets a pinned link run the current program; false when it no longer serves the interface of that name.
    fn repoint(&mut self, point: &AttachPoint, pin: PinnedLink) -> Result<bool, AttachError> {
        let (program, _) = self.programs.get_mut(&point.hook).expect("every hook was opened");
        Ok(repoint(program, point, pin)? && self.attached(point)?.is_some())
    }
}

impl Target for Attachments {
    type Key = AttachPoint;
    type Value = Attached;
    type Error = AttachError;

    fn kind(&self) -> &'static str {
        "attachment"
    }

    async fn observe(&mut self) -> Result<BTreeMap<AttachPoint, Attached>, AttachError> {
        let mut seen = BTreeMap::new();
        for point in list(&self.links)? {
            // A link that serves no interface, or another, is a pin that the next put replaces and purge removes; as
            // nobody asks to remove what is absent, it goes here.
            match self.attached(&point)? {
                Some(attached) => _ = seen.insert(point, attached),
                None if ifindex(&point.ifname).is_err() => unpin(&self.links, &point)?,
                None => {}
            }
        }
        Ok(seen)
    }

    async fn put(&mut self, key: &AttachPoint, value: &Attached) -> Result<(), AttachError> {
        let found = ifindex(&key.ifname)
            .map_err(|source| AttachError::Interface { ifname: key.ifname.clone(), source })?;
        if found != value.ifindex {
            return Err(AttachError::Replaced { point: key.clone(), found, wanted: value.ifindex });
        }
        match self.attached(key)? {
            Some(attached) if attached == *value => Ok(()),
            _ => self.attach(key),
        }
    }

    async fn remove(&mut self, key: &AttachPoint) -> Result<(), AttachError> {
        // The pin is all that holds the link.
        unpin(&self.links, key)
    }
}

/// The attachments that are pinned in `links`; other names are not ours.
pub(crate) fn list(links: &Path) -> Result<Vec<AttachPoint>, AttachError> {
    let failed = |source| AttachError::List { path: links.to_owned(), source };
    let mut points = Vec::new();
    for entry in std::fs::read_dir(links).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        points.extend(name.to_str().and_then(AttachPoint::from_pin_name));
    }
    points.sort();
    Ok(points)
}

/// Lets a pinned link run `program` in one step; false when its interface is gone.
pub(crate) fn repoint(
    program: &mut SchedClassifier,
    point: &AttachPoint,
    pin: PinnedLink,
) -> Result<bool, AttachError> {
    let link_failed = |source| AttachError::Link { point: point.clone(), source };
    let link = SchedClassifierLink::try_from(FdLink::from(pin)).map_err(link_failed)?;
    let failed = |source| AttachError::Attach { point: point.clone(), source: Box::new(source) };
    match program.attach_to_link(link) {
        // Dropping the link closes it; the pin keeps it attached.
        Ok(id) => program.take_link(id).map(|_| true).map_err(failed),
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(NO_LINK) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// The pinned link of `point`, if there is one.
pub(crate) fn pinned(links: &Path, point: &AttachPoint) -> Result<Option<PinnedLink>, AttachError> {
    match PinnedLink::from_pin(links.join(point.pin_name())) {
        Ok(pin) => Ok(Some(pin)),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AttachError::Link { point: point.clone(), source }),
    }
}

/// Removes the pin of `point`, and with it the link.
pub(crate) fn unpin(links: &Path, point: &AttachPoint) -> Result<(), AttachError> {
    // The kernel puts off detaching when the pin is the last to go, and does it at once when a descriptor is: held
    // until the pin is gone, it lets the hook be free when this returns.
    let _held = pinned(links, point);
    match std::fs::remove_file(links.join(point.pin_name())) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(AttachError::Unpin { point: point.clone(), source }),
    }
}

/// Index of the interface with this name, in the network namespace of this thread.
fn ifindex(ifname: &IfName) -> Result<u32, io::Error> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(&socket, ifname.as_str())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_name_leads_back_to_its_interface() {
        for name in ["eth0", "eth0.100", "rh0123456789"] {
            for hook in Hook::ALL {
                let point = AttachPoint { ifname: IfName::new(name).expect("valid"), hook };
                assert!(!point.pin_name().contains('.'));
                assert_eq!(AttachPoint::from_pin_name(&point.pin_name()), Some(point));
            }
        }
    }

    #[test]
    fn other_pins_are_not_ours() {
        for name in ["eth0", "from_pod", "from_pod:", "other:eth0", "from_pod:a/b"] {
            assert_eq!(AttachPoint::from_pin_name(name), None, "{name}");
        }
    }
}
