// SPDX-License-Identifier: Apache-2.0
#![expect(unsafe_code, reason = "no safe wrapper sets a scheduling policy")]

use std::io;

/// Lets the calling thread run before all ordinary ones, round robin with others of its kind; what it starts does not
/// inherit that.
///
/// # Errors
/// Mostly for want of CAP_SYS_NICE.
pub(crate) fn real_time() -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one sched_param, which lives until the call returns; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &lowest) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
