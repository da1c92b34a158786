// SPDX-License-Identifier: Apache-2.0
//! A peer's side of the network: connections to it, and from it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::time::Duration;

use rhumb_bgp_feed::{Peer, Secret, Ttl};
use rhumb_model::{Family, IfName, Prefix};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::socket_option::{KeyError, put_least_ttl, put_md5_key};

/// Traffic class of routing protocols: CS6 (RFC 4594 §3.1).
const TRAFFIC_CLASS: u8 = 0xc0;
/// Attempts that a peer may have waiting at a listening socket: two for each of a few hundred peers.
const BACKLOG: u32 = 512;
/// Least time for which sent octets may stay unacknowledged.
const LEAST_TIMEOUT: Duration = Duration::from_secs(3);

/// How to reach a peer, and what is asked of packets from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its address.
    pub(crate) address: IpAddr,
    /// The link it is on, where its address does not say.
    pub(crate) link: Option<IfName>,
    pub(crate) port: u16,
    /// Address to connect from.
    pub(crate) local: Option<IpAddr>,
    pub(crate) md5: Option<Secret>,
    pub(crate) reach: Reach,
    /// The hold time: octets that nobody acknowledges for as long end the connection.
    pub(crate) hold_time: Duration,
}

/// TTL and hop limit of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The system's.
    Any,
    /// Sent with this one.
    Most(u8),
    /// Sent with 255, and nothing taken that came over more than this many hops (RFC 5082).
    Within(u8),
}

impl Reach {
    pub(crate) fn of(ttl: Ttl, internal: bool) -> Self {
        match ttl {
            Ttl::Direct if internal => Reach::Any,
            Ttl::Direct => Reach::Most(1),
            Ttl::Multihop(hops) => Reach::Most(hops),
            Ttl::Security(hops) => Reach::Within(hops.max(1)),
        }
    }
}

/// Why a connection cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("prepare a connection to {address}")]
    Prepare { address: IpAddr, source: io::Error },
    #[error("connect to {address}")]
    Connect { address: IpAddr, source: io::Error },
}

impl Endpoint {
    /// Connects; cancelling gives the attempt up.
    ///
    /// # Errors
    /// When the socket cannot be prepared or the peer cannot be reached.
    pub(crate) async fn connect(self) -> Result<TcpStream, ConnectError> {
        let address = self.address;
        let prepare = |source| ConnectError::Prepare { address, source };
        let socket = match address {
            IpAddr::V4(_) => TcpSocket::new_v4(),
            IpAddr::V6(_) => TcpSocket::new_v6(),
        }
        .map_err(prepare)?;
        self.prepare(&socket).map_err(prepare)?;
        let remote = self.remote(&socket).map_err(prepare)?;
        if let Some(link) = &self.link {
            socket.bind_device(Some(link.as_str().as_bytes())).map_err(prepare)?;
        }
        if let Some(local) = self.local {
            socket.bind(self.scoped(&socket, local, 0).map_err(prepare)?).map_err(prepare)?;
        }
        if let Some(key) = &self.md5 {
            put_md5_key(&socket, Prefix::host(address), key.expose().as_bytes())?;
        }
        socket.connect(remote).await.map_err(|source| ConnectError::Connect { address, source })
    }

    /// Gives a connection of the peer's what a connection of ours has.
    pub(crate) fn adopt(&self, stream: &TcpStream) -> io::Result<()> {
        self.prepare(stream)
    }

    /// Options of both kinds of connections.
    fn prepare(&self, socket: impl AsFd) -> io::Result<()> {
        let family = Family::of(self.address);
        sockopt::set_tcp_nodelay(&socket, true)?;
        if !self.hold_time.is_zero() {
            let timeout = self.hold_time.max(LEAST_TIMEOUT).as_millis();
            sockopt::set_tcp_user_timeout(&socket, u32::try_from(timeout).unwrap_or(u32::MAX))?;
        }
        put_traffic_class(&socket, family)?;
        match self.reach {
            Reach::Any => Ok(()),
            Reach::Most(hops) => put_ttl(&socket, family, hops),
            Reach::Within(hops) => {
                put_ttl(&socket, family, 255)?;
                put_least_ttl(&socket, family, 255 - (hops - 1))
            }
        }
    }

    fn remote(&self, socket: impl AsFd) -> io::Result<SocketAddr> {
        self.scoped(socket, self.address, self.port)
    }

    /// A socket address, with the link's index where the address means nothing without.
    fn scoped(&self, socket: impl AsFd, address: IpAddr, port: u16) -> io::Result<SocketAddr> {
        match (address, &self.link) {
            (IpAddr::V6(address), Some(link)) if address.is_unicast_link_local() => {
                let index = rustix::net::netdevice::name_to_index(socket, link.as_str())?;
                Ok(SocketAddrV6::new(address, port, 0, index).into())
            }
            (address, _) => Ok(SocketAddr::new(address, port)),
        }
    }
}

/// The key of a peer as a listening socket has to know it: for one address, or for all link-local ones where the
/// peer's is not known.
pub(crate) fn listener_prefix(address: Option<IpAddr>) -> Prefix {
    match address {
        Some(address) => Prefix::host(address),
        None => Prefix::containing(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10),
    }
}

/// Opens a listening socket. Keys are put on it by its owner.
///
/// # Errors
/// When the address cannot be used.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let family = Family::of(address.ip());
    if family == Family::V6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.set_reuseaddr(true)?;
    put_traffic_class(&socket, family)?;
    // Peers with RFC 5082 take no answer to their first segment with less.
    put_ttl(&socket, family, 255)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn put_ttl(socket: impl AsFd, family: Family, ttl: u8) -> io::Result<()> {
    match family {
        Family::V4 => Ok(sockopt::set_ip_ttl(socket, u32::from(ttl))?),
        Family::V6 => Ok(sockopt::set_ipv6_unicast_hops(socket, Some(ttl))?),
    }
}

fn put_traffic_class(socket: impl AsFd, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => Ok(sockopt::set_ip_tos(socket, TRAFFIC_CLASS)?),
        Family::V6 => Ok(sockopt::set_ipv6_tclass(socket, u32::from(TRAFFIC_CLASS))?),
    }
}

/// Whether a peer's connection fits what is configured of it, by its address.
pub(crate) fn is_from(peer: &Peer, remote: SocketAddr, link_of: impl Fn(u32) -> Option<IfName>) -> bool {
    use rhumb_bgp_feed::PeerAddress;
    let scope = match remote {
        SocketAddr::V6(remote) if remote.scope_id() != 0 => link_of(remote.scope_id()),
        SocketAddr::V6(_) | SocketAddr::V4(_) => None,
    };
    match &peer.address {
        PeerAddress::Ip(address) => *address == remote.ip(),
        PeerAddress::Scoped { address, interface } => {
            IpAddr::V6(*address) == remote.ip() && scope.as_ref() == Some(interface)
        }
        PeerAddress::Interface(interface) => scope.as_ref() == Some(interface),
    }
}

/// An address that no peer has: the target of an unnumbered peer that was not found yet.
pub(crate) const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
