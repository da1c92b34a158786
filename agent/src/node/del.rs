// SPDX-License-Identifier: Apache-2.0
//! DEL and GC: the endpoint goes, its objects follow, the lease is freed last.

use std::collections::BTreeSet;

use rhumb_cni::failpoint;
use rhumb_cni::protocol::{Refusal, RefusalKind, Reply};
use rhumb_model::AttachmentKey;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::add::{on_purpose, refusal};
use super::{Node, Pending, refuse_all, wall_clock};

impl Node {
    pub(super) fn begin_del(&mut self, key: &AttachmentKey, reply: oneshot::Sender<Reply>) {
        if let Err(hit) = failpoint::pass("agent.del.before_remove", key.container.as_str()) {
            refuse_all(vec![reply], &on_purpose(hit));
            return;
        }
        self.begin_removal(key, Reply::Done, vec![reply]);
    }

    /// Takes an endpoint out of the desired state; `outcome` is answered once its objects are gone.
    pub(super) fn begin_removal(
        &mut self,
        key: &AttachmentKey,
        outcome: Reply,
        replies: Vec<oneshot::Sender<Reply>>,
    ) {
        let mut replies: Vec<_> = replies.into_iter().map(|reply| (reply, outcome.clone())).collect();
        let Some(endpoint) = self.ledger.endpoints().get(key).cloned() else {
            for (reply, outcome) in replies {
                drop(reply.send(outcome));
            }
            return;
        };
        match self.pending.remove(key) {
            Some(Pending::Removing { objects, replies: mut waiting }) => {
                waiting.append(&mut replies);
                self.pending.insert(key.clone(), Pending::Removing { objects, replies: waiting });
                return;
            }
            Some(Pending::Adding { replies }) => {
                let text = "the attachment was removed while it was added".to_owned();
                refuse_all(replies, &refusal(RefusalKind::TryAgain, text));
            }
            None => {}
        }
        let objects = Box::new(self.objects_of(&endpoint));
        self.chained_links.remove(key);
        self.pending.insert(key.clone(), Pending::Removing { objects, replies });
        self.tables.touch();
    }

    /// Attachments of a network that are not to be kept.
    pub(super) fn stale(&self, network: &str, keep: &[AttachmentKey]) -> Vec<AttachmentKey> {
        let keep: BTreeSet<&AttachmentKey> = keep.iter().collect();
        self.ledger
            .endpoints()
            .values()
            .filter(|endpoint| endpoint.network == network && !keep.contains(&endpoint.key))
            .map(|endpoint| endpoint.key.clone())
            .collect()
    }

    /// Writes that these attachments are gone, and answers those who wait.
    pub(super) fn finish_removals(&mut self, gone: Vec<AttachmentKey>) {
        let mut keys = Vec::new();
        for key in gone {
            match failpoint::pass("agent.del.before_journal", key.container.as_str()) {
                Ok(()) => keys.push(key),
                Err(hit) => self.answer_removal(&key, Some(on_purpose(hit))),
            }
        }
        if keys.is_empty() {
            return;
        }
        let written = self.ledger.detach(&keys, wall_clock());
        if let Err(error) = &written {
            warn!(error = error as &dyn std::error::Error, "removals not written");
        }
        for key in keys {
            let refused = match &written {
                Ok(()) => {
                    failpoint::pass("agent.del.after_journal", key.container.as_str()).err().map(on_purpose)
                }
                Err(error) => Some(refusal(RefusalKind::Io, error.to_string())),
            };
            if written.is_ok() {
                info!(container = %key.container, ifname = %key.ifname, "attachment removed");
            }
            self.forget_namespace(&key);
            self.answer_removal(&key, refused);
        }
    }

    /// Answers with the outcome that was promised, or with the refusal that came in between.
    fn answer_removal(&mut self, key: &AttachmentKey, refused: Option<Refusal>) {
        let Some(Pending::Removing { replies, .. }) = self.pending.remove(key) else { return };
        for (reply, outcome) in replies {
            drop(reply.send(refused.clone().map_or(outcome, Reply::Refused)));
        }
    }
}
