// SPDX-License-Identifier: Apache-2.0

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// A journal of these batches, and where each frame ends.
fn journal(batches: &[Vec<String>]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = header().to_vec();
    let mut ends = vec![bytes.len()];
    for (number, batch) in (0..).zip(batches) {
        bytes.extend(encode(batch, number).expect("encodable"));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn batches(sizes: &[usize]) -> Vec<Vec<String>> {
    sizes.iter().map(|&size| (0..size).map(|n| format!("record {n} of {size}")).collect()).collect()
}

fn read(bytes: &[u8]) -> Result<Parsed<String>, Damage> {
    parse(bytes)
}

fn corruption(bytes: &[u8]) -> (usize, String) {
    let damage = read(bytes).expect_err("refused");
    (damage.offset, damage.corruption.to_string())
}

#[test]
fn a_journal_torn_at_any_byte_has_every_batch_before() {
    let batches = batches(&[1, 3, 0, 2, 1]);
    let (bytes, ends) = journal(&batches);
    for length in 0..=bytes.len() {
        let torn = read(&bytes[..length]);
        if length < HEADER {
            assert!(matches!(torn, Err(Damage { corruption: Corruption::Magic, .. })), "{length}");
            continue;
        }
        let whole = ends.iter().filter(|end| **end <= length).count() - 1;
        let torn = torn.expect("a torn tail is no damage");
        assert_eq!((torn.good, torn.records), (ends[whole], batches[..whole].concat()), "{length}");
    }
}

#[test]
fn zeros_behind_the_last_batch_are_a_torn_tail() {
    let (bytes, ends) = journal(&batches(&[1, 2]));
    for hole in ends[1]..bytes.len() {
        let mut torn = bytes.clone();
        torn[hole..].fill(0);
        torn.extend([0; 100]);
        assert_eq!(read(&torn).expect("a torn tail is no damage").good, ends[1]);
        // Sectors may reach the disk in any order.
        let mut torn = bytes.clone();
        torn[ends[1]..=hole].fill(0);
        assert_eq!(read(&torn).expect("a torn tail is no damage").good, ends[1]);
    }
}

#[test]
fn every_flipped_bit_is_detected_or_like_a_torn_tail() {
    let batches = batches(&[1, 2, 1]);
    let (bytes, ends) = journal(&batches);
    let last = ends[2];
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match read(&flipped) {
            Ok(parsed) => {
                assert!(bit / 8 >= last, "bit {bit} went unseen");
                assert_eq!((parsed.good, parsed.records), (last, batches[..2].concat()));
            }
            Err(damage) => assert!(damage.offset <= bit / 8, "bit {bit}: {damage:?}"),
        }
    }
}

#[test]
fn damage_says_what_and_where() {
    let (bytes, ends) = journal(&batches(&[1, 2, 1]));
    let with = |offset: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[offset..offset + new.len()].copy_from_slice(new);
        bytes
    };
    assert_eq!(corruption(&with(0, b"x")), (0, "this is no journal: the first bytes are wrong".to_owned()));
    assert_eq!(corruption(&with(8, &[2])), (0, "version 2 of the format is unknown".to_owned()));
    let (offset, what) = corruption(&with(ends[1] + 20, b"x"));
    assert_eq!((offset, what.as_str()), (ends[1], "the checksum is wrong, and good records follow"));
    let (offset, what) = corruption(&with(ends[2], &[0xff; 4]));
    assert_eq!((offset, what.as_str()), (ends[2], "a length of 4294967295 bytes is impossible"));
    let foreign = [&bytes[..], &encode(&[1, 2], 3).expect("encodable")].concat();
    assert_eq!(corruption(&foreign), (ends[3], "the record is unknown".to_owned()));
    let lost = [&bytes[..ends[1]], &bytes[ends[2]..]].concat();
    assert_eq!(corruption(&lost), (ends[1], "record batch 2 follows where 1 should".to_owned()));
}

#[test]
fn a_batch_that_is_too_long_is_not_encoded() {
    let long = "x".repeat(MAX_PAYLOAD);
    assert!(matches!(encode(&[long], 0), Err(EncodeError::TooLong)));
}

/// One change to a file.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Cut(usize),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Copy { from: usize, length: usize, to: usize },
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), 0usize..200).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<usize>(), vec(any::<u8>(), 0..50)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<usize>(), 0usize..200, any::<usize>()).prop_map(|(from, length, to)| Change::Copy {
            from,
            length,
            to
        }),
    ]
}

/// Places that matter: the ends of frames, as often as any other.
fn place(seed: usize, ends: &[usize], length: usize) -> usize {
    let place = if seed.is_multiple_of(2) { ends[seed / 2 % ends.len()] } else { seed / 2 % (length + 1) };
    place.min(length)
}

fn change(bytes: &mut Vec<u8>, ends: &[usize], change: Change) {
    let at = |seed| place(seed, ends, bytes.len());
    match change {
        Change::Set(seed, byte) => {
            let at = at(seed);
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        Change::Cut(seed) => bytes.truncate(at(seed)),
        Change::Remove(seed, length) => {
            let (at, all) = (at(seed), bytes.len());
            bytes.drain(at..(at + length).min(all));
        }
        Change::Insert(seed, new) => {
            let at = at(seed);
            bytes.splice(at..at, new);
        }
        Change::Copy { from, length, to } => {
            let (from, to) = (at(from), at(to));
            let copy = bytes[from..(from + length).min(bytes.len())].to_vec();
            bytes.splice(to..to, copy);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn arbitrary_bytes_give_no_records(bytes in vec(any::<u8>(), 0..300), with_header: bool) {
        let bytes = if with_header { [&header()[..], &bytes].concat() } else { bytes };
        if let Ok(parsed) = read(&bytes) {
            prop_assert_eq!((parsed.records, parsed.good), (vec![], HEADER));
        }
    }

    #[test]
    fn a_changed_journal_gives_whole_batches_in_order_or_nothing(
        sizes in vec(0usize..4, 0..6),
        changes in vec(any_change(), 1..4),
    ) {
        let batches = batches(&sizes);
        let (mut bytes, ends) = journal(&batches);
        for one in changes {
            change(&mut bytes, &ends, one);
        }
        if let Ok(parsed) = read(&bytes) {
            let frames = usize::try_from(parsed.frames).expect("few");
            prop_assert_eq!(parsed.good, ends[frames]);
            prop_assert_eq!(parsed.records, batches[..frames].concat());
        }
    }
}
