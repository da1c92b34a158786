// SPDX-License-Identifier: Apache-2.0

use super::*;

fn sequence(systems: &[u32]) -> AsPath {
    AsPath::sequence(systems.iter().copied().map(Asn))
}

fn merged(
    old: AsPath,
    aggregator: Option<u32>,
    new: Option<AsPath>,
    new_aggregator: Option<u32>,
) -> Attributes {
    let system = |asn| (Asn(asn), Ipv4Addr::LOCALHOST);
    let attributes = Attributes { as_path: old, aggregator: aggregator.map(system), ..Attributes::default() };
    Values { attributes, as4_path: new, as4_aggregator: new_aggregator.map(system), next_hop: None }.merged()
}

#[test]
fn the_path_of_four_octets_replaces_the_end_of_that_of_two() {
    let path = |old: &[u32], new: &[u32]| merged(sequence(old), None, Some(sequence(new)), None).as_path;
    assert_eq!(
        path(&[65001, 23456, 23456], &[4_200_000_001, 4_200_000_002]),
        sequence(&[65001, 4_200_000_001, 4_200_000_002])
    );
    assert_eq!(path(&[23456], &[70000]), sequence(&[70000]));
    assert_eq!(path(&[65001, 65002], &[]), sequence(&[65001, 65002]));
    // A path that is longer than the whole is not believed (RFC 6793 §4.2.3).
    assert_eq!(path(&[23456], &[70000, 70001]), sequence(&[23456]));
}

#[test]
fn segments_in_front_are_kept_as_they_are() {
    let old = AsPath(vec![Segment::Set(vec![Asn(1), Asn(2)]), Segment::Sequence(vec![Asn(3), Asn(23456)])]);
    let path = merged(old, None, Some(sequence(&[70000])), None).as_path;
    assert_eq!(path.to_string(), "{1 2} 3 70000");
    let long: Vec<u32> = (1..=255).collect();
    let path =
        merged(sequence(&[&long[..], &[23456]].concat()), None, Some(sequence(&[70000])), None).as_path;
    assert_eq!(path.0.len(), 2);
    assert_eq!(path.len(), 256);
}

#[test]
fn an_aggregator_of_its_own_number_shows_that_the_parts_are_stale() {
    let (old, new) = (sequence(&[65001, 23456]), Some(sequence(&[70000])));
    let attributes = merged(old.clone(), Some(65002), new.clone(), Some(70000));
    assert_eq!(
        (attributes.as_path, attributes.aggregator.map(|(asn, _)| asn)),
        (old.clone(), Some(Asn(65002)))
    );
    let attributes = merged(old.clone(), Some(23456), new, Some(70000));
    assert_eq!(attributes.as_path, sequence(&[65001, 70000]));
    assert_eq!(attributes.aggregator.map(|(asn, _)| asn), Some(Asn(70000)));
    // One that fits into two octets alone says nothing about the path.
    let path = merged(old.clone(), Some(65002), Some(sequence(&[70000])), None).as_path;
    assert_eq!(path, sequence(&[65001, 70000]));
    // Without an AGGREGATOR there is nothing that the other could stand for.
    assert_eq!(merged(old, None, None, Some(70000)).aggregator, None);
}

#[test]
fn segments_of_confederations_are_left_out_of_the_path_of_four_octets() {
    let value = [3, 1, 0, 0, 0, 9, 2, 1, 0, 1, 0, 0];
    assert_eq!(path(&value, Width::Four, Confederations::LeftOut), Ok(sequence(&[65536])));
    assert!(path(&value, Width::Four, Confederations::Refused).is_err());
}
