// SPDX-License-Identifier: Apache-2.0

use std::os::fd::OwnedFd;

use rhumb_model::AttachmentKey;
use serde_json::Value;

use crate::args::Args;
use crate::call::Verb;
use crate::client::Connection;
use crate::config::Dns;
use crate::delegate::{Delegate, DelegateError};
use crate::failpoint;
use crate::log;
use crate::netns::open_netns;
use crate::plugin::{Error, Plugin, print};
use crate::previous::Previous;
use crate::protocol::{AddRequest, AddressSource, Attachment, Reply, Request};
use crate::result::AddResult;
use crate::wishes::Wishes;

impl Plugin<'_> {
    /// Makes an attachment, and gives back what to print.
    pub(super) fn add(&self, key: AttachmentKey, netns: String, args: Args) -> Result<Vec<u8>, Error> {
        let mut wishes = Wishes::parse(self.conf, &args)?;
        let dns = self.conf.dns()?;
        let requested = std::mem::take(&mut wishes.ips);
        let mut request = AddRequest {
            key,
            network: self.conf.name.clone(),
            netns,
            pod: args.pod,
            addresses: AddressSource::Pool { requested },
            mac: wishes.mac,
            mtu: wishes.mtu,
            port_mappings: wishes.port_mappings,
            bandwidth: wishes.bandwidth,
        };
        if let Some(previous) = self.conf.previous() {
            return self.add_chained(request, previous);
        }
        let Some(delegate) = self.delegate()? else {
            let fd = open_netns(&request.netns)?;
            let netns = request.netns.clone();
            return Ok(self.print_added(&self.make(request, &fd)?, &netns, &dns.unwrap_or_default()));
        };
        let fd = open_netns(&request.netns)?;
        let answer = delegate.run(Verb::Add, self.deadline)?;
        let made =
            self.delegated(&delegate, &answer).map_err(Error::from).and_then(|(addresses, delegate_dns)| {
                request.addresses = addresses;
                let netns = request.netns.clone();
                Ok(self.print_added(&self.make(request.clone(), &fd)?, &netns, &dns.unwrap_or(delegate_dns)))
            });
        if made.is_err() {
            self.give_back(&delegate, &request.key);
        }
        made
    }

    /// Joins what another plugin made; its result is the result.
    fn add_chained(&self, mut request: AddRequest, previous: &Value) -> Result<Vec<u8>, Error> {
        let previous = Previous::parse(previous, "prevResult", self.conf.version).map_err(Error::Previous)?;
        let index = previous
            .container(&request.key.ifname, &request.netns)
            .or_else(|| previous.in_sandbox(&request.netns))
            .ok_or_else(|| Error::NoContainer {
                ifname: request.key.ifname.to_string(),
                netns: request.netns.clone(),
            })?;
        let mut on_host = previous.host_interfaces();
        request.addresses = AddressSource::Chained {
            addresses: previous.addresses_of(index),
            // Of several, only the kernel can say which is a bridge and which the pair's other end.
            host_ifname: on_host.pop().filter(|_| on_host.is_empty()),
        };
        let fd = open_netns(&request.netns)?;
        self.make(request, &fd)?;
        Ok(print(&previous.into_version(self.conf.version)))
    }

    /// Has the agent make the attachment.
    fn make(&self, request: AddRequest, netns: &OwnedFd) -> Result<Attachment, Error> {
        let subject = request.key.container.to_string();
        failpoint::pass("plugin.add.before_send", &subject)?;
        let connection = Connection::open(&self.socket, self.deadline)?;
        let reply = connection.ask(&Request::Add(Box::new(request)), Some(netns), self.deadline)?;
        failpoint::pass("plugin.add.after_reply", &subject)?;
        match reply {
            Reply::Added(attachment) => Ok(attachment),
            Reply::Refused(refusal) => Err(Error::Refused(refusal)),
            Reply::Done => Err(Error::Unexpected),
        }
    }

    fn delegated(
        &self,
        delegate: &Delegate<'_>,
        answer: &[u8],
    ) -> Result<(AddressSource, Dns), DelegateError> {
        let name = || delegate.name.to_owned();
        let value: Value = serde_json::from_slice(answer)
            .map_err(|source| DelegateError::Decode { name: name(), source })?;
        let result = Previous::parse(&value, "", self.conf.version)
            .map_err(|source| DelegateError::Result { name: name(), source })?;
        let addresses = result.addresses();
        if addresses.is_empty() {
            return Err(DelegateError::NoAddress { name: name() });
        }
        // Every pod has its default routes already.
        let routes = result.routes.into_iter().filter(|route| route.dst.len() > 0).collect();
        Ok((AddressSource::Delegated { addresses, routes }, result.dns))
    }

    /// Gives back what the IPAM plugin leased to an attachment that was not made.
    fn give_back(&self, delegate: &Delegate<'_>, key: &AttachmentKey) {
        if let Err(error) = delegate.run(Verb::Del, self.deadline) {
            log::warn("addresses of an ADD that did not succeed stay leased", key, &error);
        }
    }

    fn print_added(&self, attachment: &Attachment, netns: &str, dns: &Dns) -> Vec<u8> {
        print(&AddResult::new(attachment, netns, dns, self.conf.version))
    }
}
