// SPDX-License-Identifier: Apache-2.0
//! Answers to the questions of the command line.

use rhumb_bgp_feed::{Answer, Explanation, PeerKey, PolicyView, Question, RouteView, Table};
use rhumb_model::{Family, Prefix};
use tokio::sync::oneshot;

use super::{Speaker, answer};

impl Speaker {
    pub(super) fn ask(&mut self, question: Question, reply: oneshot::Sender<Answer>) {
        let said = match question {
            Question::Peers => self.peers_as_they_are(),
            Question::Routes { table, peer, family, most } => self.routes(table, peer.as_ref(), family, most),
            Question::Policy { peer } => self.policies(peer.as_ref()),
            Question::Explain { prefix } => self.explain(prefix),
            Question::Drain { reason } => return self.drain(reason, reply),
            Question::Undrain => {
                self.undrain();
                Answer::Done
            }
        };
        answer(reply, said);
    }

    fn peers_as_they_are(&self) -> Answer {
        let states =
            self.peers.values().filter_map(|peer| Some(peer.published(self.ribs.get(&peer.instance)?)));
        Answer::Peers(states.collect())
    }

    fn routes(&self, table: Table, peer: Option<&PeerKey>, family: Option<Family>, most: usize) -> Answer {
        let mut routes: Vec<RouteView> = Vec::new();
        let mut more = 0;
        for (name, rib) in &self.ribs {
            let views: Box<dyn Iterator<Item = RouteView>> = match table {
                Table::In => Box::new(rib.routes_in(name, peer, family)),
                Table::Out => Box::new(rib.routes_out(name, peer, family)),
                Table::Best => {
                    let of_peer = move |view: &RouteView| peer.is_none() || view.peer.as_ref() == peer;
                    Box::new(rib.routes_best(name, family).filter(of_peer))
                }
            };
            for view in views {
                if routes.len() < most {
                    routes.push(view);
                } else {
                    more += 1;
                }
            }
        }
        Answer::Routes { routes, more }
    }

    fn policies(&self, peer: Option<&PeerKey>) -> Answer {
        let wanted = self.peers.values().filter(|known| peer.is_none_or(|key| *key == known.config.key));
        let views = wanted.map(|known| PolicyView {
            instance: known.instance.clone(),
            peer: known.config.key.clone(),
            import: known.config.import.clone(),
            export: known.config.export.clone(),
        });
        Answer::Policies(views.collect())
    }

    fn explain(&self, asked: Prefix) -> Answer {
        // Packets to an address follow the longest prefix around it.
        let covering = self.ribs.values().filter_map(|rib| rib.covering(asked));
        let prefix = covering.max_by_key(|prefix| prefix.len()).unwrap_or(asked);
        let mut explanation =
            Explanation { prefix, candidates: Vec::new(), told: Vec::new(), notes: Vec::new() };
        if prefix != asked {
            explanation.notes.push(format!("There is no route to {asked} itself: {prefix} is around it."));
        }
        for (name, rib) in &self.ribs {
            let (candidates, told) = rib.explain(name, prefix);
            explanation.candidates.extend(candidates);
            explanation.told.extend(told);
        }
        if explanation.candidates.is_empty() {
            explanation
                .notes
                .push("Nobody has told of this prefix, and it is none of this node's.".to_owned());
        }
        explanation.notes.extend(self.kernel_notes(prefix));
        if self.drain.is_some() {
            explanation.notes.push("The node is being drained.".to_owned());
        }
        if !self.settled {
            explanation.notes.push("The speaker has restarted, and routes are not complete yet.".to_owned());
        }
        Answer::Explanation(explanation)
    }
}
