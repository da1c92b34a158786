// SPDX-License-Identifier: Apache-2.0
//! A container runtime as small as it can be: it works through a configuration list as the specification's section 2
//! and 4 say.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::call::{Outcome, execute};
use crate::lab::Namespace;

/// A runtime with one network.
#[derive(Debug)]
pub(crate) struct Runtime<'a> {
    /// The configuration list.
    pub(crate) conflist: Value,
    /// Where its plugins are; this is `CNI_PATH`.
    pub(crate) folder: PathBuf,
    /// More of the plugins' environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Where the plugins run.
    pub(crate) host: &'a Namespace,
    result: Option<Value>,
}

impl<'a> Runtime<'a> {
    /// Takes up a network.
    pub(crate) fn new(
        conflist: Value,
        folder: PathBuf,
        env: BTreeMap<String, String>,
        host: &'a Namespace,
    ) -> Self {
        Self { conflist, folder, env, host, result: None }
    }

    /// Calls the plugins in their order, each with the result of the one before.
    ///
    /// # Errors
    /// When one of them fails.
    pub(crate) fn add(&mut self, container: &str, netns: &str, ifname: &str) -> Result<Value> {
        for plugin in self.plugins()? {
            let env = self.variables("ADD", Some((container, netns, ifname)));
            let outcome = self.call(&plugin, env, self.result.clone(), &[])?;
            self.result = Some(outcome.json().map_err(anyhow::Error::msg)?);
        }
        self.result.clone().context("the list has no plugins")
    }

    /// Calls the plugins in their order with the final result, unless the list forbids it.
    ///
    /// # Errors
    /// When one of them fails.
    pub(crate) fn check(&self, container: &str, netns: &str, ifname: &str) -> Result<()> {
        if self.disables("disableCheck") {
            return Ok(());
        }
        for plugin in self.plugins()? {
            let env = self.variables("CHECK", Some((container, netns, ifname)));
            self.call(&plugin, env, self.result.clone(), &[])?;
        }
        Ok(())
    }

    /// Tells the plugins which attachments stay, unless the list forbids it.
    ///
    /// # Errors
    /// When one of them fails.
    pub(crate) fn gc(&self, valid: &[(&str, &str)]) -> Result<()> {
        if self.disables("disableGC") {
            return Ok(());
        }
        let valid: Vec<Value> = valid
            .iter()
            .map(|(container, ifname)| json!({"containerID": container, "ifname": ifname}))
            .collect();
        for plugin in self.plugins()? {
            let more = [("cni.dev/valid-attachments", Value::Array(valid.clone()))];
            self.call(&plugin, self.variables("GC", None), None, &more)?;
        }
        Ok(())
    }

    /// Calls the plugins in reverse order with the final result.
    ///
    /// # Errors
    /// When one of them fails.
    pub(crate) fn del(&mut self, container: &str, netns: &str, ifname: &str) -> Result<()> {
        for plugin in self.plugins()?.iter().rev() {
            let env = self.variables("DEL", Some((container, netns, ifname)));
            self.call(plugin, env, self.result.clone(), &[])?;
        }
        self.result = None;
        Ok(())
    }

    fn plugins(&self) -> Result<Vec<Value>> {
        self.conflist["plugins"].as_array().cloned().context("the list has no plugins")
    }

    /// A flag of the list, which may also be the text `true` (CNI specification 1.1.0, section 1).
    fn disables(&self, flag: &str) -> bool {
        self.conflist[flag] == true || self.conflist[flag] == "true"
    }

    fn variables(&self, command: &str, about: Option<(&str, &str, &str)>) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
        set("CNI_COMMAND", command);
        set("CNI_PATH", &self.folder.display().to_string());
        if let Some((container, netns, ifname)) = about {
            set("CNI_CONTAINERID", container);
            set("CNI_NETNS", netns);
            set("CNI_IFNAME", ifname);
        }
        env
    }

    fn call(
        &self,
        plugin: &Value,
        env: BTreeMap<String, String>,
        previous: Option<Value>,
        more: &[(&str, Value)],
    ) -> Result<Outcome> {
        let name = plugin["type"].as_str().context("a plugin has no type")?;
        let mut config = plugin.clone();
        config["cniVersion"] = self.conflist["cniVersion"].clone();
        config["name"] = self.conflist["name"].clone();
        if let Some(previous) = previous {
            config["prevResult"] = previous;
        }
        for (key, value) in more {
            config[*key] = value.clone();
        }
        let outcome = execute(&self.folder.join(name), self.host, &env, &config.to_string())?;
        if !outcome.succeeded() {
            bail!("{} of {name}: {outcome}", env.get("CNI_COMMAND").map_or("", String::as_str));
        }
        Ok(outcome)
    }
}
