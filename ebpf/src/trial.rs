// SPDX-License-Identifier: Apache-2.0
//! Running a program on a packet in memory (`BPF_PROG_TEST_RUN`): for tests, and for measuring a packet's cost.

use std::path::Path;
use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier};
use aya::{TestRun as _, TestRunOptions};

use crate::Hook;

/// Size of the context, and where in it are the fields that may be given (`struct __sk_buff` in linux/bpf.h).
const CONTEXT: usize = 192;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;
const GSO_SIZE: usize = 176;

/// A packet to be run through a program.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// The frame, at least an Ethernet header.
    pub packet: &'a [u8],
    /// The interface it is seen on, in the network namespace of the calling thread; 0 and 1 are the loopback.
    pub ifindex: u32,
    /// The interface it came in by; 0 when this host sent it.
    pub ingress_ifindex: u32,
    /// Payload per packet when it is a segment to be cut up, else 0.
    pub gso_size: u32,
    /// How often it is run. The packet is not put back in between.
    pub repeat: u32,
}

impl<'a> Trial<'a> {
    /// One run of `packet` on an interface.
    pub fn new(packet: &'a [u8], ifindex: u32) -> Self {
        Self { packet, ifindex, ingress_ifindex: 0, gso_size: 0, repeat: 1 }
    }
}

/// What the program told the kernel to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Go on with the next program, then the stack (`TCX_NEXT`).
    Next,
    /// Drop (`TCX_DROP`).
    Drop,
    /// Send where a redirect helper said (`TCX_REDIRECT`).
    Redirect,
    /// Anything else, which none of the programs returns.
    Other(u32),
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The verdict.
    pub code: Code,
    /// The frame afterwards.
    pub packet: Vec<u8>,
    /// Mean time of one run.
    pub mean: Duration,
}

/// How many runs one packet takes before it has no hop left.
const HOPS: u32 = 250;

/// Median time that a program takes for `trial`, whose packet has at least 255 hops left.
pub(crate) fn cost(
    programs: &Path,
    hook: Hook,
    trial: &Trial<'_>,
    rounds: usize,
) -> Result<Duration, TrialError> {
    let mut means = Vec::with_capacity(rounds);
    for _ in 0..rounds.max(1) {
        means.push(run(programs, hook, &Trial { repeat: HOPS, ..*trial })?.mean);
    }
    means.sort();
    Ok(means[means.len() / 2])
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
#[error("run program {hook} on a packet of {length} bytes")]
pub struct TrialError {
    hook: Hook,
    length: usize,
    #[source]
    source: Box<ProgramError>,
}

pub(crate) fn run(programs: &Path, hook: Hook, trial: &Trial<'_>) -> Result<Ran, TrialError> {
    let failed = |source| TrialError { hook, length: trial.packet.len(), source: Box::new(source) };
    let program = SchedClassifier::from_pin(programs.join(hook.as_str())).map_err(failed)?;
    let mut context = [0u8; CONTEXT];
    for (at, value) in
        [(INGRESS_IFINDEX, trial.ingress_ifindex), (IFINDEX, trial.ifindex), (GSO_SIZE, trial.gso_size)]
    {
        context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    // A program may lengthen a packet, by no more than an answer to a neighbour is long.
    let mut packet = vec![0; trial.packet.len() + 256];
    let options = TestRunOptions {
        data_in: Some(trial.packet),
        data_out: Some(&mut packet),
        ctx_in: Some(&context),
        repeat: trial.repeat,
        ..TestRunOptions::new()
    };
    let result = program.test_run(options).map_err(failed)?;
    packet.truncate(result.data_size_out as usize);
    let code = match result.return_value.cast_signed() {
        -1 => Code::Next,
        2 => Code::Drop,
        7 => Code::Redirect,
        _ => Code::Other(result.return_value),
    };
    Ok(Ran { code, packet, mean: result.duration })
}
