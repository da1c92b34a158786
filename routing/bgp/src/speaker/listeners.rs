// SPDX-License-Identifier: Apache-2.0
//! Listening sockets: one task each that accepts, and the keys of all peers that may connect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rhumb_bgp_feed::Secret;
use rhumb_model::{Family, Prefix};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use crate::session::{listen, put_md5_key};

/// How long to wait when the kernel has no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that somebody made, and where.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) listener: SocketAddr,
    pub(crate) stream: TcpStream,
    pub(crate) remote: SocketAddr,
}

#[derive(Debug)]
struct Open {
    listener: Arc<TcpListener>,
    task: AbortHandle,
    keys: BTreeMap<Prefix, Secret>,
}

/// All listening sockets of the process.
#[derive(Debug)]
pub(crate) struct Listeners {
    open: BTreeMap<SocketAddr, Open>,
    accepted: mpsc::Sender<Accepted>,
    tasks: JoinSet<()>,
}

impl Listeners {
    pub(crate) fn new(accepted: mpsc::Sender<Accepted>) -> Self {
        Listeners { open: BTreeMap::new(), accepted, tasks: JoinSet::new() }
    }

    /// Listens where it is wanted and nowhere else, with these keys of peers. Addresses that cannot be used are
    /// returned: they are tried again with the next call.
    pub(crate) fn set(
        &mut self,
        wanted: &BTreeSet<SocketAddr>,
        keys: &BTreeMap<Prefix, Secret>,
    ) -> BTreeSet<SocketAddr> {
        self.open.retain(|address, open| {
            let stays = wanted.contains(address);
            if !stays {
                open.task.abort();
            }
            stays
        });
        let mut missing = BTreeSet::new();
        for address in wanted {
            if self.open.contains_key(address) {
                continue;
            }
            match listen(*address) {
                Ok(listener) => self.start(*address, listener),
                Err(error) => {
                    warn!(%address, %error, "cannot listen for peers");
                    missing.insert(*address);
                }
            }
        }
        for (address, open) in &mut self.open {
            open.set_keys(*address, keys);
        }
        missing
    }

    fn start(&mut self, address: SocketAddr, listener: TcpListener) {
        info!(%address, "listening for peers");
        let listener = Arc::new(listener);
        let task = self.tasks.spawn(accept(address, listener.clone(), self.accepted.clone()));
        self.open.insert(address, Open { listener, task, keys: BTreeMap::new() });
    }
}

impl Open {
    fn set_keys(&mut self, address: SocketAddr, keys: &BTreeMap<Prefix, Secret>) {
        let family = Family::of(address.ip());
        let wanted: BTreeMap<Prefix, Secret> = keys
            .iter()
            .filter(|(prefix, _)| prefix.family() == family)
            .map(|(prefix, key)| (*prefix, key.clone()))
            .collect();
        let put = |prefix: Prefix, key: &str| {
            put_md5_key(&*self.listener, prefix, key.as_bytes())
                .inspect_err(|error| warn!(%address, %prefix, %error, "cannot use the key of a peer"))
                .is_ok()
        };
        for prefix in self.keys.keys().filter(|prefix| !wanted.contains_key(prefix)) {
            put(*prefix, "");
        }
        let mut known = BTreeMap::new();
        for (prefix, key) in wanted {
            if self.keys.get(&prefix) == Some(&key) || put(prefix, key.expose()) {
                known.insert(prefix, key);
            }
        }
        self.keys = known;
    }
}

async fn accept(address: SocketAddr, listener: Arc<TcpListener>, accepted: mpsc::Sender<Accepted>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let stream = match stream.into_std() {
                    Ok(stream) => stream,
                    Err(error) => {
                        warn!(%remote, %error, "cannot hand over a connection");
                        continue;
                    }
                };
                if accepted.send(Accepted { listener: address, stream, remote }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%address, %error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
