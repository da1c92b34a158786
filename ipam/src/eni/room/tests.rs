// SPDX-License-Identifier: Apache-2.0

use super::super::testing::{eni, reservation, subnet, subnet_id};
use super::*;
use proptest::prelude::*;

fn rooms(cidr: &str, taken: &[&str], reservations: Vec<SubnetReservation>) -> Rooms {
    let mut view = View { reservations, ..View::default() };
    view.subnets.insert(subnet_id("a"), subnet("a", cidr));
    for (number, block) in taken.iter().enumerate() {
        let mut eni = eni(&format!("{number}"), "a", "10.99.0.1");
        let block: Prefix = block.parse().expect("valid");
        match block.addr() {
            IpAddr::V4(addr) if block.len() == 32 => eni.primary = addr,
            IpAddr::V4(_) | IpAddr::V6(_) => eni.prefixes.push(block),
        }
        view.enis.insert(eni.id.clone(), eni);
    }
    Rooms::of(&view, &Memory::default(), &Inputs::default())
}

fn pick(rooms: &mut Rooms, unit: Unit, units: u32) -> String {
    let picked = rooms.pick(&subnet_id("a"), unit, units);
    picked.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn five_addresses_of_a_subnet_are_nobodys() {
    let mut rooms = rooms("10.0.0.0/28", &[], vec![]);
    assert_eq!(rooms.free(&subnet_id("a"), Unit::Address), 11);
    let all = pick(&mut rooms, Unit::Address, 99);
    assert!(all.starts_with("10.0.0.4/32 ") && all.ends_with(" 10.0.0.14/32"), "{all}");
    assert_eq!(pick(&mut rooms, Unit::Address, 1), "");
}

#[test]
fn single_addresses_fill_what_is_partly_taken_before_they_break_a_whole_block() {
    let mut rooms = rooms("10.0.0.0/25", &["10.0.0.0/28", "10.0.0.35/32"], vec![]);
    assert_eq!(rooms.free(&subnet_id("a"), Unit::Prefix), 5);
    assert_eq!(pick(&mut rooms, Unit::Address, 2), "10.0.0.32/32 10.0.0.33/32");
    let next = pick(&mut rooms, Unit::Address, 14);
    assert!(next.starts_with("10.0.0.34/32 10.0.0.36/32 ") && next.ends_with(" 10.0.0.112/32"), "{next}");
    assert_eq!(rooms.free(&subnet_id("a"), Unit::Prefix), 5, "the last block was never a whole one");
}

#[test]
fn prefixes_are_the_lowest_whole_blocks_and_first_those_reserved_for_them() {
    let reserved = reservation("10.0.0.96/28", ReservationKind::Prefix);
    let explicit = reservation("10.0.0.16/28", ReservationKind::Explicit);
    let mut rooms = rooms("10.0.0.0/25", &["10.0.0.35/32"], vec![reserved, explicit]);
    assert_eq!(pick(&mut rooms, Unit::Prefix, 2), "10.0.0.96/28 10.0.0.48/28");
    assert_eq!(pick(&mut rooms, Unit::Prefix, 9), "10.0.0.64/28 10.0.0.80/28");
}

#[test]
fn nothing_is_taken_from_a_reservation_without_being_asked() {
    let mut rooms = rooms("10.0.0.0/27", &[], vec![reservation("10.0.0.0/27", ReservationKind::Explicit)]);
    assert_eq!(
        (pick(&mut rooms, Unit::Address, 1), pick(&mut rooms, Unit::Prefix, 1)),
        (String::new(), String::new())
    );
    assert_eq!(rooms.free(&subnet_id("a"), Unit::Address), 0);
}

proptest! {
    #[test]
    fn what_is_to_be_kept_is_whole_and_nobodys(taken in prop::collection::btree_set(0u8..=255, 0..12), most in 0u32..20) {
        let taken: Vec<String> = taken.iter().map(|last| format!("10.0.0.{last}/32")).collect();
        let taken: Vec<&str> = taken.iter().map(String::as_str).collect();
        let mut rooms = rooms("10.0.0.0/24", &taken, vec![reservation("10.0.0.64/28", ReservationKind::Explicit)]);
        let whole = rooms.free(&subnet_id("a"), Unit::Prefix);
        let part = rooms.reservable(&subnet_id("a"), most);
        prop_assert_eq!(part.is_some(), whole > 0 && most > 0);
        let Some(part) = part else { return Ok(()) };
        prop_assert!(part.size() <= 16 * u128::from(most) && part.len() <= 28, "{}", part);
        let used = taken.iter().chain(&["10.0.0.64/28", "10.0.0.0/30", "10.0.0.255/32"]);
        for used in used {
            prop_assert!(!part.overlaps(used.parse().expect("valid")), "{} {}", part, used);
        }
        // Whoever takes prefixes still finds as many.
        prop_assert_eq!(u32::try_from(rooms.pick(&subnet_id("a"), Unit::Prefix, 99).len()).expect("few"), whole);
    }

    #[test]
    fn nobodys_address_is_picked_twice(steps in prop::collection::vec((prop::bool::ANY, 1u32..20), 1..40)) {
        let mut rooms = rooms("10.0.0.0/24", &["10.0.0.35/32", "10.0.0.64/28"], vec![]);
        let mut taken: Vec<Prefix> = ["10.0.0.0/30", "10.0.0.255/32", "10.0.0.35/32", "10.0.0.64/28"]
            .map(|block| block.parse().expect("valid")).to_vec();
        for (prefix, units) in steps {
            let unit = if prefix { Unit::Prefix } else { Unit::Address };
            let free = rooms.free(&subnet_id("a"), unit);
            let picked = rooms.pick(&subnet_id("a"), unit, units);
            prop_assert_eq!(u32::try_from(picked.len()).expect("few"), units.min(free));
            for block in picked {
                prop_assert!(!taken.iter().any(|other| other.overlaps(block)), "{}", block);
                taken.push(block);
            }
        }
    }
}
