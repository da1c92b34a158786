// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a pod sends: ingress of its host end.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::layout::{Link, NextHop};
use rhumb_ebpf_common::{Direction, Family, Ip, Ports, Reason, Source, V4, V6, ethernet};
use rhumb_ebpf_common::{is_discovery, neighbour_discovery};

use crate::act::{self, Hop};
use crate::call::reason;
use crate::icmp::Errand;
use crate::packet::{ARP, Head, IPV4, IPV6, Skb};
use crate::track::{self, Course};
use crate::{either, finish, host_port, interface, kept, lookup, remote, tunnel};

#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let bytes = skb.len();
    let reason = kept::again(skb).unwrap_or_else(|| either(run(skb)));
    finish(skb, reason, Direction::FromPod, bytes)
}

#[inline(always)]
fn run(skb: Skb) -> Result<Reason, Reason> {
    let link = lookup::link(skb.ifindex()).ok_or(Reason::UnknownLink)?;
    if skb.vlan_present() != 0 {
        return Err(Reason::VlanTagged);
    }
    // What is called is called from here, one after the other: the stacks of nested calls add up (6.18: "combined
    // stack size of 3 calls is 560. Too large").
    let mut ports = Ports::NONE;
    match skb.protocol() {
        IPV4 => {
            let step = v4(skb, link, &mut ports);
            settle::<V4>(skb, link, &ports, step)
        }
        IPV6 => match v6(skb, link, &mut ports) {
            Step::Discovery => Err(discovery(skb, link)),
            step => settle::<V6>(skb, link, &ports, step),
        },
        ARP => Err(arp(skb, link)),
        _ => Err(Reason::NotIp),
    }
}

/// How far a packet has come.
enum Step {
    /// To its end.
    Decided(Reason),
    /// It is for no pod of this node.
    Onward,
    /// It is a message of neighbour discovery.
    Discovery,
    /// It is an ICMP error.
    Error,
    /// It is an answer from behind a host port.
    Answer,
}

/// Takes what is left of the way of a packet.
#[inline(always)]
fn settle<F: Hop>(skb: Skb, link: &Link, ports: &Ports, step: Step) -> Result<Reason, Reason> {
    match step {
        Step::Decided(reason) => Ok(reason),
        Step::Onward => onward::<F>(skb, link, ports),
        Step::Error => error::<F>(skb, link, ports),
        Step::Answer | Step::Discovery => {
            if !host_port::answer::<F>(skb, ports) {
                return Err(Reason::RewriteFailed);
            }
            translated::<F>(skb, link, ports)
        }
    }
}

#[inline(always)]
fn onward<F: Hop>(skb: Skb, link: &Link, ports: &Ports) -> Result<Reason, Reason> {
    match reason(F::onward(skb, link, ports)) {
        Reason::ToStack => left::<F>(skb, ports),
        Reason::TooBig => Err(reason(F::too_big(skb, link, ports))),
        decided => Ok(decided),
    }
}

/// A packet that was translated goes where its new destination is.
#[inline(always)]
fn translated<F: Hop>(skb: Skb, link: &Link, ports: &Ports) -> Result<Reason, Reason> {
    match go::<F>(skb) {
        Step::Decided(reason) => Ok(reason),
        Step::Onward | Step::Discovery | Step::Error | Step::Answer => onward::<F>(skb, link, ports),
    }
}

/// An ICMP error of the pod goes the way of the packets that it answers.
#[inline(always)]
fn error<F: Hop>(skb: Skb, link: &Link, ports: &Ports) -> Result<Reason, Reason> {
    match Errand::of_number(F::error_from(skb)) {
        Errand::Straight | Errand::Translated => translated::<F>(skb, link, ports),
        Errand::Stack => Err(Reason::StackReturn),
        Errand::Failed => Err(Reason::RewriteFailed),
    }
}

/// What becomes of a packet that was translated, as [`v4`] says of others.
#[inline(never)]
fn go<F: Hop>(skb: Skb) -> Step {
    head_on::<F>(skb).unwrap_or_else(Step::Decided)
}

#[inline(always)]
fn head_on<F: Hop>(skb: Skb) -> Result<Step, Reason> {
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    let ip = F::parse(&head, skb.len())?;
    if F::is_link_local(ip.dst) {
        return Err(Reason::LinkLocal);
    }
    if let Some(endpoint) = lookup::endpoint(&F::key(ip.dst)) {
        ip.may_hop()?;
        return act::deliver::<F>(skb, head, endpoint).map(Step::Decided);
    }
    Ok(Step::Onward)
}

/// A packet that the host's routes keep on the node: a port of the node may lead to a pod.
#[inline(always)]
fn left<F: Hop>(skb: Skb, ports: &Ports) -> Result<Reason, Reason> {
    remote::not_encapsulated(ports)?;
    // Without ports it may be an error about what came from behind a host port.
    Ok(reason(if ports.protocol == 0 { F::error_in(skb) } else { F::host_port(skb, ports) }))
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

#[inline(never)]
fn v4(skb: Skb, link: &Link, ports: &mut Ports) -> Step {
    from_v4(skb, link, ports).unwrap_or_else(Step::Decided)
}

#[inline(never)]
fn v6(skb: Skb, link: &Link, ports: &mut Ports) -> Step {
    from_v6(skb, link, ports).unwrap_or_else(Step::Decided)
}

#[inline(always)]
fn from_v4(skb: Skb, link: &Link, ports: &mut Ports) -> Result<Step, Reason> {
    let head = skb.head(ethernet::HEADER + V4::HEADER)?;
    let ip = V4::parse(&head, skb.len())?;
    match V4::source(ip.src, link) {
        Source::Own => own(skb, head, ip, link, ports),
        Source::Link | Source::Foreign => Err(Reason::SourceAddress),
    }
}

#[inline(always)]
fn from_v6(skb: Skb, link: &Link, ports: &mut Ports) -> Result<Step, Reason> {
    let head = skb.head(ethernet::HEADER + V6::HEADER)?;
    let ip = V6::parse(&head, skb.len())?;
    if is_discovery(&skb, &ip) {
        return Ok(Step::Discovery);
    }
    match V6::source(ip.src, link) {
        Source::Own => own(skb, head, ip, link, ports),
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
fn own<F: Hop>(skb: Skb, head: Head, ip: Ip<F>, link: &Link, ports: &mut Ports) -> Result<Step, Reason> {
    if link.has(Link::CHAINED) {
        return Err(Reason::Chained);
    }
    ip.may_leave()?;
    if ip.options {
        let reason = tunnel::check(skb);
        return Err(if reason == Reason::ToStack { Reason::IpOptions } else { reason });
    }
    let (at, from) = (lookup::moment(), skb.ifindex());
    let endpoint = lookup::endpoint(&F::key(ip.dst));
    let mut next = match endpoint {
        Some(endpoint) => NextHop::local(at, from, endpoint),
        None => NextHop { at, from, ..NextHop::NONE },
    };
    match track::follow_to::<F>(skb, head, &ip, ports, &raw mut next) {
        Course::Straight if endpoint.is_none() && next.kind != 0 => {
            if let Some(reason) = remote::again::<F>(skb, head, &ip, link, &next) {
                return Ok(Step::Decided(reason));
            }
        }
        // An ICMP error, or what has no ports.
        Course::Unknown => return Ok(Step::Error),
        Course::Straight => {}
        Course::Malformed => return Err(Reason::Malformed),
        Course::Stack => {
            interface::returns(skb, &ip, ports);
            return Err(Reason::StackReturn);
        }
        Course::HostPort => return Ok(Step::Answer),
    }
    if F::is_link_local(ip.dst) {
        return Err(Reason::LinkLocal);
    }
    if let Some(endpoint) = endpoint {
        ip.may_hop()?;
        return act::deliver::<F>(skb, head, endpoint).map(Step::Decided);
    }
    Ok(Step::Onward)
}
