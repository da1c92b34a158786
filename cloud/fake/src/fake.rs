// SPDX-License-Identifier: Apache-2.0
//! The whole double without a network: a world, throttled, with faults, watched.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rhumb_model::{InstanceId, Timestamp, VpcId};

use crate::answer::Answer;
use crate::call::{Action, Call};
use crate::faults::{Fault, Faults, Rule};
use crate::imds::{self, Metadata};
use crate::invariants::{Invariants, User, Violation};
use crate::ledger::Ledger;
use crate::random::Random;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::state::World;
use crate::throttle::{Limits, Throttle};

/// An EC2 that is asked by calling it. It has no clock: each call says what time it is.
///
/// Work per call grows with what the call touches, not with the size of the account, but for describes, which look at
/// what they show.
#[derive(Debug, Clone)]
pub struct Fake {
    world: World,
    throttle: Throttle,
    faults: Faults,
    random: Random,
    invariants: Invariants,
    ledger: Ledger,
    metadata: Metadata,
}

/// What comes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What the caller sees.
    pub outcome: Outcome,
    /// How long it takes until the caller sees it.
    pub after: Duration,
}

/// What a caller sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Answered(Answer),
    /// It was not done.
    Refused(Refusal),
    /// Text that is no XML, with this status; it was not done.
    Garbage(u16),
    /// The connection ended: it was done, and who called cannot know.
    LostReply,
    /// The connection ended: it was not done, and who called cannot know.
    LostCall,
    /// Nothing, for ever; it was done.
    Hung,
}

impl Outcome {
    /// The answer, if there is one.
    ///
    /// # Errors
    /// The refusal; what is no reply at all is `InternalError`.
    pub fn ok(self) -> Result<Answer, Refusal> {
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::Refused(refusal) => Err(refusal),
            Self::Garbage(_) | Self::LostReply | Self::LostCall | Self::Hung => {
                Err(Refusal::new("InternalError", "there was no reply"))
            }
        }
    }

    fn word(&self) -> String {
        match self {
            Self::Answered(_) => "ok".to_owned(),
            Self::Refused(refusal) => refusal.code.to_string(),
            Self::Garbage(status) => format!("status {status}"),
            Self::LostReply => "done, reply lost".to_owned(),
            Self::LostCall => "call lost".to_owned(),
            Self::Hung => "done, hung".to_owned(),
        }
    }
}

impl Fake {
    /// An empty account at time `now`, throttled as AWS does.
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            random: Random::new(settings.seed ^ 0x1a7e),
            faults: Faults::new(settings.seed),
            throttle: Throttle::new(Limits::default()),
            invariants: Invariants::default(),
            ledger: Ledger::default(),
            metadata: Metadata::default(),
            world: World::new(settings, now),
        }
    }

    /// Makes a call at time `now`; a `now` in the past counts as the latest time.
    pub fn call(&mut self, now: Timestamp, call: &Call) -> Reply {
        self.advance(now);
        let now = self.world.now();
        let mut after = self.random.within(self.world.settings().latency);
        let mut subjects = call.action.subjects();
        let fault = self.faults.decide(now, &call.action, &self.related(&call.action, &subjects));
        let outcome = match fault {
            Some(Fault::Error { code, message, status }) => {
                Outcome::Refused(Fault::refusal(&code, &message, status))
            }
            Some(Fault::Garbage { status }) => Outcome::Garbage(status),
            Some(Fault::LostCall) => Outcome::LostCall,
            Some(Fault::LostReply) => {
                self.act(now, call, &mut subjects).map_or_else(Outcome::Refused, |_| Outcome::LostReply)
            }
            Some(Fault::Hang) => {
                self.act(now, call, &mut subjects).map_or_else(Outcome::Refused, |_| Outcome::Hung)
            }
            Some(Fault::Slow { millis }) => {
                after += Duration::from_millis(millis);
                self.act(now, call, &mut subjects).map_or_else(Outcome::Refused, Outcome::Answered)
            }
            None => self.act(now, call, &mut subjects).map_or_else(Outcome::Refused, Outcome::Answered),
        };
        let action = call.action.name();
        let in_second = self.ledger.note(now, action, subjects, outcome.word());
        self.invariants.count(now, &self.ledger, action, in_second);
        self.watch();
        Reply { outcome, after }
    }

    /// Makes a call of which only the answer matters.
    ///
    /// # Errors
    /// As [`Outcome::ok`].
    pub fn ask(&mut self, now: Timestamp, action: Action) -> Result<Answer, Refusal> {
        self.call(now, &action.into()).outcome.ok()
    }

    fn act(&mut self, now: Timestamp, call: &Call, subjects: &mut Vec<String>) -> Result<Answer, Refusal> {
        if !self.throttle.take(now, &call.action) {
            return Err(Refusal::throttled());
        }
        let answer = self.world.answer(call)?;
        if let Answer::Interface(eni) = &answer {
            subjects.push(eni.id.to_string());
        } else if let Answer::Attached(id, _) = &answer {
            subjects.push(id.to_string());
        } else if let Answer::Launched(_, instances) = &answer {
            subjects.extend(instances.iter().map(|found| found.id.to_string()));
        }
        Ok(answer)
    }

    /// The ids that a call names, and the instance that has the interface it names.
    fn related(&self, action: &Action, subjects: &[String]) -> Vec<String> {
        let mut related = subjects.to_vec();
        let eni = if let Action::DetachNetworkInterface(detach) = action {
            self.world.attached(&detach.attachment)
        } else {
            subjects.iter().find_map(|id| self.world.interface(&id.parse().ok()?))
        };
        if let Some(eni) = eni {
            related.push(eni.id.to_string());
            let instance = eni.attachment.as_ref().and_then(|found| found.instance.as_ref());
            related.extend(instance.map(ToString::to_string));
        }
        related
    }

    /// Lets time go by.
    pub fn advance(&mut self, now: Timestamp) {
        self.world.advance(now);
        self.watch();
    }

    fn watch(&mut self) {
        let changes = self.world.take_changes();
        self.invariants.check(&self.world, &self.ledger, changes);
    }

    /// What there is.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What there is, to build it or to change it behind the caller's back.
    pub fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    /// Other limits from now on, with full buckets.
    pub fn limit(&mut self, limits: Limits) {
        self.throttle.set(limits);
    }

    /// Lets something go wrong; rules are asked in the order in which they came.
    pub fn fault(&mut self, rule: Rule) {
        self.faults.add(rule);
    }

    /// Nothing goes wrong from now on.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// What goes wrong.
    pub fn faults(&self) -> impl Iterator<Item = &Rule> {
        self.faults.rules()
    }

    /// How the metadata services lie.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Changes how the metadata services lie.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// What the metadata service of an instance says of a path below `/latest/`; `None` is 404.
    pub fn ask_metadata(&self, instance: &InstanceId, path: &str) -> Option<String> {
        imds::value(&self.world, &self.metadata, instance, path)
    }

    /// The calls so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What must not be and was.
    pub fn violations(&self) -> &[Violation] {
        self.invariants.violations()
    }

    /// How long an interface may be nobody's before it counts as leaked; `None` for ever.
    pub fn longest_idle(&mut self, longest: Option<Duration>) {
        self.invariants.longest_idle = longest;
    }

    /// How often actions may be called in a second before that is a violation, whether throttled or not.
    pub fn most_calls(&mut self, most: BTreeMap<String, u32>) {
        self.invariants.most_calls = most;
    }

    /// A pod on an instance begins to use an address: from now on it must not be unassigned.
    pub fn claim(&mut self, vpc: &VpcId, address: IpAddr, user: User) {
        self.invariants.claim(&self.world, &self.ledger, vpc, address, user);
    }

    /// A pod uses an address no longer.
    pub fn disclaim(&mut self, vpc: &VpcId, address: IpAddr) {
        self.invariants.disclaim(vpc, address);
    }

    /// The pods of an instance are gone: what a test says before or after it terminates one.
    pub fn disclaim_all(&mut self, instance: &InstanceId) {
        self.invariants.disclaim_all(instance);
    }
}

#[cfg(test)]
mod tests;
