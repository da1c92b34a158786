// SPDX-License-Identifier: Apache-2.0
//! The IPv6 addresses of a subnet: always a `/64`, in blocks of `/80`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use rhumb_model::Prefix;

use super::addresses::Taken;
use crate::random::Random;
use crate::settings::Choice;

/// Bits of an address behind its `/80`.
const HOST_BITS: u32 = 48;
const HOST: u128 = (1 << HOST_BITS) - 1;

/// The addresses of one `/64`.
#[derive(Debug, Clone)]
pub(crate) struct AddressesV6 {
    cidr: Prefix,
    base: u128,
    /// Blocks of which something is in use.
    blocks: BTreeMap<u16, Block>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Block {
    Prefix,
    Addresses(BTreeSet<u64>),
}

impl AddressesV6 {
    /// `None` unless `cidr` is an IPv6 `/64`.
    pub(crate) fn new(cidr: Prefix) -> Option<Self> {
        let IpAddr::V6(base) = cidr.addr() else { return None };
        (cidr.len() == 64).then(|| Self { cidr, base: base.to_bits(), blocks: BTreeMap::new() })
    }

    pub(crate) fn take(&mut self, address: Ipv6Addr) -> Result<(), Taken> {
        if !self.cidr.contains(IpAddr::V6(address)) {
            return Err(Taken::Outside);
        }
        let offset = address.to_bits() - self.base;
        if offset < 4 || IpAddr::V6(address) == self.cidr.last() {
            return Err(Taken::Reserved);
        }
        match self.blocks.entry(index_of(offset)).or_insert_with(|| Block::Addresses(BTreeSet::new())) {
            Block::Addresses(hosts) => {
                if hosts.insert((offset & HOST) as u64) {
                    Ok(())
                } else {
                    Err(Taken::InUse)
                }
            }
            Block::Prefix => Err(Taken::InUse),
        }
    }

    pub(crate) fn take_any(&mut self, random: &mut Random, choice: Choice) -> Option<Ipv6Addr> {
        // A subnet has 2^64 addresses and few are in use: the first or second try succeeds.
        for attempt in 0u32..=u32::from(u16::MAX) * 2 {
            let offset = match choice {
                Choice::Random => u128::from(random.next()),
                Choice::Lowest => u128::from(attempt) + 4,
            };
            let address = Ipv6Addr::from_bits(self.base + offset);
            if self.take(address).is_ok() {
                return Some(address);
            }
        }
        None
    }

    pub(crate) fn take_prefix(&mut self, prefix: Prefix) -> Result<(), Taken> {
        let index = self.block_of(prefix)?;
        if index == 0 || index == u16::MAX {
            return Err(Taken::Reserved);
        }
        if self.blocks.contains_key(&index) {
            return Err(Taken::InUse);
        }
        self.blocks.insert(index, Block::Prefix);
        Ok(())
    }

    pub(crate) fn take_any_prefix(&mut self, random: &mut Random, choice: Choice) -> Option<Prefix> {
        // The first and the last block hold reserved addresses.
        let blocks = u64::from(u16::MAX) - 1;
        let from = match choice {
            Choice::Random => random.below(blocks),
            Choice::Lowest => 0,
        };
        let index = (0..blocks)
            .map(|step| ((from + step) % blocks + 1) as u16)
            .find(|index| !self.blocks.contains_key(index))?;
        self.blocks.insert(index, Block::Prefix);
        Some(self.prefix_at(index))
    }

    pub(crate) fn release(&mut self, address: Ipv6Addr) {
        let offset = address.to_bits().wrapping_sub(self.base);
        let index = index_of(offset);
        if let Some(Block::Addresses(hosts)) = self.blocks.get_mut(&index) {
            hosts.remove(&((offset & HOST) as u64));
            if hosts.is_empty() {
                self.blocks.remove(&index);
            }
        }
    }

    pub(crate) fn release_prefix(&mut self, prefix: Prefix) {
        if let Ok(index) = self.block_of(prefix) {
            self.blocks.remove(&index);
        }
    }

    /// Every address and every block in use.
    pub(crate) fn in_use(&self) -> (BTreeSet<Ipv6Addr>, BTreeSet<Prefix>) {
        let (mut addresses, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        for (index, block) in &self.blocks {
            let first = self.base + (u128::from(*index) << HOST_BITS);
            match block {
                Block::Prefix => drop(prefixes.insert(self.prefix_at(*index))),
                Block::Addresses(hosts) => {
                    addresses.extend(hosts.iter().map(|host| Ipv6Addr::from_bits(first + u128::from(*host))));
                }
            }
        }
        (addresses, prefixes)
    }

    fn block_of(&self, prefix: Prefix) -> Result<u16, Taken> {
        match prefix.addr() {
            IpAddr::V6(first) if prefix.len() == 80 && self.cidr.covers(prefix) => {
                Ok(index_of(first.to_bits() - self.base))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Err(Taken::Outside),
        }
    }

    fn prefix_at(&self, index: u16) -> Prefix {
        let first = self.base + (u128::from(index) << HOST_BITS);
        Prefix::containing(IpAddr::V6(Ipv6Addr::from_bits(first)), 80)
    }
}

fn index_of(offset: u128) -> u16 {
    (offset >> HOST_BITS) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().expect("valid prefix")
    }

    #[test]
    fn a_block_with_an_address_in_use_is_no_prefix() {
        let mut addresses = AddressesV6::new(p("fd00:1::/64")).expect("a /64");
        let address = "fd00:1::5:0:0:1".parse().expect("valid");
        assert_eq!(addresses.take(address), Ok(()));
        assert_eq!(addresses.take(address), Err(Taken::InUse));
        assert_eq!(addresses.take_prefix(p("fd00:1:0:0:5::/80")), Err(Taken::InUse));
        addresses.release(address);
        assert_eq!(addresses.take_prefix(p("fd00:1:0:0:5::/80")), Ok(()));
        assert_eq!(addresses.take(address), Err(Taken::InUse));
        assert_eq!(addresses.in_use().1.len(), 1);
    }

    #[test]
    fn only_blocks_of_80_bits_within_the_subnet_are_given() {
        let mut addresses = AddressesV6::new(p("fd00:1::/64")).expect("a /64");
        assert_eq!(addresses.take_prefix(p("fd00:2:0:0:5::/80")), Err(Taken::Outside));
        assert_eq!(addresses.take_prefix(p("fd00:1::/80")), Err(Taken::Reserved));
        assert_eq!(addresses.take("fd00:1::3".parse().expect("valid")), Err(Taken::Reserved));
        assert!(AddressesV6::new(p("fd00:1::/56")).is_none());
        let mut random = Random::new(3);
        let prefix = addresses.take_any_prefix(&mut random, Choice::Random).expect("one of 65,534");
        assert!(p("fd00:1::/64").covers(prefix) && prefix.len() == 80);
        let first = addresses.take_any_prefix(&mut random, Choice::Lowest);
        assert_eq!(first, Some(p("fd00:1:0:0:1::/80")));
    }
}
