// SPDX-License-Identifier: Apache-2.0
//! One small subnet and the interfaces of the nodes in it, as EC2 knows them: what calls do to them, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rhumb_model::{Attachment, AttachmentId, AttachmentStatus, Eni, EniId, EniStatus, Prefix, Timestamp};

use super::super::testing::{CLUSTER, eni, eni_id, instance_id, subnet, subnet_id};
use super::super::{
    Action, Addresses, Fault, Reply, TAG_CLUSTER, TAG_INSTANCE, TAG_NODE, TAG_TOKEN, Unit, View,
};

/// The nodes there are.
pub(super) const NAMES: [&str; 2] = ["a", "b"];
/// The primary address of the first node's interface.
const FIRST: u8 = 4;
/// The last address of the /28 that single addresses come from.
const LAST: u8 = 14;

/// The instances and the interfaces that they have or had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ec2 {
    /// The instance that each node is.
    pub(super) hosts: Vec<Host>,
    pub(super) nics: BTreeMap<EniId, Nic>,
    unit: Unit,
    /// Blocks for pods below this address are the nodes', or free; the subnet is full otherwise.
    end: u8,
}

/// Which instance a node is, and whether it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Host {
    pub(super) instance: u8,
    pub(super) runs: bool,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Nic {
    pub(super) place: Place,
    /// The node, and the instance, that it was made for.
    pub(super) node: usize,
    of: u8,
    primary: Ipv4Addr,
    pub(super) blocks: BTreeSet<Prefix>,
    goes_along: bool,
    /// That of the call that made it; none for the first one of an instance.
    token: Option<String>,
}

/// Where an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    Free,
    At(u8),
    Leaving(u8),
}

/// An address of the subnet.
pub(super) fn address(last: u8) -> Prefix {
    Prefix::host(single(last).into())
}

fn single(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// The first interface of an instance.
fn first_of(node: usize, instance: u8) -> EniId {
    eni_id(&format!("p{}", name_of(node, instance)))
}

pub(super) fn name_of(node: usize, instance: u8) -> String {
    format!("{}{instance}", NAMES[node])
}

impl Ec2 {
    /// A running instance for each node, in a subnet with blocks for pods below `end`: from 16 on where they are /28.
    pub(super) fn new(nodes: usize, unit: Unit, end: u8) -> Self {
        let hosts = vec![Host { instance: 0, runs: false }; nodes];
        let mut ec2 = Self { hosts, nics: BTreeMap::new(), unit, end };
        (0..nodes).for_each(|node| ec2.launch(node, 0));
        ec2
    }

    /// An instance with its first interface.
    pub(super) fn launch(&mut self, node: usize, instance: u8) {
        self.hosts[node] = Host { instance, runs: true };
        let number = u8::try_from(node).expect("few");
        let last = if instance == 0 { FIRST + number } else { LAST - instance };
        let nic = Nic {
            place: Place::At(0),
            node,
            of: instance,
            primary: single(last),
            blocks: BTreeSet::new(),
            goes_along: true,
            token: None,
        };
        self.nics.insert(first_of(node, instance), nic);
    }

    /// The instance ends: what goes along is gone, the rest is free.
    pub(super) fn terminate(&mut self, node: usize) {
        self.hosts[node].runs = false;
        self.nics.retain(|_, nic| nic.node != node || nic.place == Place::Free || !nic.goes_along);
        self.nics.values_mut().filter(|nic| nic.node == node).for_each(|nic| nic.place = Place::Free);
    }

    /// Interfaces whose link the node has.
    pub(super) fn linked(&self, node: usize) -> impl Iterator<Item = (&EniId, &Nic)> {
        self.nics.iter().filter(move |(_, nic)| nic.node == node && matches!(nic.place, Place::At(_)))
    }

    /// Whether a link of the node has the address.
    pub(super) fn serves(&self, node: usize, addr: IpAddr) -> bool {
        self.hosts[node].runs
            && self.linked(node).any(|(_, nic)| nic.blocks.iter().any(|block| block.contains(addr)))
    }

    /// Interfaces beside the first ones of instances.
    pub(super) fn later(&self) -> impl Iterator<Item = (&EniId, &Nic)> {
        self.nics.iter().filter(|(_, nic)| nic.token.is_some())
    }

    pub(super) fn free(&mut self, eni: &EniId) {
        self.nics.get_mut(eni).into_iter().for_each(|nic| nic.place = Place::Free);
    }

    fn is_free(&self, block: Prefix) -> bool {
        self.nics.values().all(|nic| {
            !block.contains(nic.primary.into()) && !nic.blocks.iter().any(|known| known.overlaps(block))
        })
    }

    /// Blocks for pods that nobody has, the lowest first.
    fn blocks(&self) -> impl Iterator<Item = Prefix> {
        let (from, step) = match self.unit {
            Unit::Address => (FIRST + 1, 1),
            Unit::Prefix => (16, 16),
        };
        let all = (from..self.end)
            .step_by(step)
            .map(|last| Prefix::containing(single(last).into(), self.unit.prefix_len()));
        all.filter(|block| self.is_free(*block))
    }

    /// What the call would take, each once.
    fn chosen(&self, addresses: &Addresses) -> Result<Vec<Prefix>, Fault> {
        match addresses {
            Addresses::These(blocks) if blocks.iter().all(|block| self.is_free(*block)) => Ok(blocks.clone()),
            Addresses::These(_) => Err(Fault::Taken),
            Addresses::Any { addresses, prefixes } => {
                let count = usize::from(*addresses.max(prefixes));
                let chosen: Vec<Prefix> = self.blocks().take(count).collect();
                if chosen.len() == count { Ok(chosen) } else { Err(Fault::SubnetShort) }
            }
        }
    }

    fn create(&mut self, action: &Action, id: EniId) -> Result<Reply, Fault> {
        let Action::Create { node, primary, addresses, prefixes_v6, token, .. } = action else {
            unreachable!("asked for a Create alone")
        };
        // The same token makes nothing again.
        if let Some((id, nic)) = self.nics.iter().find(|(_, nic)| nic.token.as_ref() == Some(token)) {
            return Ok(Reply::Created(Box::new(self.show(id, nic))));
        }
        let node = NAMES.iter().position(|name| *name == node.as_str()).expect("one of ours");
        let blocks = self.chosen(addresses)?;
        let room = |last: &u8| {
            let block = address(*last);
            self.is_free(block) && !blocks.contains(&block)
        };
        let end = if self.unit == Unit::Address { self.end } else { LAST };
        let lowest = (FIRST + 1..end).find(room).map(single);
        let primary = primary.or(lowest).ok_or(Fault::SubnetShort)?;
        if !self.is_free(Prefix::host(primary.into())) {
            return Err(Fault::Taken);
        }
        let mut blocks: BTreeSet<Prefix> = blocks.into_iter().collect();
        if *prefixes_v6 > 0 {
            blocks.insert(self.next_v6());
        }
        let of = self.hosts[node].instance;
        let token = Some(token.clone());
        let nic = Nic { place: Place::Free, node, of, primary, blocks, goes_along: false, token };
        let made = self.show(&id, &nic);
        self.nics.insert(id, nic);
        Ok(Reply::Created(Box::new(made)))
    }

    fn next_v6(&self) -> Prefix {
        let nth = |n: u16| Prefix::containing(Ipv6Addr::new(0xfd00, 0, 0, 1, n, 0, 0, 0).into(), 80);
        (1..).map(nth).find(|block| self.is_free(*block)).expect("there are more than interfaces")
    }

    /// What a call does; `new` is the name of an interface that it makes.
    pub(super) fn call(&mut self, action: &Action, new: EniId) -> Result<Reply, Fault> {
        let stale = || Fault::Stale { code: "IncorrectState".to_owned() };
        match action {
            Action::Create { .. } => self.create(action, new),
            Action::Attach { eni, instance, device_index, .. } => {
                let node = self.nics.get(eni).ok_or_else(stale)?.node;
                let Host { instance: number, runs } = self.hosts[node];
                let is_there = runs && *instance == instance_id(&name_of(node, number));
                let busy = |nic: &Nic| {
                    nic.node == node
                        && matches!(nic.place, Place::At(at) | Place::Leaving(at) if at == *device_index)
                };
                if !is_there || self.nics.values().any(busy) {
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
                let blocks = self.chosen(addresses)?;
                self.nics.get_mut(eni).ok_or_else(stale)?.blocks.extend(&blocks);
                Ok(Reply::Assigned(blocks))
            }
            Action::AssignV6 { eni, .. } => {
                let block = self.next_v6();
                self.nics.get_mut(eni).ok_or_else(stale)?.blocks.insert(block);
                Ok(Reply::Assigned(vec![block]))
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
            Action::SwitchOffSourceDestCheck { .. } | Action::SetGroups { .. } | Action::Reserve { .. } => {
                panic!("{action:?}: not planned here")
            }
        }
    }

    /// A look at it.
    pub(super) fn view(&self, at: Timestamp) -> View {
        let mut view = View { at, ..View::default() };
        let mut others = eni("x", "a", &single(LAST).to_string());
        let cidr = match self.unit {
            Unit::Address => {
                others.addresses = (self.end..LAST).map(single).collect();
                "10.0.0.0/28"
            }
            Unit::Prefix => {
                let rest = (self.end..48).step_by(16).map(|last| Prefix::containing(single(last).into(), 28));
                others.prefixes = rest.collect();
                "10.0.0.0/26"
            }
        };
        let mut subnet = subnet("a", cidr);
        subnet.cidrs_v6 = vec!["fd00:0:0:1::/64".parse().expect("valid")];
        view.subnets.insert(subnet_id("a"), subnet);
        view.enis = self.nics.iter().map(|(id, nic)| (id.clone(), self.show(id, nic))).collect();
        view.enis.insert(others.id.clone(), others);
        view
    }

    fn show(&self, id: &EniId, nic: &Nic) -> Eni {
        let mut shown = eni(&id.as_str()[4..], "a", &nic.primary.to_string());
        for block in &nic.blocks {
            match (block.addr(), block.len()) {
                (IpAddr::V4(addr), 32) => shown.addresses.push(addr),
                (IpAddr::V4(_), _) => shown.prefixes.push(*block),
                (IpAddr::V6(_), _) => shown.prefixes_v6.push(*block),
            }
        }
        if let Some(token) = &nic.token {
            let of = format!("i-{}", name_of(nic.node, nic.of));
            let tags = [
                (TAG_CLUSTER, CLUSTER),
                (TAG_NODE, NAMES[nic.node]),
                (TAG_INSTANCE, &of),
                (TAG_TOKEN, token),
            ];
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
            instance: Some(instance_id(&name_of(nic.node, self.hosts[nic.node].instance))),
            device_index: at,
            card: 0,
            status: how,
            delete_on_termination: nic.goes_along,
        });
        shown
    }
}

fn attachment(eni: &EniId) -> AttachmentId {
    AttachmentId::new(format!("eni-attach-{}", &eni.as_str()[4..])).expect("valid")
}
