// SPDX-License-Identifier: Apache-2.0
//! Interfaces that the cloud gave this node: what the operator decided about them, and what the kernel is to have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use rhumb_api::{BlockWord, EniConfig, EniInterface, NodeConfig, PodCidr};
use rhumb_ipam::eni::agent::{self, Held, Share};
use rhumb_ipam::eni::{EniBlock, Record, Word};
use rhumb_model::{EniId, Family, IfName, MacAddr, PoolName, Prefix, Revision};
use rhumb_routing::InterfaceSpec;
use rhumb_routing::eni::{self, Input, Nic, Outside, Plan};
use rhumb_routing::host::Uplink;
use rhumb_routing::kernel::Link;
use rhumb_routing::plan::Plan as Ways;

use crate::desired::{Desired, Programs};
use crate::link_managers::Given;

/// What of a NodeConfig object is about interfaces of the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EniRow {
    config: EniConfig,
    /// Blocks that are good on one of them.
    blocks: Vec<PodCidr>,
}

impl EniRow {
    /// The part of the object; `None` where the node has no such interface.
    pub(crate) fn of(config: &NodeConfig) -> Option<Self> {
        let blocks = config.spec.pod_cidrs.iter().filter(|block| block.interface.is_some());
        Some(Self { config: config.spec.eni.clone()?, blocks: blocks.cloned().collect() })
    }

    /// The pool that the blocks are of; `None` while there are none.
    pub(crate) fn pool(&self) -> Option<&PoolName> {
        self.blocks.first().map(|block| &block.pool)
    }

    /// All blocks, with their pools.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (&PoolName, Prefix)> {
        self.blocks.iter().map(|block| (&block.pool, block.cidr))
    }

    /// Blocks of a pool from which addresses may be leased: of interfaces that are ready, and not wanted back.
    pub(crate) fn lendable(&self, pool: &PoolName, ready: &BTreeSet<EniId>) -> Vec<Prefix> {
        let nothing = BTreeSet::new();
        let open = self.share(&Held { leased: &nothing, cooling: &nothing, ready }).open;
        let of_pool = |cidr: &Prefix| self.blocks().any(|(name, block)| name == pool && block == *cidr);
        open.into_iter().filter(of_pool).collect()
    }

    /// What the agent answers about the blocks.
    pub(crate) fn share(&self, held: &Held<'_>) -> Share {
        let block = |block: &PodCidr| {
            Some(EniBlock {
                cidr: block.cidr,
                interface: block.interface.clone()?,
                releasing: block.releasing,
                unassigning: block.unassigning,
            })
        };
        let record = Record {
            generation: self.config.generation,
            blocks: self.blocks.iter().filter_map(block).collect(),
            interfaces: self.config.interfaces.iter().map(|interface| interface.id.clone()).collect(),
        };
        agent::share(&record, held)
    }

    /// Where the source of pods' packets stays: in the cloud's network; everywhere for a family that nobody translates, or
    /// somebody behind the interface.
    pub(crate) fn keep_source(&self) -> Vec<Prefix> {
        let v6 = self.blocks.iter().any(|block| block.cidr.family() == Family::V6);
        let everywhere = |family: Family| match family {
            Family::V4 => !self.config.masquerade,
            Family::V6 => v6 || !self.config.masquerade,
        };
        let whole = Family::BOTH.into_iter().filter(|family| everywhere(*family)).map(Family::default_route);
        self.config.vpc_cidrs.iter().copied().chain(whole).collect()
    }

    /// The interfaces whose links are there.
    pub(crate) fn given(&self, links: &BTreeMap<MacAddr, Link>) -> Vec<Given> {
        let given = |interface: &EniInterface| {
            let Link { ifindex, name, .. } = links.get(&interface.mac)?;
            let later = interface.card > 0 || interface.device_index > 0;
            Some(Given { ifindex: *ifindex, ifname: name.to_string(), later })
        };
        self.config.interfaces.iter().filter_map(given).collect()
    }

    /// For how long an address that a pod had is given to no other, where the pool says so.
    pub(crate) fn cool_down(&self) -> Option<Duration> {
        self.config.cool_down_seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Families of which every pod gets an address.
    pub(crate) fn families(&self) -> &[Family] {
        &self.config.families
    }

    /// With whose address packets leave the cloud's network, where `asked` is what the node was told.
    fn outside(&self, asked: Outside) -> Outside {
        if self.config.masquerade { asked } else { Outside::External }
    }

    fn nics(&self) -> Vec<Nic> {
        let blocks = |interface: &EniInterface| {
            let own = self.blocks.iter().filter(|block| block.interface.as_ref() == Some(&interface.id));
            own.map(|block| block.cidr).collect()
        };
        let nic = |interface: &EniInterface| Nic {
            mac: interface.mac,
            card: interface.card,
            index: interface.device_index,
            mtu: interface.mtu,
            addresses: [Some(IpAddr::V4(interface.primary)), interface.primary_v6.map(IpAddr::V6)]
                .into_iter()
                .flatten()
                .collect(),
            gateways: [interface.gateway.map(IpAddr::V4), interface.gateway_v6.map(IpAddr::V6)]
                .into_iter()
                .flatten()
                .collect(),
            blocks: blocks(interface),
        };
        self.config.interfaces.iter().map(nic).collect()
    }
}

/// The agent's words as NodeState has them.
pub(crate) fn words(words: &[Word]) -> Vec<BlockWord> {
    words.iter().map(|word| BlockWord { cidr: word.cidr, generation: word.generation }).collect()
}

/// Options of the node for interfaces of the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EniSettings {
    /// With whose address packets leave the cloud's network, where the node translates at all.
    pub(crate) outside: Outside,
    /// Number of the first routing table.
    pub(crate) base: u32,
}

/// What endpoints want to know of the interfaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    /// Number of the table of pods; `None` where the cloud gave no interface.
    pub(crate) pods_table: Option<u32>,
    /// Indices of the interfaces by the blocks that are good on them.
    blocks: &'a [(Prefix, u32)],
}

impl Around<'_> {
    /// Nothing of the kind.
    #[cfg(test)]
    pub(crate) const NONE: Around<'static> = Around { pods_table: None, blocks: &[] };

    /// Index of the interface that an address is good on, once it is there.
    pub(crate) fn interface(&self, addr: IpAddr) -> Option<u32> {
        self.blocks.iter().find(|(block, _)| block.contains(addr)).map(|(_, ifindex)| *ifindex)
    }
}

/// What is planned for the interfaces.
#[derive(Debug, Default)]
pub(crate) struct Eni {
    planned: Option<Revision>,
    plan: Plan,
    pods_table: Option<u32>,
    blocks: Vec<(Prefix, u32)>,
    marks: BTreeMap<u32, u32>,
    /// Names and tables of interfaces that are there.
    there: BTreeMap<MacAddr, (IfName, u32)>,
}

impl Eni {
    /// What is to be in the kernel.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What endpoints want to know.
    pub(crate) fn around(&self) -> Around<'_> {
        Around { pods_table: self.pods_table, blocks: &self.blocks }
    }

    /// The firewall mark of what comes in by the interface with this index.
    pub(crate) fn mark(&self, ifindex: u32) -> Option<u32> {
        self.marks.get(&ifindex).copied()
    }

    /// Those of a row's interfaces by which packets go as they should; `holds` says whether the kernel has what is wanted
    /// for one.
    pub(crate) fn ready(
        &self,
        row: &EniRow,
        uplinks: &[Uplink],
        programs: &Programs,
        holds: impl Fn(&Desired) -> bool,
    ) -> BTreeSet<EniId> {
        let has = |interface: &&EniInterface| {
            let Some((ifname, table)) = self.there.get(&interface.mac) else { return false };
            let Some(uplink) = uplinks.iter().find(|uplink| uplink.ifname == *ifname) else { return false };
            let part = self.part(ifname, *table);
            // Addresses that were put and not seen yet are in no map of the datapath either.
            let addressed = part.addresses.keys().all(|own| uplink.addresses.contains(&own.address));
            let mut wanted = Desired::default();
            wanted.add_node(std::slice::from_ref(uplink), programs, &Ways::default());
            wanted.add_interfaces(&part, |ifindex| self.mark(ifindex));
            addressed && holds(&wanted)
        };
        row.config.interfaces.iter().filter(has).map(|interface| interface.id.clone()).collect()
    }

    /// What is planned for one interface.
    fn part(&self, ifname: &IfName, table: u32) -> Plan {
        let Plan { interfaces, addresses, routes, rules, .. } = &self.plan;
        let own = |(name, spec): (&IfName, &InterfaceSpec)| (name == ifname).then(|| (name.clone(), *spec));
        Plan {
            interfaces: interfaces.iter().filter_map(own).collect(),
            addresses: addresses
                .keys()
                .filter(|own| own.ifname == *ifname)
                .map(|own| (own.clone(), ()))
                .collect(),
            routes: routes
                .iter()
                .filter(|(key, _)| key.table == table)
                .map(|(key, to)| (*key, to.clone()))
                .collect(),
            rules: rules.keys().filter(|rule| rule.table == table).map(|rule| (*rule, ())).collect(),
            missing: BTreeSet::new(),
        }
    }

    /// Whether the interface is one that the cloud gave besides the node's first.
    pub(crate) fn is_later(&self, ifname: &IfName) -> bool {
        self.plan.addresses.keys().any(|address| address.ifname == *ifname)
    }

    /// Plans anew where an input changed since; says whether it did.
    pub(crate) fn refresh(
        &mut self,
        row: Option<&EniRow>,
        links: &BTreeMap<MacAddr, Link>,
        keep_source: Vec<Prefix>,
        settings: EniSettings,
        rev: Revision,
    ) -> bool {
        if self.planned == Some(rev) {
            return false;
        }
        let nics = row.map(EniRow::nics).unwrap_or_default();
        let there = |nic: &Nic| links.get(&nic.mac).map(|link| link.ifindex);
        self.blocks = nics
            .iter()
            .filter_map(|nic| Some((nic, there(nic)?)))
            .flat_map(|(nic, ifindex)| nic.blocks.iter().map(move |block| (*block, ifindex)))
            .collect();
        self.marks = nics.iter().filter_map(|nic| Some((there(nic)?, nic.mark()?))).collect();
        let place =
            |nic: &Nic| Some((nic.mac, (links.get(&nic.mac)?.name.clone(), nic.table(settings.base))));
        self.there = nics.iter().filter_map(place).collect();
        self.pods_table = (!nics.is_empty()).then(|| eni::pods_table(settings.base));
        let outside = row.map_or(settings.outside, |row| row.outside(settings.outside));
        self.plan =
            eni::plan(&Input { nics, links: links.clone(), keep_source, outside, base: settings.base });
        self.planned = Some(rev);
        true
    }
}

/// Names of the links of a row's interfaces that are there.
pub(crate) fn link_names(row: Option<&EniRow>, links: &BTreeMap<MacAddr, Link>) -> Vec<IfName> {
    let macs = row.into_iter().flat_map(|row| row.config.interfaces.iter().map(|interface| interface.mac));
    macs.filter_map(|mac| links.get(&mac)).map(|link| link.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = r#"{"podCIDRs": [
        {"pool": "default", "cidr": "10.0.0.16/28", "interface": "eni-0123456789abcdef0"},
        {"pool": "default", "cidr": "10.0.0.32/28", "interface": "eni-0123456789abcdef0", "releasing": 7},
        {"pool": "default", "cidr": "10.0.0.48/28", "interface": "eni-0123456789abcdef1"}],
        "eni": {"instance": "i-0123456789abcdef0", "zone": "eu-central-1a", "generation": 7,
            "vpcCIDRs": ["10.0.0.0/16"], "coolDownSeconds": 130, "interfaces": [
            {"id": "eni-0123456789abcdef0", "mac": "0a:00:00:00:00:01", "deviceIndex": 0, "primary": "10.0.0.4"},
            {"id": "eni-0123456789abcdef1", "mac": "0a:00:00:00:00:02", "deviceIndex": 1, "primary": "10.0.0.5"}]}}"#;

    fn row() -> EniRow {
        let spec = serde_json::from_str(OBJECT).expect("valid");
        EniRow::of(&NodeConfig::new(&"a".parse().expect("valid"), spec)).expect("it has interfaces")
    }

    #[test]
    fn a_block_that_is_wanted_back_is_answered_with_its_number() {
        let (leased, none) = (BTreeSet::from(["10.0.0.33".parse().expect("valid")]), BTreeSet::new());
        let ready = BTreeSet::new();
        let held = row().share(&Held { leased: &leased, cooling: &none, ready: &ready });
        let free = row().share(&Held { leased: &none, cooling: &none, ready: &ready });
        let word = BlockWord { cidr: "10.0.0.32/28".parse().expect("valid"), generation: 7 };
        assert_eq!((words(&held.declined), words(&held.released)), (vec![word.clone()], vec![]));
        assert_eq!((words(&free.declined), words(&free.released)), (vec![], vec![word]));
        assert_eq!(free.observed, 7);
    }

    #[test]
    fn addresses_are_leased_of_ready_interfaces_and_of_blocks_that_nobody_wants_back() {
        let pool = "default".parse().expect("valid");
        let ready: BTreeSet<EniId> = ["eni-0123456789abcdef0".parse().expect("valid")].into();
        let lent: Vec<String> = row().lendable(&pool, &ready).iter().map(ToString::to_string).collect();
        assert_eq!(lent, ["10.0.0.16/28"]);
        assert!(row().lendable(&"other".parse().expect("valid"), &ready).is_empty());
        assert_eq!(row().cool_down(), Some(Duration::from_secs(130)));
    }

    #[test]
    fn the_source_stays_in_the_vpc_and_where_the_node_does_not_translate() {
        let mut row = row();
        let kept = |row: &EniRow| row.keep_source().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(kept(&row), ["10.0.0.0/16"]);
        row.config.masquerade = false;
        assert_eq!(kept(&row), ["10.0.0.0/16", "0.0.0.0/0", "::/0"]);
        assert_eq!(row.outside(Outside::Node), Outside::External);
    }
}
