// SPDX-License-Identifier: Apache-2.0
//! Looks at what the network around the host offers, and hears when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netlink_packet_route::RouteNetlinkMessage;
use rhumb_model::{Family, IfName, Prefix};

use super::socket::Socket;
use super::{Netlink, Talk, foreign, link, neighbour};
use crate::fabric::{Fabric, ForeignRoute, Leads, Neighbour};
use crate::kernel::KernelError;
use crate::plan::Gateway;

/// The table in which routes stand that name none (`RT_TABLE_MAIN`).
const MAIN_TABLE: u32 = 254;

/// What of the fabric matters: notices about anything else are not worth a look. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    prefixes: BTreeSet<Prefix>,
    addresses: BTreeSet<IpAddr>,
    /// What was last told of each neighbour.
    neighbours: BTreeMap<(u32, IpAddr), Option<Neighbour>>,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a notice says something new about what is watched.
    pub(super) fn concerns(&self, object: &RouteNetlinkMessage) -> bool {
        if foreign::is_rule(object) {
            return true;
        }
        if let Some(told) = foreign::read_route(object) {
            return covers_any(&self.lock().prefixes, told.dst);
        }
        let Some(told) = neighbour::read(object) else { return false };
        let mut watched = self.lock();
        if !watched.addresses.contains(&told.addr) {
            return false;
        }
        let before = watched.neighbours.insert((told.ifindex, told.addr), told.state).flatten();
        answers(before) != answers(told.state)
    }
}

/// Whether a route to `dst` can be one to any of `prefixes`.
fn covers_any(prefixes: &BTreeSet<Prefix>, dst: Prefix) -> bool {
    prefixes.range(dst..).next().is_some_and(|prefix| dst.covers(*prefix))
}

/// Whether a neighbour answers; `None` is not known.
fn answers(state: Option<Neighbour>) -> Option<bool> {
    match state {
        Some(Neighbour::Confirmed | Neighbour::Known) => Some(true),
        Some(Neighbour::Failed) => Some(false),
        Some(Neighbour::Asked) | None => None,
    }
}

impl Netlink {
    /// Says what of the fabric matters from now on: routes to `prefixes`, and the neighbours at `addresses`. Gateways
    /// of routes are added by each look.
    pub fn watch(&self, prefixes: BTreeSet<Prefix>, addresses: BTreeSet<IpAddr>) {
        let mut watched = self.host.watch.lock();
        watched.neighbours.retain(|(_, addr), _| addresses.contains(addr));
        (watched.prefixes, watched.addresses) = (prefixes, addresses);
    }

    /// What the fabric offers for what is watched.
    pub(crate) async fn fabric(&self) -> Result<Fabric, KernelError> {
        let watch = self.host.watch.clone();
        self.on_host(move |socket| {
            // No lock is held while the kernel answers: whoever hears notices wants it, too.
            let prefixes = watch.lock().prefixes.clone();
            let mut rules = Vec::new();
            let mut routes = Vec::new();
            for family in Family::BOTH {
                // Kernels without IPv6 answer with an error; then there are none.
                rules.extend(
                    socket.dump(&foreign::get_rules(family), foreign::read_rule)?.unwrap_or_default(),
                );
                let wanted = |object: &_| {
                    foreign::read_route(object)
                        .filter(|told| told.dst.len() == 0 || covers_any(&prefixes, told.dst))
                };
                routes.extend(socket.dump(&foreign::get_routes(family), wanted)?.unwrap_or_default());
            }
            let hops = || routes.iter().flat_map(|told| &told.hops);
            watch.lock().addresses.extend(hops().filter_map(|(_, gateway)| *gateway));
            let neighbours = neighbours(socket, &watch)?;
            let indices =
                hops().map(|(ifindex, _)| *ifindex).chain(neighbours.iter().map(|told| told.ifindex));
            let names = names(socket, indices.collect())?;
            let gateway = |ifindex: u32, addr| {
                names.get(&ifindex).map(|ifname| Gateway { addr, ifname: ifname.clone() })
            };
            let routes = routes.iter().map(|told| {
                let hops =
                    told.hops.iter().map(|(ifindex, via)| via.and_then(|addr| gateway(*ifindex, addr)));
                let leads = if told.hops.is_empty() { Leads::Nowhere } else { Leads::Out(hops.collect()) };
                ForeignRoute { table: told.table, dst: told.dst, metric: told.metric, leads }
            });
            let known =
                neighbours.iter().filter_map(|told| Some((gateway(told.ifindex, told.addr)?, told.state?)));
            Ok(Fabric::new(routes.collect(), rules, known.collect()))
        })
        .await
    }

    /// The next hops of the default routes of the main table that others put: of each family, those with the lowest
    /// metric.
    pub(crate) async fn default_gateways(&self) -> Result<BTreeSet<Gateway>, KernelError> {
        self.on_host(|socket| {
            let mut hops: BTreeSet<(u32, IpAddr)> = BTreeSet::new();
            for family in Family::BOTH {
                let wanted = |object: &_| {
                    foreign::read_route(object).filter(|told| told.table == MAIN_TABLE && told.dst.len() == 0)
                };
                let told = socket.dump(&foreign::get_routes(family), wanted)?.unwrap_or_default();
                let lowest =
                    told.iter().filter(|route| !route.hops.is_empty()).map(|route| route.metric).min();
                // Equal routes of IPv6 are told one by one, those of IPv4 as one route with several hops.
                let best = told.iter().filter(|route| Some(route.metric) == lowest);
                let several = best.flat_map(|route| &route.hops);
                hops.extend(several.filter_map(|(ifindex, gateway)| Some((*ifindex, (*gateway)?))));
            }
            let names = names(socket, hops.iter().map(|(ifindex, _)| *ifindex).collect())?;
            let named = hops.into_iter().filter_map(|(ifindex, addr)| {
                names.get(&ifindex).map(|ifname| Gateway { addr, ifname: ifname.clone() })
            });
            Ok(named.collect())
        })
        .await
    }

    /// Lets the kernel ask these neighbours whether they are there, except those that it knows to be.
    pub(crate) async fn probe(&self, gateways: BTreeSet<Gateway>) -> Result<(), KernelError> {
        let watch = self.host.watch.clone();
        self.on_host(move |socket| {
            let told = neighbours(socket, &watch)?;
            let mut links = BTreeMap::new();
            for ifname in gateways.iter().map(|gateway| &gateway.ifname).collect::<BTreeSet<_>>() {
                links.extend(super::find(socket, ifname)?.map(|link| (link.name, link.ifindex)));
            }
            let probes = gateways.iter().filter_map(|gateway| {
                let ifindex = *links.get(&gateway.ifname)?;
                let same = |told: &&neighbour::Told| (told.ifindex, told.addr) == (ifindex, gateway.addr);
                let state = told.iter().find(same).and_then(|told| told.state);
                (state != Some(Neighbour::Confirmed)).then(|| neighbour::probe(ifindex, gateway.addr, state))
            });
            for answered in socket.exchange(probes.collect())? {
                // A neighbour that changed meanwhile is asked the next time.
                if let Err(refused) = answered {
                    tracing::debug!(error = %KernelError::from(refused), "neighbour not probed");
                }
            }
            Ok(())
        })
        .await
    }
}

/// The watched neighbours, as they are now.
fn neighbours(socket: &mut Socket, watch: &Watch) -> Talk<Vec<neighbour::Told>> {
    let addresses = watch.lock().addresses.clone();
    let told = socket.dump(&neighbour::get_all(), |object| {
        neighbour::read(object).filter(|told| addresses.contains(&told.addr))
    })??;
    watch.lock().neighbours = told.iter().map(|told| ((told.ifindex, told.addr), told.state)).collect();
    Ok(told)
}

/// The names of these links; one that is gone has none.
fn names(socket: &mut Socket, indices: BTreeSet<u32>) -> Talk<BTreeMap<u32, IfName>> {
    let asked = socket.exchange(indices.into_iter().map(link::get_by_index).collect())?;
    let links = asked.into_iter().filter_map(|answers| answers.ok()?.iter().find_map(link::read));
    Ok(links.map(|link| (link.ifindex, link.name)).collect())
}
