// SPDX-License-Identifier: Apache-2.0
//! The double as servers: EC2 and, one per instance, the metadata service, each on a port of its own.
//!
//! ```text
//!   client ── EC2 Query ──► ec2 ──┐                       ┌──► hooks: newline JSON, to each who connects
//!   test ──── JSON ───────► control ──► Handle (clock + Fake) ──┤
//!   agent ─── IMDSv2 ─────► imds(instance) ─┘             └──► ticker: lets events happen in their time
//! ```

mod clock;
mod control;
mod ec2;
mod hooks;
mod http;
mod imds;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rhumb_model::{InstanceId, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use clock::Pace;

use crate::fake::Fake;
use crate::state::Hook;
use clock::Clock;

/// What tests hold: the double, its clock, and its servers' addresses. Clones are the same double.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fake: Mutex<Inner>,
    /// Counts everything that may make somebody wait for something else: changes of the clock, calls, hooks.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    fake: Fake,
    clock: Clock,
    /// All hooks so far: who connects late is told everything.
    hooks: Vec<Hook>,
}

impl Handle {
    /// A double whose clock stands still until told otherwise, at the time of its world.
    pub fn new(fake: Fake) -> Self {
        let clock = Clock::new(fake.world().now());
        let inner = Inner { fake, clock, hooks: Vec::new() };
        Self { shared: Arc::new(Shared { fake: Mutex::new(inner), changed: watch::Sender::new(0) }) }
    }

    /// Looks at the double, or changes it, at the present time of its clock.
    pub fn with<T>(&self, act: impl FnOnce(&mut Fake, Timestamp) -> T) -> T {
        let mut inner = self.lock();
        let now = inner.clock.now();
        inner.fake.advance(now);
        let result = act(&mut inner.fake, now);
        inner.collect();
        drop(inner);
        self.shared.changed.send_modify(|count| *count += 1);
        result
    }

    /// The time of its clock.
    pub fn now(&self) -> Timestamp {
        self.lock().clock.now()
    }

    /// Sets the clock forward, whether it runs or stands; what happens until then has happened when this returns.
    pub fn advance(&self, by: Duration) -> Timestamp {
        self.lock().clock.advance(by);
        self.with(|_, now| now)
    }

    /// Lets the clock run, or stand still.
    pub fn pace(&self, pace: Pace) {
        self.lock().clock.set(pace);
        self.shared.changed.send_modify(|count| *count += 1);
    }

    /// The hooks from number `from` on, the first being 0.
    pub fn hooks(&self, from: usize) -> Vec<Hook> {
        self.lock().hooks.get(from..).unwrap_or_default().to_vec()
    }

    /// Waits until the clock shows `time`: for ever, when it stands and nobody sets it.
    pub async fn reach(&self, time: Timestamp) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            let wait = self.lock().clock.until(time);
            match wait {
                Some(Duration::ZERO) => return,
                Some(wait) => drop(tokio::time::timeout(wait, changed.changed()).await),
                None if changed.changed().await.is_err() => return,
                None => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What a panicking test left is looked at by its other threads at most.
        self.shared.fake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn collect(&mut self) {
        self.hooks.extend(self.fake.world_mut().take_hooks());
    }
}

/// Where to listen; port 0 is any.
#[derive(Debug, Clone, Copy)]
pub struct Listen {
    /// For EC2.
    pub ec2: SocketAddr,
    /// For the control endpoint.
    pub control: SocketAddr,
    /// For the stream of hooks.
    pub hooks: SocketAddr,
}

impl Listen {
    /// Any ports of the loopback address.
    pub fn loopback() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { ec2: any, control: any, hooks: any }
    }
}

/// The servers; they end when this is dropped.
#[derive(Debug)]
pub struct Servers {
    handle: Handle,
    listen: Listen,
    _ticker: JoinSet<()>,
    _servers: JoinSet<()>,
    imds: Arc<imds::Listeners>,
}

impl Servers {
    /// Starts the servers on a tokio runtime.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub async fn start(handle: Handle, listen: Listen) -> io::Result<Self> {
        let (ec2, control) = (TcpListener::bind(listen.ec2).await?, TcpListener::bind(listen.control).await?);
        let hooks = TcpListener::bind(listen.hooks).await?;
        let listen =
            Listen { ec2: ec2.local_addr()?, control: control.local_addr()?, hooks: hooks.local_addr()? };
        let imds = Arc::new(imds::Listeners::default());
        let (mut ticker, mut servers) = (JoinSet::new(), JoinSet::new());
        ticker.spawn(tick(handle.clone()));
        servers.spawn(ec2::serve(ec2, handle.clone()));
        servers.spawn(control::serve(control, handle.clone(), Arc::clone(&imds)));
        servers.spawn(hooks::serve(hooks, handle.clone()));
        Ok(Self { handle, listen, _ticker: ticker, _servers: servers, imds })
    }

    /// The double itself.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where EC2 listens.
    pub fn ec2(&self) -> SocketAddr {
        self.listen.ec2
    }

    /// Where the control endpoint listens.
    pub fn control(&self) -> SocketAddr {
        self.listen.control
    }

    /// Where the stream of hooks listens.
    pub fn hooks(&self) -> SocketAddr {
        self.listen.hooks
    }

    /// Starts the metadata service of an instance.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn imds(&self, instance: InstanceId, listen: SocketAddr) -> io::Result<SocketAddr> {
        self.imds.start(self.handle.clone(), instance, listen).await
    }
}

/// Lets what happens by itself happen in its time, so that hooks come without anybody asking.
async fn tick(handle: Handle) {
    let mut changed = handle.shared.changed.subscribe();
    loop {
        let next = {
            let mut inner = handle.lock();
            let now = inner.clock.now();
            inner.fake.advance(now);
            inner.fake.world().next_event()
        };
        let reached = async {
            match next {
                Some(next) => handle.reach(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = reached => handle.with(|_, _| ()),
            result = changed.changed() => if result.is_err() { return },
        }
    }
}
