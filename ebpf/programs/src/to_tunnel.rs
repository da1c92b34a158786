// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What enters the tunnel: egress of its device.
//!
//! Packets of pods come from `from_pod` and know where to. Those that the host's stack routes into the device, its
//! own and those that it cut up, are told here.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::layout::Remote;
use rhumb_ebpf_common::{Direction, Reason, V4, V6, ethernet};

use crate::act::{self, Hop};
use crate::packet::{IPV4, IPV6, Skb};
use crate::{either, finish, lookup};

#[classifier]
pub fn to_tunnel(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    finish(skb, either(run(skb)), Direction::ToTunnel, skb.len())
}

#[inline(always)]
fn run(skb: Skb) -> Result<Reason, Reason> {
    // The mark stays: the packet passes the uplink's hook next.
    if act::is_marked(skb) {
        return Ok(Reason::TunnelKeyed);
    }
    match skb.protocol() {
        IPV4 => ip::<V4>(skb),
        IPV6 => ip::<V6>(skb),
        _ => Err(Reason::TunnelNotIp),
    }
}

#[inline(always)]
fn ip<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    let remote = lookup::remote(&F::key(ip.dst)).filter(|remote| remote.has(Remote::TUNNEL));
    let remote = remote.ok_or(Reason::TunnelUnknown)?;
    act::set_tunnel_key(skb, &remote.tunnel, lookup::config(), 0)?;
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    act::address_tunnel::<F>(head)?;
    Ok(Reason::Encapsulated)
}
