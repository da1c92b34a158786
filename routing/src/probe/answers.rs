// SPDX-License-Identifier: Apache-2.0
//! Who is answered, and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rhumb_model::NodeName;

use super::{Datagram, Kind};

/// One address gets this many answers a second for ever, several times what an agent asks.
const RATE: u32 = 4;
/// And this many at once: for agents that start again and again.
const BURST: u32 = 16;

/// Answers of one node. Only addresses of other nodes are answered, each at a limited rate, so that nobody can use an
/// agent against a third; what is kept is bounded by the number of nodes.
#[derive(Debug)]
pub struct Answers {
    own: NodeName,
    /// Of each address, until when it has used up what it may ask.
    known: BTreeMap<IpAddr, Option<Instant>>,
}

/// Why a question gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// It does not come from an address of another node.
    Stranger,
    /// Another node was meant.
    OtherNode,
    /// It is an answer itself.
    NoQuestion,
    /// That address asks too often.
    TooMany,
}

impl Answers {
    /// Answers as `own`, nobody at first.
    pub fn new(own: NodeName) -> Self {
        Self { own, known: BTreeMap::new() }
    }

    /// Says which addresses other nodes have.
    pub fn know(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.known.retain(|addr, _| addresses.contains(addr));
        for addr in addresses {
            self.known.entry(*addr).or_default();
        }
    }

    /// The answer to a question from this address.
    ///
    /// # Errors
    /// Why there is none.
    pub fn answer(&mut self, question: &Datagram, from: IpAddr, now: Instant) -> Result<Datagram, Ignored> {
        if question.kind != Kind::Question {
            return Err(Ignored::NoQuestion);
        }
        let used = self.known.get_mut(&from).ok_or(Ignored::Stranger)?;
        if question.node != self.own {
            return Err(Ignored::OtherNode);
        }
        let share = Duration::from_secs(1) / RATE;
        let next = used.map_or(now, |used| used.max(now)) + share;
        if next > now + share * BURST {
            return Err(Ignored::TooMany);
        }
        *used = Some(next);
        Ok(Datagram { kind: Kind::Answer, ..question.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn answers() -> Answers {
        let mut answers = Answers::new("here".parse().expect("valid"));
        answers.know(&[ASKER].into());
        answers
    }

    fn question(node: &str) -> Datagram {
        Datagram { kind: Kind::Question, number: 7, node: node.parse().expect("valid") }
    }

    #[test]
    fn only_questions_of_nodes_to_this_one_are_answered() {
        let (mut answers, now) = (answers(), Instant::now());
        let answer = answers.answer(&question("here"), ASKER, now).expect("answered");
        assert_eq!(answer, Datagram { kind: Kind::Answer, ..question("here") });
        assert_eq!(answers.answer(&question("there"), ASKER, now), Err(Ignored::OtherNode));
        assert_eq!(answers.answer(&question("here"), [10, 0, 0, 1].into(), now), Err(Ignored::Stranger));
        assert_eq!(answers.answer(&answer, ASKER, now), Err(Ignored::NoQuestion));
        answers.know(&BTreeSet::new());
        assert_eq!(answers.answer(&question("here"), ASKER, now), Err(Ignored::Stranger));
    }

    proptest! {
        #[test]
        fn no_address_gets_more_than_its_rate(pauses in prop::collection::vec(0u64..400, 1..300)) {
            let (mut answers, start) = (answers(), Instant::now());
            let mut now = start;
            let mut given = 0;
            for pause in pauses {
                now += Duration::from_millis(pause);
                given += u64::from(answers.answer(&question("here"), ASKER, now).is_ok());
                // Others' names do not lift the limit.
                answers.know(&[ASKER, [192, 0, 2, 9].into()].into());
                let most = f64::from(BURST) + (now - start).as_secs_f64() * f64::from(RATE);
                prop_assert!(f64::from(u32::try_from(given).expect("few")) <= most);
            }
        }

        #[test]
        fn who_asks_once_a_second_is_always_answered(jitter in prop::collection::vec(900u64..1100, 1..100)) {
            let (mut answers, mut now) = (answers(), Instant::now());
            for pause in jitter {
                now += Duration::from_millis(pause);
                prop_assert!(answers.answer(&question("here"), ASKER, now).is_ok());
            }
        }
    }
}
