// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a pod sends: ingress of its host end.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::layout::{Link, Remote};
use rhumb_ebpf_common::{Direction, Family, Ip, Ports, Reason, Source, V4, V6, ethernet};
use rhumb_ebpf_common::{is_discovery, neighbour_discovery};

use crate::act::{self, Hop};
use crate::packet::{ARP, Head, IPV4, IPV6, Skb};
use crate::track::{self, Course};
use crate::{either, finish, host_port, lookup, remote, too_big, tunnel};

#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let bytes = skb.len();
    finish(skb, either(run(skb)), Direction::FromPod, bytes)
}

#[inline(always)]
fn run(skb: Skb) -> Result<Reason, Reason> {
    let link = lookup::link(skb.ifindex()).ok_or(Reason::UnknownLink)?;
    if skb.vlan_present() != 0 {
        return Err(Reason::VlanTagged);
    }
    match skb.protocol() {
        IPV4 => v4(skb, link),
        IPV6 => v6(skb, link),
        ARP => Err(arp(skb, link)),
        _ => Err(Reason::NotIp),
    }
}

#[inline(never)]
fn arp(skb: Skb, link: &Link) -> Reason {
    either(answer_arp(skb, link))
}

#[inline(always)]
fn answer_arp(skb: Skb, link: &Link) -> Result<Reason, Reason> {
    if link.has(Link::CHAINED) {
        return Err(Reason::Chained);
    }
    let request = rhumb_ebpf_common::arp(&skb, link)?;
    act::answer(skb, &request.answer(link.host_mac), Reason::AnsweredArp)
}

#[inline(always)]
fn v4(skb: Skb, link: &Link) -> Result<Reason, Reason> {
    let head = skb.head(ethernet::HEADER + V4::HEADER)?;
    let ip = V4::parse(&head, skb.len())?;
    match V4::source(ip.src, link) {
        Source::Own => own(skb, head, ip, link),
        Source::Link | Source::Foreign => Err(Reason::SourceAddress),
    }
}

#[inline(always)]
fn v6(skb: Skb, link: &Link) -> Result<Reason, Reason> {
    let head = skb.head(ethernet::HEADER + V6::HEADER)?;
    let ip = V6::parse(&head, skb.len())?;
    if is_discovery(&skb, &ip) {
        return Err(discovery(skb, link));
    }
    match V6::source(ip.src, link) {
        Source::Own => own(skb, head, ip, link),
        // Listener reports and the like, which have no other source to use.
        Source::Link if V6::is_group(ip.dst) => {
            Err(if link.has(Link::CHAINED) { Reason::Chained } else { Reason::Multicast })
        }
        Source::Link | Source::Foreign => Err(Reason::SourceAddress),
    }
}

#[inline(never)]
fn discovery(skb: Skb, link: &Link) -> Reason {
    either(answer_discovery(skb, link))
}

#[inline(always)]
fn answer_discovery(skb: Skb, link: &Link) -> Result<Reason, Reason> {
    let ip = V6::parse(&skb, skb.len())?;
    if matches!(V6::source(ip.src, link), Source::Foreign) {
        return Err(Reason::SourceAddress);
    }
    if link.has(Link::CHAINED) {
        return Err(Reason::Chained);
    }
    let solicitation = neighbour_discovery(&skb, &ip, link)?;
    act::answer(skb, &solicitation.answer(link.host_mac), Reason::AnsweredNd)
}

/// A packet with the pod's own source address.
#[inline(always)]
fn own<F: Hop>(skb: Skb, mut head: Head, ip: Ip<F>, link: &Link) -> Result<Reason, Reason> {
    if link.has(Link::CHAINED) {
        return Err(Reason::Chained);
    }
    ip.may_leave()?;
    if ip.options {
        let reason = tunnel::check(skb);
        return Err(if reason == Reason::ToStack { Reason::IpOptions } else { reason });
    }
    let mut ports = Ports::NONE;
    match track::follow::<F>(skb, head, &ip, &mut ports) {
        Course::Straight | Course::Unknown => {}
        Course::Malformed => return Err(Reason::Malformed),
        Course::Stack => return Err(Reason::StackReturn),
        Course::HostPort => {
            host_port::answer::<F>(skb, &ip, &ports)?;
            head = skb.head(ethernet::HEADER + F::HEADER)?;
        }
    }
    if let Some(endpoint) = lookup::endpoint(&F::key(ip.dst)) {
        ip.may_hop()?;
        return act::deliver::<F>(skb, head, endpoint);
    }
    let remote = lookup::remote(&F::key(ip.dst));
    if let Some(remote) = remote
        && remote.has(Remote::NODE)
    {
        not_encapsulated(&ports)?;
    }
    // What is called is called from here, one after the other: the stacks of nested calls add up (6.18: "combined
    // stack size of 3 calls is 560. Too large").
    if let Some(remote) = remote
        && remote.has(Remote::TUNNEL)
    {
        return Err(match tunnel::send::<F>(skb, link, remote) {
            Reason::TooBig => too_big::answer::<F>(skb, link, &ports, u32::from(remote.mtu)),
            reason => reason,
        });
    }
    let keep = matches!(remote, Some(remote) if remote.has(Remote::KEEP_SOURCE));
    match remote::send::<F>(skb, if keep { act::REDIRECTED_KEEP } else { act::REDIRECTED }) {
        Reason::ToStack => {
            not_encapsulated(&ports)?;
            host_port::enter::<F>(skb, &ip, &ports)
        }
        Reason::TooBig => Err(too_big::answer::<F>(skb, link, &ports, 0)),
        reason => Err(reason),
    }
}

/// Lets a packet to a node pass unless the pod encapsulated it itself.
#[inline(always)]
fn not_encapsulated(ports: &Ports) -> Result<(), Reason> {
    if tunnel::is_spoofed(ports) { Err(Reason::SpoofedTunnel) } else { Ok(()) }
}
