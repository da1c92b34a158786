// SPDX-License-Identifier: Apache-2.0
//! UPDATEs, good and broken, and what this codec makes of them: for tests that ask others about the same octets.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use proptest::prelude::*;
use rhumb_bgp::wire::{
    AddPath, AsPath, Asn, Attributes, Capabilities, Codec, Community, Disposition, Message, Negotiated,
    NextHop, Nlri, Open, Origin, RouterId, Segment,
};
use rhumb_model::{Family, Prefix};

/// What a reader makes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The session ends.
    Reset,
    /// All routes are withdrawn: these prefixes.
    Withdraw(BTreeSet<String>),
    /// Routes and withdrawals.
    Routes(Box<Routes>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    pub(crate) reached: BTreeSet<String>,
    pub(crate) withdrawn: BTreeSet<String>,
    pub(crate) values: Option<Values>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) origin: u8,
    pub(crate) path: Vec<u32>,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: BTreeSet<u32>,
    pub(crate) aggregator: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Session {
    External,
    Internal,
    SeveralPaths,
    TwoOctets,
}

impl Session {
    pub(crate) const ALL: [Session; 4] =
        [Session::External, Session::Internal, Session::SeveralPaths, Session::TwoOctets];

    pub(crate) fn negotiated(self) -> Negotiated {
        let peer = if self == Session::Internal { 65000 } else { 65001 };
        Negotiated::of(&self.open(65000, 1), &self.open(peer, 2)).expect("families in common")
    }

    /// The OPEN of one of the speakers.
    pub(crate) fn open(self, asn: u32, router_id: u32) -> Open {
        Open {
            asn: Asn(asn),
            hold_time: 90,
            router_id: RouterId(router_id),
            capabilities: Capabilities {
                families: BTreeSet::from(Family::BOTH),
                asn4: (self != Session::TwoOctets).then_some(Asn(asn)),
                add_path: match self {
                    Session::SeveralPaths => {
                        BTreeMap::from([(Family::V6, AddPath { receive: true, send: true })])
                    }
                    Session::External | Session::Internal | Session::TwoOctets => BTreeMap::new(),
                },
                ..Capabilities::default()
            },
        }
    }
}

pub(crate) fn ours(session: Session, message: &[u8]) -> (Verdict, Vec<String>) {
    let mut buffer = BytesMut::from(message);
    let update = match Codec::new(&session.negotiated()).decode(&mut buffer) {
        Err(notification) => return (Verdict::Reset, vec![notification.to_string()]),
        Ok(Some(Message::Update(update))) => update,
        Ok(other) => unreachable!("an UPDATE was read as {other:?}"),
    };
    let problems = update.problems.iter().map(ToString::to_string).collect();
    let list = |nlri: &Nlri| nlri.to_string();
    let withdrawn: BTreeSet<String> =
        update.withdrawn.iter().flat_map(|part| part.nlri.iter().map(list)).collect();
    let worst = update.problems.iter().map(|problem| problem.disposition).max();
    if worst.is_some_and(|worst| worst != Disposition::DiscardAttribute) {
        return (Verdict::Withdraw(withdrawn), problems);
    }
    let reached: BTreeSet<String> = update.reach.iter().flat_map(|part| part.nlri.iter().map(list)).collect();
    let values = update.attributes.as_deref().map(|attributes| Values {
        origin: attributes.origin as u8,
        path: attributes.as_path.systems().map(|asn| asn.0).collect(),
        med: attributes.med,
        local_pref: attributes.local_pref,
        communities: attributes.communities.iter().map(|community| community.0).collect(),
        aggregator: attributes.aggregator.map(|(asn, _)| asn.0),
    });
    (Verdict::Routes(Box::new(Routes { reached, withdrawn, values })), problems)
}

/// A good message of the session, which announces or withdraws.
pub(crate) fn any_message(session: Session) -> impl Strategy<Value = Vec<u8>> {
    any::<bool>().prop_flat_map(move |withdraw| any_of(session, withdraw))
}

/// A good message of the session that announces routes.
pub(crate) fn any_announcement(session: Session) -> impl Strategy<Value = Vec<u8>> {
    any_of(session, false)
}

fn any_of(session: Session, withdraw: bool) -> impl Strategy<Value = Vec<u8>> {
    let prefix = |family: Family, bits: u128, len: u8| match family {
        Family::V4 => {
            let bits = u32::try_from(bits & 0xffff_ffff).expect("masked");
            Prefix::containing(Ipv4Addr::from_bits(bits).into(), len % 33)
        }
        Family::V6 => Prefix::containing(Ipv6Addr::from_bits(bits).into(), len % 129),
    };
    let nlri = prop::collection::vec((any::<u128>(), any::<u8>(), any::<u32>()), 1..8);
    let options = (
        any::<bool>(),
        prop::option::of(any::<u32>()),
        prop::collection::vec(any::<u32>(), 0..4),
        any::<bool>(),
    );
    let path = prop::collection::vec(1..100_000_u32, 0..5);
    (any::<bool>(), nlri, options, path, 0..3_u8).prop_map(move |parts| {
        let (six, nlri, (aggregated, med, communities, atomic), path, origin) = parts;
        let family = if six { Family::V6 } else { Family::V4 };
        let paths = six && session == Session::SeveralPaths;
        let nlri: Vec<_> = nlri
            .into_iter()
            .map(|(bits, len, id)| Nlri {
                prefix: prefix(family, bits, len),
                path_id: if paths { id } else { 0 },
            })
            .collect();
        let attributes = Attributes {
            origin: [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(origin)],
            as_path: AsPath(vec![Segment::Sequence(path.into_iter().chain([65001]).map(Asn).collect())]),
            med,
            local_pref: Some(100),
            atomic_aggregate: atomic,
            aggregator: aggregated.then_some((Asn(65009), Ipv4Addr::new(10, 0, 0, 9))),
            communities: communities.into_iter().map(Community).collect(),
            ..Default::default()
        }
        .canonical();
        let codec = Codec::new(&session.negotiated());
        let messages = if withdraw {
            codec.encode_withdraw(family, &nlri)
        } else {
            let next_hop = match family {
                Family::V4 => NextHop::V4(Ipv4Addr::new(192, 0, 2, 1)),
                Family::V6 => {
                    NextHop::V6 { global: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), link_local: None }
                }
            };
            codec.encode_update(&attributes.into(), &next_hop, &nlri).expect("fits")
        };
        messages[0].to_vec()
    })
}

/// The message with octets of its body changed, inserted or left out; its length stays true.
pub(crate) fn mutated(message: &[u8], changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut message = message.to_vec();
    for (at, kind, to) in changes {
        let at = 19 + at.index(message.len() - 19);
        match kind % 8 {
            0 => message.insert(at, *to),
            1 if message.len() > 23 => drop(message.remove(at)),
            // Small changes of small numbers: lengths, codes, flags.
            2 | 3 => message[at] = message[at].wrapping_add(to % 5).wrapping_sub(2),
            4 => message[at] ^= 0x80 >> (to % 8),
            _ => message[at] = *to,
        }
    }
    let length = u16::try_from(message.len()).expect("short").to_be_bytes();
    message[16..18].copy_from_slice(&length);
    message
}
