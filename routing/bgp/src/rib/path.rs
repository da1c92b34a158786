// SPDX-License-Identifier: Apache-2.0

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use rhumb_bgp_feed::RouteKind;

use super::PeerId;
use super::hash::Seed;
use super::hops::HopId;
use crate::wire::{Attributes, Community, NextHop};

/// What routes of one message, or of ours, have in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) attributes: Arc<Attributes>,
    /// `None` is this node.
    pub(super) next_hop: Option<NextHop>,
    /// Where the kernel is to send packets.
    pub(super) hop: Option<HopId>,
    /// Whether packets are dropped here (RFC 7999; aggregates of ours).
    pub(super) discard: bool,
    /// What is known only of routes of ours.
    pub(super) local: Option<Box<Local>>,
}

/// Who is told of a route of ours, and what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) kind: RouteKind,
    /// `None` is everybody.
    pub(super) recipients: Option<BTreeSet<PeerId>>,
    /// In the order of peers.
    pub(super) exceptions: Vec<(PeerId, Arc<Attributes>)>,
}

impl Path {
    /// The kind by which rules know the route.
    pub(super) fn kind(&self) -> RouteKind {
        self.local.as_ref().map_or(RouteKind::Learned, |local| local.kind)
    }

    /// The same, stale for long (RFC 9494 §4.2).
    pub(super) fn long_stale(&self, interned: &mut Interned<Attributes>) -> Arc<Path> {
        let mut attributes = Attributes::clone(&self.attributes);
        attributes.communities.push(Community::LLGR_STALE);
        let attributes = interned.get(attributes.canonical());
        Arc::new(Path {
            attributes,
            next_hop: self.next_hop,
            hop: self.hop,
            discard: self.discard,
            local: None,
        })
    }

    /// The attributes with which `peer` is to be told, before its policy; `None` when it is not told.
    pub(super) fn attributes_for(&self, peer: PeerId) -> Option<&Arc<Attributes>> {
        let Some(local) = &self.local else { return Some(&self.attributes) };
        let told = local.recipients.as_ref().is_none_or(|peers| peers.contains(&peer));
        let exception = local.exceptions.iter().find(|(excepted, _)| *excepted == peer);
        told.then(|| exception.map_or(&self.attributes, |(_, attributes)| attributes))
    }
}

/// A neighbour to which packets can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// Its address.
    pub address: IpAddr,
    /// Index of the link it is on; given for link-local addresses, and for no others.
    pub scope: Option<u32>,
}

/// What the kernel is to do with packets to a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forward {
    /// Send them to these, each flow to one of them; in order, without doubles, never empty.
    Via(Vec<Hop>),
    /// Drop them (RFC 7999; aggregates of this node).
    Discard,
}

/// Equal values stored once. What nobody else holds is forgotten from time to time.
#[derive(Debug)]
pub(super) struct Interned<T> {
    values: HashSet<Arc<T>, Seed>,
    swept: usize,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { values: HashSet::default(), swept: 0 }
    }
}

impl<T: Eq + Hash> Interned<T> {
    /// Values below which forgetting is not worth a look.
    const FEW: usize = 64;

    /// The one copy of this value.
    pub(super) fn get(&mut self, value: T) -> Arc<T> {
        let known = self.values.get(<T as Borrow<T>>::borrow(&value)).cloned();
        known.unwrap_or_else(|| self.keep(Arc::new(value)))
    }

    /// The one copy of what somebody else shares already.
    pub(super) fn shared(&mut self, value: &Arc<T>) -> Arc<T> {
        let known = self.values.get(value).cloned();
        known.unwrap_or_else(|| self.keep(value.clone()))
    }

    fn keep(&mut self, value: Arc<T>) -> Arc<T> {
        if self.values.len() >= 2 * self.swept.max(Self::FEW) {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.swept = self.values.len();
        }
        self.values.insert(value.clone());
        value
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}
