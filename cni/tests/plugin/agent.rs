// SPDX-License-Identifier: Apache-2.0
//! An agent that does nothing but answer as a test tells it, and remember what it was asked.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rhumb_cni::protocol::{Address, AddressSource, Attachment, Interface, Reply, Request, Route};
use rhumb_cni::server;
use rustix::net::{Shutdown, shutdown};
use serde_json::Value;

/// One request that arrived.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    /// Inode of the namespace whose descriptor came with it.
    pub(crate) netns: Option<u64>,
}

/// What the agent does with one request.
pub(crate) enum Answer {
    Say(Reply),
    /// Closes the connection without a word.
    HangUp,
    /// Ends the agent, as when it is killed while it works.
    Die,
    /// Answers only when the agent is dropped.
    Never,
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
    held: Mutex<Vec<UnixStream>>,
}

/// Listens until it is dropped.
pub(crate) struct Agent {
    socket: PathBuf,
    listener: UnixListener,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Listens at `socket`, and answers with success what the script does not answer otherwise.
    pub(crate) fn listen(socket: &Path) -> Self {
        drop(std::fs::remove_file(socket));
        let listener = UnixListener::bind(socket).expect("socket");
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let accepting = listener.try_clone().expect("descriptor");
        let thread = std::thread::spawn(move || {
            // Shut down by the drop, the socket refuses to accept.
            while let Ok((stream, _)) = accepting.accept() {
                serve(&own, &accepting, stream);
            }
        });
        Self { socket: socket.to_owned(), listener, shared, thread: Some(thread) }
    }

    /// Answers the next requests so, in this order.
    pub(crate) fn then(self, answers: impl IntoIterator<Item = Answer>) -> Self {
        self.shared.script.lock().expect("lock").extend(answers);
        self
    }

    /// Takes what was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.asked.lock().expect("lock"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        assert_eq!(shutdown(&self.listener, Shutdown::Both), Ok(()));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        drop(std::fs::remove_file(&self.socket));
    }
}

fn serve(shared: &Shared, listener: &UnixListener, stream: UnixStream) {
    let (request, netns): (Request, Option<OwnedFd>) = match server::receive(&stream) {
        Ok(received) => received,
        Err(error) => {
            if let Some(refusal) = error.refusal() {
                drop(server::reply(&stream, &Reply::Refused(refusal)));
            }
            return;
        }
    };
    let otherwise = Answer::Say(success(&request));
    let netns = netns.map(|fd| File::from(fd).metadata().expect("namespace").ino());
    shared.asked.lock().expect("lock").push(Asked { request, netns });
    match shared.script.lock().expect("lock").pop_front().unwrap_or(otherwise) {
        Answer::Say(reply) => drop(server::reply(&stream, &reply)),
        Answer::HangUp => {}
        Answer::Die => assert_eq!(shutdown(listener, Shutdown::Both), Ok(())),
        Answer::Never => shared.held.lock().expect("lock").push(stream),
    }
}

fn success(request: &Request) -> Reply {
    let Request::Add(add) = request else { return Reply::Done };
    let given = match &add.addresses {
        AddressSource::Pool { requested } if requested.is_empty() => vec!["10.244.0.5/32", "fd00::5/128"],
        AddressSource::Pool { .. } | AddressSource::Delegated { .. } | AddressSource::Chained { .. } => {
            vec![]
        }
    };
    let mut addresses: Vec<_> = given.iter().map(|a| a.parse().expect("address")).collect();
    match &add.addresses {
        AddressSource::Pool { requested } => {
            addresses.extend(requested.iter().map(|ip| ipnetwork::IpNetwork::from(*ip)));
        }
        AddressSource::Delegated { addresses: a, .. } | AddressSource::Chained { addresses: a, .. } => {
            addresses.extend(a);
        }
    }
    let mtu = add.mtu.unwrap_or(1500);
    let interface = |name: &str, mac: &str| Interface {
        name: name.parse().expect("name"),
        mac: mac.parse().expect("mac"),
        mtu,
    };
    Reply::Added(Attachment {
        host: interface("rh0123456789", "02:00:00:00:00:01"),
        container: interface(add.key.ifname.as_str(), "02:00:00:00:00:02"),
        addresses: addresses.into_iter().map(|address| Address { address, gateway: None }).collect(),
        routes: vec![Route { dst: "0.0.0.0/0".parse().expect("prefix"), gw: None, mtu: None }],
    })
}

/// Asserts that `stdout` is exactly one JSON object, and gives it back.
pub(crate) fn single_object(stdout: &[u8]) -> Value {
    let text = std::str::from_utf8(stdout).expect("stdout is UTF-8");
    let value = serde_json::from_str::<Value>(text);
    assert!(value.as_ref().is_ok_and(Value::is_object), "{text:?}");
    value.expect("object")
}
