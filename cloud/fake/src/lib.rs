// SPDX-License-Identifier: Apache-2.0
//! An EC2 in memory that refuses what the real one refuses.
