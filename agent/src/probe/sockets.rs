// SPDX-License-Identifier: Apache-2.0

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::task::Poll;

use rhumb_model::Family;
use rhumb_routing::probe::{LONGEST, Sign, read, request};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tracing::{debug, warn};

/// The longest ICMP message that is read whole; of longer ones the beginning says enough.
const ICMP: usize = 512;

/// The sockets of the probe.
#[derive(Debug)]
pub(super) struct Sockets {
    port: u16,
    datagrams: Vec<(Family, UdpSocket)>,
    /// Raw sockets; only while they are needed, as each ICMP message to the node wakes them.
    signs: Vec<(Family, AsyncFd<OwnedFd>)>,
}

/// What came.
#[derive(Debug)]
pub(super) enum Came {
    Datagram { from: SocketAddr, bytes: Vec<u8> },
    Sign(Sign),
}

impl Sockets {
    /// Takes the port of both families; a host without IPv6 has one socket.
    ///
    /// # Errors
    /// The port is taken, or the kernel gives no socket.
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let mut datagrams = vec![(Family::V4, udp(Family::V4, port)?)];
        match udp(Family::V6, port) {
            Ok(socket) => datagrams.push((Family::V6, socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => debug!(%error, "no probes over IPv6"),
        }
        Ok(Self { port, datagrams, signs: Vec::new() })
    }

    /// Waits until something came on one of the sockets. Nothing is lost when the wait is cancelled.
    pub(super) async fn readable(&self) {
        poll_fn(|context| {
            let datagrams =
                self.datagrams.iter().any(|(_, socket)| socket.poll_recv_ready(context).is_ready());
            let signs = self.signs.iter().any(|(_, socket)| socket.poll_read_ready(context).is_ready());
            if datagrams || signs { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The next that came; `None` when that was all.
    pub(super) fn receive(&self) -> Option<Came> {
        let mut bytes = [0; LONGEST + 1];
        for (_, socket) in &self.datagrams {
            loop {
                match socket.try_recv_from(&mut bytes) {
                    Ok((length, from)) => {
                        return Some(Came::Datagram { from, bytes: bytes[..length].to_vec() });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => debug!(%error, "probe not received"),
                }
            }
        }
        let mut bytes = [0; ICMP];
        for (family, socket) in &self.signs {
            loop {
                let received = socket.try_io(tokio::io::Interest::READABLE, |socket| {
                    Ok(rustix::net::recv(socket, &mut bytes[..], RecvFlags::empty())?)
                });
                match received {
                    Ok((length, _)) => {
                        if let Some(sign) = read(*family, &bytes[..length], self.port) {
                            return Some(Came::Sign(sign));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => debug!(%error, "echo not received"),
                }
            }
        }
        None
    }

    /// Sends a question to the probe's port.
    pub(super) fn ask(&self, addr: IpAddr, bytes: &[u8]) {
        self.send(SocketAddr::new(addr, self.port), bytes);
    }

    /// Sends a datagram; one that cannot be sent is one that is lost.
    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let family = Family::of(to.ip());
        for (_, socket) in self.datagrams.iter().filter(|(own, _)| *own == family) {
            if let Err(error) = socket.try_send_to(bytes, to) {
                debug!(%to, %error, "probe not sent");
            }
        }
    }

    /// Sends an echo request.
    pub(super) fn echo(&self, addr: IpAddr, family: Family, number: u64) {
        for (_, socket) in self.signs.iter().filter(|(own, _)| *own == family) {
            let to = SocketAddr::new(addr, 0);
            if let Err(error) = rustix::net::sendto(socket, &request(family, number), SendFlags::empty(), &to)
            {
                debug!(%addr, %error, "echo not sent");
            }
        }
    }

    /// Begins or ends to hear signs of life besides answers.
    pub(super) fn hear_signs(&mut self, wanted: bool) {
        if !wanted {
            self.signs.clear();
        } else if self.signs.is_empty() {
            for (family, _) in &self.datagrams {
                match raw(*family) {
                    Ok(socket) => self.signs.push((*family, socket)),
                    Err(error) => warn!(%family, %error, "no echoes to nodes that do not answer the probe"),
                }
            }
        }
    }
}

fn udp(family: Family, port: u16) -> io::Result<UdpSocket> {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = socket(family, SocketType::DGRAM, None)?;
    if family == Family::V6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(any, port))?;
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

fn raw(family: Family) -> io::Result<AsyncFd<OwnedFd>> {
    let protocol = match family {
        Family::V4 => ipproto::ICMP,
        Family::V6 => ipproto::ICMPV6,
    };
    registered(socket(family, SocketType::RAW, Some(protocol))?)
}

#[expect(deprecated, reason = "the descriptor is owned and kept; the constructor in its stead is unsafe")]
fn registered(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(socket)
}

fn socket(family: Family, kind: SocketType, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, kind, flags, protocol)?)
}
