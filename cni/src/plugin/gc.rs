// SPDX-License-Identifier: Apache-2.0

use crate::call::Verb;
use crate::log;
use crate::plugin::{Error, Plugin};
use crate::protocol::{GcRequest, Request};

impl Plugin<'_> {
    /// Removes what the configuration does not list. The IPAM plugin is asked also when the agent did not succeed.
    pub(super) fn gc(&self) -> Result<(), Error> {
        let keep = self.conf.valid_attachments()?;
        let ours = self.ask(&Request::Gc(GcRequest { network: self.conf.name.clone(), keep }), None);
        let theirs = self.delegate_if_any(Verb::Gc);
        match (ours, theirs) {
            (Err(first), Err(second)) => {
                log::warn("the IPAM plugin did not collect garbage either", &self.conf.name, &second);
                Err(first)
            }
            (ours, theirs) => Ok(ours.and(theirs.map_err(Error::from))?),
        }
    }
}
