// SPDX-License-Identifier: Apache-2.0
//! Whatever happens, in whatever order: what peers and the kernel were told ends as what a speaker tells that begins
//! with the same routes, and nothing is told that is known already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use rhumb_bgp_feed::{Action, Changes, Match, Policy, PrefixRange};
use rhumb_model::{Family, Prefix};

use super::super::sample::{OWN, accept, addr, all, info, local, path, prefix, rule, settings};
use super::super::*;
use crate::wire::{Community, NextHop, Nlri, Reach, Update, Withdrawn};

const PREFIXES: [&str; 6] =
    ["0.0.0.0/0", "10.1.0.0/16", "10.2.0.0/16", "10.2.3.0/24", "2001:db8:1::/48", "::/0"];
const PEERS: usize = 4;
/// Few enough that most looks at changes take several.
const SLICE: usize = 2;

/// A way of what can happen; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Event {
    Tell { peer: usize, prefixes: u8, attributes: usize, path_id: u32 },
    TakeBack { peer: usize, prefixes: u8, path_id: u32 },
    Up(usize),
    Down { peer: usize, keep: bool },
    Sweep(usize),
    Policy { peer: usize, import: usize, export: usize },
    Local(u8),
    NextHops(u8),
    Refresh(usize),
    Leave(usize, u8),
    Pull { peer: usize, times: u8 },
    Kernel,
}

fn event() -> impl Strategy<Value = Event> {
    let peer = 0..PEERS;
    prop_oneof![
        6 => (peer.clone(), any::<u8>(), 0usize..8, 0u32..2).prop_map(
            |(peer, prefixes, attributes, path_id)| Event::Tell { peer, prefixes, attributes, path_id }
        ),
        3 => (peer.clone(), any::<u8>(), 0u32..2).prop_map(
            |(peer, prefixes, path_id)| Event::TakeBack { peer, prefixes, path_id }
        ),
        2 => peer.clone().prop_map(Event::Up),
        2 => (peer.clone(), any::<bool>()).prop_map(|(peer, keep)| Event::Down { peer, keep }),
        1 => peer.clone().prop_map(Event::Sweep),
        2 => (peer.clone(), 0usize..5, 0usize..5).prop_map(
            |(peer, import, export)| Event::Policy { peer, import, export }
        ),
        2 => any::<u8>().prop_map(Event::Local),
        2 => any::<u8>().prop_map(Event::NextHops),
        1 => peer.clone().prop_map(Event::Refresh),
        1 => (peer.clone(), 0u8..3).prop_map(|(peer, leave)| Event::Leave(peer, leave)),
        4 => (peer, 1u8..4).prop_map(|(peer, times)| Event::Pull { peer, times }),
        2 => Just(Event::Kernel),
    ]
}

/// Two external peers of one system, an internal one, and a client.
fn peer_info(number: usize) -> PeerInfo {
    let asn = [65001, 65001, OWN.0, OWN.0][number];
    let number = u8::try_from(number + 1).expect("small");
    PeerInfo { client: number == 4, ..info(number, asn) }
}

fn attributes(choice: usize, peer: usize) -> Attributes {
    let front: &[u32] = if peer < 2 { &[65001] } else { &[] };
    let systems = |more: &[u32]| [front, more].concat();
    match choice {
        0 => path(&systems(&[])),
        1 => path(&systems(&[65009])),
        2 => Attributes { med: Some(5), ..path(&systems(&[65009])) },
        3 => Attributes { local_pref: Some(200), ..path(&systems(&[])) },
        4 => Attributes { communities: vec![Community::NO_EXPORT], ..path(&systems(&[])) },
        5 => Attributes { communities: vec![Community::GRACEFUL_SHUTDOWN], ..path(&systems(&[])) },
        6 => path(&systems(&[OWN.0])),
        _ => Attributes {
            originator_id: Some(RouterId(0xc000_0204)),
            cluster_list: vec![RouterId(7)],
            ..path(&systems(&[65009]))
        },
    }
}

fn policy(choice: usize) -> Policy {
    let within = PrefixRange { prefix: prefix("10.2.0.0/16"), ge: 16, le: 24 };
    let prefixes = Match { prefixes: vec![within], ..Match::default() };
    match choice {
        0 => Policy::default(),
        1 => all(),
        2 => accept(Changes { med: Some(9), prepend: 1, ..Changes::default() }),
        3 => {
            let mut policy = all();
            policy.rules.insert(0, rule("some", prefixes, Action::Reject));
            policy
        }
        _ => {
            let changes = Changes { add_communities: vec![7], local_pref: Some(150), ..Changes::default() };
            let mut policy = all();
            policy.rules.insert(0, rule("some", prefixes, Action::Accept(changes)));
            policy
        }
    }
}

fn chosen(bits: u8) -> Vec<Prefix> {
    let chosen = PREFIXES.iter().enumerate().filter(|(number, _)| bits >> number & 1 == 1);
    chosen.map(|(_, text)| prefix(text)).collect()
}

fn next_hop(family: Family, peer: usize) -> NextHop {
    match family {
        Family::V4 => NextHop::V4([192, 0, 2, u8::try_from(peer + 1).expect("small")].into()),
        Family::V6 => NextHop::from(addr(&format!("2001:db8::{}", peer + 1))),
    }
}

fn update(peer: usize, of: Prefix, choice: usize, path_id: u32) -> Update {
    let family = of.family();
    let reach = Reach { family, next_hop: next_hop(family, peer), nlri: vec![Nlri { prefix: of, path_id }] };
    let attributes = Some(Arc::new(attributes(choice, peer)));
    Update { attributes, reach: vec![reach], ..Update::default() }
}

fn reachable(bits: u8) -> BTreeMap<Hop, u32> {
    let peers = (0..PEERS).filter(|peer| bits >> peer & 1 == 0);
    let hops = peers.flat_map(|peer| Family::BOTH.map(|family| (next_hop(family, peer).addr(), peer)));
    let metric = |peer: usize| u32::from(bits >> (4 + peer % 4) & 1);
    hops.map(|(address, peer)| (Hop { address, scope: None }, metric(peer))).collect()
}

fn leave(choice: u8) -> Leave {
    [Leave::Stay, Leave::Shutdown, Leave::Withdraw][usize::from(choice)]
}

/// What was put in so far, without its history.
#[derive(Debug, Default)]
struct Inputs {
    up: BTreeSet<usize>,
    /// By peer, prefix and path id: which attributes, and whether stale.
    told: BTreeMap<(usize, Prefix, u32), (usize, bool)>,
    policies: BTreeMap<usize, (usize, usize)>,
    leaves: BTreeMap<usize, u8>,
    local: u8,
    next_hops: u8,
}

/// What a peer holds, from what it was told.
type Held = BTreeMap<Prefix, (Arc<Attributes>, NextHop)>;

struct Run {
    rib: Rib,
    ids: Vec<PeerId>,
    inputs: Inputs,
    held: Vec<Held>,
    /// Families of which a refresh is going on, per peer.
    refreshing: BTreeSet<(usize, Family)>,
    kernel: BTreeMap<Prefix, Arc<Forward>>,
}

impl Run {
    fn new(settings: &Settings) -> Self {
        let mut rib = Rib::new(settings.clone());
        rib.set_synced();
        let ids = (0..PEERS).map(|peer| rib.peer(&PeerKey(peer.to_string()))).collect();
        let (inputs, refreshing, kernel) = Default::default();
        Run { rib, ids, inputs, held: vec![Held::new(); PEERS], refreshing, kernel }
    }

    /// A speaker that gets all of this at once.
    fn from_nothing(settings: &Settings, inputs: &Inputs) -> Self {
        let mut fresh = Run::new(settings);
        let rib = &mut fresh.rib;
        for (peer, id) in fresh.ids.iter().enumerate() {
            let (import, export) = inputs.policies.get(&peer).copied().unwrap_or_default();
            rib.set_policy(*id, &policy(import), &policy(export));
            rib.set_leave(*id, leave(inputs.leaves.get(&peer).copied().unwrap_or_default()));
            rib.peer_up(*id, peer_info(peer));
        }
        for ((peer, of, path_id), (choice, _)) in &inputs.told {
            rib.update(fresh.ids[*peer], &update(*peer, *of, *choice, *path_id)).expect("no limit");
        }
        for peer in (0..PEERS).filter(|peer| !inputs.up.contains(peer)) {
            rib.peer_down(fresh.ids[peer], &Family::BOTH.into());
        }
        rib.set_local(chosen(inputs.local).into_iter().map(|prefix| local(&prefix.to_string())));
        rib.set_next_hops(&reachable(inputs.next_hops));
        fresh
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let rib = &mut self.rib;
        let inputs = &mut self.inputs;
        match *event {
            Event::Tell { peer, prefixes, attributes, path_id } => {
                for of in chosen(prefixes) {
                    rib.update(self.ids[peer], &update(peer, of, attributes, path_id)).expect("no limit");
                    if inputs.up.contains(&peer) {
                        inputs.told.insert((peer, of, path_id), (attributes, false));
                    }
                }
            }
            Event::TakeBack { peer, prefixes, path_id } => {
                for of in chosen(prefixes) {
                    let withdrawn =
                        Withdrawn { family: of.family(), nlri: vec![Nlri { prefix: of, path_id }] };
                    let update = Update { withdrawn: vec![withdrawn], ..Update::default() };
                    rib.update(self.ids[peer], &update).expect("no limit");
                    if inputs.up.contains(&peer) {
                        inputs.told.remove(&(peer, of, path_id));
                    }
                }
            }
            Event::Up(peer) => {
                if inputs.up.insert(peer) {
                    rib.peer_up(self.ids[peer], peer_info(peer));
                }
            }
            Event::Down { peer, keep } => {
                if inputs.up.remove(&peer) {
                    let kept = if keep { Family::BOTH.into() } else { BTreeSet::new() };
                    rib.peer_down(self.ids[peer], &kept);
                    inputs.told.retain(|(of, ..), (_, stale)| *of != peer || keep && !*stale);
                    inputs
                        .told
                        .iter_mut()
                        .filter(|((of, ..), _)| *of == peer)
                        .for_each(|(_, (_, s))| *s = true);
                    self.held[peer].clear();
                    self.refreshing.retain(|(of, _)| *of != peer);
                }
            }
            Event::Sweep(peer) => {
                for family in Family::BOTH {
                    rib.sweep_stale(self.ids[peer], family);
                }
                inputs.told.retain(|(of, ..), (_, stale)| *of != peer || !*stale);
            }
            Event::Policy { peer, import, export } => {
                rib.set_policy(self.ids[peer], &policy(import), &policy(export));
                inputs.policies.insert(peer, (import, export));
            }
            Event::Local(bits) => {
                rib.set_local(chosen(bits).into_iter().map(|prefix| local(&prefix.to_string())));
                inputs.local = bits;
            }
            Event::NextHops(bits) => {
                rib.set_next_hops(&reachable(bits));
                inputs.next_hops = bits;
            }
            Event::Refresh(peer) => {
                for family in Family::BOTH {
                    rib.refresh(self.ids[peer], family);
                    if inputs.up.contains(&peer) {
                        self.refreshing.insert((peer, family));
                    }
                }
            }
            Event::Leave(peer, choice) => {
                rib.set_leave(self.ids[peer], leave(choice));
                inputs.leaves.insert(peer, choice);
            }
            Event::Pull { peer, times } => {
                for _ in 0..times {
                    self.pull(peer)?;
                }
            }
            Event::Kernel => self.kernel()?,
        }
        // The kernel's part looks every next hop up at once.
        if self.rib.next_hops().is_some() {
            self.rib.set_next_hops(&reachable(self.inputs.next_hops));
        }
        Ok(())
    }

    /// Lets a peer hear one message; says whether there was one.
    fn pull(&mut self, peer: usize) -> Result<bool, TestCaseError> {
        let Some(outgoing) = self.rib.next_update(self.ids[peer]) else { return Ok(false) };
        let held = &mut self.held[peer];
        match outgoing {
            Outgoing::Announce { family, attributes, next_hop, nlri } => {
                prop_assert!(!nlri.is_empty());
                let news = (attributes, next_hop);
                for nlri in nlri {
                    prop_assert_eq!(nlri.prefix.family(), family);
                    let known = held.get(&nlri.prefix) == Some(&news);
                    prop_assert!(!known || self.refreshing.contains(&(peer, family)), "{nlri} is known");
                    held.insert(nlri.prefix, news.clone());
                }
            }
            Outgoing::Withdraw { nlri, .. } => {
                prop_assert!(!nlri.is_empty());
                for nlri in nlri {
                    prop_assert!(held.remove(&nlri.prefix).is_some(), "{nlri} was never told");
                }
            }
            Outgoing::EndOfRefresh(family) => {
                self.refreshing.remove(&(peer, family));
            }
            Outgoing::EndOfRib(_) | Outgoing::BeginOfRefresh(_) => {}
        }
        Ok(true)
    }

    fn kernel(&mut self) -> Result<(), TestCaseError> {
        while self.rib.has_changes() {
            let changes = self.rib.changes_up_to(SLICE);
            prop_assert!(changes.len() <= SLICE);
            for Change { prefix, forward } in changes {
                match forward {
                    Some(forward) => {
                        let before = self.kernel.insert(prefix, forward.clone());
                        prop_assert_ne!(before, Some(forward));
                    }
                    None => prop_assert!(self.kernel.remove(&prefix).is_some()),
                }
            }
        }
        prop_assert_eq!(self.rib.changes(), Vec::new());
        Ok(())
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        let ready = self.rib.ready();
        for peer in 0..PEERS {
            let mut any = false;
            while self.pull(peer)? {
                any = true;
            }
            prop_assert!(!any || ready.contains(&self.ids[peer]), "peer {peer} was not called ready");
        }
        self.kernel()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn peers_and_kernel_end_as_if_all_had_come_at_once(
        events in prop::collection::vec(event(), 1..60), multipath in 1u8..4,
    ) {
        let settings =
            Settings { multipath, track_next_hops: true, own: vec![prefix("10.2.3.0/25")], ..settings() };
        let mut run = Run::new(&settings);
        for event in &events {
            run.happen(event)?;
        }
        // Some were asked for meanwhile; every peer is asked for now.
        run.rib.set(Settings { multipath: 4, ..settings.clone() });
        run.rib.set(settings.clone());
        run.rib.ready.extend(run.ids.iter().copied());
        run.settle()?;
        let mut fresh = Run::from_nothing(&settings, &run.inputs);
        fresh.rib.ready.extend(fresh.ids.iter().copied());
        fresh.settle()?;
        prop_assert_eq!(&run.held, &fresh.held);
        prop_assert_eq!(&run.kernel, &fresh.kernel);
        let told: BTreeMap<_, _> = run.rib.forwards().map(|(prefix, forward)| (prefix, forward.clone())).collect();
        prop_assert_eq!(&told, &run.kernel);
        for peer in 0..PEERS {
            let held: Vec<Prefix> = run.held[peer].keys().copied().collect();
            let told = held.iter().filter(|prefix| run.rib.told(run.ids[peer], **prefix).is_some()).count();
            prop_assert_eq!(told, held.len());
        }
        // Nothing is left that nobody asked for.
        let wanted: BTreeSet<Prefix> =
            run.inputs.told.keys().map(|(_, prefix, _)| *prefix).chain(chosen(run.inputs.local)).collect();
        let known = Family::BOTH.map(|family| run.rib.table(family).len()).iter().sum::<usize>();
        prop_assert_eq!(known, wanted.len());
    }

    #[test]
    fn whoever_has_news_is_called_ready(events in prop::collection::vec(event(), 1..40)) {
        let settings = Settings { track_next_hops: true, ..settings() };
        let mut run = Run::new(&settings);
        for event in &events {
            run.happen(event)?;
            let ready = run.rib.ready();
            for peer in 0..PEERS {
                let mut any = false;
                while run.pull(peer)? {
                    any = true;
                }
                prop_assert!(!any || ready.contains(&run.ids[peer]), "{event:?}: peer {peer}");
            }
        }
    }
}
