// SPDX-License-Identifier: Apache-2.0
//! What the operator says of BGPClusterConfig objects: on how many nodes each is in force, and what is wrong with it as a
//! whole. How it stands on a node, that node says in its NodeState.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::select_all;
use rhumb_api::{
    BGPClusterConfig, BGPClusterConfigStatus, BGPPeerConfig, Condition, ConditionStatus, DirStore, Kind,
    Node, ObjectKey, Store, StoreError, Update, follow,
};
use tracing::warn;

use crate::app::RETRY;
use crate::cluster::fold;

/// Nodes and objects that a message names; more are counted.
const NAMED: usize = 8;

/// Labels of nodes by name.
type Nodes = BTreeMap<String, BTreeMap<String, String>>;

/// Objects that matter here; `None`: not yet seen in full.
#[derive(Debug, Default)]
struct Objects {
    nodes: Option<BTreeMap<ObjectKey, BTreeMap<String, String>>>,
    configs: Option<BTreeMap<ObjectKey, BGPClusterConfig>>,
    peers: Option<BTreeMap<ObjectKey, ()>>,
}

/// A change of them.
#[derive(Debug)]
enum Seen {
    Nodes(Box<Update<Node>>),
    Configs(Update<BGPClusterConfig>),
    Peers(Update<BGPPeerConfig>),
}

/// Keeps the status of every BGPClusterConfig true, until the store says nothing any more.
pub(crate) async fn run(store: DirStore) {
    let mut seen = select_all([
        follow(&store).map(|update| Seen::Nodes(Box::new(update))).boxed(),
        follow(&store).map(Seen::Configs).boxed(),
        follow(&store).map(Seen::Peers).boxed(),
    ]);
    let mut objects = Objects::default();
    let mut is_behind = false;
    loop {
        tokio::select! {
            change = seen.next() => match change {
                Some(change) => objects.take(change),
                None => return,
            },
            () = tokio::time::sleep(RETRY), if is_behind => {}
        }
        is_behind = false;
        for (key, status) in objects.due() {
            match store.patch_status::<BGPClusterConfig>(&key, &status).await {
                // It is seen as a change, too; that it was written is known without.
                Ok(written) => objects.take(Seen::Configs(Update::Put(written))),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(config = %key, error, "status not written");
                    is_behind = true;
                }
            }
        }
    }
}

impl Objects {
    fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Nodes(update) => {
                fold(&mut self.nodes, *update, |node| node.metadata.labels.unwrap_or_default());
            }
            Seen::Configs(update) => fold(&mut self.configs, update, |config| config),
            Seen::Peers(update) => fold(&mut self.peers, update, |_| ()),
        }
    }

    /// Objects whose status is not what it is to be.
    fn due(&self) -> Vec<(ObjectKey, BGPClusterConfigStatus)> {
        let (Some(nodes), Some(configs), Some(peers)) = (&self.nodes, &self.configs, &self.peers) else {
            return Vec::new();
        };
        let nodes: Nodes = nodes.iter().map(|(key, labels)| (key.name.clone(), labels.clone())).collect();
        let configs: Vec<&BGPClusterConfig> = configs.values().collect();
        let knows = |name: &str| peers.keys().any(|key| key.name == name);
        let wanted = configs
            .iter()
            .map(|config| (config, status(config, &configs, &nodes, knows)))
            .collect::<Vec<_>>();
        let others = wanted.into_iter().filter(|(config, status)| config.status != *status);
        others.map(|(config, status)| (config.key(), status)).collect()
    }
}

/// What is to be said of one of `configs`, which come in the order of their names.
fn status(
    config: &BGPClusterConfig,
    configs: &[&BGPClusterConfig],
    nodes: &Nodes,
    is_there: impl Fn(&str) -> bool,
) -> BGPClusterConfigStatus {
    let chooses = |config: &BGPClusterConfig, labels| config.spec.node_selector.matches(labels);
    let chosen = nodes.iter().filter(|(_, labels)| chooses(config, labels));
    let (mut in_force, mut conflicts) = (0, Vec::new());
    let mut is_chosen = false;
    for (node, labels) in chosen {
        is_chosen = true;
        let first = configs.iter().find(|other| chooses(other, labels)).map(|first| first.key());
        match first.filter(|first| *first != config.key()) {
            Some(first) => conflicts.push(format!("{node} ({first} comes first)")),
            None => in_force += 1,
        }
    }
    let mut missing: Vec<String> = Vec::new();
    for instance in &config.spec.instances {
        for peer in &instance.peers {
            if let Some(name) = peer.peer_config.as_ref().filter(|name| !is_there(name)) {
                missing.push(format!("{name} (peer {}/{})", instance.name, peer.name));
            }
        }
    }
    let nobody = if is_chosen { Vec::new() } else { vec!["the selector chooses no node".to_owned()] };
    BGPClusterConfigStatus {
        nodes: in_force,
        conditions: vec![
            condition("NoMatchingNode", "", &nobody),
            condition("ConflictingClusterConfig", "not in force on ", &conflicts),
            condition("MissingPeerConfig", "no BGPPeerConfig ", &missing),
        ],
    }
}

/// A condition that is true where something was found.
fn condition(kind: &str, about: &str, found: &[String]) -> Condition {
    let (status, reason) = match found.is_empty() {
        true => (ConditionStatus::False, "None"),
        false => (ConditionStatus::True, "Found"),
    };
    let mut message = found.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if found.len() > NAMED {
        message.push_str(&format!(" and {} more", found.len() - NAMED));
    }
    if !found.is_empty() {
        message.insert_str(0, about);
    }
    Condition { kind: kind.to_owned(), status, reason: reason.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, rack: &str) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        node.metadata.labels = Some(BTreeMap::from([("rack".to_owned(), rack.to_owned())]));
        node
    }

    fn config(name: &str, selector: &str) -> BGPClusterConfig {
        let spec = serde_json::from_str(&format!(
            r#"{{"nodeSelector": {selector}, "instances": [{{"name": "main", "asn": 65000, "peers": [
                {{"name": "tor", "asn": 65001, "address": "192.0.2.1", "peerConfig": "quick"}}]}}]}}"#
        ))
        .expect("valid");
        BGPClusterConfig::new(name, spec)
    }

    fn objects(configs: Vec<BGPClusterConfig>, peers: Vec<BGPPeerConfig>) -> Objects {
        let mut objects = Objects::default();
        let nodes = (0..10).map(|number| node(&format!("n{number}"), "a")).collect();
        objects.take(Seen::Configs(Update::Snapshot(configs)));
        objects.take(Seen::Peers(Update::Snapshot(peers)));
        assert_eq!(objects.due(), [], "nothing is said before all is known");
        objects.take(Seen::Nodes(Box::new(Update::Snapshot(nodes))));
        objects
    }

    /// Of each object that is due: on how many nodes it is in force, and the messages of conditions that are true.
    fn said(objects: &Objects) -> Vec<(String, u32, Vec<String>)> {
        let messages = |status: &BGPClusterConfigStatus| {
            let found = status.conditions.iter().filter(|one| one.status == ConditionStatus::True);
            found.map(|one| format!("{}: {}", one.kind, one.message)).collect()
        };
        objects.due().iter().map(|(key, status)| (key.name.clone(), status.nodes, messages(status))).collect()
    }

    #[test]
    fn an_object_in_force_everywhere_has_no_condition_that_is_true() {
        let mut objects = objects(
            vec![config("all", "{}")],
            vec![BGPPeerConfig::new("quick", rhumb_api::BGPPeerConfigSpec::default())],
        );
        assert_eq!(said(&objects), [("all".to_owned(), 10, Vec::new())]);
        let (_, status) = objects.due().remove(0);
        let written = BGPClusterConfig { status, ..config("all", "{}") };
        objects.take(Seen::Configs(Update::Put(written)));
        assert_eq!(objects.due(), [], "what was said is not said again");
        objects.take(Seen::Nodes(Box::new(Update::Delete(node("n9", "a")))));
        assert_eq!(said(&objects), [("all".to_owned(), 9, Vec::new())]);
    }

    #[test]
    fn each_condition_says_what_was_found() {
        let racks = r#"{"matchLabels": {"rack": "a"}}"#;
        let nowhere = r#"{"matchLabels": {"rack": "z"}}"#;
        let objects = objects(vec![config("b", racks), config("a", "{}"), config("c", nowhere)], Vec::new());
        let missing = "MissingPeerConfig: no BGPPeerConfig quick (peer main/tor)".to_owned();
        let names: Vec<String> = (0..NAMED).map(|number| format!("n{number} (a comes first)")).collect();
        let conflict = format!("ConflictingClusterConfig: not in force on {} and 2 more", names.join(", "));
        let nobody = "NoMatchingNode: the selector chooses no node".to_owned();
        assert_eq!(
            said(&objects),
            [
                ("a".to_owned(), 10, vec![missing.clone()]),
                ("b".to_owned(), 0, vec![conflict, missing.clone()]),
                ("c".to_owned(), 0, vec![nobody, missing]),
            ]
        );
    }
}
