// SPDX-License-Identifier: Apache-2.0
//! Traffic that a case needs: every socket is made inside its namespace and then served from outside of it, so that
//! one thread can play both sides.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use crate::lab::Namespace;

/// How long an answer that should come is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer that should not come is waited for.
pub(crate) const SILENCE: Duration = Duration::from_millis(600);
const AGAIN: Duration = Duration::from_millis(200);

fn any(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// A UDP socket of a namespace, of the family of `like`; port 0 is any.
///
/// # Errors
/// When the port is taken.
pub(crate) fn udp(namespace: &Namespace, like: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = namespace.run(|| {
        UdpSocket::bind((any(like), port))
            .with_context(|| format!("bind UDP port {port} in {}", namespace.name()))
    })?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A TCP listener of a namespace, of the family of `like`; port 0 is any.
///
/// # Errors
/// When the port is taken.
pub(crate) fn tcp(namespace: &Namespace, like: IpAddr, port: u16) -> Result<TcpListener> {
    let listener = namespace.run(|| {
        TcpListener::bind((any(like), port))
            .with_context(|| format!("listen on TCP port {port} in {}", namespace.name()))
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether a datagram from `client` to `target` arrives at `server` and its answer comes back to the client as from
/// the target.
///
/// # Errors
/// When the sockets fail otherwise than by what the network told them.
pub(crate) fn udp_answered(
    client: &UdpSocket,
    target: SocketAddr,
    server: &UdpSocket,
    patience: Duration,
) -> Result<bool> {
    let deadline = Instant::now() + patience;
    let mut buffer = [0; 64];
    while Instant::now() < deadline {
        // The network may refuse at once (no route, port unreachable): that is no answer, and the next one may come.
        client.send_to(b"rhumb?", target).ok();
        let round = (Instant::now() + AGAIN).min(deadline);
        while readable(&[PollFd::new(client, PollFlags::IN), PollFd::new(server, PollFlags::IN)], round)? {
            while let Ok((_, from)) = server.recv_from(&mut buffer) {
                server.send_to(b"rhumb!", from).ok();
            }
            while let Ok((length, from)) = client.recv_from(&mut buffer) {
                if from == target && buffer.get(..length) == Some(b"rhumb!") {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Whether a TCP connection from `client` to `target` ends at `server` and carries bytes both ways.
///
/// # Errors
/// When the namespace cannot be entered.
pub(crate) fn tcp_answered(
    client: &Namespace,
    target: SocketAddr,
    server: &TcpListener,
    patience: Duration,
) -> Result<bool> {
    let deadline = Instant::now() + patience;
    let connect = || TcpStream::connect_timeout(&target, patience.min(Duration::from_secs(2)));
    let stream = loop {
        match client.run(|| Ok(connect()))? {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < deadline => {
                // Refused at once: look again when the listener could have changed its mind.
                readable(&[PollFd::new(server, PollFlags::IN)], (Instant::now() + AGAIN).min(deadline))?;
            }
            Err(_) => return Ok(false),
        }
    };
    if !readable(&[PollFd::new(server, PollFlags::IN)], deadline)? {
        return Ok(false);
    }
    let (accepted, _) = server.accept()?;
    accepted.set_nonblocking(false)?;
    Ok(exchange(&stream, &accepted, patience) && exchange(&accepted, &stream, patience))
}

fn exchange(mut from: &TcpStream, mut to: &TcpStream, patience: Duration) -> bool {
    let mut buffer = [0; 5];
    to.set_read_timeout(Some(patience)).is_ok()
        && from.write_all(b"rhumb").is_ok()
        && to.read_exact(&mut buffer).is_ok()
        && buffer == *b"rhumb"
}

/// Sends a datagram from every member to every other one; gives the pairs that none went through.
///
/// # Errors
/// When a member has no socket.
pub(crate) fn unreached_pairs(members: &[(&Namespace, IpAddr)]) -> Result<Vec<(IpAddr, IpAddr)>> {
    let sockets: Vec<UdpSocket> =
        members.iter().map(|(namespace, address)| udp(namespace, *address, 7)).collect::<Result<_>>()?;
    let mut missing: BTreeSet<(usize, usize)> = BTreeSet::new();
    for from in 0..members.len() {
        missing.extend((0..members.len()).filter(|to| *to != from).map(|to| (from, to)));
    }
    let deadline = Instant::now() + PATIENCE * 3;
    while !missing.is_empty() && Instant::now() < deadline {
        // A burst that fits into the receivers' buffers, then a look at what came.
        for (from, to) in missing.iter().take(500) {
            let number = u32::try_from(*from).context("few members")?;
            sockets[*from].send_to(&number.to_be_bytes(), (members[*to].1, 7)).ok();
        }
        let round = Instant::now() + AGAIN / 4;
        loop {
            let mut buffer = [0; 4];
            for (to, socket) in sockets.iter().enumerate() {
                while let Ok((4, _)) = socket.recv_from(&mut buffer) {
                    missing.remove(&(u32::from_be_bytes(buffer) as usize, to));
                }
            }
            let watched: Vec<_> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
            if missing.is_empty() || !readable(&watched, round)? {
                break;
            }
        }
    }
    Ok(missing.into_iter().map(|(from, to)| (members[from].1, members[to].1)).collect())
}

/// Rate of one TCP stream in bit/s, seen by its receiver over `time`, after the first `skip` bytes.
///
/// # Errors
/// When there is no connection, or it is so slow that the first bytes do not come.
pub(crate) fn tcp_rate(
    sender: &Namespace,
    receiver: &Namespace,
    target: IpAddr,
    skip: u64,
    time: Duration,
) -> Result<f64> {
    let listener = tcp(receiver, target, 0)?;
    let to = SocketAddr::new(target, listener.local_addr()?.port());
    let out = sender
        .run(|| TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}")))?;
    ensure!(
        readable(&[PollFd::new(&listener, PollFlags::IN)], Instant::now() + PATIENCE)?,
        "no connection from {} arrived",
        sender.name()
    );
    let (input, _) = listener.accept()?;
    input.set_nonblocking(false)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = [0; 16 << 10];
            let mut out = &out;
            while out.write_all(&chunk).is_ok() {}
        });
        let rate = receive(&input, skip, time);
        // Ends the sender's loop.
        out.shutdown(std::net::Shutdown::Both).ok();
        input.shutdown(std::net::Shutdown::Both).ok();
        rate
    })
}

fn receive(mut input: &TcpStream, skip: u64, time: Duration) -> Result<f64> {
    let mut buffer = vec![0; 64 << 10];
    input.set_read_timeout(Some(PATIENCE))?;
    let mut skipped = 0;
    let patience = Instant::now() + PATIENCE * 4;
    while skipped < skip {
        skipped += input.read(&mut buffer)? as u64;
        if Instant::now() > patience {
            bail!("only {skipped} bytes came within {:?}", PATIENCE * 4);
        }
    }
    let (started, mut bytes) = (Instant::now(), 0u64);
    while started.elapsed() < time {
        bytes += input.read(&mut buffer)? as u64;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate of a few seconds is far below 2^52 bits")]
    let bits = (bytes * 8) as f64;
    Ok(bits / started.elapsed().as_secs_f64())
}

/// Waits until one of the sockets can be read; false when it is `deadline` before.
fn readable(sockets: &[PollFd<'_>], deadline: Instant) -> Result<bool> {
    let left = deadline.saturating_duration_since(Instant::now());
    Ok(poll(&mut sockets.to_vec(), Some(&left.try_into()?))? > 0)
}
