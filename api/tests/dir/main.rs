// SPDX-License-Identifier: Apache-2.0
//! The directory form of the store, through its public face.

mod bad;
mod objects;
mod outage;
mod people;
mod processes;
mod room;
mod watches;
