// SPDX-License-Identifier: Apache-2.0

use rhumb_model::AttachmentKey;

use crate::call::Verb;
use crate::client::{ClientError, Connection};
use crate::failpoint;
use crate::log;
use crate::plugin::{Error, Plugin, done};
use crate::protocol::{DelRequest, Request};
use crate::queue::{Writer, directory_of};

impl Plugin<'_> {
    /// Removes an attachment. The addresses go back to an IPAM plugin last, so that nobody else gets them before.
    pub(super) fn del(&self, key: AttachmentKey) -> Result<(), Error> {
        let request = DelRequest { key, network: self.conf.name.clone() };
        let subject = request.key.container.as_str();
        failpoint::pass("plugin.del.before_send", subject)?;
        self.tell_or_queue(&request)?;
        failpoint::pass("plugin.del.after_reply", subject)?;
        Ok(self.delegate_if_any(Verb::Del)?)
    }

    fn tell_or_queue(&self, request: &DelRequest) -> Result<(), Error> {
        let asked = Request::Del(request.clone());
        let absent = match self.ask(&asked, None) {
            Err(Error::Agent(error @ (ClientError::NotThere(_) | ClientError::Lost))) => error,
            other => return other,
        };
        // The agent may have come back meanwhile: with the queue held it cannot start to listen unseen.
        let writer = Writer::open(&directory_of(&self.socket), self.deadline)?;
        match Connection::open(&self.socket, self.deadline) {
            Err(ClientError::NotThere(_)) => {
                writer.put(request)?;
                log::warn("removal queued until the agent is back", &request.key, &absent);
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(connection) => {
                drop(writer);
                done(connection.ask(&asked, None, self.deadline)?)
            }
        }
    }
}
