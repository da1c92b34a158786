// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn p(text: &str) -> Prefix {
    text.parse().expect("valid prefix")
}

#[test]
fn five_addresses_of_every_subnet_are_nobodys() {
    for (cidr, free) in [("10.0.0.0/24", 251), ("10.0.0.0/28", 11), ("10.0.0.0/16", 65_531)] {
        assert_eq!(Addresses::new(p(cidr)).expect("a subnet").free(), free, "{cidr}");
    }
    assert!(Addresses::new(p("10.0.0.0/29")).is_none() && Addresses::new(p("fd00::/64")).is_none());
    let mut small = Addresses::new(p("10.0.0.16/28")).expect("a subnet");
    for reserved in [16, 17, 18, 19, 31] {
        assert_eq!(small.take(Ipv4Addr::new(10, 0, 0, reserved)), Err(Taken::Reserved));
    }
    assert_eq!(small.take(Ipv4Addr::new(10, 0, 0, 32)), Err(Taken::Outside));
    assert_eq!(small.take_prefix(p("10.0.0.16/28")), Err(Taken::InUse));
    let mut larger = Addresses::new(p("10.0.0.0/24")).expect("a subnet");
    assert_eq!(larger.take_prefix(p("10.0.0.0/28")), Err(Taken::Reserved));
    assert_eq!(larger.take_prefix(p("10.0.0.240/28")), Err(Taken::Reserved));
    assert_eq!(larger.take_prefix(p("10.0.0.32/27")), Err(Taken::Outside));
}

#[derive(Debug, Clone)]
enum Step {
    Take(u32),
    TakeAny,
    TakePrefix(u32),
    TakeAnyPrefix,
    Release(usize),
    ReleasePrefix(usize),
    Reserve(u32, ReservationKind),
    Unreserve(u32, ReservationKind),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(ReservationKind::Prefix), Just(ReservationKind::Explicit)];
    prop_oneof![
        (0u32..300).prop_map(Step::Take),
        Just(Step::TakeAny),
        Just(Step::TakeAny),
        (0u32..18).prop_map(Step::TakePrefix),
        Just(Step::TakeAnyPrefix),
        any::<usize>().prop_map(Step::Release),
        any::<usize>().prop_map(Step::ReleasePrefix),
        (0u32..16, kind.clone()).prop_map(|(block, kind)| Step::Reserve(block, kind)),
        (0u32..16, kind).prop_map(|(block, kind)| Step::Unreserve(block, kind)),
    ]
}

/// The same rules over sets of single addresses.
#[derive(Default)]
struct Model {
    used: BTreeSet<u32>,
    prefixes: BTreeSet<u32>,
    for_prefixes: BTreeSet<u32>,
    withheld: BTreeSet<u32>,
}

const BASE: u32 = 0x0a00_0000;

impl Model {
    fn reserved(offset: u32) -> bool {
        offset < 4 || offset == 255
    }

    fn block_has(&self, block: u32) -> bool {
        (block * 16..block * 16 + 16).any(|offset| self.used.contains(&offset) || Self::reserved(offset))
    }

    fn take(&self, offset: u32) -> Result<(), Taken> {
        match offset {
            256.. => Err(Taken::Outside),
            offset if Self::reserved(offset) => Err(Taken::Reserved),
            offset if self.used.contains(&offset) || self.prefixes.contains(&(offset / 16)) => {
                Err(Taken::InUse)
            }
            _ => Ok(()),
        }
    }

    fn automatic(&self, offset: u32) -> bool {
        let block = offset / 16;
        self.take(offset).is_ok() && !self.for_prefixes.contains(&block) && !self.withheld.contains(&block)
    }

    fn prefix_candidates(&self) -> (Vec<u32>, Vec<u32>) {
        let free = |block: &u32| {
            !self.block_has(*block) && !self.prefixes.contains(block) && !self.withheld.contains(block)
        };
        (0..16).filter(free).partition(|block| self.for_prefixes.contains(block))
    }

    fn free(&self) -> usize {
        let counted =
            |offset: &u32| self.take(*offset).is_ok() && !self.for_prefixes.contains(&(offset / 16));
        (0..256).filter(counted).count()
    }
}

fn block(number: u32) -> Prefix {
    Prefix::containing(IpAddr::V4(Ipv4Addr::from_bits(BASE + number * 16)), 28)
}

fn offset(address: Ipv4Addr) -> u32 {
    address.to_bits() - BASE
}

proptest! {
    #[test]
    fn the_allocator_does_as_the_model(steps in prop::collection::vec(step(), 1..200), seed: u64, lowest: bool) {
        let choice = if lowest { Choice::Lowest } else { Choice::Random };
        let mut addresses = Addresses::new(p("10.0.0.0/24")).expect("a subnet");
        let (mut model, mut random) = (Model::default(), Random::new(seed));
        for step in steps {
            match step {
                Step::Take(at) => {
                    let expected = model.take(at);
                    prop_assert_eq!(addresses.take(Ipv4Addr::from_bits(BASE + at)), expected);
                    if expected.is_ok() {
                        model.used.insert(at);
                    }
                }
                Step::TakeAny => {
                    let possible = (0..256).any(|at| model.automatic(at));
                    let taken = addresses.take_any(&mut random, choice);
                    prop_assert_eq!(taken.is_some(), possible);
                    if let Some(address) = taken {
                        prop_assert!(model.automatic(offset(address)), "{}", address);
                        model.used.insert(offset(address));
                    }
                }
                Step::TakePrefix(number) => {
                    let outside = number >= 16;
                    let ok = !outside && !model.block_has(number) && !model.prefixes.contains(&number);
                    let taken = addresses.take_prefix(block(number));
                    prop_assert_eq!(taken.is_ok(), ok);
                    if ok {
                        model.prefixes.insert(number);
                    }
                }
                Step::TakeAnyPrefix => {
                    let (reserved, rest) = model.prefix_candidates();
                    let candidates = if reserved.is_empty() { rest } else { reserved };
                    let taken = addresses.take_any_prefix(&mut random, choice);
                    prop_assert_eq!(taken.is_none(), candidates.is_empty());
                    if let Some(prefix) = taken {
                        let number = (0..16).find(|number| block(*number) == prefix).expect("aligned and inside");
                        prop_assert!(candidates.contains(&number));
                        model.prefixes.insert(number);
                    }
                }
                Step::Release(nth) if !model.used.is_empty() => {
                    let at = *model.used.iter().nth(nth % model.used.len()).expect("within");
                    addresses.release(Ipv4Addr::from_bits(BASE + at));
                    model.used.remove(&at);
                }
                Step::ReleasePrefix(nth) if !model.prefixes.is_empty() => {
                    let number = *model.prefixes.iter().nth(nth % model.prefixes.len()).expect("within");
                    addresses.release_prefix(block(number));
                    model.prefixes.remove(&number);
                }
                Step::Release(_) | Step::ReleasePrefix(_) => {}
                Step::Reserve(number, kind) => {
                    addresses.reserve(block(number), kind);
                    match kind {
                        ReservationKind::Prefix => model.for_prefixes.insert(number),
                        ReservationKind::Explicit => model.withheld.insert(number),
                    };
                }
                Step::Unreserve(number, kind) => {
                    addresses.unreserve(block(number), kind);
                    match kind {
                        ReservationKind::Prefix => model.for_prefixes.remove(&number),
                        ReservationKind::Explicit => model.withheld.remove(&number),
                    };
                }
            }
            prop_assert_eq!(addresses.free() as usize, model.free());
            let (used, prefixes) = addresses.in_use();
            prop_assert_eq!(used.into_iter().map(offset).collect::<BTreeSet<_>>(), model.used.clone());
            prop_assert_eq!(prefixes.into_iter().collect::<Vec<_>>(),
                model.prefixes.iter().map(|number| block(*number)).collect::<Vec<_>>());
        }
    }
}
