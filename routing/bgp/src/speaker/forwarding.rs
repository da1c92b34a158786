// SPDX-License-Identifier: Apache-2.0
//! From the tables to the kernel and to the agent: which prefixes are learned, and where packets to them go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_bgp_feed::Way;
use rhumb_model::Prefix;
use rhumb_routing::kernel::KernelError;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::warn;

use super::Speaker;
use super::peer::Peer;
use crate::kernel::{self, Order, State};
use crate::rib::{Change, Forward, Hop, PeerId, Rib};

/// Orders that may wait for the kernel; with more, changes stay in the tables, where later ones replace them.
const ORDERS: usize = 16;
/// Changes that are told at a time: as many as one report of a peer brings at most.
const SLICE: usize = 1 << 14;
/// How long the kernel may take to say what it has of our last run.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// The way to the kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    orders: mpsc::Sender<Order>,
    pub(super) state: watch::Receiver<State>,
    /// An order waits for room.
    pub(super) is_behind: bool,
    /// What was there at the start and nobody wants is to go, once all changes are on their way.
    pub(super) owes_sweep: bool,
    /// The next hops that were asked for, and those of the last answer that was taken.
    asked: BTreeSet<Hop>,
    answered: BTreeSet<Hop>,
    _task: AbortHandle,
}

impl Kernel {
    /// Opens a routing table.
    pub(super) fn open(table: u32, tasks: &mut tokio::task::JoinSet<()>) -> Result<Self, KernelError> {
        let learned = rhumb_routing::learned::Learned::new(table)?;
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (tell, state) = watch::channel(State::default());
        let task = tasks.spawn(kernel::run(learned, inbox, tell));
        Ok(Kernel {
            orders,
            state,
            is_behind: false,
            owes_sweep: false,
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            _task: task,
        })
    }

    /// How many routes of our last run there are.
    pub(super) async fn kept(&mut self) -> usize {
        let known = self.state.wait_for(|state| state.kept.is_some());
        match tokio::time::timeout(FIRST_LOOK, known).await {
            Ok(Ok(state)) => state.kept.unwrap_or_default(),
            Ok(Err(_)) | Err(_) => {
                warn!("the kernel does not say which learned routes it has");
                0
            }
        }
    }

    /// Waits until there is room for an order.
    pub(super) async fn has_room(orders: &mpsc::Sender<Order>) {
        // Without the task there is no room ever.
        if orders.reserve().await.is_err() {
            std::future::pending().await
        }
    }

    pub(super) fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.clone()
    }
}

impl Speaker {
    /// Tells kernel and agent what is forwarded otherwise. After a restart that waits until routes are complete: until
    /// then packets go where they went before. Says whether there is more to tell, for which there is room.
    pub(super) fn forward(&mut self) -> bool {
        self.track_next_hops();
        if self.last.restarted && !self.settled {
            return false;
        }
        let names: Vec<String> = self.ribs.keys().cloned().collect();
        for name in names {
            let permit = match &mut self.kernel {
                Some(kernel) => match kernel.orders.clone().try_reserve_owned() {
                    Ok(permit) => Some(permit),
                    Err(_) => {
                        kernel.is_behind = true;
                        return false;
                    }
                },
                None => None,
            };
            let changes = self.ribs.get_mut(&name).map(|rib| rib.changes_up_to(SLICE)).unwrap_or_default();
            self.tell_learned(&name, &changes);
            if let Some(permit) = permit
                && !changes.is_empty()
            {
                let changes = self.merged(changes);
                permit.send(Order::Changes(changes));
            }
        }
        self.forward_left();
        let is_more = self.ribs.values().any(Rib::has_changes);
        if let Some(kernel) = &mut self.kernel {
            // A route that comes yet, and one by a next hop that the kernel has not answered for, is not wanted now.
            let is_due = kernel.owes_sweep
                && !is_more
                && (Instant::now() >= self.settle_by || !self.peers.values().any(Peer::is_unfinished))
                && !self.hops_changed
                && kernel.asked == kernel.answered;
            kernel.is_behind = is_due && kernel.orders.try_send(Order::Sweep).is_err();
            kernel.owes_sweep &= !is_due || kernel.is_behind;
        }
        is_more
    }

    /// Packets by routes of instances that are gone go another instance's way, or none.
    fn forward_left(&mut self) {
        let Some(kernel) = &self.kernel else {
            self.left.clear();
            return;
        };
        if self.left.is_empty() {
            return;
        }
        // Without room the order that fills it is followed by another look.
        if let Ok(permit) = kernel.orders.clone().try_reserve_owned() {
            let mut changes = std::mem::take(&mut self.left);
            for change in &mut changes {
                change.forward = self.ribs.values().find_map(|rib| rib.forwarded(change.prefix)).cloned();
            }
            permit.send(Order::Changes(changes));
        } else if let Some(kernel) = &mut self.kernel {
            kernel.is_behind = true;
        }
    }

    /// Where several instances have a way to a prefix, that of the first by name counts.
    fn merged(&self, mut changes: Vec<Change>) -> Vec<Change> {
        if self.ribs.len() > 1 {
            for change in &mut changes {
                change.forward = self.ribs.values().find_map(|rib| rib.forwarded(change.prefix)).cloned();
            }
        }
        changes
    }

    fn track_next_hops(&mut self) {
        let mut is_changed = false;
        for rib in self.ribs.values_mut() {
            is_changed |= rib.next_hops().is_some();
        }
        self.hops_changed |= is_changed;
        let Some(kernel) = &mut self.kernel else { return };
        if self.hops_changed {
            let hops: BTreeSet<Hop> = self.ribs.values().flat_map(Rib::all_next_hops).collect();
            match kernel.orders.try_send(Order::NextHops(hops.clone())) {
                Ok(()) => (self.hops_changed, kernel.asked) = (false, hops),
                Err(_) => kernel.is_behind = true,
            }
        }
    }

    /// The kernel said something about next hops or routes.
    pub(super) fn kernel_changed(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        let state = kernel.state.borrow_and_update();
        kernel.answered.clone_from(&state.looked_up);
        for rib in self.ribs.values_mut() {
            rib.set_next_hops(&state.next_hops);
        }
    }

    fn tell_learned(&self, instance: &str, changes: &[Change]) {
        let Some(rib) = self.ribs.get(instance) else { return };
        // Routes of one message mostly follow each other, and share their way.
        let mut last: Option<(Arc<Forward>, Vec<PeerId>, Arc<Way>)> = None;
        for Change { prefix, forward } in changes {
            let Some((forward, Forward::Via(hops))) = forward.as_ref().map(|it| (it, &**it)) else {
                self.board.remove_learned(instance, *prefix);
                continue;
            };
            let tellers = rib.tellers(*prefix);
            let way = match &last {
                Some((of, by, way)) if Arc::ptr_eq(of, forward) && *by == tellers => way,
                _ => {
                    let gateways = hops.iter().map(|hop| self.gateway(hop)).collect();
                    let peers = tellers.iter().filter_map(|peer| rib.key(*peer).cloned()).collect();
                    let way = Arc::new(Way { gateways, peers });
                    &last.insert((forward.clone(), tellers, way)).2
                }
            };
            self.board.put_learned(instance, *prefix, way);
        }
    }

    fn gateway(&self, hop: &Hop) -> (IpAddr, Option<rhumb_model::IfName>) {
        (hop.address, hop.scope.and_then(|scope| self.links.name(scope).cloned()))
    }

    /// What people are told of the kernel's routes.
    pub(super) fn kernel_notes(&self, prefix: Prefix) -> Vec<String> {
        let Some(kernel) = &self.kernel else {
            return vec!["Learned routes are not put into the kernel.".to_owned()];
        };
        let state = kernel.state.borrow();
        let refusals: BTreeMap<&Prefix, &String> = state.reasons.iter().map(|(of, why)| (of, why)).collect();
        let forwarded: Option<&Arc<Forward>> = self.ribs.values().find_map(|rib| rib.forwarded(prefix));
        match (forwarded.map(Arc::as_ref), refusals.get(&prefix)) {
            (_, Some(why)) => vec![format!("The kernel does not take the route: {why}.")],
            (Some(Forward::Via(hops)), None) => {
                let hops: Vec<String> = hops.iter().map(|hop| hop.address.to_string()).collect();
                vec![format!("The kernel is to send packets by {}.", hops.join(", "))]
            }
            (Some(Forward::Discard), None) => vec!["The kernel is to drop packets.".to_owned()],
            (None, None) => Vec::new(),
        }
    }
}
