// SPDX-License-Identifier: Apache-2.0
//! The interfaces of one node, as far as EC2 knows them: what calls do to them, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::{Attachment, AttachmentId, AttachmentStatus, Eni, EniId, EniStatus, Prefix, Timestamp};

use super::super::testing::{CLUSTER, eni, eni_id, instance_id, subnet, subnet_id};
use super::super::{Action, Addresses, Fault, Reply, TAG_CLUSTER, TAG_INSTANCE, TAG_NODE, View};

/// Addresses that the node may get, of a subnet that is full otherwise.
const FIRST: u8 = 4;

/// The instance and the interfaces that it has or had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ec2 {
    /// Which instance the node is, and whether it runs.
    pub(super) instance: u8,
    pub(super) runs: bool,
    pub(super) nics: BTreeMap<EniId, Nic>,
    /// Addresses below this one are the node's, or free.
    pub(super) end: u8,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Nic {
    pub(super) place: Place,
    /// The instance that it was made for.
    of: u8,
    primary: Ipv4Addr,
    pub(super) blocks: BTreeSet<Prefix>,
    goes_along: bool,
}

/// Where an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    Free,
    At(u8),
    Leaving(u8),
}

/// The n-th address of the subnet.
pub(super) fn address(last: u8) -> Prefix {
    Prefix::host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))
}

/// The first interface of an instance.
fn first_of(instance: u8) -> EniId {
    eni_id(&format!("p{instance}"))
}

pub(super) fn name_of(instance: u8) -> String {
    format!("a{instance}")
}

impl Ec2 {
    /// A running instance whose first interface has these addresses, in a subnet that ends at `end`.
    pub(super) fn new(blocks: &[Prefix], end: u8) -> Self {
        let mut ec2 = Self { instance: 0, runs: false, nics: BTreeMap::new(), end };
        ec2.launch(0);
        ec2.nics.values_mut().for_each(|nic| nic.blocks.extend(blocks));
        ec2
    }

    /// An instance with its first interface.
    pub(super) fn launch(&mut self, instance: u8) {
        (self.instance, self.runs) = (instance, true);
        let last = if instance == 0 { FIRST } else { 14 - instance };
        let primary = Ipv4Addr::new(10, 0, 0, last);
        let nic =
            Nic { place: Place::At(0), of: instance, primary, blocks: BTreeSet::new(), goes_along: true };
        self.nics.insert(first_of(instance), nic);
    }

    /// The instance ends: what goes along is gone, the rest is free.
    pub(super) fn terminate(&mut self) {
        self.runs = false;
        self.nics.retain(|_, nic| nic.place == Place::Free || !nic.goes_along);
        self.nics.values_mut().for_each(|nic| nic.place = Place::Free);
    }

    /// Interfaces whose link the node has.
    pub(super) fn linked(&self) -> impl Iterator<Item = (&EniId, &Nic)> {
        self.nics.iter().filter(|(_, nic)| matches!(nic.place, Place::At(_)))
    }

    /// Whether a link of the node has the address.
    pub(super) fn serves(&self, addr: IpAddr) -> bool {
        self.runs && self.linked().any(|(_, nic)| nic.blocks.contains(&Prefix::host(addr)))
    }

    /// Interfaces beside the first one.
    pub(super) fn later(&self) -> impl Iterator<Item = (&EniId, &Nic)> {
        let first = first_of(self.instance);
        self.nics.iter().filter(move |(id, _)| **id != first)
    }

    fn is_free(&self, block: Prefix) -> bool {
        self.nics
            .values()
            .all(|nic| Prefix::host(IpAddr::V4(nic.primary)) != block && !nic.blocks.contains(&block))
    }

    /// Takes addresses, each once.
    fn take(&mut self, addresses: &Addresses) -> Result<Vec<Prefix>, Fault> {
        let blocks = match addresses {
            Addresses::These(blocks) => blocks.clone(),
            Addresses::Any { addresses, .. } => {
                let free = (FIRST + 1..self.end).map(address).filter(|block| self.is_free(*block));
                let chosen: Vec<Prefix> = free.take(usize::from(*addresses)).collect();
                if chosen.len() < usize::from(*addresses) {
                    return Err(Fault::SubnetShort);
                }
                chosen
            }
        };
        if !blocks.iter().all(|block| self.is_free(*block)) {
            return Err(Fault::Taken);
        }
        self.nics.values_mut().next().into_iter().for_each(|nic| nic.blocks.extend(&blocks));
        Ok(blocks)
    }

    /// What a call does.
    pub(super) fn call(&mut self, action: &Action) -> Result<Reply, Fault> {
        let stale = || Fault::Stale { code: "IncorrectState".to_owned() };
        match action {
            Action::Create { primary, addresses, .. } => {
                let mut room = self.clone();
                let primary =
                    room.take(&primary.map_or(Addresses::Any { addresses: 1, prefixes: 0 }, |addr| {
                        Addresses::These(vec![Prefix::host(IpAddr::V4(addr))])
                    }))?;
                let Some(IpAddr::V4(primary)) = primary.first().map(|block| block.addr()) else {
                    return Err(Fault::SubnetShort);
                };
                let blocks = room.take(addresses)?.into_iter().collect();
                let id = (1..).map(|n| eni_id(&format!("s{n}"))).find(|id| !self.nics.contains_key(id));
                let id = id.expect("numbers do not end");
                let nic = Nic { place: Place::Free, of: self.instance, primary, blocks, goes_along: false };
                let made = show(&id, &nic, self.instance);
                self.nics.insert(id, nic);
                Ok(Reply::Created(Box::new(made)))
            }
            Action::Attach { eni, instance, device_index, .. } => {
                let is_ours = self.runs && *instance == instance_id(&name_of(self.instance));
                let busy = |nic: &Nic| matches!(nic.place, Place::At(at) | Place::Leaving(at) if at == *device_index);
                if !is_ours || self.nics.values().any(busy) {
                    return Err(stale());
                }
                let nic = self.nics.get_mut(eni).filter(|nic| nic.place == Place::Free).ok_or_else(stale)?;
                (nic.place, nic.goes_along) = (Place::At(*device_index), false);
                Ok(Reply::Attached(attachment(eni)))
            }
            Action::SetDeleteOnTermination { eni, .. } => {
                let nic = self.nics.get_mut(eni).filter(|nic| nic.place != Place::Free).ok_or_else(stale)?;
                nic.goes_along = true;
                Ok(Reply::Done)
            }
            Action::Assign { eni, addresses, .. } => {
                let blocks = self.clone().take(addresses)?;
                self.nics.get_mut(eni).ok_or_else(stale)?.blocks.extend(&blocks);
                Ok(Reply::Assigned(blocks))
            }
            Action::Unassign { eni, blocks, .. } => {
                let nic = self.nics.get_mut(eni).ok_or_else(stale)?;
                if !blocks.iter().all(|block| nic.blocks.contains(block)) {
                    return Err(stale());
                }
                nic.blocks.retain(|block| !blocks.contains(block));
                Ok(Reply::Done)
            }
            Action::Detach { eni, .. } => {
                let Some(nic) = self.nics.get_mut(eni) else { return Ok(Reply::Done) };
                let Place::At(at) = nic.place else { return Err(stale()) };
                nic.place = Place::Leaving(at);
                Ok(Reply::Done)
            }
            Action::Delete { eni } => match self.nics.get(eni).map(|nic| nic.place) {
                Some(Place::At(_) | Place::Leaving(_)) => Err(stale()),
                Some(Place::Free) | None => {
                    self.nics.remove(eni);
                    Ok(Reply::Done)
                }
            },
            Action::AssignV6 { .. }
            | Action::SwitchOffSourceDestCheck { .. }
            | Action::SetGroups { .. }
            | Action::Reserve { .. } => {
                panic!("{action:?}: not planned here")
            }
        }
    }

    /// A look at it.
    pub(super) fn view(&self, at: Timestamp) -> View {
        let mut view = View { at, ..View::default() };
        view.subnets.insert(subnet_id("a"), subnet("a", "10.0.0.0/28"));
        let mut others = eni("x", "a", "10.0.0.14");
        others.addresses = (self.end..14).map(|last| [10, 0, 0, last].into()).collect();
        view.enis = self.nics.iter().map(|(id, nic)| (id.clone(), show(id, nic, self.instance))).collect();
        view.enis.insert(others.id.clone(), others);
        view
    }
}

fn attachment(eni: &EniId) -> AttachmentId {
    AttachmentId::new(format!("eni-attach-{}", &eni.as_str()[4..])).expect("valid")
}

fn show(id: &EniId, nic: &Nic, instance: u8) -> Eni {
    let mut shown = eni(&id.as_str()[4..], "a", &nic.primary.to_string());
    let addresses = nic.blocks.iter().filter_map(|block| match block.addr() {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    });
    shown.addresses = addresses.collect();
    let of = name_of(nic.of);
    if *id != first_of(nic.of) {
        let tags = [(TAG_CLUSTER, CLUSTER), (TAG_NODE, "a"), (TAG_INSTANCE, &format!("i-{of}"))];
        shown.tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    }
    let (status, at, how) = match nic.place {
        Place::Free => return shown,
        Place::At(at) => (EniStatus::InUse, at, AttachmentStatus::Attached),
        Place::Leaving(at) => (EniStatus::Detaching, at, AttachmentStatus::Detaching),
    };
    shown.status = status;
    shown.attachment = Some(Attachment {
        id: attachment(id),
        instance: Some(instance_id(&name_of(instance))),
        device_index: at,
        card: 0,
        status: how,
        delete_on_termination: nic.goes_along,
    });
    shown
}
