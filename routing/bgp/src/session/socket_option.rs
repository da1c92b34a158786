// SPDX-License-Identifier: Apache-2.0
//! The socket options that no safe interface has: keys of TCP MD5 (RFC 2385) and the lowest TTL that is taken
//! (RFC 5082).

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use rhumb_model::{Family, Prefix};

/// Longest key that the kernel takes.
const KEY: usize = libc::TCP_MD5SIG_MAXKEYLEN;
/// A key counts for a prefix (`TCP_MD5SIG_FLAG_PREFIX` of `linux/tcp.h`).
const FLAG_PREFIX: u8 = 1;
/// Octets of a `sockaddr_storage`.
const ADDRESS: usize = 128;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct Md5Key {
    /// A `sockaddr_in` or `sockaddr_in6`; a port of 0 is any.
    address: [u8; ADDRESS],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; KEY],
}

const _: () = assert!(size_of::<Md5Key>() == 216);

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// It is longer than the kernel takes.
    #[error("a key of {0} octets, where {KEY} are the most")]
    Long(usize),
    /// The kernel refuses it.
    #[error("put the MD5 key for {prefix}")]
    Kernel {
        /// The peers that it is for.
        prefix: Prefix,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// Puts the key for segments from and to a prefix of peers on a socket; an empty key removes it (RFC 2385).
///
/// # Errors
/// When the key is too long or the kernel refuses it. Removing a key that is not there is no error.
pub(crate) fn put_md5_key(socket: impl AsFd, prefix: Prefix, key: &[u8]) -> Result<(), KeyError> {
    let host = prefix.len() == prefix.family().bits();
    let mut wanted = Md5Key {
        address: sockaddr(prefix.addr()),
        flags: if host { 0 } else { FLAG_PREFIX },
        prefix_length: if host { 0 } else { prefix.len() },
        key_length: u16::try_from(key.len()).map_err(|_| KeyError::Long(key.len()))?,
        interface: 0,
        key: [0; KEY],
    };
    wanted.key.get_mut(..key.len()).ok_or(KeyError::Long(key.len()))?.copy_from_slice(key);
    let option = if host { libc::TCP_MD5SIG } else { libc::TCP_MD5SIG_EXT };
    match put(socket, libc::IPPROTO_TCP, option, &wanted) {
        Err(error) if key.is_empty() && error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| KeyError::Kernel { prefix, source }),
    }
}

/// Lets the kernel drop what comes with a lower TTL or hop limit (RFC 5082 §3).
///
/// # Errors
/// When the kernel refuses it.
pub(crate) fn put_least_ttl(socket: impl AsFd, family: Family, ttl: u8) -> io::Result<()> {
    let value = libc::c_int::from(ttl);
    match family {
        Family::V4 => put(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &value),
        Family::V6 => put(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &value),
    }
}

/// The octets of a `sockaddr_in` or `sockaddr_in6` without port.
fn sockaddr(address: IpAddr) -> [u8; ADDRESS] {
    let mut octets = [0; ADDRESS];
    match address {
        IpAddr::V4(address) => {
            octets[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            octets[4..8].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            octets[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            octets[8..24].copy_from_slice(&address.octets());
        }
    }
    octets
}

fn put<T>(socket: impl AsFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel reads `length` octets of `value`, which
    // is a plain value of that size without padding, and keeps no reference.
    #[expect(unsafe_code, reason = "no safe interface knows these options")]
    let result = unsafe { libc::setsockopt(socket, level, option, std::ptr::from_ref(value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn keys_are_taken_replaced_and_removed_for_hosts_and_prefixes() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        for (socket, peers) in [
            (&v4, "192.0.2.1/32"),
            (&v4, "192.0.2.0/24"),
            (&v6, "2001:db8::1/128"),
            (&v6, "fe80::1/128"),
            (&v6, "fe80::/10"),
        ] {
            for key in ["first", "second", "", ""] {
                put_md5_key(socket, prefix(peers), key.as_bytes()).unwrap();
            }
        }
    }

    #[test]
    fn a_key_that_is_too_long_is_refused_with_its_length() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = put_md5_key(&socket, prefix("192.0.2.1/32"), &[7; 81]).unwrap_err();
        assert_eq!(error.to_string(), "a key of 81 octets, where 80 are the most");
    }

    #[test]
    fn a_least_ttl_keeps_far_senders_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        put_least_ttl(&listener, Family::V4, 255).unwrap();
        let far = std::net::TcpStream::connect_timeout(
            &listener.local_addr().unwrap(),
            std::time::Duration::from_millis(200),
        );
        assert_eq!(far.unwrap_err().kind(), io::ErrorKind::TimedOut, "a TTL of 64 is below 255");
        put_least_ttl(TcpListener::bind("[::1]:0").unwrap(), Family::V6, 255).unwrap();
    }
}
