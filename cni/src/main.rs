// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin: asks the agent for what the runtime asks, and prints the answer.

use std::io::{Write, stdin, stdout};
use std::process::ExitCode;

use rhumb_cni::call::Variables;
use rhumb_cni::plugin::{Patience, run};

fn main() -> ExitCode {
    let outcome = run(&Variables::of_process(), &mut stdin().lock(), Patience::default());
    let mut out = stdout().lock();
    match out.write_all(&outcome.stdout).and_then(|()| out.flush()) {
        Ok(()) if outcome.success => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
