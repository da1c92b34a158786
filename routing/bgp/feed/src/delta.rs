// SPDX-License-Identifier: Apache-2.0
//! Changes of what the speaker is to do.

use std::collections::BTreeMap;

use rhumb_model::{Prefix, Revision};
use serde::{Deserialize, Serialize};

use crate::{Instance, LocalRoute, Peer, PeerKey, Snapshot};

/// What makes one revision of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// The revision that it changes.
    pub from: Revision,
    /// The revision that results.
    pub to: Revision,
    /// The changes; each is about something else.
    pub changes: Vec<Change>,
}

/// One change; objects go by name, key or prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// An instance comes, or its own settings are others now; it is given whole.
    PutInstance(Box<Instance>),
    /// An instance goes with its peers and routes.
    RemoveInstance(String),
    /// A peer comes, or its settings are others now.
    PutPeer {
        /// The instance's name.
        instance: String,
        /// The peer.
        peer: Box<Peer>,
    },
    /// A peer goes.
    RemovePeer {
        /// The instance's name.
        instance: String,
        /// The peer's key.
        peer: PeerKey,
    },
    /// A route comes, or is told otherwise now.
    PutRoute {
        /// The instance's name.
        instance: String,
        /// The route.
        route: Box<LocalRoute>,
    },
    /// A route goes.
    RemoveRoute {
        /// The instance's name.
        instance: String,
        /// The route's prefix.
        prefix: Prefix,
    },
}

/// Why a delta does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It changes another revision than the one that is there.
    #[error("the delta changes revision {from}, and {have} is there")]
    Revision {
        /// The revision that it changes.
        from: Revision,
        /// The revision that is there.
        have: Revision,
    },
    /// It names an instance that is not there.
    #[error("no instance {0:?} is there")]
    NoInstance(String),
}

impl Snapshot {
    /// The instance of this name.
    pub fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    /// What makes `next` of this one. Only what differs is in it.
    pub fn delta(&self, next: &Snapshot) -> Delta {
        let gone = self.instances.iter().filter(|old| next.instance(&old.name).is_none());
        let mut changes: Vec<Change> = gone.map(|old| Change::RemoveInstance(old.name.clone())).collect();
        for new in &next.instances {
            match self.instance(&new.name) {
                Some(old) if old.has_settings_of(new) => compare(old, new, &mut changes),
                Some(_) | None => changes.push(Change::PutInstance(Box::new(new.clone()))),
            }
        }
        Delta { from: self.revision, to: next.revision, changes }
    }

    /// Makes the delta's changes.
    ///
    /// # Errors
    /// When it does not fit; then nothing is changed.
    pub fn apply(&mut self, delta: Delta) -> Result<(), ApplyError> {
        if delta.from != self.revision {
            return Err(ApplyError::Revision { from: delta.from, have: self.revision });
        }
        for change in &delta.changes {
            if let Some(name) = change.within()
                && self.instance(name).is_none()
            {
                return Err(ApplyError::NoInstance(name.to_owned()));
            }
        }
        for change in delta.changes {
            self.make(change);
        }
        self.revision = delta.to;
        Ok(())
    }

    fn make(&mut self, change: Change) {
        match change {
            Change::PutInstance(instance) => {
                put(&mut self.instances, *instance, |instance| instance.name.clone());
            }
            Change::RemoveInstance(name) => self.instances.retain(|instance| instance.name != name),
            Change::PutPeer { instance, peer } => {
                self.change(&instance, |it| put(&mut it.peers, *peer, |peer| peer.key.clone()));
            }
            Change::RemovePeer { instance, peer } => {
                self.change(&instance, |it| it.peers.retain(|old| old.key != peer));
            }
            Change::PutRoute { instance, route } => {
                self.change(&instance, |it| put(&mut it.routes, *route, |route| route.prefix));
            }
            Change::RemoveRoute { instance, prefix } => {
                self.change(&instance, |it| {
                    if let Ok(at) = it.routes.binary_search_by_key(&prefix, |route| route.prefix) {
                        it.routes.remove(at);
                    }
                });
            }
        }
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Instance)) {
        if let Some(instance) = self.instances.iter_mut().find(|instance| instance.name == name) {
            change(instance);
        }
    }
}

impl Change {
    /// The instance that has to be there for it.
    fn within(&self) -> Option<&str> {
        match self {
            Change::PutInstance(_) | Change::RemoveInstance(_) => None,
            Change::PutPeer { instance, .. }
            | Change::RemovePeer { instance, .. }
            | Change::PutRoute { instance, .. }
            | Change::RemoveRoute { instance, .. } => Some(instance),
        }
    }
}

impl Instance {
    /// Whether all but peers and routes are the same.
    fn has_settings_of(&self, other: &Instance) -> bool {
        let Self { name, asn, router_id, listen, cluster_id, multipath, own, peers: _, routes: _, stations } =
            self;
        *name == other.name
            && *asn == other.asn
            && *router_id == other.router_id
            && *listen == other.listen
            && *cluster_id == other.cluster_id
            && *multipath == other.multipath
            && *own == other.own
            && *stations == other.stations
    }
}

/// Puts an item in its place in a list that is sorted by key.
fn put<T, K: Ord>(items: &mut Vec<T>, item: T, key: impl Fn(&T) -> K) {
    match items.binary_search_by_key(&key(&item), &key) {
        Ok(at) => items[at] = item,
        Err(at) => items.insert(at, item),
    }
}

fn compare(old: &Instance, new: &Instance, changes: &mut Vec<Change>) {
    let instance = || new.name.clone();
    let before: BTreeMap<&PeerKey, &Peer> = old.peers.iter().map(|peer| (&peer.key, peer)).collect();
    let after: BTreeMap<&PeerKey, &Peer> = new.peers.iter().map(|peer| (&peer.key, peer)).collect();
    let peers = rhumb_model::diff(&after, &before);
    let gone = peers.remove.into_iter().cloned();
    changes.extend(gone.map(|peer| Change::RemovePeer { instance: instance(), peer }));
    let put = peers.put.into_iter().map(|(_, peer)| Box::new(peer.clone()));
    changes.extend(put.map(|peer| Change::PutPeer { instance: instance(), peer }));

    let before: BTreeMap<Prefix, &LocalRoute> = old.routes.iter().map(|it| (it.prefix, it)).collect();
    let after: BTreeMap<Prefix, &LocalRoute> = new.routes.iter().map(|it| (it.prefix, it)).collect();
    let routes = rhumb_model::diff(&after, &before);
    let gone = routes.remove.into_iter();
    changes.extend(gone.map(|prefix| Change::RemoveRoute { instance: instance(), prefix }));
    let put = routes.put.into_iter().map(|(_, route)| Box::new(route.clone()));
    changes.extend(put.map(|route| Change::PutRoute { instance: instance(), route }));
}

#[cfg(test)]
mod tests;
