// SPDX-License-Identifier: Apache-2.0
//! Those who watch, what each wants to hear, and what each lost.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use rhumb_ebpf::{Events, Reason, Untold, Verdict, Wish};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::warn;

use super::KEPT;
use super::record::{Names, Record};
use crate::question::Packets;

/// How many lines wait for one watcher: as many as are kept, so that those fit.
pub(crate) const LINES: usize = KEPT;

/// What somebody wants to hear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) drops: bool,
    pub(crate) traces: bool,
    pub(crate) pod: Option<String>,
    pub(crate) reason: Option<Reason>,
    pub(crate) last: Option<usize>,
}

/// No reason has this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no reason is called {0}")]
pub(crate) struct UnknownReason(String);

impl TryFrom<Packets> for Request {
    type Error = UnknownReason;

    fn try_from(Packets { drops, traces, pod, reason, last }: Packets) -> Result<Self, UnknownReason> {
        let known = |name: String| {
            let found = Reason::ALL.iter().find(|reason| reason.text() == name).copied();
            found.ok_or(UnknownReason(name))
        };
        Ok(Self { drops, traces, pod, reason: reason.map(known).transpose()?, last })
    }
}

impl Request {
    fn wants(&self, record: &Record) -> bool {
        let verdict = if record.verdict() == Verdict::Drop { self.drops } else { self.traces };
        verdict
            && self.reason.is_none_or(|reason| reason == record.why())
            && self.pod.as_ref().is_none_or(|pod| record.concerns(pod))
    }

    /// Whether the kernel side must tell of more than drops for this.
    fn wants_traces(&self) -> bool {
        self.traces && self.reason.is_none_or(|reason| reason.verdict() != Verdict::Drop)
    }
}

/// Somebody who begins to watch.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) request: Request,
    pub(crate) lines: mpsc::Sender<Rc<str>>,
}

#[derive(Debug)]
struct Watcher {
    request: Request,
    lines: mpsc::Sender<Rc<str>>,
    lost: u64,
}

impl Watcher {
    /// Gives a line to the watcher, or counts it as lost.
    fn say(&mut self, line: Rc<str>) {
        if self.lost > 0 {
            let notice = json!({ "lost": self.lost }).to_string();
            if self.lines.try_send(notice.into()).is_ok() {
                self.lost = 0;
            }
        }
        if self.lost > 0 || self.lines.try_send(line).is_err() {
            self.lost += 1;
        }
    }
}

/// Everybody who watches.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    all: Vec<Watcher>,
    /// What was not told by the kernel side when it was last asked; nothing when nobody watched then.
    untold: Option<BTreeMap<Reason, u64>>,
}

impl Watchers {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn forget_the_gone(&mut self) {
        self.all.retain(|watcher| !watcher.lines.is_closed());
    }

    /// Takes in a watcher; one who asks for kept drops has them all now, and the end with them.
    pub(super) fn join(&mut self, join: Join, kept: &VecDeque<Rc<Record>>) {
        let mut watcher = Watcher { request: join.request, lines: join.lines, lost: 0 };
        let Some(last) = watcher.request.last else {
            if self.all.is_empty() {
                self.untold = None;
            }
            self.all.push(watcher);
            return;
        };
        let wanted: Vec<_> = kept.iter().filter(|record| watcher.request.wants(record)).collect();
        for record in &wanted[wanted.len().saturating_sub(last)..] {
            watcher.say(line(record));
        }
    }

    /// Tells everybody who wants to hear it.
    pub(super) fn offer(&mut self, record: &Record) {
        let mut text: Option<Rc<str>> = None;
        for watcher in self.all.iter_mut().filter(|watcher| watcher.request.wants(record)) {
            watcher.say(text.get_or_insert_with(|| line(record)).clone());
        }
    }

    /// Says how many packets the kernel side did not tell of since last time.
    pub(super) fn say_untold(&mut self, events: &Events) {
        match events.untold() {
            Ok(untold) => self.take_untold(&untold),
            Err(error) => warn!(error = &error as &dyn std::error::Error, "untold packets not counted"),
        }
    }

    fn take_untold(&mut self, untold: &[Untold]) {
        let now = untold.iter().map(|untold| (untold.reason, untold.limited + untold.full)).collect();
        let Some(before) = self.untold.replace(now) else { return };
        for Untold { reason, limited, full } in untold {
            let more = (limited + full).saturating_sub(before.get(reason).copied().unwrap_or(0));
            if more == 0 {
                continue;
            }
            let line: Rc<str> = json!({"untold": more, "reason": reason.text()}).to_string().into();
            let drop = reason.verdict() == Verdict::Drop;
            for watcher in &mut self.all {
                let request = &watcher.request;
                let concerned = if drop { request.drops } else { request.traces };
                if concerned && request.reason.is_none_or(|wanted| wanted == *reason) {
                    watcher.say(Rc::clone(&line));
                }
            }
        }
    }

    /// What all watchers together want of the kernel side besides drops.
    pub(super) fn wish(&self, names: &Names) -> Option<Wish> {
        let mut wish: Option<Wish> = None;
        for request in
            self.all.iter().map(|watcher| &watcher.request).filter(|request| request.wants_traces())
        {
            let addrs = match &request.pod {
                Some(pod) => match names.addresses(pod) {
                    // The pod is not there yet.
                    none if none.is_empty() => continue,
                    addrs => Some(addrs),
                },
                None => None,
            };
            let own = Wish { addrs: addrs.unwrap_or_default(), reason: request.reason };
            wish = Some(match wish {
                None => own,
                Some(others) => both(others, own),
            });
        }
        wish
    }
}

/// The least wish that takes in both.
fn both(one: Wish, other: Wish) -> Wish {
    let mut addrs = Vec::new();
    if !one.addrs.is_empty() && !other.addrs.is_empty() {
        addrs = [one.addrs, other.addrs].concat();
        addrs.sort();
        addrs.dedup();
    }
    Wish { addrs, reason: one.reason.filter(|reason| other.reason == Some(*reason)) }
}

fn line(record: &Record) -> Rc<str> {
    serde_json::to_string(record).expect("a record has text keys and plain values").into()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::record::tests::{event, names};
    use super::*;

    fn record(reason: Reason, src: &str, dst: &str) -> Rc<Record> {
        Rc::new(Record::new(&event(reason, src, dst), UNIX_EPOCH, &names()))
    }

    fn join(watchers: &mut Watchers, request: Request, room: usize) -> mpsc::Receiver<Rc<str>> {
        let (lines, heard) = mpsc::channel(room);
        watchers.join(Join { request, lines }, &VecDeque::new());
        heard
    }

    fn all(heard: &mut mpsc::Receiver<Rc<str>>) -> Vec<serde_json::Value> {
        std::iter::from_fn(|| heard.try_recv().ok())
            .map(|line| serde_json::from_str(&line).expect("JSON"))
            .collect()
    }

    fn request(json: &str) -> Request {
        let packets: Packets = serde_json::from_str(json).expect("a question");
        packets.try_into().expect("a known reason")
    }

    #[test]
    fn everybody_hears_what_they_asked_for() {
        let mut watchers = Watchers::default();
        let mut drops = join(&mut watchers, request(r#"{"drops":true}"#), 9);
        let mut traces = join(&mut watchers, request(r#"{"traces":true,"pod":"default/b"}"#), 9);
        let mut spoofs = join(&mut watchers, request(r#"{"drops":true,"reason":"source_address"}"#), 9);
        for (reason, dst) in [
            (Reason::Malformed, "10.0.0.2"),
            (Reason::SourceAddress, "10.0.0.2"),
            (Reason::ForwardedLocal, "10.0.0.2"),
            (Reason::ForwardedLocal, "10.0.0.7"),
        ] {
            watchers.offer(&record(reason, "10.0.0.1", dst));
        }
        let reasons = |heard: &mut _| -> Vec<String> {
            all(heard).iter().map(|line| line["reason"].as_str().expect("a reason").to_owned()).collect()
        };
        assert_eq!(reasons(&mut drops), ["malformed", "source_address"]);
        assert_eq!(reasons(&mut traces), ["forwarded_local"]);
        assert_eq!(reasons(&mut spoofs), ["source_address"]);
        drop((drops, traces));
        watchers.forget_the_gone();
        assert_eq!(watchers.all.len(), 1);
    }

    #[test]
    fn a_slow_watcher_is_told_how_many_it_lost_and_nobody_else_loses_any() {
        let mut watchers = Watchers::default();
        let mut slow = join(&mut watchers, request(r#"{"drops":true}"#), 2);
        let mut quick = join(&mut watchers, request(r#"{"drops":true}"#), 99);
        let drop = record(Reason::Malformed, "10.0.0.1", "10.0.0.2");
        for _ in 0..5 {
            watchers.offer(&drop);
        }
        assert_eq!((all(&mut slow).len(), all(&mut quick).len()), (2, 5));
        watchers.offer(&drop);
        let heard = all(&mut slow);
        assert_eq!(heard[0], json!({"lost": 3}));
        assert_eq!(heard[1]["reason"], "malformed");
        assert_eq!(all(&mut quick).len(), 1);
    }

    #[test]
    fn the_last_drops_come_newest_last_and_then_the_end() {
        let mut watchers = Watchers::default();
        let kept: VecDeque<_> = ["10.0.0.1", "10.0.0.3", "10.0.0.4"]
            .into_iter()
            .map(|src| record(Reason::Malformed, src, "10.0.0.2"))
            .collect();
        let (lines, mut heard) = mpsc::channel(LINES);
        watchers.join(Join { request: request(r#"{"drops":true,"last":2}"#), lines }, &kept);
        let sources: Vec<_> = all(&mut heard).iter().map(|line| line["source"]["address"].clone()).collect();
        assert_eq!(sources, ["10.0.0.3", "10.0.0.4"]);
        assert!(heard.is_closed() && watchers.is_empty());
    }

    #[test]
    fn the_kernel_side_is_asked_for_no_more_than_all_want() {
        let wish = |requests: &[&str]| {
            let mut watchers = Watchers::default();
            let heard: Vec<_> = requests.iter().map(|json| join(&mut watchers, request(json), 1)).collect();
            let wish = watchers.wish(&names());
            drop(heard);
            wish
        };
        let addrs = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
        assert_eq!(wish(&[]), None);
        assert_eq!(wish(&[r#"{"drops":true}"#]), None);
        assert_eq!(wish(&[r#"{"traces":true,"reason":"malformed"}"#]), None);
        assert_eq!(wish(&[r#"{"traces":true,"pod":"default/absent"}"#]), None);
        let of_a = r#"{"traces":true,"pod":"default/a"}"#;
        let own = Wish { addrs: addrs(&["10.0.0.1", "fd00::1"]), reason: None };
        assert_eq!(wish(&[of_a]), Some(own.clone()));
        assert_eq!(wish(&[of_a, of_a]), Some(own));
        assert_eq!(wish(&[of_a, r#"{"traces":true}"#]), Some(Wish::default()));
        let local = r#"{"traces":true,"reason":"forwarded_local"}"#;
        assert_eq!(wish(&[local, local]).expect("a wish").reason, Some(Reason::ForwardedLocal));
        assert_eq!(wish(&[local, of_a]).expect("a wish").reason, None);
    }

    #[test]
    fn packets_that_the_kernel_side_left_out_are_told_once() {
        let mut watchers = Watchers::default();
        let mut heard = join(&mut watchers, request(r#"{"drops":true}"#), 9);
        let untold = |limited| [Untold { reason: Reason::Malformed, limited, full: 1 }];
        for limited in [10, 14, 14] {
            watchers.take_untold(&untold(limited));
        }
        assert_eq!(all(&mut heard), [json!({"untold": 4, "reason": "malformed"})]);
    }

    #[test]
    fn a_request_with_a_word_too_many_is_refused() {
        assert!(serde_json::from_str::<Packets>(r#"{"drop":true}"#).is_err());
        let nonsense = Packets { reason: Some("nonsense".to_owned()), ..Packets::default() };
        assert_eq!(Request::try_from(nonsense), Err(UnknownReason("nonsense".to_owned())));
    }
}
