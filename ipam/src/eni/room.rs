// SPDX-License-Identifier: Apache-2.0
//! Which addresses of a subnet nobody has, and which of them to take: adjacent ones, from the lowest /28 that is partly
//! taken already, so that whole ones stay for prefixes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::{Prefix, ReservationKind, Subnet, SubnetId, SubnetReservation};

use super::{Action, Addresses, Inputs, Memory, Unit, View};

/// All subnets, by /28.
#[derive(Debug, Default)]
pub(super) struct Rooms(BTreeMap<SubnetId, Room>);

#[derive(Debug)]
struct Room {
    /// First address of the subnet.
    first: u32,
    /// For each /28 the addresses that somebody has, by bits.
    taken: Vec<u16>,
    /// For each /28 whether a part of it is reserved, and for what.
    reserved: Vec<Option<ReservationKind>>,
    /// Addresses and whole /28 that can be given: every node that grows asks.
    free_addresses: u32,
    free_prefixes: u32,
    /// No /28 below is partly taken; none below is free.
    partly_from: usize,
    free_from: usize,
}

/// VPCs have no greater subnets.
const GREATEST: u8 = 16;
/// A /28.
const BLOCK: u32 = 16;
/// The subnet itself, the router, the resolver, one for the future; and the last one.
const RESERVED_FIRST: u32 = 4;

impl Rooms {
    /// What is free by the view, is in no call that is under way, and is not on its way back.
    pub(super) fn of(view: &View, memory: &Memory, inputs: &Inputs) -> Self {
        let rooms = view.subnets.values().filter_map(|subnet| Some((subnet.id.clone(), Room::of(subnet)?)));
        let mut rooms = Self(rooms.collect());
        for SubnetReservation { subnet, cidr, kind, .. } in &view.reservations {
            if let Some(room) = rooms.0.get_mut(subnet) {
                room.reserve(*cidr, *kind);
            }
        }
        for eni in view.enis.values() {
            let Some(room) = rooms.0.get_mut(&eni.subnet) else { continue };
            room.take(eni.primary, 1);
            eni.addresses.iter().for_each(|addr| room.take(*addr, 1));
            eni.prefixes.iter().for_each(|prefix| room.take_block(*prefix));
        }
        for action in memory.flying.values() {
            rooms.claim(action);
            if let Action::Reserve { subnet, cidr, .. } = action
                && let Some(room) = rooms.0.get_mut(subnet)
            {
                room.reserve(*cidr, ReservationKind::Prefix);
            }
        }
        // A block that EC2 is asked to take would be taken again and again if it were assigned meanwhile.
        let records = inputs.nodes.values().flat_map(|node| &node.record.blocks);
        for block in records.filter(|block| block.releasing.is_some()) {
            rooms.0.values_mut().for_each(|room| room.take_block(block.cidr));
        }
        rooms
    }

    fn claim(&mut self, action: &Action) {
        let (Action::Create { subnet, addresses, .. } | Action::Assign { subnet, addresses, .. }) = action
        else {
            return;
        };
        let Some(room) = self.0.get_mut(subnet) else { return };
        if let Action::Create { primary: Some(primary), .. } = action {
            room.take(*primary, 1);
        }
        if let Addresses::These(blocks) = addresses {
            blocks.iter().for_each(|block| room.take_block(*block));
        }
    }

    /// How many units the subnet could give.
    pub(super) fn free(&self, subnet: &SubnetId, unit: Unit) -> u32 {
        self.0.get(subnet).map_or(0, |room| room.free(unit))
    }

    /// How many /28 are kept for prefixes, used or not.
    pub(super) fn reserved(&self, subnet: &SubnetId) -> u32 {
        let reserved = self.0.get(subnet).into_iter().flat_map(|room| &room.reserved);
        let count = reserved.filter(|kind| **kind == Some(ReservationKind::Prefix)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The greatest part of at most so many /28 that is nobody's and kept for nothing; the last of several: single
    /// addresses come from the lowest.
    pub(super) fn reservable(&self, subnet: &SubnetId, most: u32) -> Option<Prefix> {
        self.0.get(subnet)?.reservable(most)
    }

    /// Takes up to `units`; those that it says are no longer free.
    pub(super) fn pick(&mut self, subnet: &SubnetId, unit: Unit, units: u32) -> Vec<Prefix> {
        let Some(room) = self.0.get_mut(subnet) else { return Vec::new() };
        match unit {
            Unit::Address => room.pick_addresses(units),
            Unit::Prefix => room.pick_prefixes(units),
        }
    }
}

impl Room {
    fn of(subnet: &Subnet) -> Option<Self> {
        let cidr = subnet.cidr.filter(|cidr| cidr.len() >= GREATEST)?;
        let IpAddr::V4(first) = cidr.addr() else { return None };
        let size = u32::try_from(cidr.size()).ok()?;
        let blocks = usize::try_from(size.div_ceil(BLOCK)).ok()?;
        let mut room = Self {
            first: first.to_bits(),
            taken: vec![0; blocks],
            reserved: vec![None; blocks],
            free_addresses: BLOCK * u32::try_from(blocks).ok()?,
            free_prefixes: u32::try_from(blocks).ok()?,
            partly_from: 0,
            free_from: 0,
        };
        room.take(first, RESERVED_FIRST);
        room.take(Ipv4Addr::from_bits(room.first + size - 1), 1);
        Some(room)
    }

    fn place(&self, addr: u32) -> Option<(usize, u32)> {
        let offset = addr.checked_sub(self.first)?;
        let block = usize::try_from(offset / BLOCK).ok().filter(|block| *block < self.taken.len())?;
        Some((block, offset % BLOCK))
    }

    fn take(&mut self, addr: Ipv4Addr, count: u32) {
        for addr in addr.to_bits()..=addr.to_bits().saturating_add(count - 1) {
            if let Some((block, bit)) = self.place(addr) {
                self.change(block, |taken, _| *taken |= 1 << bit);
            }
        }
    }

    /// Changes what is known of a /28, and counts anew what it can give.
    fn change(&mut self, place: usize, change: impl FnOnce(&mut u16, &mut Option<ReservationKind>)) {
        let (addresses, prefixes) = self.gives(place);
        change(&mut self.taken[place], &mut self.reserved[place]);
        let (addresses_now, prefixes_now) = self.gives(place);
        self.free_addresses = self.free_addresses + addresses_now - addresses;
        self.free_prefixes = self.free_prefixes + prefixes_now - prefixes;
    }

    /// How many addresses, and whether the whole.
    fn gives(&self, place: usize) -> (u32, u32) {
        let whole = u32::from(self.taken[place] == 0);
        match self.reserved[place] {
            None => (self.taken[place].count_zeros(), whole),
            Some(ReservationKind::Prefix) => (0, whole),
            Some(ReservationKind::Explicit) => (0, 0),
        }
    }

    fn take_block(&mut self, block: Prefix) {
        if let (IpAddr::V4(addr), Ok(size)) = (block.addr(), u32::try_from(block.size())) {
            self.take(addr, size);
        }
    }

    fn reserve(&mut self, cidr: Prefix, kind: ReservationKind) {
        let (IpAddr::V4(first), IpAddr::V4(last)) = (cidr.addr(), cidr.last()) else { return };
        let blocks = self.place(first.to_bits()).zip(self.place(last.to_bits()));
        if let Some(((first, _), (last, _))) = blocks {
            (first..=last).for_each(|place| self.change(place, |_, reserved| *reserved = Some(kind)));
        }
    }

    fn reservable(&self, most: u32) -> Option<Prefix> {
        let is_open = |place: usize| self.taken[place] == 0 && self.reserved[place].is_none();
        (0..=most.checked_ilog2()?).rev().find_map(|bits| {
            let blocks = 1usize << bits;
            let parts = (0..self.taken.len() / blocks).rev().map(|part| part * blocks);
            let mut open = parts.filter(|first| (*first..first + blocks).all(is_open));
            let len = Unit::Prefix.prefix_len() - u8::try_from(bits).ok()?;
            open.next().map(|first| Prefix::containing(IpAddr::V4(self.addr(first, 0)), len))
        })
    }

    fn free(&self, unit: Unit) -> u32 {
        match unit {
            Unit::Address => self.free_addresses,
            Unit::Prefix => self.free_prefixes,
        }
    }

    fn pick_addresses(&mut self, count: u32) -> Vec<Prefix> {
        let mut picked = Vec::new();
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let partly = |taken: u16| taken != 0 && taken != u16::MAX;
        let mut place = self.partly_from;
        while picked.len() < wanted && place < self.taken.len() {
            if self.reserved[place].is_none() && partly(self.taken[place]) {
                self.pick_in(place, wanted, &mut picked);
            }
            if self.reserved[place].is_none() && partly(self.taken[place]) {
                break;
            }
            place += 1;
        }
        self.partly_from = place.min(self.taken.len());
        while picked.len() < wanted {
            let Some(place) = self.next_free(|reserved| reserved.is_none()) else { break };
            self.pick_in(place, wanted, &mut picked);
            // What is left of it is the next to be taken from.
            self.partly_from = self.partly_from.min(place);
        }
        picked
    }

    fn pick_in(&mut self, place: usize, wanted: usize, picked: &mut Vec<Prefix>) {
        for bit in 0..BLOCK {
            if picked.len() < wanted && self.taken[place] & (1 << bit) == 0 {
                self.change(place, |taken, _| *taken |= 1 << bit);
                picked.push(Prefix::host(IpAddr::V4(self.addr(place, bit))));
            }
        }
    }

    fn pick_prefixes(&mut self, count: u32) -> Vec<Prefix> {
        let mut picked = Vec::new();
        for place in 0..self.taken.len() {
            // What is reserved for prefixes is of no other use.
            if self.reserved[place] == Some(ReservationKind::Prefix) && self.taken[place] == 0 {
                self.pick_whole(place, count, &mut picked);
            }
        }
        while picked.len() < usize::try_from(count).unwrap_or(usize::MAX) {
            let Some(place) = self.next_free(|reserved| reserved.is_none()) else { break };
            self.pick_whole(place, count, &mut picked);
        }
        picked
    }

    fn pick_whole(&mut self, place: usize, count: u32, picked: &mut Vec<Prefix>) {
        if picked.len() < usize::try_from(count).unwrap_or(usize::MAX) {
            self.change(place, |taken, _| *taken = u16::MAX);
            picked.push(Prefix::containing(IpAddr::V4(self.addr(place, 0)), Unit::Prefix.prefix_len()));
        }
    }

    /// The lowest /28 of which nobody has an address. Nothing is given back while a plan is made.
    fn next_free(&mut self, allowed: fn(&Option<ReservationKind>) -> bool) -> Option<usize> {
        let free = |place: &usize| self.taken[*place] == 0 && allowed(&self.reserved[*place]);
        let place = (self.free_from..self.taken.len()).find(free);
        self.free_from = place.unwrap_or(self.taken.len());
        place
    }

    fn addr(&self, place: usize, bit: u32) -> Ipv4Addr {
        let offset = u32::try_from(place).expect("a subnet has at most 4096 blocks") * BLOCK + bit;
        Ipv4Addr::from_bits(self.first + offset)
    }
}

#[cfg(test)]
mod tests;
