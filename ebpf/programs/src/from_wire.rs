// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What other machines send: ingress of the uplinks.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::{Direction, Ports, Reason, V4, V6, ethernet, is_error};

use crate::act::{self, Hop};
use crate::packet::{IPV4, IPV6, Skb};
use crate::track::{self, Course};
use crate::{either, finish, host_port, icmp, lookup, masquerade};

#[classifier]
pub fn from_wire(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let bytes = skb.len();
    finish(skb, either(run(skb)), Direction::FromWire, bytes)
}

#[inline(always)]
fn run(skb: Skb) -> Result<Reason, Reason> {
    act::forget_mark(skb);
    if !skb.is_for_host() {
        return Err(Reason::OtherHost);
    }
    // A tagged frame belongs to another interface, stacked on this one.
    if skb.vlan_present() != 0 {
        return Err(Reason::NotIpWire);
    }
    match skb.protocol() {
        IPV4 => ip::<V4>(skb),
        IPV6 => ip::<V6>(skb),
        _ => Err(Reason::NotIpWire),
    }
}

#[inline(always)]
fn ip<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    let ip = F::parse(&head, skb.len())?;
    if ip.options {
        return Err(Reason::IpOptions);
    }
    let mut ports = Ports::NONE;
    if let Some(endpoint) = lookup::endpoint(&F::key(ip.dst)) {
        ip.may_hop()?;
        // What the flow asks for is for the pod's own packets.
        let _course = track::follow::<F>(skb, head, &ip, &mut ports);
        return act::deliver::<F>(skb, head, endpoint);
    }
    match track::find_ports::<F>(skb, head, &ip, &mut ports) {
        Course::Unknown if is_error(&skb, &ip) => icmp::enter::<F>(skb, &ip),
        Course::Straight => match masquerade::enter::<F>(skb, &ip, &ports) {
            Err(Reason::ToStack) => host_port::enter::<F>(skb, &ip, &ports),
            result => result,
        },
        _ => host_port::enter::<F>(skb, &ip, &ports),
    }
}
