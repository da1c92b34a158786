// SPDX-License-Identifier: Apache-2.0
//! Whatever the file holds, the journal opens or refuses without changing it; what it opened, it opens again.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use rhumb_ipam::{Journal, Record};

fuzz_target!(|data: &[u8]| {
    let Some((&shape, data)) = data.split_first() else { return };
    let bytes = if shape & 1 == 0 { data.to_vec() } else { framed(data) };
    // In memory, as the journal syncs at every turn.
    let folder = tempfile::Builder::new().prefix("rhumb-fuzz").tempdir_in("/dev/shm").expect("room");
    let path = folder.path().join("journal");
    fs::write(&path, &bytes).expect("written");
    match Journal::<Record>::open(&path) {
        Err(_) => assert_eq!(fs::read(&path).expect("read"), bytes, "a refused journal is as it was"),
        Ok((mut journal, opened)) => {
            journal.append(&opened.records).expect("room");
            drop(journal);
            let (_, again) = Journal::<Record>::open(&path).expect("what was opened opens again");
            assert_eq!(again.records, [opened.records.clone(), opened.records].concat());
            assert_eq!(again.repaired, None);
        }
    }
});

/// A journal whose frames carry the right lengths and checksums, each up to a zero byte of `data`, and a torn end.
fn framed(data: &[u8]) -> Vec<u8> {
    let mut bytes = [&b"rhumbjnl"[..], &1_u32.to_le_bytes()].concat();
    let mut payloads = data.split(|byte| *byte == 0);
    let torn = payloads.next_back().unwrap_or_default();
    for payload in payloads {
        let length = u32::try_from(payload.len()).expect("short").to_le_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&length);
        crc.update(payload);
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&crc.finalize().to_le_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes.extend_from_slice(torn);
    bytes
}
