// SPDX-License-Identifier: Apache-2.0
//! Routes of this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhumb_bgp_feed as feed;
use rhumb_bgp_feed::{LocalRoute, Recipients, RouteAttributes};
use rhumb_model::Prefix;

use super::path::{Local, Path};
use super::peer::PeerId;
use super::table::Candidate;
use super::{Rib, best_of, index};
use crate::policy::large;
use crate::wire::{Attributes, Community, NextHop};

impl Rib {
    /// Says what this node reaches, all of it; what is there already and the same costs nothing. Of several routes to
    /// a prefix the last counts.
    pub fn set_local(&mut self, routes: impl IntoIterator<Item = LocalRoute>) {
        let wanted: BTreeMap<Prefix, LocalRoute> =
            routes.into_iter().map(|route| (route.prefix, route)).collect();
        let gone: Vec<Prefix> =
            self.local.keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();
        for prefix in gone {
            self.remove_local(prefix);
        }
        for route in wanted.into_values() {
            self.put_local(route);
        }
    }

    /// Says that this node reaches a prefix, in place of what was said of it before.
    pub fn put_local(&mut self, route: LocalRoute) {
        if self.local.get(&route.prefix) == Some(&route) {
            return;
        }
        let path = Arc::new(self.local_path(&route));
        let candidate = Candidate {
            peer: PeerId::OWN,
            path_id: 0,
            stale: false,
            received: path.clone(),
            accepted: Ok(path),
        };
        let family = route.prefix.family();
        let table = &mut self.tables[index(family)];
        let id = table.find_or_insert(route.prefix);
        let slot = table.slot_mut(id);
        let before = best_of(slot);
        match slot.position(PeerId::OWN, 0) {
            Some(at) => slot.candidates[at] = candidate,
            None => {
                slot.candidates.reserve_exact(1);
                slot.candidates.push(candidate);
            }
        }
        self.local.insert(route.prefix, route);
        self.decide(family, id, before.as_ref());
    }

    /// Says that this node does not reach a prefix any more.
    pub fn remove_local(&mut self, prefix: Prefix) {
        if self.local.remove(&prefix).is_some() {
            self.withdraw(PeerId::OWN, prefix, 0);
        }
    }

    fn local_path(&mut self, route: &LocalRoute) -> Path {
        let recipients = match &route.recipients {
            Recipients::All => None,
            Recipients::Only(keys) => Some(keys.iter().map(|key| self.peer(key)).collect()),
        };
        let mut exceptions = Vec::new();
        for (key, attributes) in &route.exceptions {
            exceptions.push((self.peer(key), self.attributes.get(read(attributes))));
        }
        Path {
            attributes: self.attributes.get(read(&route.attributes)),
            next_hop: match route.next_hop {
                feed::NextHop::Own => None,
                feed::NextHop::Given(address) => Some(NextHop::from(address)),
            },
            hop: None,
            discard: route.discard,
            local: Some(Box::new(Local { kind: route.kind, recipients, exceptions })),
        }
    }
}

fn read(attributes: &RouteAttributes) -> Attributes {
    Attributes {
        med: attributes.med,
        local_pref: attributes.local_pref,
        communities: attributes.communities.iter().copied().map(Community).collect(),
        large_communities: attributes.large_communities.iter().copied().map(large).collect(),
        ..Attributes::default()
    }
}
