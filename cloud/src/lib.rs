// SPDX-License-Identifier: Apache-2.0
//! What rhumb needs of a cloud: addresses and interfaces, and how often it may ask.
