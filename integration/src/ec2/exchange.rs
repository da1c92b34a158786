// SPDX-License-Identifier: Apache-2.0

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use crate::lab::Namespace;

const PATIENCE: Duration = Duration::from_secs(20);

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
