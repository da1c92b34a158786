// SPDX-License-Identifier: Apache-2.0

use rhumb_bgp_feed as feed;

use super::{Prepend, large};
use crate::wire::{Asn, Attributes, Community, LargeCommunity};

/// Changes of attributes: first what goes, then what comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changes {
    local_pref: Option<u32>,
    med: Option<u32>,
    remove: Vec<Community>,
    add: Vec<Community>,
    remove_large: Vec<LargeCommunity>,
    add_large: Vec<LargeCommunity>,
    prepend: u8,
}

impl Changes {
    /// Leaves everything as it is.
    pub(crate) const NONE: Changes = Changes {
        local_pref: None,
        med: None,
        remove: Vec::new(),
        add: Vec::new(),
        remove_large: Vec::new(),
        add_large: Vec::new(),
        prepend: 0,
    };

    pub(super) fn new(changes: &feed::Changes) -> Self {
        let communities = |from: &[u32]| from.iter().copied().map(Community).collect();
        let mut without_stale = changes.remove_communities.clone();
        without_stale.retain(|one| *one != Community::LLGR_STALE.0);
        let larges = |from: &[[u32; 3]]| from.iter().copied().map(large).collect();
        Self {
            local_pref: changes.local_pref,
            med: changes.med,
            remove: communities(&without_stale),
            add: communities(&changes.add_communities),
            remove_large: larges(&changes.remove_large_communities),
            add_large: larges(&changes.add_large_communities),
            prepend: changes.prepend,
        }
    }

    /// Whether nothing changes.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// How often the path is made longer, by this AS.
    pub(crate) fn prepend(&self, asn: Asn) -> Prepend {
        Prepend { asn, times: self.prepend }
    }

    /// Makes the changes, all but the path's. That a route is stale for long is no policy's to take back (RFC 9494
    /// §4.3).
    pub(crate) fn apply(&self, attributes: &mut Attributes) {
        attributes.local_pref = self.local_pref.or(attributes.local_pref);
        attributes.med = self.med.or(attributes.med);
        exchange(&mut attributes.communities, &self.remove, &self.add);
        exchange(&mut attributes.large_communities, &self.remove_large, &self.add_large);
    }
}

fn exchange<T: Copy + Ord>(all: &mut Vec<T>, remove: &[T], add: &[T]) {
    if remove.is_empty() && add.is_empty() {
        return;
    }
    all.retain(|one| !remove.contains(one));
    all.extend(add);
    all.sort_unstable();
    all.dedup();
}
