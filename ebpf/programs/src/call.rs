// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Functions that the verifier walks through once, by themselves, and not once for each way that leads there.
//!
//! Such a function is global (`no_mangle`). The context, numbers and pointers to memory go in, a number comes out; what
//! the verifier knew of them is forgotten at its border. The memory must be initialised whole, padding too, which is
//! why only structures of the common crate's kind are pointed to. Those of one family each have a name for either.

use aya_ebpf::bindings::__sk_buff;
use rhumb_ebpf_common::layout::Link;
use rhumb_ebpf_common::{Family, Ports, Reason, V4, V6};

use crate::act::Known;
use crate::packet::Skb;

/// What a global function was given; nothing for a null pointer.
#[inline(always)]
pub(crate) fn given<'a, T>(memory: *const T) -> Option<&'a T> {
    // SAFETY: the verifier lets no caller pass anything but null or as much initialised memory as `T` takes, and that
    // outlives the call.
    unsafe { memory.as_ref() }
}

/// What a global function was given to write to.
#[inline(always)]
pub(crate) fn given_mut<'a, T>(memory: *mut T) -> Option<&'a mut T> {
    // SAFETY: as above; callers pass what they borrow mutably.
    unsafe { memory.as_mut() }
}

/// The reason that a global function returned.
#[inline(always)]
pub(crate) fn reason(number: u32) -> Reason {
    // SAFETY: every global function that ends a packet's way returns the number of a reason.
    unsafe { core::mem::transmute::<u8, Reason>(number as u8) }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $v4:ident, $v6:ident: $room:ident, $body:ident, ($($arg:ident: $type:ty),*);)*) => {
        /// Global functions, one of each family.
        pub(crate) trait Calls: Family {
            $($(#[$doc])* fn $name(skb: Skb, $($arg: $type),*) -> u32;)*
        }

        impl Calls for V4 {
            $(#[inline(always)] fn $name(skb: Skb, $($arg: $type),*) -> u32 { $v4(skb.ctx, $($arg),*) })*
        }

        impl Calls for V6 {
            $(#[inline(always)] fn $name(skb: Skb, $($arg: $type),*) -> u32 { $v6(skb.ctx, $($arg),*) })*
        }

        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $v4(ctx: *mut __sk_buff, $($arg: $type),*) -> u32 {
                crate::$room::$body::<V4>(Skb { ctx }, $($arg),*) as u32
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $v6(ctx: *mut __sk_buff, $($arg: $type),*) -> u32 {
                crate::$room::$body::<V6>(Skb { ctx }, $($arg),*) as u32
            }
        )*
    };
}

calls! {
    /// Finds the ports wherever they are; a [`Course`](crate::track::Course).
    any_ports = any_ports_v4, any_ports_v6: track, any_ports, (ports: *mut Ports);
    /// The way to what is no pod of this node; a reason.
    onward = onward_v4, onward_v6: remote, onward, (link: *const Link, ports: *const Ports);
    /// Answers a packet that does not fit; a reason.
    too_big = too_big_v4, too_big_v6: too_big, answer, (link: *const Link, ports: *const Ports);
    /// Delivers a packet to a port of the node to the pod behind it; a reason.
    host_port = host_port_v4, host_port_v6: host_port, judge, (ports: *const Ports);
    /// What came from the wire and is for no address of a pod; a reason.
    arrive = arrive_v4, arrive_v6: from_wire, arrive, (ports: *mut Ports);
    /// What leaves by an uplink; a reason.
    leave = leave_v4, leave_v6: to_wire, leave, ();
    /// What leaves by an uplink and is no pod's; a reason.
    leave_host = leave_host_v4, leave_host_v6: host, leave, ();
    /// Delivers an ICMP error about a translated packet; a reason.
    error_in = error_in_v4, error_in_v6: icmp, enter, ();
    /// Gives an ICMP error of a pod the address that the packet's sender knows; an [`Errand`](crate::icmp::Errand).
    error_from = error_from_v4, error_from_v6: icmp, answer, ();
    /// Sends an ICMP error of a pod out of an uplink; a reason.
    error_out = error_out_v4, error_out_v6: icmp, leave, ();
    /// Replaces address and port of one side ([`Side`](crate::act::Side)); 0, or 1 when that is not possible.
    translate = translate_v4, translate_v6: act, rewrite, (ports: *const Ports, known: *const Known, side: u32);
    /// As `translate`, of an ICMP error and the packet that it quotes.
    translate_error = translate_error_v4, translate_error_v6: icmp, rewrite, (known: *const Known, side: u32);
}
