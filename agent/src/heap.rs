// SPDX-License-Identifier: Apache-2.0
//! Where the agent's memory comes from.

/// Lets all threads take memory from one heap. Threads that wait for the kernel would otherwise each keep, in a heap
/// of their own, the most that they ever needed.
#[cfg(target_env = "gnu")]
pub(crate) fn share() {
    // SAFETY: no other thread is there yet that could be taking memory.
    #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    debug_assert_eq!(set, 1, "every glibc knows this option");
}

/// Other C libraries have one heap anyway.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn share() {}

/// Gives memory back that the start took: the programs' object is read, relocated and loaded once, and what that needs
/// is five times what the agent holds afterwards.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: the function may be called at any time, and takes no pointer.
    #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
    let gave = unsafe { libc::malloc_trim(0) };
    tracing::debug!(gave = gave == 1, "memory of the start given back");
}

/// Other C libraries give back what they can without being asked.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
