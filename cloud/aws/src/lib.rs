// SPDX-License-Identifier: Apache-2.0
//! EC2 behind the trait of `rhumb-cloud`.
