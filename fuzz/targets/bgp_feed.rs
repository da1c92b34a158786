// SPDX-License-Identifier: Apache-2.0
//! Whatever somebody writes to the BGP speaker's socket, the speaker reads frames or says why not; what it read has the
//! same meaning when it is written again; and a delta that fits no snapshot changes none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_bgp_feed::Snapshot;
use rhumb_bgp_feed::frame::{Frames, encode};
use rhumb_bgp_feed::protocol::Down;

fuzz_target!(|data: &[u8]| {
    let Some((&shape, data)) = data.split_first() else { return };
    let mut frames = Frames::default();
    if shape & 1 == 1 {
        frames.push(&u32::try_from(data.len()).expect("short").to_be_bytes());
    }
    for part in data.chunks(usize::from(shape >> 1) + 1) {
        frames.push(part);
    }
    let mut snapshot = Snapshot::default();
    while let Ok(Some(down)) = frames.take::<Down>() {
        let mut again = Frames::default();
        again.push(&encode(&down).expect("a frame that was read is not too long"));
        assert_eq!(again.take::<Down>().expect("sound").expect("whole"), down);
        match down {
            Down::Snapshot(next) => snapshot = *next,
            Down::Delta(delta) => {
                let before = snapshot.clone();
                if snapshot.apply(delta).is_err() {
                    assert_eq!(snapshot, before);
                }
            }
            Down::Ask(_) => {}
        }
    }
});
