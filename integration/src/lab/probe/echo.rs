// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::Stop;
use crate::lab::Namespace;
use crate::lab::namespace::enter;

const REQUEST: [u8; 2] = [8, 128];
/// After the last request, how long an answer is waited for.
const GRACE: Duration = Duration::from_secs(1);

/// Sends echo requests until one is answered; gives the time of that one.
///
/// # Errors
/// When `patience` is over before.
pub fn ping(from: &Namespace, to: IpAddr, patience: Duration) -> Result<Duration> {
    ping_as(from, None, to, patience)
}

/// Sends echo requests from an address of the namespace until one is answered; gives the time of that one.
///
/// # Errors
/// When `patience` is over before.
pub fn ping_as(from: &Namespace, own: Option<IpAddr>, to: IpAddr, patience: Duration) -> Result<Duration> {
    from.run(|| {
        let deadline = Instant::now() + patience;
        let socket = open(to)?;
        if let Some(own) = own {
            rustix::net::bind(&socket, &SocketAddr::new(own, 0)).with_context(|| format!("bind {own}"))?;
        }
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut sent = Vec::new();
        loop {
            let sequence = u16::try_from(sent.len()).context("number a request")?;
            sent.push(Instant::now());
            let error = match send(&socket, to, sequence).and_then(|()| receive(&socket)) {
                // An answer may be late, to a request before the last one.
                Ok(answered) => match sent.get(usize::from(answered)) {
                    Some(at) => return Ok(at.elapsed()),
                    None => bail!("{to} answered request {answered}, which was not sent"),
                },
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                bail!("no echo from {to} to {} within {patience:?}: {error}", from.name());
            }
            if !is_timeout(&error) {
                // An error may come at once (no route, unreachable): give the other side time.
                Stop::new()?.called_within(Duration::from_millis(20))?;
            }
        }
    })
}

/// A running series of echo requests.
#[derive(Debug)]
pub struct Pinger {
    stop: Stop,
    thread: Option<JoinHandle<Result<PingReport>>>,
}

/// What became of a series of echo requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PingReport {
    /// Requests.
    pub sent: u64,
    /// Requests that were answered.
    pub received: u64,
    /// When unanswered requests were sent, counted from the start.
    pub lost: Vec<Duration>,
    /// Longest time to an answer.
    pub longest: Duration,
    /// Errors that the kernel reported to the sender.
    pub errors: Vec<String>,
}

impl Pinger {
    /// Sends an echo request to `to` every `interval`, once the first one was answered.
    ///
    /// # Errors
    /// When the first request is not answered within five seconds.
    pub fn start(from: &Namespace, to: IpAddr, interval: Duration) -> Result<Self> {
        ping(from, to, Duration::from_secs(5))?;
        let stop = Stop::new()?;
        let (path, called) = (from.path().to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            enter(&path)?;
            series(to, interval, &called)
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the series.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn stop(mut self) -> Result<PingReport> {
        self.stop.call();
        let thread = self.thread.take().context("the series was stopped before")?;
        thread.join().map_err(|_| anyhow!("the thread of an echo series panicked"))?
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.stop.call();
    }
}

impl PingReport {
    /// Nothing when every request was answered.
    ///
    /// # Errors
    /// Says how many were not, and when.
    pub fn all_answered(&self) -> Result<()> {
        ensure!(
            self.lost.is_empty() && self.errors.is_empty(),
            "{} of {} echo requests were not answered; sent at {:?}; errors {:?}",
            self.lost.len(),
            self.sent,
            self.lost,
            self.errors
        );
        Ok(())
    }
}

fn series(to: IpAddr, interval: Duration, stop: &Stop) -> Result<PingReport> {
    let socket = open(to)?;
    let start = Instant::now();
    let mut report = PingReport::default();
    let mut waiting: BTreeMap<u16, Instant> = BTreeMap::new();
    let mut next = start;
    let mut sequence = 0u16;
    while !stop.called_within(Duration::ZERO)? {
        let now = Instant::now();
        if now >= next {
            if let Err(error) = send(&socket, to, sequence) {
                report.errors.push(error.to_string());
            }
            waiting.insert(sequence, Instant::now());
            report.sent += 1;
            sequence = sequence.wrapping_add(1);
            next += interval;
        }
        collect(&socket, next, &mut waiting, &mut report)?;
    }
    let deadline = Instant::now() + GRACE;
    while !waiting.is_empty() && Instant::now() < deadline {
        collect(&socket, deadline, &mut waiting, &mut report)?;
    }
    report.lost = waiting.values().map(|sent| sent.duration_since(start)).collect();
    report.lost.sort();
    Ok(report)
}

/// Takes one answer, if it comes before `until`.
fn collect(
    socket: &UdpSocket,
    until: Instant,
    waiting: &mut BTreeMap<u16, Instant>,
    report: &mut PingReport,
) -> Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(());
    }
    socket.set_read_timeout(Some(left))?;
    match receive(socket) {
        Ok(sequence) => {
            if let Some(sent) = waiting.remove(&sequence) {
                report.received += 1;
                report.longest = report.longest.max(sent.elapsed());
            }
        }
        Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
        Err(error) => report.errors.push(error.to_string()),
    }
    Ok(())
}

/// A socket of the kernel's own echo protocol: it numbers, checks and sorts out the answers of others itself.
fn open(to: IpAddr) -> Result<UdpSocket> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(protocol))
        .context("open an echo socket")?;
    Ok(UdpSocket::from(socket))
}

fn send(socket: &UdpSocket, to: IpAddr, sequence: u16) -> std::io::Result<()> {
    let mut packet = [0; 64];
    packet[0] = REQUEST[usize::from(to.is_ipv6())];
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    socket.send_to(&packet, SocketAddr::new(to, 0)).map(drop)
}

fn receive(socket: &UdpSocket) -> std::io::Result<u16> {
    let mut packet = [0; 64];
    let (length, _) = socket.recv_from(&mut packet)?;
    if length < 8 {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(u16::from_be_bytes([packet[6], packet[7]]))
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
