// SPDX-License-Identifier: Apache-2.0
//! What an instance can have. The one unit of all arithmetic is a slot: of IPv4 it holds an address or a /28, and the
//! primary address of every interface takes one.

use rhumb_model::{CardLimit, InstanceLimits};

use super::{EniPolicy, Unit};

/// Pods that use the node's own address: EKS counts two of them in its formula.
const HOST_PODS: u32 = 2;
/// EKS lets no node have more pods: with fewer than 30 virtual processors, and else.
const SMALL_CAP: u32 = 110;
const LARGE_CAP: u32 = 250;
const LARGE_VCPUS: u16 = 30;

/// What an instance can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) interfaces: u8,
    /// Slots of IPv4 of one interface.
    pub(super) slots: u16,
    pub(super) cards: Vec<CardLimit>,
    pub(super) prefixes: bool,
    /// Whether anybody knows the type.
    pub(super) known: bool,
    vcpus: u16,
}

impl Shape {
    pub(super) fn of(limits: Option<&InstanceLimits>) -> Self {
        limits.map_or_else(Self::smallest, |limits| Self {
            interfaces: limits.interfaces,
            slots: limits.v4_per_interface,
            cards: limits.cards.clone(),
            prefixes: limits.prefixes,
            known: true,
            vcpus: limits.vcpus,
        })
    }

    /// What every instance can have: a type that nobody knows does not stop a node.
    fn smallest() -> Self {
        let cards = vec![CardLimit { card: 0, interfaces: 2 }];
        Self { interfaces: 2, slots: 2, cards, prefixes: true, known: false, vcpus: 1 }
    }

    /// Addresses for pods when every slot is filled.
    pub(super) fn capacity(&self, policy: &EniPolicy) -> u32 {
        let interfaces = self.interfaces.saturating_sub(policy.first_interface_index);
        let unit = policy.unit.map_or(0, Unit::size);
        u32::from(interfaces) * u32::from(self.slots.saturating_sub(1)) * unit
    }

    /// How many pods the node can have addresses for, those that use the node's own included.
    pub(super) fn max_pods(&self, policy: &EniPolicy, kubelet: Option<u32>) -> u32 {
        let cap = if self.vcpus < LARGE_VCPUS { SMALL_CAP } else { LARGE_CAP };
        let addresses = match policy.unit {
            Some(Unit::Address) => self.capacity(policy).saturating_add(HOST_PODS),
            Some(Unit::Prefix) => self.capacity(policy).saturating_add(HOST_PODS).min(cap),
            None => cap,
        };
        let asked = policy.max_allocate.map_or(u32::MAX, |most| most.saturating_add(HOST_PODS));
        addresses.min(asked).min(kubelet.unwrap_or(u32::MAX))
    }

    /// Every place for an interface, in the order in which they are taken.
    pub(super) fn places(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        self.cards.iter().flat_map(|card| (0..card.interfaces).map(|index| (card.card, index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(interfaces: u8, slots: u16, vcpus: u16) -> InstanceLimits {
        let cards = vec![CardLimit { card: 0, interfaces }];
        InstanceLimits {
            interfaces,
            v4_per_interface: slots,
            v6_per_interface: slots,
            cards,
            prefixes: true,
            vcpus,
        }
    }

    fn policy(unit: Unit, first_interface_index: u8) -> EniPolicy {
        EniPolicy { unit: Some(unit), first_interface_index, ..EniPolicy::default() }
    }

    #[test]
    fn pods_of_known_types_are_those_that_eks_publishes() {
        for (interfaces, slots, vcpus, single, prefixed, custom) in [
            (2, 2, 2, 4, 34, 3),
            (3, 6, 2, 17, 110, 12),
            (3, 10, 2, 29, 110, 20),
            (4, 15, 4, 58, 110, 44),
            (8, 30, 16, 234, 110, 205),
            (15, 50, 96, 737, 250, 688),
        ] {
            let shape = Shape::of(Some(&limits(interfaces, slots, vcpus)));
            assert_eq!(shape.max_pods(&policy(Unit::Address, 0), None), single, "{interfaces}x{slots}");
            assert_eq!(shape.max_pods(&policy(Unit::Prefix, 0), None), prefixed, "{interfaces}x{slots}");
            assert_eq!(shape.max_pods(&policy(Unit::Address, 1), None), custom, "{interfaces}x{slots}");
        }
    }

    #[test]
    fn kubelet_and_pool_lower_what_the_type_allows() {
        let shape = Shape::of(Some(&limits(8, 30, 16)));
        let policy = EniPolicy { max_allocate: Some(50), ..policy(Unit::Address, 0) };
        assert_eq!(shape.max_pods(&policy, None), 52);
        assert_eq!(shape.max_pods(&policy, Some(40)), 40);
    }

    #[test]
    fn an_unknown_type_is_the_smallest_and_no_obstacle() {
        let shape = Shape::of(None);
        assert!(!shape.known && shape.capacity(&policy(Unit::Address, 0)) == 2);
    }
}
