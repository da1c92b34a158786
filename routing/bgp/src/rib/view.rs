// SPDX-License-Identifier: Apache-2.0
//! What people are shown: routes, and why each is used or not, told or not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rhumb_bgp_feed::{PeerKey, RouteKind, RouteView};
use rhumb_model::{Family, Prefix};

use super::Rib;
use super::advertise::Exporter;
use super::decision::{Step, decide, last_step};
use super::path::Interned;
use super::peer::PeerId;
use super::table::{Candidate, Slot, Table};
use crate::policy::Policy;
use crate::wire::{Attributes, Community, NextHop, Origin};

/// Why a route is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Our AS is in the path (RFC 4271 §9.1.2).
    PathLoop,
    /// It does not begin with the peer's AS (RFC 4271 §6.3).
    FirstSystem,
    /// We sent it first (RFC 4456 §8).
    OriginatorLoop,
    /// It was in our cluster (RFC 4456 §8).
    ClusterLoop,
    /// It is within a block of this node.
    OwnPrefix,
    /// Its next hop is this node (RFC 4271 §6.3).
    OwnNextHop,
    /// Its next hop is none, or link-local on a link that is not known.
    NoNextHop,
    /// The peer has no session, and what is kept of it was not judged.
    NoSession,
    /// By a rule of the import policy.
    Rule(u16),
    /// No rule of the import policy is about it (RFC 8212 §2).
    NoRule,
}

/// Why a peer is not told of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withheld {
    /// It is not accepted itself.
    NotAccepted,
    /// The peer told it, or sent it first.
    Sender,
    /// It is internal, and neither peer is a client of ours (RFC 4456 §6).
    NotReflected,
    /// A well-known community says so (RFC 1997).
    Community(Community),
    /// It is stale for long, and the peer does not know what that is (RFC 9494 §4.3).
    LongLivedStale,
    /// It is not for this peer.
    NotRecipient,
    /// By a rule of the export policy.
    Rule(u16),
    /// No rule of the export policy is about it (RFC 8212 §2).
    NoRule,
    /// We have no address that the peer could send packets to.
    NoNextHop,
    /// This node is leaving.
    Leaving,
}

/// A reason together with the policy that has the names of rules.
struct Said<'a, T>(T, &'a Policy);

impl fmt::Display for Said<'_, Rejection> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rejection::PathLoop => f.write_str("our AS is in the path"),
            Rejection::FirstSystem => f.write_str("the path does not begin with the peer's AS"),
            Rejection::OriginatorLoop => f.write_str("we sent it first (originator id)"),
            Rejection::ClusterLoop => f.write_str("it was in our cluster (cluster list)"),
            Rejection::OwnPrefix => f.write_str("it is within a block of this node"),
            Rejection::OwnNextHop => f.write_str("its next hop is this node"),
            Rejection::NoNextHop => f.write_str("its next hop cannot be used"),
            Rejection::NoSession => f.write_str("the peer has no session"),
            Rejection::Rule(rule) => write!(f, "rejected by import rule {:?}", self.1.name(rule)),
            Rejection::NoRule => f.write_str("no import rule accepts it"),
        }
    }
}

impl fmt::Display for Said<'_, Withheld> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Withheld::NotAccepted => f.write_str("it is not accepted"),
            Withheld::Sender => f.write_str("it came from this peer"),
            Withheld::NotReflected => f.write_str("it is internal, and the peer is no client"),
            Withheld::Community(community) => write!(f, "it has the community {community}"),
            Withheld::LongLivedStale => {
                f.write_str("it is stale for long, and the peer does not know such routes")
            }
            Withheld::NotRecipient => f.write_str("it is not for this peer"),
            Withheld::Rule(rule) => write!(f, "rejected by export rule {:?}", self.1.name(rule)),
            Withheld::NoRule => f.write_str("no export rule accepts it"),
            Withheld::NoNextHop => f.write_str("we have no address for it towards this peer"),
            Withheld::Leaving => f.write_str("this node is leaving"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::LongLivedStale => "its peer has been away for long",
            Step::Own => "a route of this node is there",
            Step::LocalPreference => "lower local preference",
            Step::PathLength => "longer AS path",
            Step::Origin => "higher origin",
            Step::Med => "higher MED",
            Step::External => "internal, and an external one is there",
            Step::Distance => "farther next hop",
            Step::RouterId => "higher router id",
            Step::ClusterList => "longer cluster list",
            Step::PeerAddress => "higher peer address",
            Step::PathId => "higher path id",
        })
    }
}

impl Rib {
    /// Routes as peers told them, by prefix; of one peer or of all.
    pub fn routes_in<'a>(
        &'a self,
        instance: &'a str,
        peer: Option<&'a PeerKey>,
        family: Option<Family>,
    ) -> impl Iterator<Item = RouteView> + 'a {
        self.sorted(family).into_iter().flat_map(move |slot| {
            let views = self.candidates(instance, slot);
            let of_peers = views.into_iter().filter(|view| view.peer.is_some());
            of_peers.filter(move |view| peer.is_none() || view.peer.as_ref() == peer)
        })
    }

    /// The best route of each prefix, and those that are used beside it, by prefix.
    pub fn routes_best<'a>(
        &'a self,
        instance: &'a str,
        family: Option<Family>,
    ) -> impl Iterator<Item = RouteView> + 'a {
        let slots = self.sorted(family).into_iter();
        slots.flat_map(move |slot| self.candidates(instance, slot).into_iter().filter(|view| view.best))
    }

    /// Routes as peers were told, by prefix.
    pub fn routes_out<'a>(
        &'a self,
        instance: &'a str,
        peer: Option<&'a PeerKey>,
        family: Option<Family>,
    ) -> impl Iterator<Item = RouteView> + 'a {
        let peers =
            self.peers.iter().enumerate().filter(move |(_, one)| peer.is_none_or(|key| *key == one.key));
        let peers: Vec<usize> = peers.map(|(number, _)| number).collect();
        self.sorted(family).into_iter().flat_map(move |slot| {
            let of_family = |number: &usize| self.peers[*number].out.get(&slot.prefix.family());
            let id = self.table(slot.prefix.family()).find(slot.prefix);
            let told = peers.iter().flat_map(move |number| {
                let paths = of_family(number).zip(id).map(|(out, id)| out.paths_told(id));
                paths.into_iter().flatten().map(move |(path_id, told)| {
                    let mut view = view(instance, slot, &told.attributes, Some(told.next_hop));
                    view.path_id = path_id;
                    view.peer = Some(self.peers[*number].key.clone());
                    view.kind = slot.best().map_or(RouteKind::Learned, |best| best.received.kind());
                    view
                })
            });
            told.collect::<Vec<_>>()
        })
    }

    /// Every route to a prefix, the best first, with why it is used or not; and what every peer with a session is
    /// told of the best, with why not where it is not.
    pub fn explain(&self, instance: &str, prefix: Prefix) -> (Vec<RouteView>, Vec<RouteView>) {
        let table = self.table(prefix.family());
        let Some(slot) = table.find(prefix).map(|id| table.slot(id)) else { return Default::default() };
        let told = self.ids().filter_map(|peer| self.explain_told(instance, slot, peer)).collect();
        (self.candidates(instance, slot), told)
    }

    /// The longest prefix that has a route and contains all of this one; itself, if it has one.
    pub fn covering(&self, prefix: Prefix) -> Option<Prefix> {
        let table = self.table(prefix.family());
        let has_route =
            |prefix: &Prefix| table.find(*prefix).is_some_and(|id| !table.slot(id).candidates.is_empty());
        (0..=prefix.len()).rev().map(|length| Prefix::containing(prefix.addr(), length)).find(has_route)
    }

    fn explain_told(&self, instance: &str, slot: &Slot, peer: PeerId) -> Option<RouteView> {
        let best = slot.best()?;
        let mut exporter = Exporter::new(&self.settings, &self.peers, peer, slot.prefix.family())?;
        let known = &self.peers[peer.0 as usize];
        known.out.get(&slot.prefix.family())?;
        let made = exporter.export(slot.prefix, best, &mut Interned::default());
        let mut view = match made {
            Ok(number) => {
                let out = exporter.out(number);
                view(instance, slot, &out.attributes, Some(out.next_hop))
            }
            Err(withheld) => {
                let mut view = view(instance, slot, &best.received.attributes, best.received.next_hop);
                view.why = Said(withheld, &known.export).to_string();
                view
            }
        };
        view.kind = best.received.kind();
        view.peer = Some(known.key.clone());
        Some(view)
    }

    /// What the kernel was told by [`Rib::changes`] to do with a prefix.
    pub fn forwarded(&self, prefix: Prefix) -> Option<&Arc<super::Forward>> {
        let table = self.table(prefix.family());
        table.slot(table.find(prefix)?).forward.as_ref()
    }

    /// The peers whose routes to a prefix are used, the best first.
    pub fn tellers(&self, prefix: Prefix) -> Vec<PeerId> {
        let table = self.table(prefix.family());
        let Some(slot) = table.find(prefix).map(|id| table.slot(id)) else { return Vec::new() };
        let Some(best) = slot.best() else { return Vec::new() };
        let mut tellers = vec![best.peer];
        if slot.candidates.len() > 1 {
            let used = self.used(slot);
            let is_used = |one: &&Candidate| {
                let hop = one.accepted.as_ref().ok().and_then(|path| path.hop);
                hop.is_some_and(|hop| used.contains(&self.hops.hop(hop)))
            };
            let others = slot.candidates.iter().filter(is_used).map(|one| one.peer);
            tellers.extend(others.filter(|peer| *peer != best.peer));
        }
        tellers.retain(|peer| *peer != PeerId::OWN);
        tellers
    }

    fn sorted(&self, family: Option<Family>) -> Vec<&Slot> {
        let wanted = |slot: &&Slot| family.is_none_or(|family| family == slot.prefix.family());
        let mut slots: Vec<&Slot> = self.tables.iter().flat_map(Table::slots).filter(wanted).collect();
        slots.sort_unstable_by_key(|slot| slot.prefix);
        slots
    }

    /// The candidates of a slot, the best first, then as the decision left them behind, then what cannot be used.
    fn candidates(&self, instance: &str, slot: &Slot) -> Vec<RouteView> {
        let mut steps = BTreeMap::new();
        let left = decide(self.contenders(slot), self.rules(), |index, step| {
            steps.insert(index, step);
        });
        let used = self.used(slot);
        let mut ranked: Vec<(usize, &Candidate, bool, String)> = Vec::new();
        for (rank, one) in left.iter().enumerate() {
            let candidate = &slot.candidates[one.index];
            let hop = candidate.accepted.as_ref().ok().and_then(|path| path.hop);
            let beside = hop.is_some_and(|hop| used.contains(&self.hops.hop(hop)));
            let why = match (rank, beside) {
                (0, _) => "best".to_owned(),
                (_, true) => "as good as the best".to_owned(),
                (_, false) => last_step(&left[0], one).to_string(),
            };
            ranked.push((rank, candidate, rank == 0 || beside, why));
        }
        // Those left behind late were nearer to being the best.
        for (index, candidate) in slot.candidates.iter().enumerate() {
            let known = match (steps.get(&index), &candidate.accepted) {
                (Some(step), _) => Some((usize::MAX / 2 - *step as usize, step.to_string())),
                (None, Err(rejection)) => {
                    let policy = self.peers.get(candidate.peer.0 as usize).map(|peer| &*peer.import);
                    let why = policy.map(|policy| Said(*rejection, policy).to_string());
                    Some((usize::MAX, why.unwrap_or_default()))
                }
                (None, Ok(_)) if left.iter().any(|one| one.index == index) => None,
                (None, Ok(_)) => Some((usize::MAX - 1, "packets do not get to its next hop".to_owned())),
            };
            ranked.extend(known.map(|(rank, why)| (rank, candidate, false, why)));
        }
        ranked.sort_by_key(|(rank, ..)| *rank);
        let views = ranked.into_iter().map(|(_, candidate, best, why)| {
            let path = candidate.accepted.as_ref().unwrap_or(&candidate.received);
            let mut view = view(instance, slot, &path.attributes, path.next_hop);
            view.peer = self.key(candidate.peer).cloned();
            view.path_id = candidate.path_id;
            view.kind = candidate.received.kind();
            view.stale = candidate.stale;
            (view.best, view.why) = (best, why);
            view
        });
        views.collect()
    }

    fn used(&self, slot: &Slot) -> Vec<super::Hop> {
        match self.forward(slot) {
            Some(super::Forward::Via(hops)) => hops,
            Some(super::Forward::Discard) | None => Vec::new(),
        }
    }
}

fn view(instance: &str, slot: &Slot, attributes: &Arc<Attributes>, next_hop: Option<NextHop>) -> RouteView {
    let larges = attributes.large_communities.iter();
    RouteView {
        instance: instance.to_owned(),
        peer: None,
        prefix: slot.prefix,
        path_id: 0,
        kind: RouteKind::Learned,
        next_hop: match next_hop {
            None => String::new(),
            Some(NextHop::V6 { global, link_local: Some(link_local) }) => format!("{global} {link_local}"),
            Some(next_hop @ (NextHop::V4(_) | NextHop::V6 { link_local: None, .. })) => next_hop.to_string(),
        },
        as_path: attributes.as_path.to_string(),
        origin: match attributes.origin {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        }
        .to_owned(),
        local_pref: attributes.local_pref,
        med: attributes.med,
        communities: attributes.communities.iter().map(|community| community.0).collect(),
        large_communities: larges.map(|one| [one.global, one.local1, one.local2]).collect(),
        best: false,
        stale: false,
        why: String::new(),
    }
}
