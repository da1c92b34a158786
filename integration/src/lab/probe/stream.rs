// SPDX-License-Identifier: Apache-2.0

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::Stop;
use crate::lab::Namespace;
use crate::lab::namespace::enter;

const CHUNK: usize = 1024;
const INTERVAL: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(20);
/// The shortest time after which Linux sends a segment again.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(200);

/// A long-lived TCP connection over which numbered chunks go back and forth.
#[derive(Debug)]
pub struct Stream {
    stop: Stop,
    client: Option<JoinHandle<Result<StreamReport>>>,
    server: Option<JoinHandle<Result<u64>>>,
}

/// A chunk that was on its way for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// When it was sent.
    pub sent: Instant,
    /// How long it took there and back.
    pub took: Duration,
}

/// What became of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// Chunks of 1 KiB that came back as they were sent.
    pub chunks: u64,
    /// Longest time that a chunk was on its way there and back.
    pub longest: Duration,
    /// Chunks that took longer than the shortest time after which TCP sends again.
    pub slow: Vec<Slow>,
    /// Segments that both sides had to send again, as their kernels counted them: a lost packet shows here.
    pub retransmitted: u64,
}

impl Stream {
    /// Connects from one namespace to an address in another and starts to send.
    ///
    /// # Errors
    /// When there is no connection within 20 seconds.
    pub fn start(from: &Namespace, to: &Namespace, address: IpAddr) -> Result<Self> {
        let listener = to.run(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?))?;
        let port = listener.local_addr()?.port();
        let stream = from.run(|| {
            let to = SocketAddr::new(address, port);
            TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))
        })?;
        let (accepted, _) = listener.accept()?;
        let stop = Stop::new()?;
        let (called, here, there) = (stop.clone(), from.path().to_owned(), to.path().to_owned());
        let server = std::thread::spawn(move || counted(there, || echo(accepted)).map(|((), count)| count));
        let client = std::thread::spawn(move || {
            let (mut report, count) = counted(here, || send(stream, &called))?;
            report.retransmitted = count;
            Ok(report)
        });
        Ok(Self { stop, client: Some(client), server: Some(server) })
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// When the connection broke, or a chunk came back other than it was sent.
    pub fn stop(mut self) -> Result<StreamReport> {
        self.stop.call();
        let client = self.client.take().context("the stream was stopped before")?;
        let server = self.server.take().context("the stream was stopped before")?;
        let mut report = client.join().map_err(|_| anyhow!("the client of a stream panicked"))??;
        report.retransmitted += server.join().map_err(|_| anyhow!("the server of a stream panicked"))??;
        Ok(report)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.call();
    }
}

impl StreamReport {
    /// Nothing when no segment was sent twice.
    ///
    /// # Errors
    /// Says how many were.
    pub fn nothing_lost(&self) -> Result<()> {
        ensure!(
            self.retransmitted == 0,
            "{} TCP segments were sent again within {} chunks; the longest way took {:?}",
            self.retransmitted,
            self.chunks,
            self.longest
        );
        Ok(())
    }
}

/// Does the work inside a namespace, and counts the segments that were sent again there meanwhile.
fn counted<T>(netns: PathBuf, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    enter(&netns)?;
    let before = retransmitted()?;
    let result = work()?;
    Ok((result, retransmitted()? - before))
}

fn send(mut stream: TcpStream, stop: &Stop) -> Result<StreamReport> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut report = StreamReport { chunks: 0, longest: Duration::ZERO, slow: Vec::new(), retransmitted: 0 };
    while !stop.called_within(INTERVAL)? {
        let mut chunk = [0xa5; CHUNK];
        chunk[..8].copy_from_slice(&report.chunks.to_be_bytes());
        let sent = Instant::now();
        stream.write_all(&chunk).context("send a chunk")?;
        let mut back = [0; CHUNK];
        stream.read_exact(&mut back).with_context(|| format!("read chunk {} back", report.chunks))?;
        ensure!(back == chunk, "chunk {} came back changed", report.chunks);
        let took = sent.elapsed();
        report.longest = report.longest.max(took);
        if took >= SHORTEST_TIMEOUT {
            report.slow.push(Slow { sent, took });
        }
        report.chunks += 1;
    }
    Ok(report)
}

fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut chunk = [0; CHUNK];
    while stream.read(&mut chunk[..1])? == 1 {
        stream.read_exact(&mut chunk[1..])?;
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// `RetransSegs` of the calling thread's namespace.
fn retransmitted() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().context("no TCP names")?, lines.next().context("no TCP values")?);
    let place = names.split(' ').position(|name| name == "RetransSegs").context("RetransSegs is counted")?;
    Ok(values.split(' ').nth(place).context("as many values as names")?.parse()?)
}
