// SPDX-License-Identifier: Apache-2.0
//! What exists while one case runs with one version: containers, their attachments, and what was seen before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::attachment::{Attachment, Launcher, Made};
use super::observe::{self, Link};
use super::recorder::PLUGIN;
use super::result;
use super::site::{Plugins, Site};
use super::stage;
use super::traffic::PATIENCE;
use super::variables::{ExpandError, Variables};
use super::view::View;
use crate::lab::{Namespace, ping};

/// What a step is about to do and to show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coming {
    /// `CNI_COMMAND`.
    pub(crate) command: String,
    /// Its effects, in words.
    pub(crate) effects: Vec<String>,
}

/// What was there at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// What the agent showed; nothing when it was down.
    pub(crate) view: Option<View>,
    /// Links of the node.
    pub(crate) links: BTreeMap<String, Link>,
    /// Policy rules of the node.
    pub(crate) rules: Vec<String>,
    /// Links of each container's namespace by its path.
    pub(crate) inner: BTreeMap<String, BTreeMap<String, Link>>,
    /// Addresses of each container's interfaces, by path and name.
    pub(crate) inner_addresses: BTreeMap<(String, String), Vec<IpNetwork>>,
    /// Interfaces of the node that have programs.
    pub(crate) attached: BTreeSet<String>,
    /// Calls that the recorder had seen.
    pub(crate) recorded: usize,
}

type CleanUp = Box<dyn FnOnce(&mut Scene<'_>) -> Result<()>>;

/// One run of a case.
pub(crate) struct Scene<'a> {
    /// The lab.
    pub(crate) site: &'a mut Site,
    /// The folder of plugins.
    pub(crate) plugins: &'a Plugins,
    /// The version with which the case runs.
    pub(crate) version: String,
    /// What the names in `${…}` stand for.
    pub(crate) variables: Variables,
    /// What ADD made, oldest first.
    pub(crate) attachments: Vec<Attachment>,
    /// Containers with which the pool was exhausted.
    pub(crate) fillers: Vec<Attachment>,
    /// Addresses that the last DEL before this step gave back.
    pub(crate) released: Vec<IpAddr>,
    /// Command and effects of the step that is being prepared.
    pub(crate) coming: Coming,
    /// What this step ran.
    pub(crate) calls: Vec<Made>,
    /// What was there before the step.
    pub(crate) before: Snapshot,
    /// What was there before the case.
    pub(crate) start: Snapshot,
    namespaces: BTreeMap<String, Namespace>,
    deleted: BTreeSet<String>,
    attempts: BTreeSet<String>,
    clean_ups: Vec<CleanUp>,
}

impl<'a> Scene<'a> {
    /// Sets the stage for one run of a case.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub(crate) fn set(
        site: &'a mut Site,
        plugins: &'a Plugins,
        version: &str,
        supported: &[String],
    ) -> Result<Self> {
        let number = site.fresh();
        let mut scene = Self {
            variables: stage::variables(site, plugins, number, version, supported)?,
            site,
            plugins,
            version: version.to_owned(),
            attachments: Vec::new(),
            fillers: Vec::new(),
            released: Vec::new(),
            coming: Coming::default(),
            calls: Vec::new(),
            before: Snapshot::default(),
            start: Snapshot::default(),
            namespaces: BTreeMap::new(),
            deleted: BTreeSet::new(),
            attempts: BTreeSet::new(),
            clean_ups: Vec::new(),
        };
        super::recorder::forget(plugins.path())?;
        super::recorder::forget(&plugins.observing())?;
        scene.start = scene.look()?;
        Ok(scene)
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// When `ip` or the kernel does not tell; an agent that is down is no error.
    pub(crate) fn look(&mut self) -> Result<Snapshot> {
        let running = self.site.agent_running();
        let mut snapshot = Snapshot {
            view: if running { self.site.view().ok() } else { None },
            links: observe::links(self.site.host())?,
            rules: observe::rules(self.site.host())?,
            attached: super::attached::interfaces(self.site.host())?,
            recorded: super::recorder::calls(self.plugins.path())?.len(),
            ..Snapshot::default()
        };
        for (path, namespace) in &self.namespaces {
            let links = observe::links(namespace)?;
            for (ifname, addresses) in observe::all_addresses(namespace)? {
                snapshot.inner_addresses.insert((path.clone(), ifname), addresses);
            }
            snapshot.inner.insert(path.clone(), links);
        }
        Ok(snapshot)
    }

    /// Value of a variable that is a text.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        self.variables.text(name).map(str::to_owned).with_context(|| format!("variable {name} has no value"))
    }

    /// Makes the namespace that a case names as one of its own: `${NS}`, `${NS}-b`, `${NS}-1`. Any other path is one
    /// where the case wants no namespace to be.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn ensure_meant_namespace(&mut self, path: &str) -> Result<()> {
        let own = self.text("NS")?;
        let meant = path.strip_prefix(&own).is_some_and(|rest| match rest.strip_prefix('-') {
            Some(word) => word.len() == 1 || word.bytes().all(|byte| byte.is_ascii_digit()),
            None => rest.is_empty(),
        });
        if meant { self.ensure_namespace(path) } else { Ok(()) }
    }

    /// Makes the namespace at a path, if it is not there and no case deleted it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn ensure_namespace(&mut self, path: &str) -> Result<()> {
        let ours = format!("/run/netns/{}-", self.site.lab().id());
        if !path.starts_with(&ours) || self.deleted.contains(path) || self.namespaces.contains_key(path) {
            return Ok(());
        }
        let name = path.trim_start_matches("/run/netns/");
        self.namespaces.insert(path.to_owned(), Namespace::create(name)?);
        Ok(())
    }

    /// The namespace at a path.
    ///
    /// # Errors
    /// When there is none now.
    pub(crate) fn namespace(&self, path: &str) -> Result<&Namespace> {
        self.namespaces.get(path).with_context(|| format!("there is no namespace {path} now"))
    }

    /// Deletes the namespace at a path; it stays away.
    pub(crate) fn delete_namespace(&mut self, path: &str) {
        self.namespaces.remove(path);
        self.deleted.insert(path.to_owned());
    }

    /// Deletes the namespace at a path and makes another one there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn replace_namespace(&mut self, path: &str) -> Result<()> {
        self.delete_namespace(path);
        self.deleted.remove(path);
        self.ensure_namespace(path)
    }

    /// Does something when the case is over, after what was noted later.
    pub(crate) fn finally(&mut self, work: impl FnOnce(&mut Scene<'_>) -> Result<()> + 'static) {
        self.clean_ups.push(Box::new(work));
    }

    /// Runs the plugin with this environment and input; takes note of what ADD and DEL did.
    ///
    /// # Errors
    /// When the plugin cannot be started.
    pub(crate) fn call(&mut self, env: BTreeMap<String, String>, stdin: &Value) -> Result<Made> {
        let made = self.run(env, stdin)?;
        self.note(&made);
        Ok(made)
    }

    /// Runs the plugin without taking note.
    ///
    /// # Errors
    /// When the plugin cannot be started.
    pub(crate) fn run(&self, env: BTreeMap<String, String>, stdin: &Value) -> Result<Made> {
        self.launcher().run(env, stdin)
    }

    /// What runs the plugin, for several threads at once.
    pub(crate) fn launcher(&self) -> Launcher<'_> {
        Launcher { program: self.plugins.path().join(PLUGIN), host: self.site.host(), env: self.agent_env() }
    }

    /// Notes that the agent may know a container.
    pub(crate) fn attempt(&mut self, container: &str) {
        self.attempts.insert(container.to_owned());
    }

    /// How plugins of this lab find the agent, and which failpoints are armed.
    pub(crate) fn agent_env(&self) -> [(String, String); 2] {
        let node = self.site.node();
        [
            ("RHUMB_AGENT_SOCKET".to_owned(), node.socket().display().to_string()),
            (rhumb_cni::failpoint::ENV.to_owned(), node.failpoint_dir().display().to_string()),
        ]
    }

    /// Takes note of what a run of the plugin did.
    pub(crate) fn note(&mut self, made: &Made) {
        match (made.var("CNI_COMMAND"), made.outcome.succeeded()) {
            ("ADD", succeeded) => {
                self.attempts.insert(made.var("CNI_CONTAINERID").to_owned());
                let attachment = Attachment {
                    container: made.var("CNI_CONTAINERID").to_owned(),
                    ifname: made.var("CNI_IFNAME").to_owned(),
                    netns: made.var("CNI_NETNS").to_owned(),
                    result: made.outcome.json().unwrap_or_default(),
                    config: made.config.clone().unwrap_or_default(),
                    removed: false,
                };
                if succeeded {
                    self.attachments.push(attachment);
                }
            }
            ("DEL", true) => {
                let key = made.key();
                let gone = self.attachments.iter_mut().filter(|a| a.key() == key && !a.removed);
                let mut released = Vec::new();
                for attachment in gone {
                    attachment.removed = true;
                    released.extend(attachment.addresses());
                }
                if !released.is_empty() {
                    self.released = released;
                }
            }
            _ => {}
        }
    }

    /// Environment and configuration of a call about a container that the case itself does not name.
    pub(crate) fn container_env(
        &self,
        command: &str,
        container: &str,
        netns: &str,
    ) -> BTreeMap<String, String> {
        [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", &self.plugins.path().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The configuration that most cases use.
    pub(crate) fn podnet(&self) -> Value {
        json!({"cniVersion": self.version, "name": "podnet", "type": PLUGIN})
    }

    /// The first call of this step.
    ///
    /// # Errors
    /// When the step ran nothing.
    pub(crate) fn made(&self) -> Result<&Made> {
        self.calls.first().context("the step ran nothing")
    }

    /// The attachment that this step is about: the newest of its container and interface.
    ///
    /// # Errors
    /// When ADD never made it.
    pub(crate) fn subject(&self) -> Result<&Attachment> {
        let key = self.made()?.key();
        self.attachments
            .iter()
            .rev()
            .find(|attachment| attachment.key() == key)
            .with_context(|| format!("ADD never made {key}"))
    }

    /// The newest attachment of a container and interface that variables name.
    ///
    /// # Errors
    /// When ADD never made it.
    pub(crate) fn attachment(&self, container: &str, ifname: &str) -> Result<&Attachment> {
        let key = format!("{}/{ifname}", self.variables.interpolate(container)?);
        self.attachments
            .iter()
            .rev()
            .find(|attachment| attachment.key() == key)
            .with_context(|| format!("ADD never made {key}"))
    }

    /// Attachments of this step's calls.
    pub(crate) fn subjects(&self) -> Vec<&Attachment> {
        let keys: BTreeSet<String> = self.calls.iter().map(Made::key).collect();
        self.attachments.iter().filter(|attachment| keys.contains(&attachment.key())).collect()
    }

    /// Host ends of an attachment by its result.
    pub(crate) fn host_ends(&self, attachment: &Attachment) -> Vec<String> {
        result::host_interfaces(&attachment.result)
    }

    /// Checks that a container answers the node and reaches the client beyond the router, over each of its families.
    ///
    /// # Errors
    /// Says which way is closed.
    pub(crate) fn works(&self, attachment: &Attachment) -> Result<()> {
        let inside = self.namespace(&attachment.netns)?;
        let addresses = attachment.addresses();
        ensure!(!addresses.is_empty(), "{} has no address", attachment.key());
        for address in addresses {
            ping(self.site.host(), address, PATIENCE)?;
            ping(inside, Site::client_address(address), PATIENCE)?;
        }
        Ok(())
    }

    /// Socket address of the node of the family of `like`.
    pub(crate) fn node_at(&self, like: IpAddr, port: u16) -> SocketAddr {
        let addresses = &self.site.node().addresses;
        let same = addresses.iter().find(|address| address.is_ipv4() == like.is_ipv4());
        SocketAddr::new(*same.expect("a node has an address of each family"), port)
    }

    /// Ends the case: removes every container that is left and looks whether the lab is as before.
    ///
    /// # Errors
    /// Says what was left behind.
    pub(crate) fn close(mut self) -> Result<()> {
        let mut failures = Vec::new();
        let mut note = |what: &str, result: Result<()>| {
            failures.extend(result.err().map(|error| format!("{what}: {error:#}")));
        };
        while let Some(work) = self.clean_ups.pop() {
            note("clean up", work(&mut self));
        }
        note("bring the agent back", self.site.heal());
        let attachments = std::mem::take(&mut self.attachments);
        let fillers = std::mem::take(&mut self.fillers);
        let left = attachments.into_iter().rev().chain(fillers).filter(|attachment| !attachment.removed);
        for attachment in left {
            note("clean up", self.remove(&attachment));
        }
        for container in std::mem::take(&mut self.attempts) {
            let view = self.site.view()?;
            note(
                "clean up",
                if view.about(&container).is_empty() { Ok(()) } else { self.forget(&container) },
            );
        }
        self.namespaces.clear();
        note("left behind", self.same_as_at_the_start());
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
    }

    fn remove(&self, attachment: &Attachment) -> Result<()> {
        let mut env = self.container_env("DEL", &attachment.container, &attachment.netns);
        env.insert("CNI_IFNAME".to_owned(), attachment.ifname.clone());
        let mut config = attachment.config.clone();
        config["prevResult"] = attachment.result.clone();
        let made = self.run(env, &config)?;
        ensure!(made.outcome.succeeded(), "DEL of {}: {}", attachment.key(), made.outcome);
        Ok(())
    }

    /// DEL for a container of which ADD failed, with everything that a runtime would still know.
    fn forget(&self, container: &str) -> Result<()> {
        let made = self.run(self.container_env("DEL", container, ""), &self.podnet())?;
        let left = self.site.view()?.about(container);
        ensure!(left.is_empty(), "after DEL ({}) the agent still has {left:?}", made.outcome);
        Ok(())
    }

    fn same_as_at_the_start(&mut self) -> Result<()> {
        self.site.is_fresh()?;
        let now = self.look()?;
        ensure!(now.rules == self.start.rules, "rules {:?} instead of {:?}", now.rules, self.start.rules);
        Ok(())
    }

    /// Waits until `look` finds nothing to complain about.
    ///
    /// # Errors
    /// The last complaint, when `patience` is over before.
    pub(crate) fn eventually(&self, patience: Duration, look: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let deadline = std::time::Instant::now() + patience;
        loop {
            match look(self) {
                Ok(()) => return Ok(()),
                Err(error) if std::time::Instant::now() >= deadline => return Err(error),
                // Each look asks other programs, which takes a few milliseconds itself.
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

impl From<ExpandError> for super::expect::Miss {
    fn from(error: ExpandError) -> Self {
        Self::new("variables", "a value", error)
    }
}
