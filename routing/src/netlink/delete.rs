// SPDX-License-Identifier: Apache-2.0
//! Deletion of links.
//!
//! The kernel acknowledges a deletion only after a barrier over all processors (a few timer ticks, 12-24 ms at 250
//! Hz), but the link has vanished, with its peer, addresses and routes, well within the first millisecond; the
//! notice of that comes at once. So a deletion waits for its notice or its acknowledgement, whichever is first.
//! Several links are deleted as one group, so that they share the grace periods before the notices, too.
//! (Switching a link off first gains nothing.)

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;

use super::message::objects;
use super::socket::{Listener, Listening, Overflow, Socket};
use super::{Host, Talk, link, on_own_thread};
use crate::kernel::{KernelError, Place};

/// What became of some links.
type Outcome = (Vec<u32>, Result<(), KernelError>);

/// Deletes links by index, one result each.
pub(super) async fn delete(host: &Host, links: Vec<u32>) -> Vec<Result<(), KernelError>> {
    let mut results: BTreeMap<u32, Result<(), KernelError>> = BTreeMap::new();
    // Without notices the acknowledgements have to do.
    let namespace = host.namespace.clone();
    let notices = on_own_thread(move || Ok(Listener::open_in(&namespace, &[MulticastGroup::Link])?)).await;
    let mut notices = notices.ok().and_then(|listener| listener.listen().ok());
    // One outcome for each link that cannot be deleted, and one for all others.
    let (tell, mut told) = mpsc::channel(links.len() + 1);
    let (job_host, job_links) = (host.clone(), links.clone());
    tokio::task::spawn_blocking(move || {
        let done =
            job_host.with(|socket| delete_now(socket, &job_links, |outcome| drop(tell.try_send(outcome))));
        if let Err(error) = done {
            // Nobody listens any more when the notices were first.
            drop(tell.try_send((job_links, Err(error.at(&Place::Host)))));
        }
    });
    while links.iter().any(|link| !results.contains_key(link)) {
        let (gone, result) = tokio::select! {
            acknowledged = told.recv() => acknowledged.unwrap_or_else(|| (links.clone(), Err(broken_off()))),
            gone = vanished(&mut notices) => (gone, Ok(())),
        };
        for ifindex in gone {
            let result = result.as_ref().map_or_else(|error| Err(error.again()), |()| Ok(()));
            results.entry(ifindex).or_insert(result);
        }
    }
    links.iter().map(|link| results.remove(link).unwrap_or_else(|| Err(broken_off()))).collect()
}

fn broken_off() -> KernelError {
    KernelError::Socket { place: Place::Host, cause: std::io::ErrorKind::BrokenPipe.into() }
}

/// Deletes links and tells of them when the kernel acknowledged that.
fn delete_now(socket: &mut Socket, links: &[u32], tell: impl Fn(Outcome)) -> Talk<()> {
    if let [link] = links {
        tell((vec![*link], socket.ask(link::delete(*link))?.map(drop).map_err(KernelError::from)));
        return Ok(());
    }
    // A number that nobody else can know: the deletion takes everything along that is in the group.
    let group = u32::try_from(RandomState::new().hash_one(links) >> 33).expect("31 bits fit") | 1;
    let marked = socket.exchange(links.iter().map(|link| link::set_group(*link, group)).collect())?;
    let mut grouped = Vec::with_capacity(links.len());
    for (link, answered) in links.iter().zip(marked) {
        match answered {
            Ok(_) => grouped.push(*link),
            Err(refused) => tell((vec![*link], Err(refused.into()))),
        }
    }
    if !grouped.is_empty() {
        tell((grouped, socket.ask(link::delete_group(group))?.map(drop).map_err(KernelError::from)));
    }
    Ok(())
}

/// The links that the next notices tell the end of; waits for ever without notices.
async fn vanished(notices: &mut Option<Listening>) -> Vec<u32> {
    let received = match notices {
        Some(listening) => listening.receive(deleted).await,
        None => std::future::pending().await,
    };
    match received {
        Ok(Ok(gone)) => gone,
        Ok(Err(Overflow)) | Err(_) => {
            *notices = None;
            Vec::new()
        }
    }
}

fn deleted(datagram: &[u8]) -> Vec<u32> {
    let deletions = objects(datagram, |header| header.message_type == link::RTM_DELLINK);
    deletions.filter_map(|object| link::read_deleted(&object)).collect()
}
