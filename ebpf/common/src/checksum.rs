// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The internet checksum (RFC 1071).

/// Adds the big-endian 16-bit words of `bytes`; an odd last byte counts as the high half of a word.
#[inline(always)]
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let mut sum = 0u32;
    let mut at = 0;
    while at + 1 < bytes.len() {
        sum += u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        at += 2;
    }
    if at < bytes.len() {
        sum += u32::from(bytes[at]) << 8;
    }
    sum
}

/// Folds a sum of 16-bit words into the checksum that goes into a header.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "two folds of 32 bits leave 16")]
    {
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_holds() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes), 0x2_ddf0);
        assert_eq!(fold(sum(&bytes)), !0xddf2);
    }

    #[test]
    fn an_odd_byte_is_the_high_half_of_a_word() {
        assert_eq!(sum(&[0x12]), 0x1200);
    }

    #[test]
    fn the_largest_sum_still_folds() {
        assert_eq!(fold(u32::MAX), 0);
    }
}
