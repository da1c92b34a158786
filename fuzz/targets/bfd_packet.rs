// SPDX-License-Identifier: Apache-2.0
//! Any bytes are a BFD packet or are refused; a session takes any packets at any times, answers with packets that can be
//! read, and never has something to do at once for ever.
#![no_main]

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use rhumb_bfd::fsm::Session;
use rhumb_bfd::{Config, Packet};

/// Octets of one step: how long it takes, then a packet.
const STEP: usize = 26;

fuzz_target!(|data: &[u8]| {
    if let Ok(packet) = Packet::parse(data) {
        assert_eq!(Packet::parse(&packet.encode()), Ok(packet));
    }
    let interval = Duration::from_millis(50);
    let config = Config::new(interval, interval, 3).expect("in range");
    let mut session = Session::new(config, NonZeroU32::MIN);
    let mut now = Instant::now();
    for step in data.chunks_exact(STEP) {
        now += Duration::from_millis(u64::from(step[0]));
        session.tick(now);
        if let Ok(packet) = Packet::parse(&step[2..]) {
            session.receive(&packet, now);
        }
        let mut sent = 0;
        while let Some(packet) = session.transmit(now, step[1].into()) {
            assert_eq!(Packet::parse(&packet.encode()), Ok(packet));
            sent += 1;
        }
        assert!(sent <= 2, "an answer and a packet in turn");
        assert!(session.deadline(now).is_none_or(|at| at > now));
    }
});
