// SPDX-License-Identifier: Apache-2.0
//! What BGP wants to know of the node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rhumb_model::{Family, IfName};
use rhumb_routing::kernel::KernelError;
use rhumb_routing::{Netlink, host};

/// Gateways and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HostFacts {
    /// Next hops of the default routes of the main table.
    pub(super) gateways: BTreeSet<(IpAddr, IfName)>,
    /// Addresses that are valid beyond their link.
    pub(super) interfaces: BTreeMap<IfName, BTreeSet<IpAddr>>,
}

/// Reads them.
pub(super) async fn look(netlink: &Netlink) -> Result<HostFacts, KernelError> {
    let gateways = host::default_gateways(netlink).await?;
    let interfaces = host::addresses_by_link(netlink).await?;
    let addresses =
        |networks: Vec<ipnetwork::IpNetwork>| networks.iter().map(|network| network.ip()).collect();
    Ok(HostFacts {
        gateways: gateways.into_iter().map(|gateway| (gateway.addr, gateway.ifname)).collect(),
        interfaces: interfaces.into_iter().map(|(name, networks)| (name, addresses(networks))).collect(),
    })
}

impl HostFacts {
    /// Takes over what was seen. Gateways of a family go only when others have come: a default route that goes for a
    /// moment ends no session.
    pub(super) fn update(&mut self, seen: HostFacts) {
        let of = |gateways: &BTreeSet<(IpAddr, IfName)>, family| -> BTreeSet<(IpAddr, IfName)> {
            gateways.iter().filter(|(address, _)| Family::of(*address) == family).cloned().collect()
        };
        let kept = Family::BOTH.into_iter().flat_map(|family| match of(&seen.gateways, family) {
            none if none.is_empty() => of(&self.gateways, family),
            some => some,
        });
        *self = Self { gateways: kept.collect(), interfaces: seen.interfaces };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(gateways: &[&str]) -> HostFacts {
        let eth0 = IfName::new("eth0").expect("valid");
        let gateways = gateways.iter().map(|text| (text.parse().expect("valid"), eth0.clone()));
        HostFacts { gateways: gateways.collect(), interfaces: BTreeMap::new() }
    }

    #[test]
    fn gateways_of_a_family_go_only_when_others_have_come() {
        let mut known = facts(&["192.0.2.1", "192.0.2.2", "fe80::1"]);
        known.update(facts(&["192.0.2.1"]));
        assert_eq!(known, facts(&["192.0.2.1", "fe80::1"]));
        known.update(facts(&[]));
        assert_eq!(known, facts(&["192.0.2.1", "fe80::1"]));
        known.update(facts(&["fe80::2", "192.0.2.9"]));
        assert_eq!(known, facts(&["192.0.2.9", "fe80::2"]));
    }
}
