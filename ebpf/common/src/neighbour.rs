// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! ARP (RFC 826) and neighbour discovery (RFC 4861) of a pod: the host end answers for every address but the pod's.

use crate::Family;
use crate::bytes::octets;
use crate::checksum::{fold, sum};
use crate::ip::ICMPV6;
use crate::layout::{Address, Link, same};
use crate::{Bytes, Ip, Reason, Source, V6, ethernet};

/// An ARP packet in its frame.
pub type ArpFrame = [u8; 42];
/// A neighbour advertisement with its target's link-layer address, in its frame.
pub type NdFrame = [u8; 86];

const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ROUTER_SOLICITATION: u8 = 133;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const ICMP_AT: usize = ethernet::HEADER + 40;

/// A pod's ARP request that is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    sender_mac: [u8; 6],
    sender: u32,
    target: u32,
}

impl Arp {
    /// The answer: `mac` has the target's address.
    #[inline(always)]
    pub fn answer(&self, mac: [u8; 6]) -> ArpFrame {
        let mut frame = [0; 42];
        put(&mut frame, 0, &self.sender_mac);
        put(&mut frame, 6, &mac);
        put(&mut frame, 12, &ethernet::ARP);
        put(&mut frame, 14, &ARP_ETHERNET_IPV4);
        put(&mut frame, 20, &[0, 2]);
        put(&mut frame, 22, &mac);
        put(&mut frame, 28, &self.target.to_ne_bytes());
        put(&mut frame, 32, &self.sender_mac);
        put(&mut frame, 38, &self.sender.to_ne_bytes());
        frame
    }
}

/// Reads an ARP packet of a pod: a request to be answered, or why it is not.
///
/// # Errors
/// [`Reason::NeighbourAnswer`] for the pod's answer to the node, [`Reason::DuplicateProbe`] for probes and
/// announcements (RFC 5227), [`Reason::SourceAddress`] for a sender that is not the pod, [`Reason::Malformed`].
#[inline(always)]
pub fn arp<B: Bytes + ?Sized>(frame: &B, link: &Link) -> Result<Arp, Reason> {
    let body: [u8; 28] = frame.read(ethernet::HEADER).ok_or(Reason::Malformed)?;
    if [body[0], body[1], body[2], body[3], body[4], body[5]] != ARP_ETHERNET_IPV4 {
        return Err(Reason::Malformed);
    }
    let sender_mac = [body[8], body[9], body[10], body[11], body[12], body[13]];
    let sender = u32::from_ne_bytes([body[14], body[15], body[16], body[17]]);
    let target = u32::from_ne_bytes([body[24], body[25], body[26], body[27]]);
    let own = link.has(Link::HAS_V4) && sender == link.v4;
    match [body[6], body[7]] {
        [0, 1] if sender == 0 || (own && target == sender) => Err(Reason::DuplicateProbe),
        [0, 1] if own => Ok(Arp { sender_mac, sender, target }),
        [0, 2] if own => Err(Reason::NeighbourAnswer),
        [0, 1 | 2] => Err(Reason::SourceAddress),
        _ => Err(Reason::Malformed),
    }
}

/// A pod's neighbour solicitation that is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    sender_mac: [u8; 6],
    sender: Address,
    target: Address,
}

impl Solicitation {
    /// The answer: `mac` has the target's address.
    #[inline(always)]
    pub fn answer(&self, mac: [u8; 6]) -> NdFrame {
        let mut frame = [0; 86];
        put(&mut frame, 0, &self.sender_mac);
        put(&mut frame, 6, &mac);
        put(&mut frame, 12, &ethernet::IPV6);
        put(&mut frame, 14, &[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
        put(&mut frame, 22, &octets(self.target));
        put(&mut frame, 38, &octets(self.sender));
        // Router (RFC 4861 has hosts drop a router that stops saying so), solicited, override.
        put(&mut frame, 54, &[ADVERTISEMENT, 0, 0, 0, 0xe0, 0, 0, 0]);
        put(&mut frame, 62, &octets(self.target));
        put(&mut frame, 78, &[2, 1]);
        put(&mut frame, 80, &mac);
        let pseudo = sum(&frame[22..54]) + 32 + u32::from(ICMPV6);
        let checksum = fold(pseudo + sum(&frame[54..86]));
        put(&mut frame, 56, &checksum.to_be_bytes());
        frame
    }
}

/// Whether the packet is a message of neighbour discovery.
#[inline(always)]
pub fn is_discovery<B: Bytes + ?Sized>(frame: &B, ip: &Ip<V6>) -> bool {
    ip.protocol == ICMPV6
        && frame.read::<1>(ICMP_AT).is_some_and(|kind| matches!(kind[0], ROUTER_SOLICITATION..=REDIRECT))
}

/// Reads a neighbour discovery message of a pod: a solicitation to be answered, or why it is not.
///
/// # Errors
/// [`Reason::NeighbourAnswer`] for the pod's answer to the node, [`Reason::DuplicateProbe`],
/// [`Reason::RouterSolicitation`], [`Reason::NeighbourMessage`] for what only routers may say,
/// [`Reason::SourceAddress`] for an answer about an address that is not the pod's, [`Reason::Malformed`].
#[inline(always)]
pub fn neighbour_discovery<B: Bytes + ?Sized>(
    frame: &B,
    ip: &Ip<V6>,
    link: &Link,
) -> Result<Solicitation, Reason> {
    let head: [u8; 4] = frame.read(ICMP_AT).ok_or(Reason::Malformed)?;
    // RFC 4861, sections 6.1 and 7.1: anything that came over a router is not to be believed.
    if ip.hops != 255 || head[1] != 0 {
        return Err(Reason::Malformed);
    }
    match head[0] {
        ROUTER_SOLICITATION => return Err(Reason::RouterSolicitation),
        SOLICITATION | ADVERTISEMENT => {}
        _ => return Err(Reason::NeighbourMessage),
    }
    if ip.length < 40 + 24 {
        return Err(Reason::Malformed);
    }
    let target: Address = frame.words(ICMP_AT + 8).ok_or(Reason::Malformed)?;
    if V6::is_group(target) {
        return Err(Reason::Malformed);
    }
    let own = link.has(Link::HAS_V6) && same(&target, &link.v6);
    if head[0] == ADVERTISEMENT {
        return Err(if own || V6::is_link_local(target) {
            Reason::NeighbourAnswer
        } else {
            Reason::SourceAddress
        });
    }
    if same(&ip.src, &[0; 4]) || own {
        return Err(Reason::DuplicateProbe);
    }
    if matches!(V6::source(ip.src, link), Source::Foreign) {
        return Err(Reason::SourceAddress);
    }
    let sender_mac = frame.read(ethernet::SOURCE).ok_or(Reason::Malformed)?;
    Ok(Solicitation { sender_mac, sender: ip.src, target })
}

#[inline(always)]
pub(crate) fn put<const L: usize, const N: usize>(frame: &mut [u8; L], at: usize, bytes: &[u8; N]) {
    let mut index = 0;
    while index < N {
        frame[at + index] = bytes[index];
        index += 1;
    }
}

#[cfg(test)]
mod tests;
