// SPDX-License-Identifier: Apache-2.0

use rhumb_model::AttachmentKey;

use crate::call::Verb;
use crate::netns::open_netns;
use crate::plugin::{Error, Plugin};
use crate::previous::Previous;
use crate::protocol::{CheckRequest, Request};

impl Plugin<'_> {
    /// Compares an attachment with its result.
    pub(super) fn check(&self, key: AttachmentKey, netns: &str) -> Result<(), Error> {
        let value = self.conf.previous().ok_or_else(|| self.conf.previous_missing())?;
        let previous = Previous::parse(value, "prevResult", self.conf.version).map_err(Error::Previous)?;
        let index = previous
            .container(&key.ifname, netns)
            .ok_or_else(|| Error::NoContainer { ifname: key.ifname.to_string(), netns: netns.to_owned() })?;
        let request = Request::Check(CheckRequest {
            key,
            network: self.conf.name.clone(),
            addresses: previous.addresses_of(index),
            host_interfaces: previous.host_interfaces(),
            routes: previous.routes,
        });
        // A namespace that is gone is for the agent to tell: it knows whether there was one.
        self.ask(&request, open_netns(netns).ok().as_ref())?;
        Ok(self.delegate_if_any(Verb::Check)?)
    }
}
