// SPDX-License-Identifier: Apache-2.0

/// How full a pool is in one family, in addresses; `u64::MAX` stands for more.
///
/// `capacity = held + cooling + kept + free`; what drains is no part of the capacity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many ranges this counts.
    pub ranges: u32,
    /// May be leased at all: in a range, neither an end of it nor reserved.
    pub capacity: u64,
    /// Leased now.
    pub held: u64,
    /// Released, and not to be leased before the cool-down is over.
    pub cooling: u64,
    /// Sticky, and waiting for their pods. When nothing else is free, those whose cool-down is over are leased.
    pub kept: u64,
    /// May be leased at once.
    pub free: u64,
    /// Leased now, and in no range any more: gone when their owner releases them.
    pub draining: u64,
}
