// SPDX-License-Identifier: Apache-2.0
//! The labs in which cases run: made when a case first needs them, used by all that follow.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rhumb_model::Prefix;

use super::observe;
use super::recorder::{FAILER, OBSERVED, PLUGIN, RECORDER};
use super::schema::{Action, Case, Repeat};
use super::view::View;
use super::words;
use crate::lab::{AgentOptions, Binaries, Footprint, Lab, Namespace, Node, Spec};

/// Where Debian and others put the reference plugins.
const PLUGIN_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// How long the agent may go on removing things after it answered.
const SOON: Duration = Duration::from_secs(5);

/// Families of a lab's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Families {
    /// IPv4.
    One,
    /// IPv4 and IPv6.
    Both,
}

/// Size of a lab's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// More than any case uses up.
    Ample,
    /// One /29; an address that is given back is free at once.
    Tiny,
}

/// What kind of lab a case needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    families: Families,
    size: Size,
}

impl Kind {
    /// The kind for a case. Cases that say nothing get a pool of one family.
    pub(crate) fn of(case: &Case) -> Self {
        let both = case.state.iter().any(|word| word == words::POOL_WITH_BOTH_FAMILIES);
        let tiny = case.steps.iter().any(|step| {
            let exhausts = step.pre.iter().any(|word| word.starts_with("exhaust the pool"));
            let repeats = match &step.action {
                Action::Call { expect, .. } => matches!(expect.repeat, Some(Repeat::Words(_))),
                Action::File { .. } | Action::Runtime { .. } => false,
            };
            exhausts || repeats
        });
        Self {
            families: if both { Families::Both } else { Families::One },
            size: if tiny { Size::Tiny } else { Size::Ample },
        }
    }

    fn spec(self) -> Spec {
        let block = |text: &str| text.parse::<Prefix>().expect("a literal prefix");
        let (name, nodes, v4, v6) = match (self.families, self.size) {
            (Families::One, Size::Ample) => ("cfone", 2, (block("10.244.0.0/16"), 22), None),
            (Families::Both, Size::Ample) => {
                ("cfboth", 2, (block("10.244.0.0/16"), 22), Some((block("fd00:10:244::/104"), 118)))
            }
            (Families::One, Size::Tiny) => ("cftiny", 1, (block("10.244.0.0/29"), 29), None),
            (Families::Both, Size::Tiny) => {
                ("cfduo", 1, (block("10.244.0.0/29"), 29), Some((block("fd00:10:244::/125"), 125)))
            }
        };
        Spec { nodes, pool_v4: Some(v4), pool_v6: v6, ..Spec::named(name) }
    }
}

/// The folder that is `${PATH}`, and the one whose plugin is observed.
#[derive(Debug)]
pub(crate) struct Plugins {
    folder: tempfile::TempDir,
}

impl Plugins {
    /// Makes the folders: the plugin under test, the helpers, and the reference plugins of this machine.
    ///
    /// # Errors
    /// When the folder cannot be made, or the machine has no portmap plugin.
    pub(crate) fn create(binaries: &Binaries) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("rhconf").tempdir().context("make a folder of plugins")?;
        let own = binaries.path("rhumb-conformance");
        ensure!(own.is_file(), "{} is not there: run `cargo build --workspace` first", own.display());
        let path = folder.path();
        symlink(binaries.path(PLUGIN), path.join(PLUGIN))?;
        symlink(&own, path.join(RECORDER))?;
        symlink(&own, path.join(FAILER))?;
        let portmap = PLUGIN_FOLDERS.iter().map(|folder| Path::new(folder).join("portmap"));
        let portmap = portmap.into_iter().find(|path| path.is_file()).with_context(|| {
            format!("there is no portmap in {PLUGIN_FOLDERS:?}: install containernetworking-plugins")
        })?;
        symlink(portmap, path.join("portmap"))?;
        let observing = path.join("observing");
        std::fs::create_dir(&observing)?;
        symlink(&own, observing.join(PLUGIN))?;
        symlink(binaries.path(PLUGIN), observing.join(OBSERVED))?;
        Ok(Self { folder })
    }

    /// `${PATH}`.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder whose plugin records its calls and is the plugin under test otherwise.
    pub(crate) fn observing(&self) -> PathBuf {
        self.folder.path().join("observing")
    }
}

/// All labs that were needed so far.
#[derive(Debug, Default)]
pub(crate) struct World {
    sites: BTreeMap<Kind, Site>,
}

impl World {
    /// The lab of a kind, made when it is the first time.
    ///
    /// # Errors
    /// With the log of the program that did not come up.
    pub(crate) fn site(&mut self, kind: Kind) -> Result<&mut Site> {
        match self.sites.entry(kind) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Site::build(kind)?)),
        }
    }

    /// Drops the lab of a kind: it could not be brought back to health.
    pub(crate) fn abandon(&mut self, kind: Kind) {
        self.sites.remove(&kind);
    }

    /// Removes every lab, going on after a failure.
    ///
    /// # Errors
    /// What could not be removed.
    pub(crate) fn close(self) -> Result<()> {
        let failures: Vec<String> = self
            .sites
            .into_values()
            .filter_map(|site| site.lab.close().err().map(|error| format!("{error:#}")))
            .collect();
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
    }
}

/// One lab; cases run on its first node.
#[derive(Debug)]
pub(crate) struct Site {
    lab: Lab,
    kind: Kind,
    fresh: Footprint,
    disturbed: bool,
    names: usize,
}

impl Site {
    fn build(kind: Kind) -> Result<Self> {
        let mut lab = Lab::build(kind.spec())?;
        lab.start_operator()?;
        let nodes = lab.nodes().len();
        for index in 0..nodes {
            lab.node_mut(index).start_agent_with(options(kind))?;
        }
        lab.route_world()?;
        routed(&lab)?;
        let fresh = Footprint::of(lab.node(0))?;
        Ok(Self { lab, kind, fresh, disturbed: false, names: 0 })
    }

    /// The lab.
    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The node on which cases run.
    pub(crate) fn node(&self) -> &Node {
        self.lab.node(0)
    }

    /// The namespace of that node.
    pub(crate) fn host(&self) -> &Namespace {
        self.node().namespace()
    }

    /// Namespaces from which traffic reaches the node over its uplink.
    pub(crate) fn outside(&self) -> Vec<&Namespace> {
        let others = self.lab.nodes().iter().skip(1).map(Node::namespace);
        std::iter::once(self.lab.client()).chain(others).collect()
    }

    /// Address of the client of the family of `like`.
    pub(crate) fn client_address(like: IpAddr) -> IpAddr {
        let text = Lab::CLIENT[usize::from(like.is_ipv6())];
        text.parse().expect("the lab's addresses are literals")
    }

    /// What the agent shows.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn view(&self) -> Result<View> {
        View::take(self.node())
    }

    /// Looks until the node is as it was before its first case.
    ///
    /// # Errors
    /// Names what is left over.
    pub(crate) fn is_fresh(&self) -> Result<()> {
        self.fresh.returns(self.node(), SOON)
    }

    /// A name that no other container or namespace of this lab has.
    pub(crate) fn fresh(&mut self) -> usize {
        self.names += 1;
        self.names
    }

    /// Whether the agent runs.
    pub(crate) fn agent_running(&mut self) -> bool {
        self.lab.node_mut(0).agent_running()
    }

    /// Stops the agent, until the case ends or starts it; it may have stopped already.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub(crate) fn stop_agent(&mut self) -> Result<()> {
        self.disturbed = true;
        if self.agent_running() { self.lab.node_mut(0).stop_agent() } else { Ok(()) }
    }

    /// Starts the agent as it always is and waits until it can serve ADD; it may run already.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        if self.agent_running() {
            return Ok(());
        }
        let options = options(self.kind);
        self.lab.node_mut(0).start_agent_with(options)
    }

    /// Starts the agent in a way of the case's own, until the case ends.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub(crate) fn start_agent_oddly(&mut self, change: impl FnOnce(&mut AgentOptions)) -> Result<()> {
        self.stop_agent()?;
        let mut options = options(self.kind);
        change(&mut options);
        self.lab.node_mut(0).start_agent_with(options)
    }

    /// Notes that the agent or its datapath is not as it should be.
    pub(crate) fn disturb(&mut self) {
        self.disturbed = true;
    }

    /// Brings the agent back to health, when a case disturbed it.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub(crate) fn heal(&mut self) -> Result<()> {
        self.node().disarm()?;
        if self.disturbed {
            self.stop_agent()?;
            self.start_agent()?;
            self.disturbed = false;
        }
        Ok(())
    }

    /// Prefixes of the first node's pool.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn pod_cidrs(&self) -> Result<Vec<Prefix>> {
        self.node().pod_cidrs(self.lab.store())
    }
}

/// Waits until the first node knows the way to the pods of all others: until then it is not as it stays.
fn routed(lab: &Lab) -> Result<()> {
    let deadline = Instant::now() + SOON;
    let host = lab.node(0).namespace();
    loop {
        let known = [observe::routes(host, 4)?, observe::routes(host, 6)?].concat();
        let mut missing = Vec::new();
        for node in lab.nodes() {
            let prefixes = node.pod_cidrs(lab.store())?;
            let unknown = |prefix: &Prefix| !known.iter().any(|route| route["dst"] == prefix.to_string());
            missing.extend(prefixes.into_iter().filter(unknown));
        }
        if missing.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "n1 has no route to {missing:?} after {SOON:?}");
    }
}

fn options(kind: Kind) -> AgentOptions {
    let args = match kind.size {
        Size::Ample => Vec::new(),
        Size::Tiny => ["--cool-down", "0"].map(str::to_owned).to_vec(),
    };
    AgentOptions { failpoints: true, args, ..AgentOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::schema::CaseFile;

    fn kind_of(body: &str) -> Kind {
        let text = format!(
            "plugin: {{supportedVersions: [1.1.0]}}\ncases:\n- {{id: X, name: x, versions: [1.1.0], basis: spec, {body}}}"
        );
        let file = CaseFile::parse(&text).expect("a case file");
        Kind::of(file.cases[0].as_ref().expect("a case"))
    }

    #[test]
    fn the_words_of_a_case_choose_its_lab() {
        let plain = kind_of("steps: [{env: {}, expect: {exit: 0}}]");
        assert_eq!(plain, Kind { families: Families::One, size: Size::Ample });
        let both = kind_of("state: pool with both families, steps: []");
        assert_eq!(both, Kind { families: Families::Both, size: Size::Ample });
        let tiny = kind_of("steps: [{pre: exhaust the pool, env: {}, expect: {exit: 0}}]");
        assert_eq!(tiny, Kind { families: Families::One, size: Size::Tiny });
        let repeated =
            kind_of("steps: [{env: {}, expect: {repeat: until the pool of a /29 is empty, effects: []}}]");
        assert_eq!(repeated.size, Size::Tiny);
    }
}
