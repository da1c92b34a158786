// SPDX-License-Identifier: Apache-2.0

use crate::call::Verb;
use crate::client::Connection;
use crate::plugin::{Error, Plugin};
use crate::protocol::{Reply, Request};

impl Plugin<'_> {
    /// Says whether ADD can be served.
    pub(super) fn status(&self) -> Result<(), Error> {
        let connection = Connection::open(&self.socket, self.deadline).map_err(Error::NoStatus)?;
        match connection.ask(&Request::Status, None, self.deadline).map_err(Error::NoStatus)? {
            Reply::Done => {}
            Reply::Refused(refusal) => return Err(Error::NotReady(refusal)),
            Reply::Added(_) => return Err(Error::Unexpected),
        }
        self.delegate_if_any(Verb::Status).map_err(Error::DelegateNotReady)
    }
}
