// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The kernel side: six programs, loaded once per node and attached many times.
//!
//! ```text
//!             pod                                     uplink
//!        eth0  │ ▲                                      │
//!  host end    ▼ │ redirect_peer ◄── local pod ──┬──────┼────────────┐
//!         from_pod to_pod                        │      ▼            │
//!              │   ▲                             ├── from_wire       │
//!              │   └───────── host stack ◄───────┴──────┤            │
//!              │                   └──────► to_tunnel   ├──► tunnel ─┴─ from_tunnel
//!              ├── ipcache ──► redirect ──► to_tunnel ──┘
//!              │        └── route lookup ──► wrap ──┐
//!              └── route lookup ──► redirect ───────┴──► to_wire ──► uplink
//! ```
//! Each program parses once, looks up, asks `rhumb-ebpf-common` for the decision, and only then writes. A packet that
//! is left to the stack undecided is byte for byte the one that came.
#![no_std]
#![no_main]

mod act;
mod call;
mod from_pod;
mod from_tunnel;
mod from_wire;
mod host;
mod host_port;
mod icmp;
mod interface;
mod kept;
mod lookup;
mod masquerade;
mod packet;
mod remote;
mod report;
mod to_pod;
mod to_tunnel;
mod to_wire;
mod too_big;
mod track;
mod tunnel;

use aya_ebpf::bindings::tcx_action_base::{TCX_DROP, TCX_NEXT, TCX_REDIRECT};
use rhumb_ebpf_common::{Direction, Reason, Verdict};

use crate::packet::Skb;

/// Counts the packet, reports it when somebody wants to know, and turns the reason into what the kernel understands.
///
/// The codes are those of tcx; a direct-action filter reads the same numbers the same way (`TCX_NEXT` is
/// `TC_ACT_UNSPEC`). What is left to the stack returns `TCX_NEXT`, not `TCX_PASS`: programs of others behind ours,
/// and classic filters after them, then see the packet too.
#[inline(always)]
fn finish(skb: Skb, reason: Reason, direction: Direction, bytes: u32) -> i32 {
    lookup::count(reason, direction, bytes);
    let verdict = reason.verdict();
    if matches!(verdict, Verdict::Drop) || lookup::is_watched() {
        report::packet(skb, reason, direction, bytes);
    }
    match verdict {
        Verdict::Redirect => TCX_REDIRECT,
        Verdict::Next => TCX_NEXT,
        Verdict::Drop => TCX_DROP,
    }
}

/// The reason a path ended with, on either of its ways out.
#[inline(always)]
fn either(exit: Result<Reason, Reason>) -> Reason {
    match exit {
        Ok(reason) | Err(reason) => reason,
    }
}

/// A panic that the verifier can reach must fail the load: a loop without an end does.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
