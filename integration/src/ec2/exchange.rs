// SPDX-License-Identifier: Apache-2.0

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use crate::lab::{Namespace, ping_as};

const PATIENCE: Duration = Duration::from_secs(20);
/// After this time a datagram is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// Listens to both families.
///
/// It listens until the test ends: a socket that is closed stays open as long as a program that another test starts at the
/// moment holds a copy, and its port is taken meanwhile.
///
/// # Errors
/// When the port is taken.
pub fn listen(inside: &Namespace, port: u16) -> Result<TcpListener> {
    inside.run(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?))
}

/// How somebody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By a connection.
    Tcp,
    /// By a datagram.
    Udp,
    /// By an echo request, which the kernel answers.
    Echo,
}

impl How {
    /// Number of the IP protocol, where `addr` is asked.
    pub fn protocol(self, addr: IpAddr) -> u8 {
        match (self, addr) {
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
            (Self::Echo, IpAddr::V4(_)) => 1,
            (Self::Echo, IpAddr::V6(_)) => 58,
        }
    }
}

/// Somebody who can be asked in every way.
#[derive(Debug)]
pub struct Ear {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Ear {
    /// Listens at an address, or at `::` for both families where there is one address of each.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn open(inside: &Namespace, at: SocketAddr) -> Result<Self> {
        inside.run(|| Ok(Self { tcp: TcpListener::bind(at)?, udp: UdpSocket::bind(at)? }))
    }

    /// Lets somebody ask at `to`, from the address `own` where it has several, and answers. Gives as whom the caller was
    /// known here; of an echo nobody knows.
    ///
    /// # Errors
    /// When no answer comes, or somebody else was asked.
    pub fn is_asked(
        &self,
        how: How,
        from: &Namespace,
        own: Option<IpAddr>,
        to: SocketAddr,
    ) -> Result<Option<IpAddr>> {
        match how {
            How::Tcp => exchange(from, own, to, &self.tcp).map(Some),
            How::Udp => exchange_datagrams(from, own, to, &self.udp).map(Some),
            How::Echo => ping_as(from, own, to.ip(), PATIENCE).map(|_| None),
        }
    }
}

/// Connects, says a word, hears it back; gives as whom the other side knew the caller.
///
/// # Errors
/// When there is no connection, or another than the one that was asked for.
pub fn exchange(from: &Namespace, bound: Option<IpAddr>, to: SocketAddr, at: &TcpListener) -> Result<IpAddr> {
    let mut caller = from.run(|| {
        let domain =
            if to.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
        match bound {
            None => Ok(TcpStream::connect_timeout(&to, PATIENCE)?),
            Some(addr) => {
                let socket = rustix::net::socket(domain, rustix::net::SocketType::STREAM, None)?;
                rustix::net::bind(&socket, &SocketAddr::new(addr, 0))?;
                rustix::net::connect(&socket, &to)?;
                Ok(TcpStream::from(socket))
            }
        }
    })?;
    caller.set_read_timeout(Some(PATIENCE))?;
    caller.set_write_timeout(Some(PATIENCE))?;
    let mut waiting = [PollFd::new(at, PollFlags::IN)];
    let came = poll(&mut waiting, Some(&PATIENCE.try_into()?))?;
    ensure!(came == 1, "the connection was accepted by somebody else");
    let (mut called, peer) = at.accept()?;
    called.set_read_timeout(Some(PATIENCE))?;
    let mut heard = [0; 4];
    caller.write_all(b"ask!")?;
    called.read_exact(&mut heard)?;
    ensure!(&heard == b"ask!");
    called.write_all(b"told")?;
    caller.read_exact(&mut heard)?;
    ensure!(&heard == b"told");
    Ok(peer.ip().to_canonical())
}

/// Sends a datagram, which is answered; gives as whom the other side knew the caller. What is lost is sent again.
fn exchange_datagrams(
    from: &Namespace,
    bound: Option<IpAddr>,
    to: SocketAddr,
    at: &UdpSocket,
) -> Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let caller = from.run(|| {
        let socket = UdpSocket::bind((bound.unwrap_or(any), 0))?;
        socket.connect(to)?;
        Ok(socket)
    })?;
    caller.set_read_timeout(Some(AGAIN))?;
    at.set_read_timeout(Some(AGAIN))?;
    let (deadline, mut heard) = (Instant::now() + PATIENCE, [0; 64]);
    // So that nothing late is taken for an answer to this one.
    let word = format!("{} asks", caller.local_addr()?.port());
    loop {
        caller.send(word.as_bytes())?;
        while let Ok((length, peer)) = at.recv_from(&mut heard) {
            if heard[..length] != *word.as_bytes() {
                continue;
            }
            at.send_to(b"told", peer)?;
            if caller.recv(&mut heard).is_ok_and(|length| heard[..length] == *b"told") {
                return Ok(peer.ip().to_canonical());
            }
            break;
        }
        ensure!(Instant::now() < deadline, "no datagram came back from {to}");
    }
}
