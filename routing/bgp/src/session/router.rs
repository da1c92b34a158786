// SPDX-License-Identifier: Apache-2.0
//! Finds the router at the other end of a link that has no numbers, and lets it find us: router advertisements and
//! solicitations (RFC 4861 §4.1, §4.2). Ours have a lifetime of 0, so that nobody takes this node for a way out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Time between messages while a link is new, how many of those there are, and time between later ones.
const QUICK: Duration = Duration::from_secs(1);
const QUICK_ONES: u32 = 5;
const SLOW: Duration = Duration::from_secs(10);

/// A router was heard: on which link, and its link-local address.
pub(crate) type Heard = (u32, Ipv6Addr);

/// Speaks on these links, by index, until nobody says which or hears what was found.
///
/// # Errors
/// When there is no socket.
pub(crate) async fn discover(
    mut links: watch::Receiver<BTreeSet<u32>>,
    heard: mpsc::Sender<Heard>,
) -> io::Result<()> {
    while links.borrow_and_update().is_empty() {
        if links.changed().await.is_err() {
            return Ok(());
        }
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6))?;
    sockopt::set_ipv6_multicast_hops(&socket, 255)?;
    sockopt::set_ipv6_unicast_hops(&socket, Some(255))?;
    sockopt::set_ipv6_multicast_loop(&socket, false)?;
    // The calls of a UDP socket are those of this one, too.
    let socket = UdpSocket::from_std(socket.into())?;
    let mut buffer = [0; 64];
    let mut sent = 0;
    // Routers that were answered, by link.
    let mut known: BTreeMap<u32, Ipv6Addr> = BTreeMap::new();
    let mut next = tokio::time::Instant::now();
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // Errors are those of single datagrams.
                let Ok((length, from)) = received else { continue };
                let Some((link, address)) = neighbour(from) else { continue };
                if !links.borrow().contains(&link) {
                    continue;
                }
                let is_router = is_advertisement(&buffer[..length]);
                // Whoever comes after us is told at once, and does not wait for our next turn.
                let is_new = is_router && known.insert(link, address) != Some(address);
                if is_new || is_solicitation(&buffer[..length]) {
                    advertise(&socket, link).await;
                }
                if is_router && heard.send((link, address)).await.is_err() {
                    return Ok(());
                }
            }
            () = tokio::time::sleep_until(next) => {
                let links: Vec<u32> = links.borrow().iter().copied().collect();
                for link in links {
                    speak(&socket, link).await;
                }
                sent += 1;
                next += if sent < QUICK_ONES { QUICK } else { SLOW };
            }
            changed = links.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                known.clear();
                (sent, next) = (0, tokio::time::Instant::now());
            }
        }
    }
}

/// Asks for routers, and says that there is one here.
async fn speak(socket: &UdpSocket, link: u32) {
    send(socket, link, ALL_ROUTERS, &[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]).await;
    advertise(socket, link).await;
}

/// Says that there is a router here. FRR takes every advertisement for that, whatever its lifetime.
async fn advertise(socket: &UdpSocket, link: u32) {
    // Hop limit, flags, lifetime, reachable time and retransmission time: all unspecified. The kernel sums up.
    let mut advertisement = [0; 16];
    advertisement[0] = ROUTER_ADVERTISEMENT;
    send(socket, link, ALL_NODES, &advertisement).await;
}

async fn send(socket: &UdpSocket, link: u32, to: Ipv6Addr, message: &[u8]) {
    // A link that is down is tried again with the next message.
    socket.send_to(message, SocketAddrV6::new(to, 0, 0, link)).await.ok();
}

/// The link and the address of a neighbour. Its address is of the link, so no router has passed the datagram on.
fn neighbour(from: SocketAddr) -> Option<Heard> {
    match from {
        SocketAddr::V6(from) if from.ip().is_unicast_link_local() => Some((from.scope_id(), *from.ip())),
        SocketAddr::V6(_) | SocketAddr::V4(_) => None,
    }
}

fn is_solicitation(message: &[u8]) -> bool {
    matches!(message, [ROUTER_SOLICITATION, 0, rest @ ..] if rest.len() >= 6)
}

fn is_advertisement(message: &[u8]) -> bool {
    matches!(message, [ROUTER_ADVERTISEMENT, 0, rest @ ..] if rest.len() >= 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_whole_advertisement_tells_of_a_router() {
        let mut advertisement = [0; 16];
        advertisement[0] = ROUTER_ADVERTISEMENT;
        assert!(is_advertisement(&advertisement));
        assert!(!is_advertisement(&advertisement[..15]));
        advertisement[1] = 1;
        assert!(!is_advertisement(&advertisement));
        assert!(!is_advertisement(&[ROUTER_SOLICITATION; 16]));
    }

    #[test]
    fn a_whole_solicitation_is_answered() {
        assert!(is_solicitation(&[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!is_solicitation(&[ROUTER_SOLICITATION, 0, 0, 0]));
        assert!(!is_solicitation(&[ROUTER_ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn nobody_beyond_the_link_is_a_neighbour() {
        let from = |text: &str| neighbour(text.parse().expect("valid"));
        assert_eq!(from("[fe80::1%3]:0"), Some((3, "fe80::1".parse().expect("valid"))));
        assert_eq!(from("[fd00::1]:0"), None);
        assert_eq!(from("192.0.2.1:0"), None);
    }
}
