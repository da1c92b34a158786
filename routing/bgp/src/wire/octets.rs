// SPDX-License-Identifier: Apache-2.0
//! Reading from the front of a slice; `None` where it is too short, and then nothing is taken.

pub(super) fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = input.split_at_checked(count)?;
    *input = tail;
    Some(head)
}

pub(super) fn array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = input.split_first_chunk()?;
    *input = tail;
    Some(*head)
}

pub(super) fn octet(input: &mut &[u8]) -> Option<u8> {
    array(input).map(u8::from_be_bytes)
}

pub(super) fn short(input: &mut &[u8]) -> Option<u16> {
    array(input).map(u16::from_be_bytes)
}

pub(super) fn word(input: &mut &[u8]) -> Option<u32> {
    array(input).map(u32::from_be_bytes)
}

/// The slice as values of four octets; what is left over is dropped.
pub(super) fn words(input: &[u8]) -> impl Iterator<Item = u32> {
    input.as_chunks().0.iter().map(|octets| u32::from_be_bytes(*octets))
}
