// SPDX-License-Identifier: Apache-2.0
//! One client and one server. On one CPU: with two, the wake-up between them hides what the path costs; but two is what
//! most machines give them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::lab::Namespace;

const DURATION: Duration = Duration::from_secs(1);
const BLOCK: usize = 128 << 10;
/// How many exchanges pass between two looks at the clock.
const BATCH: u32 = 16;

/// What goes over the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    /// One byte there and back over one connection, as often as it goes: exchanges a second.
    RequestResponse,
    /// A connection, one byte there and back, and the client closes: connections a second.
    ConnectRequestClose,
    /// One datagram of a byte there and one back, as often as it goes: exchanges a second.
    Datagrams,
    /// As many bytes as it goes: Gbit a second.
    Throughput,
}

/// Where client and server run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cpus {
    /// Both on the last CPU that there is.
    One,
    /// The client on the last, the server on the one before, if there is one.
    Two,
}

impl Traffic {
    pub(super) const ALL: [Traffic; 4] =
        [Traffic::RequestResponse, Traffic::ConnectRequestClose, Traffic::Datagrams, Traffic::Throughput];

    pub(super) fn unit(self) -> &'static str {
        match self {
            Traffic::RequestResponse | Traffic::ConnectRequestClose | Traffic::Datagrams => "/s",
            Traffic::Throughput => "Gbit/s",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Traffic::RequestResponse => "request/response",
            Traffic::ConnectRequestClose => "connect-request-close",
            Traffic::Datagrams => "UDP request/response",
            Traffic::Throughput => "throughput",
        }
    }

    /// Sends for a second from one namespace to `address` in another; gives the rate.
    pub(super) fn measure(
        self,
        from: &Namespace,
        to: &Namespace,
        address: IpAddr,
        cpus: Cpus,
    ) -> Result<f64> {
        if self == Traffic::Datagrams {
            return datagrams(from, to, address, cpus);
        }
        let listener = to.run(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?))?;
        let target = SocketAddr::new(address, listener.local_addr()?.port());
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                to.run(|| {
                    pin(cpus.server())?;
                    self.serve(&listener)
                })
            });
            let rate = from.run(|| {
                pin(cpus.client())?;
                self.send(target)
            });
            if rate.is_err() {
                // Nobody comes any more: a connection that asks nothing ends a server that still waits for one.
                let inside = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), target.port());
                to.run(|| Ok(TcpStream::connect(inside).ok()))?;
            }
            let served = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let rate = rate?;
            served?;
            Ok(rate)
        })
    }

    fn serve(self, listener: &TcpListener) -> Result<()> {
        match self {
            Traffic::ConnectRequestClose => {
                // The client ends a run with a connection on which it asks nothing.
                while answer(accept(listener)?)? > 0 {}
                Ok(())
            }
            Traffic::RequestResponse | Traffic::Datagrams => answer(accept(listener)?).map(drop),
            Traffic::Throughput => {
                let mut stream = accept(listener)?;
                let mut block = vec![0; BLOCK];
                while stream.read(&mut block)? > 0 {}
                Ok(())
            }
        }
    }

    fn send(self, target: SocketAddr) -> Result<f64> {
        match self {
            Traffic::RequestResponse | Traffic::Datagrams => {
                let mut stream = connect(target)?;
                rate(|| ask(&mut stream))
            }
            Traffic::ConnectRequestClose => {
                let rate = rate(|| ask(&mut connect(target)?))?;
                connect(target)?;
                Ok(rate)
            }
            Traffic::Throughput => {
                let mut stream = connect(target)?;
                let block = vec![0; BLOCK];
                let blocks = rate(|| Ok(stream.write_all(&block)?))?;
                let bits = u32::try_from(BLOCK * 8).context("a block is small")?;
                Ok(blocks * f64::from(bits) / 1e9)
            }
        }
    }
}

impl Cpus {
    fn client(self) -> usize {
        0
    }

    fn server(self) -> usize {
        usize::from(self == Cpus::Two)
    }
}

/// The server answers each datagram until an empty one comes, and the client waits for each answer.
fn datagrams(from: &Namespace, to: &Namespace, address: IpAddr, cpus: Cpus) -> Result<f64> {
    let server = to.run(|| Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?))?;
    server.set_read_timeout(Some(DURATION * 10))?;
    let target = SocketAddr::new(address, server.local_addr()?.port());
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            to.run(|| {
                pin(cpus.server())?;
                let mut byte = [0];
                loop {
                    match server.recv_from(&mut byte)? {
                        (0, _) => return Ok(()),
                        (_, client) => server.send_to(&byte, client).map(drop)?,
                    }
                }
            })
        });
        let rate = from.run(|| {
            pin(cpus.client())?;
            let local: IpAddr =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let client = UdpSocket::bind((local, 0))?;
            client.set_read_timeout(Some(DURATION))?;
            client.connect(target)?;
            let rate = rate(|| {
                client.send(&[1])?;
                client.recv(&mut [0]).map(drop).context("wait for the answer to a datagram")
            });
            client.send(&[])?;
            rate
        });
        serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        rate
    })
}

/// How often a second `once` can be done.
fn rate(mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    let mut count = 0u32;
    loop {
        for _ in 0..BATCH {
            once()?;
        }
        count += BATCH;
        let elapsed = started.elapsed();
        if elapsed >= DURATION {
            return Ok(f64::from(count) / elapsed.as_secs_f64());
        }
    }
}

fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(target).with_context(|| format!("connect to {target}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&[1])?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

/// Sends back byte by byte until the client closes; gives how many.
fn answer(mut stream: TcpStream) -> Result<u64> {
    let mut count = 0;
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Ok(count),
            Ok(_) => stream.write_all(&byte)?,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(count),
            Err(error) => return Err(error.into()),
        }
        count += 1;
    }
}

/// Puts the calling thread on a CPU that it may use, counted from the last; on the first where there are fewer.
fn pin(from_last: usize) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let cpus = (0..CpuSet::MAX_CPU).rev().filter(|cpu| allowed.is_set(*cpu));
    let cpu = cpus.take(from_last + 1).last().context("there is a CPU")?;
    let mut one = CpuSet::new();
    one.set(cpu);
    Ok(sched_setaffinity(None, &one)?)
}
