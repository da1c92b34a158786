// SPDX-License-Identifier: Apache-2.0
//! Whatever comes to the probe's sockets: what is read is written the same, an answer is as long as its question, and no
//! bytes make a sign of life that nobody asked for.
#![no_main]

use std::net::IpAddr;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use rhumb_model::Family;
use rhumb_routing::probe::{Answers, Datagram, Kind, LONGEST, Prober, Settings, Sign, read};

const PORT: u16 = 7269;

fuzz_target!(|data: &[u8]| {
    let asker = IpAddr::from([192, 0, 2, 1]);
    if let Ok(datagram) = Datagram::parse(data) {
        assert_eq!(datagram.to_bytes(), data);
        assert!(data.len() <= LONGEST);
        let mut answers = Answers::new(datagram.node.clone());
        answers.know(&[asker].into());
        match answers.answer(&datagram, asker, Instant::now()) {
            Ok(answer) => assert_eq!((answer.kind, answer.to_bytes().len()), (Kind::Answer, data.len())),
            Err(_) => assert_eq!(datagram.kind, Kind::Answer),
        }
    }
    let mut prober = Prober::new(Settings::default(), std::hash::RandomState::new());
    for family in Family::BOTH {
        match read(family, data, PORT) {
            Some(sign @ Sign::Echo { .. }) => assert!(!prober.signed(sign)),
            Some(sign @ Sign::Refused { addr }) => {
                assert_eq!(Family::of(addr), family);
                assert!(!prober.signed(sign));
            }
            None => {}
        }
    }
});
