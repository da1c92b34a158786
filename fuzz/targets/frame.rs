// SPDX-License-Identifier: Apache-2.0
//! Whatever somebody writes to the agent's socket and then closes it, the agent reads a request or says why not.
#![no_main]

use std::io::Write;
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use rhumb_cni::server;

fuzz_target!(|data: &[u8]| {
    let Some((&shape, data)) = data.split_first() else { return };
    let (mut theirs, ours) = UnixStream::pair().expect("pair");
    if shape & 1 == 1 {
        let length = u32::try_from(data.len()).expect("short");
        theirs.write_all(&length.to_be_bytes()).expect("room");
    }
    theirs.write_all(data).expect("room");
    theirs.shutdown(std::net::Shutdown::Write).expect("open");
    match server::receive(&ours) {
        Ok((request, netns)) => {
            assert!(netns.is_none());
            let again = serde_json::to_value(&request).expect("a request has a JSON form");
            assert_eq!(serde_json::from_value::<rhumb_cni::protocol::Request>(again).expect("read"), request);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
