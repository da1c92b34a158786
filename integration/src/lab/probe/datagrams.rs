// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::Stop;
use crate::lab::Namespace;
use crate::lab::namespace::enter;

const LENGTH: usize = 200;
/// After the last datagram, how long an answer is waited for.
const GRACE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// A running series of numbered UDP datagrams, which the other side sends back.
#[derive(Debug)]
pub struct Datagrams {
    stop: Stop,
    received: Arc<AtomicU64>,
    client: Option<JoinHandle<Result<DatagramReport>>>,
    server: Option<JoinHandle<Result<Arrivals>>>,
}

/// What became of a series of datagrams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatagramReport {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Those that reached the other side.
    pub arrived: u64,
    /// Those that came back.
    pub received: u64,
    /// When those were sent that did not come back.
    pub lost: Vec<Instant>,
    /// Longest time there and back.
    pub longest: Duration,
    /// Errors that the kernel reported to the sender.
    pub errors: Vec<String>,
    /// As whom the other side knew the sender: more than one when its translation changed.
    pub seen_as: BTreeSet<SocketAddr>,
}

/// What the other side saw.
#[derive(Debug, Default)]
struct Arrivals {
    count: u64,
    from: BTreeSet<SocketAddr>,
}

impl Datagrams {
    /// Sends a datagram to `address` in the namespace `to` every `interval`, from when the first one came back.
    ///
    /// # Errors
    /// When none comes back within 20 seconds.
    pub fn start(from: &Namespace, to: &Namespace, address: IpAddr, interval: Duration) -> Result<Self> {
        let echo = to.run(|| UdpSocket::bind((address, 0)).with_context(|| format!("bind {address}")))?;
        let target = echo.local_addr()?;
        let stop = Stop::new()?;
        let (called, there) = (stop.clone(), to.path().to_owned());
        let server = std::thread::spawn(move || {
            enter(&there)?;
            send_back(&echo, &called)
        });
        let received = Arc::new(AtomicU64::new(0));
        let mut series = Self { stop, received, client: None, server: Some(server) };
        let socket = from.run(|| connect(target))?;
        let (called, here) = (series.stop.clone(), from.path().to_owned());
        let received = Arc::clone(&series.received);
        series.client = Some(std::thread::spawn(move || {
            enter(&here)?;
            send(&socket, interval, &called, &received)
        }));
        Ok(series)
    }

    /// How many came back until now.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the series.
    ///
    /// # Errors
    /// When a socket failed, or a datagram came back other than it was sent.
    pub fn stop(mut self) -> Result<DatagramReport> {
        self.end()?.context("the series was stopped before")
    }

    fn end(&mut self) -> Result<Option<DatagramReport>> {
        // The client ends on its own call, with its last answers; only then the server may go.
        self.stop.call();
        let client = self.client.take().map(JoinHandle::join);
        let server = self.server.take().map(JoinHandle::join);
        let (Some(client), Some(server)) = (client, server) else { return Ok(None) };
        let mut report = client.map_err(|_| anyhow!("the sender of a series panicked"))??;
        let arrivals = server.map_err(|_| anyhow!("the echo of a series panicked"))??;
        (report.arrived, report.seen_as) = (arrivals.count, arrivals.from);
        Ok(Some(report))
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.call();
    }
}

impl DatagramReport {
    /// Nothing when every datagram came back, and the other side always knew the sender as the same.
    ///
    /// # Errors
    /// Says how many did not, or as whom the sender was known.
    pub fn nothing_lost(&self) -> Result<()> {
        ensure!(
            self.lost.is_empty() && self.errors.is_empty() && self.received == self.sent,
            "{} of {} datagrams did not come back, {} arrived; errors {:?}",
            self.lost.len(),
            self.sent,
            self.arrived,
            self.errors
        );
        ensure!(self.seen_as.len() == 1, "the sender was known as {:?}", self.seen_as);
        Ok(())
    }
}

fn connect(target: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target).with_context(|| format!("connect to {target}"))?;
    let deadline = Instant::now() + PATIENCE;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    loop {
        let answered = socket.send(&datagram(u64::MAX)).and_then(|_| socket.recv(&mut [0; LENGTH]));
        match answered {
            Ok(_) => break,
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("no datagram comes back from {target}"));
            }
            Err(_) => {}
        }
    }
    // What comes late to a question before the last one.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn datagram(number: u64) -> [u8; LENGTH] {
    let mut datagram = [0x5a; LENGTH];
    datagram[..8].copy_from_slice(&number.to_be_bytes());
    datagram
}

fn send(socket: &UdpSocket, interval: Duration, stop: &Stop, received: &AtomicU64) -> Result<DatagramReport> {
    let mut report = DatagramReport::default();
    let mut waiting = BTreeMap::new();
    let mut next = Instant::now();
    let mut last = None;
    let never = Stop::new()?;
    loop {
        let now = Instant::now();
        if last.is_none() && now >= next {
            waiting.insert(report.sent, now);
            transmit(socket, report.sent, &mut report.errors);
            report.sent += 1;
            next += interval;
        }
        collect(socket, &mut waiting, &mut report)?;
        received.store(report.received, Ordering::Relaxed);
        let until = match last {
            Some(deadline) if waiting.is_empty() || now >= deadline => break,
            Some(deadline) => deadline,
            None => next,
        };
        let left = until.saturating_duration_since(Instant::now());
        if last.is_none() {
            if stop.or_readable_within(socket, left)? {
                last = Some(Instant::now() + GRACE);
            }
        } else {
            never.or_readable_within(socket, left)?;
        }
    }
    report.lost = waiting.into_values().collect();
    Ok(report)
}

/// An error that is reported here is that of an earlier datagram; this one was not sent with it.
fn transmit(socket: &UdpSocket, number: u64, errors: &mut Vec<String>) {
    for _ in 0..2 {
        match socket.send(&datagram(number)) {
            Ok(_) => return,
            Err(error) => errors.push(error.to_string()),
        }
    }
}

/// Takes all that came back.
fn collect(
    socket: &UdpSocket,
    waiting: &mut BTreeMap<u64, Instant>,
    report: &mut DatagramReport,
) -> Result<()> {
    let mut back = [0; LENGTH + 1];
    loop {
        let length = match socket.recv(&mut back) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                report.errors.push(error.to_string());
                continue;
            }
        };
        let number = u64::from_be_bytes(back[..8].try_into().expect("eight bytes"));
        ensure!(back[..length] == datagram(number), "datagram {number} came back changed");
        if let Some(sent) = waiting.remove(&number) {
            report.received += 1;
            report.longest = report.longest.max(sent.elapsed());
        }
    }
}

/// Sends back what comes, also for a while after the end was called.
fn send_back(socket: &UdpSocket, stop: &Stop) -> Result<Arrivals> {
    socket.set_nonblocking(true)?;
    let mut arrivals = Arrivals::default();
    let mut payload = [0; LENGTH + 1];
    let mut last = None;
    let never = Stop::new()?;
    loop {
        while let Ok((length, from)) = socket.recv_from(&mut payload) {
            if payload[..8] != u64::MAX.to_be_bytes() {
                arrivals.count += 1;
            }
            arrivals.from.insert(from);
            // A full queue drops the answer, which then counts as lost.
            socket.send_to(&payload[..length], from).ok();
        }
        match last {
            None if stop.or_readable(socket)? => {}
            None => last = Some(Instant::now() + GRACE),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(arrivals);
                }
                never.or_readable_within(socket, left)?;
            }
        }
    }
}
