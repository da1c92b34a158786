// SPDX-License-Identifier: Apache-2.0

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::Namespace;

/// Links, neighbours, and addresses and routes of both families, as bits of groups (rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;

/// Hears when links, neighbours, addresses or routes of namespaces change, and files of folders: what programs put into a
/// kernel, and what they write into logs. Whoever waits for a state looks at it, waits for a change, and looks again.
#[derive(Debug, Default)]
pub struct Changes(Mutex<Vec<OwnedFd>>);

impl Changes {
    /// Begins to hear of a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn add_namespace(&self, namespace: &Namespace) -> Result<()> {
        self.add(namespace.run(|| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // Protocol 0 is rtnetlink.
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, GROUPS)).context("listen to changes of routes")?;
            Ok(socket)
        })?);
        Ok(())
    }

    /// Begins to hear of the files of a folder, not of those in folders inside of it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn add_folder(&self, path: &Path) -> Result<()> {
        let folder = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE;
        inotify::add_watch(&folder, path, events).with_context(|| format!("watch {}", path.display()))?;
        self.add(folder);
        Ok(())
    }

    /// Waits until something has changed since the wait before, at most for this time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait(&self, most: Duration) -> Result<()> {
        let ears = self.0.lock().expect("no thread panics while it holds the lock");
        let mut polled: Vec<PollFd<'_>> = ears.iter().map(|ear| PollFd::new(ear, PollFlags::IN)).collect();
        poll(&mut polled, Some(&most.try_into()?))?;
        let mut buffer = [0; 1 << 14];
        for ear in ears.iter() {
            // Of the two kinds, each refuses the other's way to read.
            while recv(ear, &mut buffer[..], RecvFlags::DONTWAIT).is_ok()
                || rustix::io::read(ear, &mut buffer[..]).is_ok()
            {}
        }
        Ok(())
    }

    fn add(&self, ear: OwnedFd) {
        self.0.lock().expect("no thread panics while it holds the lock").push(ear);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_file_that_was_written_meanwhile_ends_the_wait_once() {
        let folder = tempfile::tempdir().expect("made");
        let changes = Changes::default();
        changes.add_folder(folder.path()).expect("watched");
        std::fs::write(folder.path().join("log"), "a line").expect("written");
        let begin = Instant::now();
        changes.wait(Duration::from_secs(60)).expect("waited");
        assert!(begin.elapsed() < Duration::from_secs(30));
        let begin = Instant::now();
        changes.wait(Duration::from_millis(5)).expect("waited");
        assert!(begin.elapsed() >= Duration::from_millis(5));
    }
}
