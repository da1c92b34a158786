// SPDX-License-Identifier: Apache-2.0
//! The clock by which flows are forgotten, the same for programs and user side.

use rhumb_ebpf_common::ct::TICK_SHIFT;
use rustix::time::{ClockId, clock_gettime};

/// The tick that it is now.
pub(crate) fn now() -> u32 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let nanoseconds = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    u32::try_from(nanoseconds >> TICK_SHIFT).unwrap_or(u32::MAX)
}
