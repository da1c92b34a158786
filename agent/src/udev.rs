// SPDX-License-Identifier: Apache-2.0
//! When udev is done with an interface: before, it may give it another name, which it cannot once the interface is
//! switched on.
//!
//! udev keeps a file per interface that it is done with. Where no udev runs, or its folder is not to be seen, an interface
//! is settled as soon as it is there.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

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

    /// Tells the loop with which interfaces udev is done, as long as somebody listens.
    pub(crate) async fn follow(self, inbox: mpsc::Sender<Input>) {
        if let Err(error) = watch(&self.data(), &inbox).await {
            debug!(folder = %self.folder.display(), %error, "udev not followed");
        }
    }
}

/// Bytes of what is read of the folder's changes at once.
const CHANGES: usize = 4096;

async fn watch(folder: &Path, inbox: &mpsc::Sender<Input>) -> std::io::Result<()> {
    let socket = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&socket, folder, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    #[expect(deprecated, reason = "the descriptor is owned; the constructor in its stead is unsafe")]
    let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
    loop {
        let mut ready = socket.readable().await?;
        for ifindex in done(socket.get_ref()) {
            if inbox.send(Input::Settled(ifindex)).await.is_err() {
                return Ok(());
            }
        }
        ready.clear_ready();
    }
}

/// The interfaces whose files were put since the last time.
fn done(socket: &OwnedFd) -> BTreeSet<u32> {
    let mut buffer = [MaybeUninit::uninit(); CHANGES];
    let mut changes = inotify::Reader::new(socket, &mut buffer);
    let mut found = BTreeSet::new();
    while let Ok(change) = changes.next() {
        let name = change.file_name().and_then(|name| name.to_str().ok());
        found.extend(name.and_then(|name| name.strip_prefix('n')?.parse::<u32>().ok()));
    }
    found
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
    async fn the_loop_hears_with_which_interface_udev_is_done_and_of_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let udev = Udev { folder: folder.path().to_owned() };
        std::fs::create_dir(folder.path().join("data")).expect("made");
        let (inbox, mut heard) = mpsc::channel(1);
        let following = udev.follow(inbox);
        let writing = async {
            // The watch is there once the other future was asked.
            tokio::task::yield_now().await;
            for name in ["b259:0", "+usb:1-1", ".#n7x", "n7"] {
                std::fs::write(folder.path().join("data").join(name), "").expect("written");
            }
            heard.recv().await
        };
        tokio::select! {
            () = following => panic!("it follows as long as somebody listens"),
            input = writing => assert!(matches!(input, Some(Input::Settled(7))), "{input:?}"),
        }
    }
}
