// SPDX-License-Identifier: Apache-2.0
//! Whatever somebody writes to the agent's socket for the command line, it is a question or it is not; what is behind
//! the longest question is not looked at.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The agent is a program and no library; this file of it stands alone.
#[path = "../../agent/src/question.rs"]
mod question;

use question::{LONGEST, Question};

fuzz_target!(|data: &[u8]| {
    let read = Question::parse(data).ok();
    let cut = data.get(..LONGEST).unwrap_or(data);
    assert_eq!(Question::parse(cut).ok(), read);
    if let Some(Question::Show(what)) = read {
        let word = serde_json::to_vec(&what).expect("a word");
        assert_eq!(Question::parse(&word).ok(), Some(Question::Show(what)));
    }
});
