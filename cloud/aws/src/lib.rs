// SPDX-License-Identifier: Apache-2.0
//! EC2 behind the trait of `rhumb-cloud`, by the AWS SDK for Rust.
//!
//! The SDK signs, sends and reads; it repeats nothing. How often is asked, and what an error means, is `rhumb-cloud`'s.
#![warn(missing_docs)]

mod client;
mod convert;
mod failure;
mod provider;

pub use client::{Aws, AwsSettings, StaticCredentials};
