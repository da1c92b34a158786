// SPDX-License-Identifier: Apache-2.0
//! The IPv4 addresses of a subnet: single ones, aligned blocks of 16, and what is reserved for either.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::{Prefix, ReservationKind};

use crate::random::Random;
use crate::settings::Choice;

const BLOCK: u32 = 16;
const ALL: u16 = u16::MAX;

/// Why an address or block that the caller named cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Outside,
    /// One of the first four or the last.
    Reserved,
    InUse,
}

/// The addresses of one subnet of `/16` to `/28`, in blocks of 16.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    cidr: Prefix,
    base: u32,
    blocks: Vec<Block>,
    /// Blocks that single addresses may come from.
    open: BTreeSet<u32>,
    /// Blocks that a prefix may come from, those reserved for prefixes apart.
    whole: BTreeSet<u32>,
    whole_reserved: BTreeSet<u32>,
    free: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    used: u16,
    withheld: u16,
    for_prefixes: bool,
    prefix: bool,
}

impl Block {
    /// Addresses that `AvailableIpAddressCount` counts.
    fn free(self) -> u32 {
        if self.prefix || self.for_prefixes { 0 } else { (!self.used).count_ones() }
    }

    fn is_open(self) -> bool {
        !self.prefix && !self.for_prefixes && (self.used | self.withheld) != ALL
    }

    fn is_whole(self) -> bool {
        !self.prefix && self.used == 0 && self.withheld == 0
    }
}

impl Addresses {
    /// All addresses but the first four and the last are free. `None` unless `cidr` is IPv4 and `/16` to `/28`.
    pub(crate) fn new(cidr: Prefix) -> Option<Self> {
        let IpAddr::V4(base) = cidr.addr() else { return None };
        if !(16..=28).contains(&cidr.len()) {
            return None;
        }
        let count = 1u32 << (28 - cidr.len());
        let mut addresses = Self {
            cidr,
            base: base.to_bits(),
            blocks: vec![Block { used: ALL, ..Block::default() }; count as usize],
            open: BTreeSet::new(),
            whole: BTreeSet::new(),
            whole_reserved: BTreeSet::new(),
            free: 0,
        };
        for index in 0..count {
            addresses.change(index, |block| block.used = 0);
        }
        addresses.change(0, |block| block.used |= 0x000f);
        addresses.change(count - 1, |block| block.used |= 0x8000);
        Some(addresses)
    }

    /// How many addresses `DescribeSubnets` says are available.
    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    /// Takes the address that the caller names.
    pub(crate) fn take(&mut self, address: Ipv4Addr) -> Result<(), Taken> {
        let (index, bit) = self.place(address)?;
        let block = self.blocks[index as usize];
        if block.prefix || block.used & bit != 0 {
            return Err(Taken::InUse);
        }
        self.change(index, |block| block.used |= bit);
        Ok(())
    }

    /// Takes some free address that is not reserved; `None` when there is none.
    pub(crate) fn take_any(&mut self, random: &mut Random, choice: Choice) -> Option<Ipv4Addr> {
        let index = pick(&self.open, self.blocks.len(), random, choice)?;
        let block = self.blocks[index as usize];
        let free: Vec<u32> =
            (0..BLOCK).filter(|bit| (block.used | block.withheld) & (1 << bit) == 0).collect();
        let bit = match choice {
            Choice::Lowest => free[0],
            Choice::Random => free[random.below(free.len() as u64) as usize],
        };
        self.change(index, |block| block.used |= 1 << bit);
        Some(Ipv4Addr::from_bits(self.base + index * BLOCK + bit))
    }

    /// Takes the `/28` that the caller names.
    pub(crate) fn take_prefix(&mut self, prefix: Prefix) -> Result<(), Taken> {
        let index = self.block_of(prefix)?;
        let block = self.blocks[index as usize];
        if block.prefix || block.used != 0 {
            let edge = (index == 0 && block.used == 0x000f) || (block.used == 0x8000 && self.is_last(index));
            return Err(if edge && !block.prefix { Taken::Reserved } else { Taken::InUse });
        }
        self.change(index, |block| block.prefix = true);
        Ok(())
    }

    /// Takes some `/28` of which no address is in use, those reserved for prefixes first.
    pub(crate) fn take_any_prefix(&mut self, random: &mut Random, choice: Choice) -> Option<Prefix> {
        let index = pick(&self.whole_reserved, self.blocks.len(), random, choice)
            .or_else(|| pick(&self.whole, self.blocks.len(), random, choice))?;
        self.change(index, |block| block.prefix = true);
        Some(self.prefix_at(index))
    }

    /// Gives an address back that was taken.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        if let Ok((index, bit)) = self.place(address) {
            self.change(index, |block| block.used &= !bit);
        }
    }

    /// Gives a block back that was taken.
    pub(crate) fn release_prefix(&mut self, prefix: Prefix) {
        if let Ok(index) = self.block_of(prefix) {
            self.change(index, |block| block.prefix = false);
        }
    }

    /// Keeps a range for `kind`, which is within the subnet; one for prefixes is a `/28` or larger.
    pub(crate) fn reserve(&mut self, range: Prefix, kind: ReservationKind) {
        self.mark(range, |block, bits| match kind {
            ReservationKind::Prefix => block.for_prefixes = true,
            ReservationKind::Explicit => block.withheld |= bits,
        });
    }

    /// Ends a reservation.
    pub(crate) fn unreserve(&mut self, range: Prefix, kind: ReservationKind) {
        self.mark(range, |block, bits| match kind {
            ReservationKind::Prefix => block.for_prefixes = false,
            ReservationKind::Explicit => block.withheld &= !bits,
        });
    }

    /// Takes one address of each of `count` blocks that are whole: so many prefixes less, almost as many addresses.
    pub(crate) fn fragment(&mut self, count: u32, random: &mut Random) -> Vec<Ipv4Addr> {
        let mut taken = Vec::new();
        for _ in 0..count {
            let Some(index) = pick(&self.whole, self.blocks.len(), random, Choice::Random) else { break };
            let bit = random.below(u64::from(BLOCK)) as u32;
            self.change(index, |block| block.used |= 1 << bit);
            taken.push(Ipv4Addr::from_bits(self.base + index * BLOCK + bit));
        }
        taken
    }

    /// Every address and every block in use, without the five that nobody can have.
    pub(crate) fn in_use(&self) -> (BTreeSet<Ipv4Addr>, BTreeSet<Prefix>) {
        let (mut addresses, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        for (index, block) in (0u32..).zip(&self.blocks) {
            if block.prefix {
                prefixes.insert(self.prefix_at(index));
            }
            let bits = (0..BLOCK).filter(|bit| block.used & (1 << bit) != 0);
            addresses.extend(bits.map(|bit| Ipv4Addr::from_bits(self.base + index * BLOCK + bit)));
        }
        addresses.retain(|address| !self.is_reserved(*address));
        (addresses, prefixes)
    }

    fn is_reserved(&self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits() - self.base;
        offset < 4 || IpAddr::V4(address) == self.cidr.last()
    }

    fn is_last(&self, index: u32) -> bool {
        index as usize + 1 == self.blocks.len()
    }

    fn place(&self, address: Ipv4Addr) -> Result<(u32, u16), Taken> {
        if !self.cidr.contains(IpAddr::V4(address)) {
            return Err(Taken::Outside);
        }
        if self.is_reserved(address) {
            return Err(Taken::Reserved);
        }
        let offset = address.to_bits() - self.base;
        Ok((offset / BLOCK, 1 << (offset % BLOCK)))
    }

    fn block_of(&self, prefix: Prefix) -> Result<u32, Taken> {
        match prefix.addr() {
            IpAddr::V4(first) if prefix.len() == 28 && self.cidr.covers(prefix) => {
                Ok((first.to_bits() - self.base) / BLOCK)
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Err(Taken::Outside),
        }
    }

    fn prefix_at(&self, index: u32) -> Prefix {
        Prefix::containing(IpAddr::V4(Ipv4Addr::from_bits(self.base + index * BLOCK)), 28)
    }

    fn mark(&mut self, range: Prefix, mark: impl Fn(&mut Block, u16)) {
        let IpAddr::V4(first) = range.addr() else { return };
        let IpAddr::V4(last) = range.last() else { return };
        let (first, last) = (first.to_bits() - self.base, last.to_bits() - self.base);
        for index in first / BLOCK..=last / BLOCK {
            let inside = |bit: &u32| (first..=last).contains(&(index * BLOCK + bit));
            let bits = (0..BLOCK).filter(inside).fold(0, |bits, bit| bits | (1 << bit));
            self.change(index, |block| mark(block, bits));
        }
    }

    /// Every change goes through here, so that the sets and the count follow.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Block)) {
        let block = &mut self.blocks[index as usize];
        let before = block.free();
        change(block);
        let block = *block;
        self.free = self.free - before + block.free();
        set(&mut self.open, index, block.is_open());
        set(&mut self.whole, index, block.is_whole() && !block.for_prefixes);
        set(&mut self.whole_reserved, index, block.is_whole() && block.for_prefixes);
    }
}

fn set(set: &mut BTreeSet<u32>, index: u32, present: bool) {
    if present {
        set.insert(index);
    } else {
        set.remove(&index);
    }
}

/// The next member from a random place on, or the lowest.
fn pick(set: &BTreeSet<u32>, count: usize, random: &mut Random, choice: Choice) -> Option<u32> {
    let from = match choice {
        Choice::Lowest => 0,
        Choice::Random => random.below(count as u64) as u32,
    };
    set.range(from..).next().or_else(|| set.first()).copied()
}

#[cfg(test)]
mod tests;
