// SPDX-License-Identifier: Apache-2.0
//! Where a program's memory comes from. C libraries other than glibc have one heap anyway, and give back what they can
//! without being asked.

/// Lets all threads take memory from one heap; to be called before there is a second thread. Threads that wait for the
/// kernel would otherwise each keep, in a heap of their own, the most that they ever needed.
#[cfg(target_env = "gnu")]
pub fn share() {
    // SAFETY: no other thread is there yet that could be taking memory.
    #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    debug_assert_eq!(set, 1, "every glibc knows this option");
}

/// Does nothing here.
#[cfg(not(target_env = "gnu"))]
pub fn share() {}

/// Gives back to the kernel what was freed: after work that took much once.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: the function may be called at any time, and takes no pointer.
    #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
    let gave = unsafe { libc::malloc_trim(0) };
    tracing::debug!(gave = gave == 1, "memory given back");
}

/// Does nothing here.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
