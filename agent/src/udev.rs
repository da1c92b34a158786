// SPDX-License-Identifier: Apache-2.0
//! When udev is done with an interface: before, it may give it another name, which it cannot once the interface is
//! switched on.
//!
//! udev keeps a file per interface that it is done with. Where no udev runs, or its folder is not to be seen, an interface
//! is settled as soon as it is there.

use std::path::{Path, PathBuf};

use rhumb_routing::Notices;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tracing::debug;

use crate::node::Input;

/// What udev says of interfaces.
#[derive(Debug, Clone)]
pub(crate) struct Udev {
    folder: PathBuf,
}

impl Default for Udev {
    fn default() -> Self {
        Self { folder: "/run/udev".into() }
    }
}

impl Udev {
    /// Whether the interface keeps the name that it has.
    pub(crate) fn is_settled(&self, ifindex: u32) -> bool {
        !self.folder.join("control").exists() || self.data().join(format!("n{ifindex}")).exists()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Lets the loop look again whenever udev is done with something, as long as somebody listens.
    pub(crate) async fn follow(self, inbox: mpsc::Sender<Input>) {
        if let Err(error) = watch(&self.data(), &inbox).await {
            debug!(folder = %self.folder.display(), %error, "udev not followed");
        }
    }
}

async fn watch(folder: &Path, inbox: &mpsc::Sender<Input>) -> std::io::Result<()> {
    let socket = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&socket, folder, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    #[expect(deprecated, reason = "the descriptor is owned; the constructor in its stead is unsafe")]
    let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
    loop {
        let mut ready = socket.readable().await?;
        while rustix::io::read(&socket, &mut [0; 4096]).is_ok() {}
        ready.clear_ready();
        let notices = Notices { links: true, ..Notices::default() };
        if inbox.send(Input::HostChanged(notices)).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_settled_when_udev_is_done_with_it_or_there_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let udev = Udev { folder: folder.path().to_owned() };
        assert!(udev.is_settled(7), "no udev");
        std::fs::create_dir(folder.path().join("data")).expect("made");
        std::fs::write(folder.path().join("control"), "").expect("written");
        assert!(!udev.is_settled(7));
        std::fs::write(folder.path().join("data/n7"), "").expect("written");
        assert!(udev.is_settled(7) && !udev.is_settled(8));
    }

    #[tokio::test]
    async fn the_loop_hears_when_udev_is_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let udev = Udev { folder: folder.path().to_owned() };
        std::fs::create_dir(folder.path().join("data")).expect("made");
        let (inbox, mut heard) = mpsc::channel(1);
        let following = udev.follow(inbox);
        let writing = async {
            // The watch is there once the other future was asked.
            tokio::task::yield_now().await;
            std::fs::write(folder.path().join("data/n7"), "").expect("written");
            heard.recv().await
        };
        tokio::select! {
            () = following => panic!("it follows as long as somebody listens"),
            input = writing => assert!(matches!(input, Some(Input::HostChanged(notices)) if notices.links)),
        }
    }
}
