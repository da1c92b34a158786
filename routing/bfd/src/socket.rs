// SPDX-License-Identifier: Apache-2.0
//! The sockets of the thread: one to receive by per family and kind, one to send by per session.
#![expect(unsafe_code, reason = "no safe wrapper reads a packet's TTL and link")]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{self, AddressFamily, SendFlags, SocketFlags, SocketType, netdevice, sockopt};

use crate::config::{Hops, SessionKey};
use crate::table::Arrival;

/// Class selector 6, of routing protocols.
const TRAFFIC_CLASS: u8 = 0xc0;

/// Source ports (RFC 5881 §4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// Octets of a datagram that are read; a packet with an authentication section is longer than one without.
pub(crate) const READ: usize = 64;

impl Hops {
    fn port(self) -> u16 {
        match self {
            Self::Single => 3784,
            Self::Multi => 4784,
        }
    }
}

/// Where packets of one family and kind come in.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: OwnedFd,
    hops: Hops,
}

impl Receiver {
    pub(crate) fn open(hops: Hops, v4: bool) -> io::Result<Self> {
        Self::bind(hops, SocketAddr::new(any(v4), hops.port()))
    }

    fn bind(hops: Hops, at: SocketAddr) -> io::Result<Self> {
        let socket = udp(at.is_ipv4())?;
        if at.is_ipv4() {
            set(&socket, libc::IPPROTO_IP, libc::IP_RECVTTL, 1)?;
            set(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        } else {
            sockopt::set_ipv6_v6only(&socket, true)?;
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
        net::bind(&socket, &at)?;
        Ok(Self { socket, hops })
    }

    /// The next datagram, when there is one: how long it is, at most [`READ`], and how it came.
    pub(crate) fn receive(&self, buffer: &mut [u8; READ]) -> io::Result<Option<(usize, Arrival)>> {
        let mut control = Control([0; CONTROL]);
        let mut from = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: READ };
        // SAFETY: all zeroes are a valid msghdr: null pointers and no lengths.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_name = from.as_mut_ptr().cast();
        message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL;
        // SAFETY: each pointer of the message leads to a buffer of the length beside it that outlives the call.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let Ok(length) = usize::try_from(length) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
        };
        // SAFETY: it was zeroed, and the kernel wrote an address into it.
        let from = unsafe { from.assume_init() };
        let told = Told::read(&control.0[..message.msg_controllen.min(CONTROL)]);
        let arrival = source(&from).zip(told.to).map(|(from, to)| Arrival {
            from,
            to,
            ifindex: told.ifindex,
            ttl: told.ttl,
            hops: self.hops,
        });
        arrival.map(|arrival| Some((length, arrival))).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Where the packets of one session leave.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: OwnedFd,
    to: SocketAddr,
    /// The source port; the session keeps it when the socket has to be made anew.
    pub(crate) port: u16,
    /// The index of the key's link.
    pub(crate) ifindex: Option<u32>,
}

impl Sender {
    /// Binds to `first`, or when that is taken to the next port that is free.
    pub(crate) fn open(key: &SessionKey, first: u16) -> io::Result<Self> {
        let v4 = key.peer.is_ipv4();
        let socket = udp(v4)?;
        if v4 {
            sockopt::set_ip_ttl(&socket, 255)?;
            sockopt::set_ip_tos(&socket, TRAFFIC_CLASS)?;
        } else {
            sockopt::set_ipv6_v6only(&socket, true)?;
            sockopt::set_ipv6_unicast_hops(&socket, Some(255))?;
            sockopt::set_ipv6_tclass(&socket, TRAFFIC_CLASS.into())?;
        }
        let ifindex = match &key.interface {
            Some(interface) => {
                let index = netdevice::name_to_index(&socket, interface.as_str())?;
                let index_of_option =
                    libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
                set(&socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, index_of_option)?;
                Some(index)
            }
            None => None,
        };
        let at = |addr: IpAddr, port: u16| match addr {
            IpAddr::V4(_) => SocketAddr::new(addr, port),
            IpAddr::V6(addr) => SocketAddrV6::new(addr, port, 0, ifindex.unwrap_or(0)).into(),
        };
        let local = key.local.unwrap_or(any(v4));
        let first = first.max(*SOURCE_PORTS.start());
        for port in (first..=*SOURCE_PORTS.end()).chain(*SOURCE_PORTS.start()..first) {
            match net::bind(&socket, &at(local, port)) {
                Ok(()) => return Ok(Self { socket, to: at(key.peer, key.hops.port()), port, ifindex }),
                Err(rustix::io::Errno::ADDRINUSE) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Whether the link of the key is still the one that the socket is bound to.
    pub(crate) fn is_on_link(&self, key: &SessionKey) -> bool {
        let index = key
            .interface
            .as_ref()
            .map(|interface| netdevice::name_to_index(&self.socket, interface.as_str()));
        index.transpose().is_ok_and(|index| index == self.ifindex)
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Result<(), rustix::io::Errno> {
        net::sendto(&self.socket, bytes, SendFlags::DONTWAIT, &self.to).map(|_| ())
    }
}

fn any(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn udp(v4: bool) -> io::Result<OwnedFd> {
    let family = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(family, SocketType::DGRAM, flags, Some(net::ipproto::UDP))?)
}

fn set(socket: &OwnedFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads one c_int, which lives until the call returns.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The sender's address.
fn source(from: &libc::sockaddr_storage) -> Option<IpAddr> {
    let from: *const libc::sockaddr_storage = from;
    // SAFETY: a sockaddr_storage is as large and as aligned as any address; its first field says which one it is.
    match libc::c_int::from(unsafe { (*from).ss_family }) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in.
            let address = unsafe { *from.cast::<libc::sockaddr_in>() };
            Some(IpAddr::V4(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes())))
        }
        libc::AF_INET6 => {
            // SAFETY: the kernel wrote a sockaddr_in6.
            let address = unsafe { *from.cast::<libc::sockaddr_in6>() };
            Some(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

/// Octets of what the kernel says beside a datagram: a TTL and a packet information, with room.
const CONTROL: usize = 128;

#[repr(align(8))]
struct Control([u8; CONTROL]);

/// What the kernel says beside a datagram.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    ttl: u8,
    ifindex: u32,
    to: Option<IpAddr>,
}

impl Told {
    /// Reads control messages as cmsg(3) lays them out: a length with the header, a level, a type, then the value; each
    /// begins at a multiple of the size of a word.
    fn read(mut control: &[u8]) -> Self {
        const WORD: usize = size_of::<usize>();
        const HEADER: usize = WORD + 8;
        let mut told = Self::default();
        while let Some((head, _)) = control.split_first_chunk::<HEADER>() {
            let int = |bytes: &[u8], at: usize| {
                let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                i32::from_ne_bytes(bytes.unwrap_or_default())
            };
            let mut length = [0; WORD];
            length.copy_from_slice(&head[..WORD]);
            let length = usize::from_ne_bytes(length);
            let Some(value) = control.get(HEADER..length) else { break };
            match (int(head, WORD), int(head, WORD + 4)) {
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    told.ttl = u8::try_from(int(value, 0)).unwrap_or(0);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) if value.len() >= 12 => {
                    told.ifindex = u32::try_from(int(value, 0)).unwrap_or(0);
                    told.to = Some(Ipv4Addr::from(int(value, 8).to_ne_bytes()).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let Some((to, index)) = value.split_first_chunk::<16>() else { break };
                    told.to = Some(Ipv6Addr::from(*to).into());
                    told.ifindex = u32::try_from(int(index, 0)).unwrap_or(0);
                }
                _ => {}
            }
            control = control.get(length.next_multiple_of(WORD)..).unwrap_or_default();
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_comes_with_its_ttl_its_link_and_both_addresses() {
        for loopback in ["127.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().expect("valid")) {
            let receiver = Receiver::bind(Hops::Single, SocketAddr::new(loopback, 0)).expect("bound");
            let key =
                SessionKey { peer: loopback, local: Some(loopback), interface: None, hops: Hops::Single };
            let mut sender = Sender::open(&key, 0).expect("opened");
            assert!(SOURCE_PORTS.contains(&sender.port));
            let bound = net::getsockname(&receiver.socket).expect("bound");
            sender.to = bound.try_into().expect("an address");
            let mut buffer = [0; READ];
            assert_eq!(receiver.receive(&mut buffer).expect("asked"), None);
            sender.send(&[5; 100]).expect("sent");
            let (length, arrival) = receiver.receive(&mut buffer).expect("asked").expect("there");
            assert_eq!(length, READ, "a longer datagram is cut");
            let expected = Arrival { from: loopback, to: loopback, ifindex: 1, ttl: 255, hops: Hops::Single };
            assert_eq!(arrival, expected);
        }
    }

    #[test]
    fn two_sessions_have_two_source_ports() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let key = SessionKey { peer: loopback, local: Some(loopback), interface: None, hops: Hops::Single };
        let first = Sender::open(&key, 65535).expect("opened");
        let second = Sender::open(&key, first.port).expect("opened");
        assert_ne!(first.port, second.port);
        assert!(SOURCE_PORTS.contains(&second.port));
    }

    #[test]
    fn control_messages_that_are_cut_short_say_nothing() {
        let mut whole = Vec::new();
        whole.extend_from_slice(&28_usize.to_ne_bytes());
        whole.extend_from_slice(&libc::IPPROTO_IP.to_ne_bytes());
        whole.extend_from_slice(&libc::IP_PKTINFO.to_ne_bytes());
        whole.extend_from_slice(&[7, 0, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let told = Told { ttl: 0, ifindex: 7, to: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))) };
        assert_eq!(Told::read(&whole), told);
        for length in 0..whole.len() {
            assert_eq!(Told::read(&whole[..length]), Told::default(), "{length}");
        }
    }
}
