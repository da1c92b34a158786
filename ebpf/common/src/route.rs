// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the kernel's route lookup means for a packet.

use crate::Reason;

/// What to do after a route lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fib {
    /// Interface and neighbour are known.
    Forward,
    /// The interface is known, the neighbour is to be resolved.
    Resolve,
    /// An address of the node, or no route: a host port may take it, else the kernel decides.
    Here,
    /// The kernel decides.
    Stack(Reason),
}

impl Fib {
    /// Reads the result of `bpf_fib_lookup` (`BPF_FIB_LKUP_RET_*` in linux/bpf.h; negative is an error).
    #[inline(always)]
    pub const fn from_code(code: i64) -> Self {
        match code {
            0 => Self::Forward,
            4 => Self::Here,
            7 => Self::Resolve,
            8 => Self::Stack(Reason::TooBig),
            _ => Self::Stack(Reason::NoRoute),
        }
    }
}

/// Length of the IP packets that a segment becomes on the wire; 0 when it does not fit the route lookup's field.
///
/// `segment` is the payload per packet, 0 for a packet that is one already; `headers` is the length of the IP and
/// transport headers.
#[inline(always)]
pub fn segment_length(length: u32, segment: u32, headers: u32) -> u16 {
    let length = if segment == 0 { length } else { segment.saturating_add(headers) };
    u16::try_from(length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_neighbour_is_forwarded_to() {
        assert_eq!(Fib::from_code(0), Fib::Forward);
        assert_eq!(Fib::from_code(7), Fib::Resolve);
        assert_eq!(Fib::from_code(4), Fib::Here);
        assert_eq!(Fib::from_code(8), Fib::Stack(Reason::TooBig));
    }

    #[test]
    fn whatever_else_the_kernel_says_is_left_to_the_kernel() {
        for code in [-22, 1, 2, 3, 5, 6, 9, 10, 1000] {
            assert_eq!(Fib::from_code(code), Fib::Stack(Reason::NoRoute));
        }
    }

    #[test]
    fn a_segment_counts_with_what_it_is_cut_into() {
        assert_eq!(segment_length(1500, 0, 40), 1500);
        assert_eq!(segment_length(64_000, 1448, 52), 1500);
        assert_eq!(segment_length(70_000, 0, 40), 0);
    }
}
