// SPDX-License-Identifier: Apache-2.0
//! The agent's half: what it leases from, and what it answers.
//!
//! All of it follows from the newest NodeConfig and the leases; nothing but the number of that NodeConfig is kept. An
//! agent that starts reads the NodeConfig as it is, not as some cache remembers it, and takes it for the newest.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rhumb_model::{EniId, Prefix};

use super::{EniBlock, Record, Word};

/// Keeps an agent from going back to an older NodeConfig.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Newest(pub(super) Option<u64>);

impl Newest {
    /// Whether a NodeConfig of this generation is no older than any before; notes it then. That one was deleted in
    /// between makes none newer.
    pub fn take(&mut self, generation: u64) -> bool {
        let is_newest = self.0.is_none_or(|seen| seen <= generation);
        if is_newest {
            self.0 = Some(generation);
        }
        is_newest
    }
}

/// The addresses that an agent has given out, and the links that stand.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// Addresses that pods have.
    pub leased: &'a BTreeSet<IpAddr>,
    /// Addresses that rest.
    pub cooling: &'a BTreeSet<IpAddr>,
    /// Interfaces whose link is there, with its rules and routes.
    pub ready: &'a BTreeSet<EniId>,
}

/// What the agent does and says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// Blocks that addresses are leased from.
    pub open: Vec<Prefix>,
    /// Blocks that stay in the pool for the sake of addresses that are leased or rest; no other is leased from them.
    pub closed: Vec<Prefix>,
    /// Blocks of which no address is leased or rests.
    pub idle: BTreeSet<Prefix>,
    /// Blocks that the operator wants and may have. They are out of the pool before this is said.
    pub released: Vec<Word>,
    /// Blocks that the operator wants and pods have addresses of.
    pub declined: Vec<Word>,
    /// The generation that all of this is about.
    pub observed: u64,
}

/// What the agent does and says, by the newest NodeConfig and its leases.
///
/// A word about a block only ever turns from none or `declined` to `released` while its number is the same: nothing is
/// leased from a block that is wanted back.
pub fn share(record: &Record, held: &Held<'_>) -> Share {
    let mut share = Share { observed: record.generation, ..Share::default() };
    for block in &record.blocks {
        let leased = any_in(held.leased, block.cidr);
        let cooling = any_in(held.cooling, block.cidr);
        if !leased && !cooling && block.releasing.is_none() {
            share.idle.insert(block.cidr);
        }
        share.sort(block, leased, cooling, held.ready.contains(&block.interface));
    }
    share
}

impl Share {
    fn sort(&mut self, block: &EniBlock, leased: bool, cooling: bool, ready: bool) {
        let Some(generation) = block.releasing else {
            if ready {
                self.open.push(block.cidr);
            } else {
                self.closed.push(block.cidr);
            }
            return;
        };
        let word = Word { cidr: block.cidr, generation };
        match (leased, cooling) {
            (false, false) => self.released.push(word),
            (true, true | false) => {
                self.declined.push(word);
                self.closed.push(block.cidr);
            }
            // The address rests for a moment only.
            (false, true) => self.closed.push(block.cidr),
        }
    }
}

fn any_in(addresses: &BTreeSet<IpAddr>, block: Prefix) -> bool {
    addresses.range(block.addr()..=block.last()).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, releasing: Option<u64>) -> EniBlock {
        let interface = EniId::new("eni-1").expect("valid");
        EniBlock { cidr: cidr.parse().expect("valid"), interface, releasing, unassigning: false }
    }

    fn record(blocks: Vec<EniBlock>) -> Record {
        Record { generation: 9, blocks, interfaces: Vec::new() }
    }

    fn addresses(all: &[&str]) -> BTreeSet<IpAddr> {
        all.iter().map(|addr| addr.parse().expect("valid")).collect()
    }

    fn cidrs(blocks: &[Prefix]) -> String {
        blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_block_that_is_wanted_back_gives_nothing_more_and_goes_when_the_last_address_is_free() {
        let record = record(vec![block("10.0.0.16/28", Some(7)), block("10.0.0.32/28", None)]);
        let ready = BTreeSet::from([EniId::new("eni-1").expect("valid")]);
        let look = |leased: &[&str], cooling: &[&str]| {
            let (leased, cooling) = (addresses(leased), addresses(cooling));
            share(&record, &Held { leased: &leased, cooling: &cooling, ready: &ready })
        };
        let word = Word { cidr: "10.0.0.16/28".parse().expect("valid"), generation: 7 };

        let held = look(&["10.0.0.20"], &[]);
        assert_eq!((cidrs(&held.open), cidrs(&held.closed)), ("10.0.0.32/28".into(), "10.0.0.16/28".into()));
        assert_eq!((held.declined, held.released), (vec![word], vec![]));

        let resting = look(&[], &["10.0.0.20"]);
        assert_eq!(
            (cidrs(&resting.closed), resting.declined, resting.released),
            ("10.0.0.16/28".into(), vec![], vec![])
        );

        let free = look(&[], &[]);
        assert_eq!((cidrs(&free.open), cidrs(&free.closed)), ("10.0.0.32/28".into(), String::new()));
        assert_eq!((free.released, free.observed), (vec![word], 9));
        assert_eq!(free.idle, BTreeSet::from(["10.0.0.32/28".parse().expect("valid")]));
    }

    #[test]
    fn nothing_is_leased_from_an_interface_whose_link_is_not_there() {
        let record = record(vec![block("10.0.0.16/32", None)]);
        let none = BTreeSet::new();
        let share = share(&record, &Held { leased: &none, cooling: &none, ready: &BTreeSet::new() });
        assert_eq!((cidrs(&share.open), cidrs(&share.closed)), (String::new(), "10.0.0.16/32".into()));
    }

    #[test]
    fn an_older_node_config_is_passed_over() {
        let mut newest = Newest::default();
        assert!(newest.take(3) && newest.take(3) && newest.take(5));
        assert!(!newest.take(4) && newest.take(5));
    }
}
