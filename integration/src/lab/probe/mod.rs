// SPDX-License-Identifier: Apache-2.0
//! Traffic of a lab: echoes, datagrams, streams and requests, sent and answered by threads that entered a namespace.

mod capture;
mod datagrams;
mod echo;
mod http;
mod stream;

pub use capture::{Capture, Seen};
pub use datagrams::{DatagramReport, Datagrams};
pub use echo::{PingReport, Pinger, ping, ping_as};
pub use http::{HttpServer, Reply, http_post, tcp_reaches};
pub use stream::{Slow, Stream, StreamReport};

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::os::fd::{AsFd, OwnedFd};

/// Tells threads to end; they wait for it together with their sockets.
#[derive(Debug, Clone)]
struct Stop(Arc<OwnedFd>);

impl Stop {
    fn new() -> Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    fn call(&self) {
        rustix::io::write(&*self.0, &1u64.to_ne_bytes()).ok();
    }

    /// Whether the end was called within this time.
    fn called_within(&self, time: Duration) -> Result<bool> {
        Ok(poll(&mut [PollFd::new(&*self.0, PollFlags::IN)], Some(&time.try_into()?))? > 0)
    }

    /// Waits until `socket` can be read (true) or the end was called (false).
    fn or_readable(&self, socket: impl AsFd) -> Result<bool> {
        let mut both = [PollFd::new(&*self.0, PollFlags::IN), PollFd::new(&socket, PollFlags::IN)];
        poll(&mut both, None)?;
        Ok(both[0].revents().is_empty())
    }

    /// Waits for this long, until the end was called (true), or `socket` can be read or has an error.
    fn or_readable_within(&self, socket: impl AsFd, time: Duration) -> Result<bool> {
        let mut both = [PollFd::new(&*self.0, PollFlags::IN), PollFd::new(&socket, PollFlags::IN)];
        poll(&mut both, Some(&time.try_into()?))?;
        Ok(!both[0].revents().is_empty())
    }
}
