// SPDX-License-Identifier: Apache-2.0
//! How this EC2 behaves: times, quotas, and how addresses are chosen.

use serde::{Deserialize, Serialize};

/// A time between two others, in milliseconds, both ends included; in files `[from, to]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span(pub u64, pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0, 0);

    /// Always the same time.
    pub const fn exactly(millis: u64) -> Self {
        Self(millis, millis)
    }
}

/// Which free address or block is given when the caller names none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// Any, by the seed, as EC2 does: single addresses end up all over the subnet.
    #[default]
    Random,
    /// The lowest: easy to read in tests.
    Lowest,
}

/// How this EC2 behaves. The default has the delays of the real one and neither lag nor latency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// Decides all chance.
    pub seed: u64,
    /// The account that owns everything.
    pub account: String,
    /// The Region.
    pub region: String,
    /// From the call until an interface is attached.
    pub attach: Span,
    /// From the call until an interface is detached.
    pub detach: Span,
    /// From the launch until an instance runs.
    pub start: Span,
    /// From `TerminateInstances` until the instance is gone.
    pub stop: Span,
    /// How long a spot instance lives after its notice, in milliseconds.
    pub spot_notice: u64,
    /// How long a terminated instance is shown, in milliseconds.
    pub terminated_shown: u64,
    /// How far describes are behind a change, drawn for each change.
    pub lag: Span,
    /// How long after its creation calls that name an interface answer that there is none.
    pub unknown: Span,
    /// How long a call takes.
    pub latency: Span,
    /// Interfaces that the account may have in the Region.
    pub interface_quota: u32,
    /// Units of Network Address Usage that a VPC may have.
    pub usage_quota: u32,
    /// Interfaces above which an unpaginated describe is refused; `None` for never.
    pub largest_unpaginated: Option<u32>,
    /// Which free address is given.
    pub choice: Choice,
    /// How far the metadata service may be behind, in milliseconds: the past is kept for this long.
    pub metadata_memory: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            account: "123456789012".to_owned(),
            region: "eu-central-1".to_owned(),
            attach: Span(1_000, 10_000),
            detach: Span(1_000, 30_000),
            start: Span(5_000, 20_000),
            stop: Span(5_000, 60_000),
            spot_notice: 120_000,
            terminated_shown: 3_600_000,
            lag: Span::ZERO,
            unknown: Span::ZERO,
            latency: Span::ZERO,
            interface_quota: 5_000,
            usage_quota: 64_000,
            largest_unpaginated: None,
            choice: Choice::Random,
            metadata_memory: 0,
        }
    }
}

impl Settings {
    /// Everything happens at once: for tests that are about something else.
    pub fn at_once() -> Self {
        Self {
            attach: Span::ZERO,
            detach: Span::ZERO,
            start: Span::ZERO,
            stop: Span::ZERO,
            ..Self::default()
        }
    }
}
