// SPDX-License-Identifier: Apache-2.0
//! Deletion of links.
//!
//! The kernel acknowledges a deletion only after a barrier over all processors (a few timer ticks, 12-24 ms at 250 Hz),
//! but the link has vanished, with its peer, addresses and routes, well within the first millisecond; the notice of
//! that comes at once. So each deletion is sent from a thread of its own, and is done with its notice or its
//! acknowledgement, whichever is first. Deletions in parallel share one barrier. (Switching the link off first gains
//! nothing; deleting a group of links as one is no faster than this, and would take foreign links of that group along.)

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::events::RTNLGRP_LINK;
use super::socket::{Listener, Listening, Overflow};
use super::wire::messages;
use super::{Break, Host, link, on_own_thread};
use crate::kernel::{KernelError, Place};

/// Deletes links by index, one result each.
pub(super) async fn delete(host: &Host, links: Vec<u32>) -> Vec<Result<(), KernelError>> {
    let mut results: Vec<Option<Result<(), KernelError>>> = Vec::new();
    results.resize_with(links.len(), || None);
    let mut open: BTreeMap<u32, usize> =
        links.iter().enumerate().map(|(at, ifindex)| (*ifindex, at)).collect();
    // Without notices the acknowledgements have to do.
    let namespace = host.namespace.clone();
    let notices = on_own_thread(move || Ok(Listener::open_in(&namespace, &[RTNLGRP_LINK])?)).await;
    let mut notices = notices.ok().and_then(|listener| listener.listen().ok());
    let (tell, mut told) = mpsc::channel(links.len().max(1));
    for ifindex in links {
        let (host, tell) = (host.clone(), tell.clone());
        tokio::task::spawn_blocking(move || {
            let result = host.with(|socket| Ok(socket.ask(link::delete(ifindex))?.map(drop)?));
            // Nobody listens any more when the notice was first.
            drop(tell.blocking_send((ifindex, result)));
        });
    }
    drop(tell);
    while !open.is_empty() {
        let (gone, result) = tokio::select! {
            acknowledged = told.recv() => match acknowledged {
                Some((ifindex, result)) => (vec![ifindex], result),
                None => break,
            },
            gone = vanished(&mut notices) => (gone, Ok(())),
        };
        let mut result = Some(result);
        for ifindex in gone {
            if let Some(at) = open.remove(&ifindex) {
                let result = result.take().unwrap_or(Ok(()));
                results[at] = Some(result.map_err(|error: Break| error.at(&Place::Host)));
            }
        }
    }
    let unknown = || Err(Break::Socket(std::io::ErrorKind::BrokenPipe.into()).at(&Place::Host));
    results.into_iter().map(|result| result.unwrap_or_else(unknown)).collect()
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
    messages(datagram)
        .filter(|message| message.kind == link::RTM_DELLINK && link::is_whole(message.payload))
        .filter_map(|message| link::ifindex(message.payload))
        .collect()
}
