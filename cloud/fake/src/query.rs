// SPDX-License-Identifier: Apache-2.0
//! The EC2 Query protocol, version 2016-11-15: a form in, XML out. Signatures are not checked.

mod form;
mod parse;
mod reply;
mod xml;

pub use form::{Form, FormError};
pub use parse::parse;
pub(crate) use reply::time;
pub use reply::{failure, success};
