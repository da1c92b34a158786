// SPDX-License-Identifier: Apache-2.0
//! The thread that speaks BFD.
//!
//! ```text
//!   owner ── add, remove, report ──► │ commands, a wake-up │
//!                                    │                     │◄── packets in, one socket per family and kind
//!   owner ◄── events, by a closure ──│   one thread: poll  │──► packets out, one socket per session
//! ```
//!
//! It waits until the earliest deadline of a session. When it wakes up, it first reads what has come and only then
//! looks for silence, so that a machine that paused does not take its own pause for the other end's.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::Timespec;
use tracing::{debug, info, trace, warn};

use crate::config::{Change, Config, Event, Hops, Report, SessionKey};
use crate::fsm::Session;
use crate::packet::{Packet, PacketError};
use crate::priority::real_time;
use crate::socket::{READ, Receiver, Sender};
use crate::table::{Entry, Table};

/// Commands that may wait: more than an owner gives before the thread runs.
const COMMANDS: usize = 1024;

/// How long a socket that cannot be opened is left alone, and how seldom a complaint about packets is repeated.
const RETRY: Duration = Duration::from_secs(1);
const COMPLAIN: Duration = Duration::from_secs(60);

/// The kinds of sockets to receive by: hops, and whether IPv4.
const KINDS: [(Hops, bool); 4] =
    [(Hops::Single, true), (Hops::Single, false), (Hops::Multi, true), (Hops::Multi, false)];

/// Why there is no thread.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A descriptor to wake the thread by.
    #[error("make a descriptor to wake the BFD thread by")]
    Wake(#[source] io::Error),
    /// Names that cannot be guessed need chance.
    #[error("ask the kernel for random numbers")]
    Random(#[source] io::Error),
    /// The thread itself.
    #[error("start the BFD thread")]
    Thread(#[source] io::Error),
}

type Reply = Box<dyn FnOnce(Vec<Report>) + Send>;

enum Command {
    Add(SessionKey, Config),
    Remove(SessionKey),
    Report(Reply),
    Stop,
}

/// The sessions of this process. Dropping it tells all other ends that it is done (AdminDown), once, and ends the thread.
#[derive(Debug)]
pub struct Bfd {
    commands: mpsc::SyncSender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Bfd {
    /// Starts the thread, in the network namespace of the caller. `tell` hears of changes on that thread, and must not
    /// wait: while it does, nothing is sent.
    ///
    /// # Errors
    /// [`StartError`] when the kernel gives no descriptor, no random numbers or no thread. Sockets are opened when a
    /// session needs them; one that cannot be opened is complained about in the log and tried again.
    pub fn start(tell: impl FnMut(Event) + Send + 'static) -> Result<Self, StartError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(|error| StartError::Wake(error.into()))?);
        let chance = Chance::new().map_err(StartError::Random)?;
        let (commands, inbox) = mpsc::sync_channel(COMMANDS);
        let work = Work {
            inbox,
            wake: Arc::clone(&wake),
            table: Table::new(),
            receivers: [const { None }; 4],
            reopen_at: None,
            complained: None,
            chance,
            tell: Box::new(tell),
        };
        let thread = std::thread::Builder::new().name("bfd".to_owned()).spawn(move || work.run());
        Ok(Self { commands, wake, thread: Some(thread.map_err(StartError::Thread)?) })
    }

    /// Watches another end; for one that is watched already, changes how fast.
    pub fn add(&self, key: SessionKey, config: Config) {
        self.command(Command::Add(key, config));
    }

    /// Watches it no more. The other end is told so, and nothing is told of the session from now on, but what was under
    /// way. Unknown keys are passed over.
    pub fn remove(&self, key: &SessionKey) {
        self.command(Command::Remove(key.clone()));
    }

    /// Has `reply` called on the thread, with all sessions in the order of their keys.
    pub fn report(&self, reply: impl FnOnce(Vec<Report>) + Send + 'static) {
        self.command(Command::Report(Box::new(reply)));
    }

    fn command(&self, command: Command) {
        // The thread takes commands until it is stopped, and only Drop stops it.
        if self.commands.send(command).is_ok() {
            wake(&self.wake);
        }
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the BFD thread ended by a panic");
        }
    }
}

fn wake(descriptor: &OwnedFd) {
    // The only error is a counter that is full, and then the thread is woken anyway.
    rustix::io::write(descriptor, &1_u64.to_ne_bytes()).ok();
}

/// The way out of one session.
#[derive(Debug, Default)]
struct Way {
    sender: Option<Sender>,
    /// The source port of before, when the socket has to be made anew.
    port: Option<u16>,
    /// Whether the log says already that there is no way out.
    complained: bool,
}

struct Work {
    inbox: mpsc::Receiver<Command>,
    wake: Arc<OwnedFd>,
    table: Table<Way>,
    receivers: [Option<Receiver>; 4],
    reopen_at: Option<Instant>,
    complained: Option<Instant>,
    chance: Chance,
    tell: Box<dyn FnMut(Event) + Send>,
}

impl Work {
    fn run(mut self) {
        if let Err(error) = real_time() {
            debug!(%error, "BFD runs at ordinary priority");
        }
        loop {
            self.receive_all();
            let now = Instant::now();
            if !self.obey(now) {
                return self.leave(now);
            }
            self.table.sweep(now);
            self.open_receivers(now);
            self.speak(now);
            self.wait();
        }
    }

    /// Takes commands; false when there will be no more.
    fn obey(&mut self, now: Instant) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Add(key, config)) => {
                    while !self.table.add(key.clone(), config, self.chance.name()) {}
                    self.reopen_at = None;
                }
                Ok(Command::Remove(key)) => self.table.remove(&key, now),
                Ok(Command::Report(reply)) => reply(self.table.report()),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Opens the sockets that sessions need, and closes those that none does.
    fn open_receivers(&mut self, now: Instant) {
        for (receiver, (hops, v4)) in self.receivers.iter_mut().zip(KINDS) {
            if !self.table.needs(hops, v4) {
                *receiver = None;
            } else if receiver.is_none() && self.reopen_at.is_none_or(|at| at <= now) {
                match Receiver::open(hops, v4) {
                    Ok(opened) => *receiver = Some(opened),
                    Err(error) => {
                        if self.reopen_at.is_none() {
                            warn!(%error, ?hops, v4, "no socket to receive BFD by; is another BFD running here?");
                        }
                        self.reopen_at = Some(now + RETRY);
                    }
                }
            }
        }
        let lacking = |(receiver, (hops, v4)): (&Option<Receiver>, (Hops, bool))| {
            receiver.is_none() && self.table.needs(hops, v4)
        };
        if !self.receivers.iter().zip(KINDS).any(lacking) {
            self.reopen_at = None;
        }
    }

    fn receive_all(&mut self) {
        let mut buffer = [0; READ];
        for receiver in self.receivers.iter().flatten() {
            loop {
                let (length, arrival) = match receiver.receive(&mut buffer) {
                    Ok(Some(datagram)) => datagram,
                    Ok(None) => break,
                    Err(error) => {
                        debug!(%error, "a BFD packet cannot be received");
                        break;
                    }
                };
                let now = Instant::now();
                let packet = match Packet::parse(&buffer[..length]) {
                    Ok(packet) => packet,
                    Err(error) => {
                        let due = self.complained.is_none_or(|at| at + COMPLAIN <= now);
                        if error == PacketError::Authentication && due {
                            self.complained = Some(now);
                            warn!(peer = %arrival.from, %error, "BFD packets are refused");
                        } else {
                            trace!(peer = %arrival.from, %error, "BFD packet refused");
                        }
                        continue;
                    }
                };
                match self.table.find(&packet, &arrival) {
                    Ok(entry) => {
                        if let Some(change) = entry.session.receive(&packet, now) {
                            announce(&mut self.tell, entry, change);
                        }
                        // A poll is answered before the next packet is read.
                        speak(entry, now, &mut self.chance);
                    }
                    Err(why) => trace!(peer = %arrival.from, ?why, "BFD packet is nobody's"),
                }
            }
        }
    }

    /// Looks for silence and sends what is due.
    fn speak(&mut self, now: Instant) {
        for entry in self.table.entries() {
            if let Some(change) = entry.session.tick(now) {
                announce(&mut self.tell, entry, change);
            }
            speak(entry, now, &mut self.chance);
        }
    }

    /// Waits for a packet, a command or the earliest deadline.
    fn wait(&mut self) {
        let now = Instant::now();
        let deadline = [self.table.deadline(now), self.reopen_at].into_iter().flatten().min();
        let timeout = deadline.map(|at| at.saturating_duration_since(now));
        // Below a day, so it fits.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let wake = self.wake.as_fd();
        // A socket that is not there is replaced by the wake-up, which may stand in the list more than once.
        let of_receivers =
            self.receivers.each_ref().map(|receiver| receiver.as_ref().map_or(wake, AsFd::as_fd));
        let [a, b, c, d] = of_receivers;
        let mut descriptors = [wake, a, b, c, d].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                warn!(%error, "the BFD thread cannot wait");
                std::thread::sleep(RETRY);
            }
        }
        let mut count = [0; 8];
        // It says nothing that the inbox does not say.
        rustix::io::read(&self.wake, &mut count).ok();
    }

    /// Tells all other ends, once.
    fn leave(mut self, now: Instant) {
        for entry in self.table.entries() {
            entry.session.disable();
            speak(entry, now, &mut self.chance);
        }
    }
}

fn announce(tell: &mut Box<dyn FnMut(Event) + Send>, entry: &Entry<Way>, change: Change) {
    match change {
        Change::Up => info!(peer = %entry.key, "BFD session up"),
        Change::Down(diagnostic) => warn!(peer = %entry.key, %diagnostic, "BFD session down"),
        Change::AdminDown => info!(peer = %entry.key, "BFD session held down by the other end"),
    }
    if entry.leaving.is_none() {
        tell(Event { key: entry.key.clone(), change, fate: entry.session.remote_fate() });
    }
}

/// Sends what is due for one session.
fn speak(entry: &mut Entry<Way>, now: Instant, chance: &mut Chance) {
    let Entry { key, session, way, ifindex, .. } = entry;
    while let Some(packet) = Session::transmit(session, now, chance.next()) {
        if way.sender.is_none() {
            let port = way.port.unwrap_or_else(|| 49152 | (chance.next() & 0x3fff) as u16);
            match Sender::open(key, port) {
                Ok(sender) => {
                    way.port = Some(sender.port);
                    *ifindex = sender.ifindex;
                    way.complained = false;
                    way.sender = Some(sender);
                }
                Err(error) if !way.complained => {
                    way.complained = true;
                    warn!(peer = %key, %error, "no socket to send BFD by");
                }
                Err(_) => {}
            }
        }
        let Some(sender) = &way.sender else { continue };
        match sender.send(&packet.encode()) {
            Ok(()) => {}
            Err(error) => {
                trace!(peer = %key, %error, "BFD packet not sent");
                // The link went, and one of the same name may come.
                if !sender.is_on_link(key) {
                    way.sender = None;
                }
            }
        }
    }
}

/// Numbers that differ (jitter) and numbers that cannot be guessed (names).
struct Chance(u64);

impl Chance {
    fn new() -> io::Result<Self> {
        Ok(Self(random()? | 1))
    }

    /// A number for jitter (xorshift).
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// A name for a session.
    fn name(&mut self) -> NonZeroU32 {
        loop {
            // Without the kernel's random numbers, which it had before, a name is still unlike the others.
            let number = random().map_or_else(|_| self.next(), |number| number as u32);
            if let Some(name) = NonZeroU32::new(number) {
                return name;
            }
        }
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}
