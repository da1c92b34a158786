// SPDX-License-Identifier: Apache-2.0
//! The light probe between agents: asks those of other nodes whether they answer, and answers theirs.
//!
//! ```text
//!   loop ── whom to ask ─► this task ── questions, answers ─► UDP, one socket per family
//!     ▲                        │  └──── echoes, while somebody is in doubt ─► raw sockets
//!     └── who fell silent ─────┘
//! ```

mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::RandomState;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rhumb_model::{Family, NodeName};
use rhumb_routing::probe::{Answers, Datagram, Kind, Prober, Row, Settings};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::node::Input;
use sockets::{Came, Sockets};

/// Sockets that cannot be had are tried again after this time: an agent that is being replaced may still hold the port.
const RETRY: Duration = Duration::from_secs(5);

/// What is taken in at once, and the pause after as much.
const BATCH: usize = 256;
const REST: Duration = Duration::from_millis(10);

/// The longest that is slept without anybody to ask.
const IDLE: Duration = Duration::from_secs(60);

/// Whom to ask: the addresses of other nodes.
pub(crate) type Targets = BTreeMap<IpAddr, NodeName>;

/// What is known of everybody, and what was counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    /// Datagrams by what became of them.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Report {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// For people.
    pub(crate) fn show(&self) -> Value {
        let row = |row: &Row| json!({"address": row.addr, "node": row.node, "state": row.state.word(), "misses": row.misses});
        self.rows.iter().map(row).collect()
    }
}

/// Asks and answers until the loop is gone.
pub(crate) async fn run(
    port: u16,
    own: NodeName,
    mut targets: watch::Receiver<Targets>,
    inbox: mpsc::Sender<Input>,
    report: watch::Sender<Report>,
) {
    let mut sockets = open(port).await;
    let mut probe = Probe {
        prober: Prober::new(Settings::default(), RandomState::new()),
        answers: Answers::new(own),
        report: Report::default(),
        silent: BTreeSet::new(),
    };
    loop {
        let next = probe.prober.next().unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            () = sockets.readable() => {}
            () = tokio::time::sleep_until(next.into()) => {}
            changed = targets.changed() => match changed {
                Ok(()) => probe.watch(&targets.borrow_and_update()),
                Err(_) => return,
            },
            () = inbox.closed() => return,
        }
        // Everything that has come counts before anybody is asked anew: this process may have stood still.
        let came = (0..BATCH).map_while(|_| sockets.receive().map(|came| probe.take(came, &sockets))).count();
        let asked = probe.ask(&mut sockets);
        if (asked || !probe.silent.is_empty())
            && let Some(silent) = probe.news()
            && inbox.send(Input::Silent(silent)).await.is_err()
        {
            return;
        }
        if asked {
            report.send_replace(probe.report());
        }
        if came == BATCH {
            // Whoever floods the port gets no more of this thread than this.
            tokio::time::sleep(REST).await;
        }
    }
}

async fn open(port: u16) -> Sockets {
    let mut said = false;
    loop {
        match Sockets::open(port) {
            Ok(sockets) => {
                info!(port, "other agents are probed and answered");
                return sockets;
            }
            Err(error) if said => debug!(port, %error, "no probes"),
            Err(error) => warn!(port, %error, "no probes between agents; trying again"),
        }
        said = true;
        tokio::time::sleep(RETRY).await;
    }
}

struct Probe {
    prober: Prober,
    answers: Answers,
    report: Report,
    /// Who is silent, as the loop knows it.
    silent: BTreeSet<IpAddr>,
}

impl Probe {
    fn watch(&mut self, targets: &Targets) {
        self.prober.watch(targets, Instant::now());
        self.answers.know(&targets.keys().copied().collect());
    }

    fn take(&mut self, came: Came, sockets: &Sockets) {
        match came {
            Came::Datagram { from, bytes } => {
                let Ok(datagram) = Datagram::parse(&bytes) else { return self.report.count("foreign") };
                match datagram.kind {
                    Kind::Question => {
                        match self.answers.answer(&datagram, from.ip().to_canonical(), Instant::now()) {
                            Ok(answer) => {
                                sockets.send(from, &answer.to_bytes());
                                self.report.count("answer_sent");
                            }
                            Err(ignored) => {
                                debug!(%from, ?ignored, "probe not answered");
                                self.report.count("ignored");
                            }
                        }
                    }
                    Kind::Answer => {
                        let known = self.prober.answered(&datagram);
                        self.report.count(if known { "answered" } else { "foreign" });
                    }
                }
            }
            Came::Sign(sign) => {
                if self.prober.signed(sign) {
                    self.report.count("sign_of_life");
                }
            }
        }
    }

    /// Asks who is due; `false` when nobody was.
    fn ask(&mut self, sockets: &mut Sockets) -> bool {
        let asks = self.prober.step(Instant::now());
        sockets.hear_signs(self.prober.wants_echoes());
        let asked = !asks.is_empty();
        for ask in asks {
            sockets.ask(ask.addr, &ask.question.to_bytes());
            self.report.count("asked");
            if ask.echo {
                sockets.echo(ask.addr, Family::of(ask.addr), ask.question.number);
                self.report.count("echo_asked");
            }
        }
        asked
    }

    /// Who is silent, when that changed.
    fn news(&mut self) -> Option<BTreeSet<IpAddr>> {
        let silent = self.prober.silent();
        if silent == self.silent {
            return None;
        }
        for addr in silent.difference(&self.silent) {
            warn!(%addr, "node does not answer the probe any more");
        }
        for addr in self.silent.difference(&silent) {
            info!(%addr, "node answers the probe again");
        }
        self.silent.clone_from(&silent);
        Some(silent)
    }

    fn report(&mut self) -> Report {
        self.report.rows = self.prober.rows().collect();
        self.report.clone()
    }
}
