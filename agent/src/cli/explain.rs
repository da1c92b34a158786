// SPDX-License-Identifier: Apache-2.0
//! `rhumb ip explain`: why a node has no more addresses, and what would help. Reads the objects themselves, so that it
//! answers with the agent or the operator dead as well.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rhumb_api::{DirStore, EniConfig, EniInterface, NodeConfig, NodeState, ObjectKey, PodCidr, Store};
use rhumb_model::{Family, NodeName};
use serde_json::{Value, json};

use crate::table::Table;

/// Answers for a node of the cluster whose objects are in this directory.
pub(crate) fn run(store: &Path, node: &NodeName, as_json: bool, colour: bool) -> Result<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let (config, state) = runtime.block_on(read(store, node))?;
    let Some(config) = config else {
        bail!("node {node} has no NodeConfig: the operator has not seen it, or does not run");
    };
    let answer = Answer { node, config: &config, state: state.as_ref() };
    Ok(if as_json { format!("{:#}\n", answer.json()) } else { answer.text(colour) })
}

async fn read(store: &Path, node: &NodeName) -> Result<(Option<NodeConfig>, Option<NodeState>)> {
    let store = DirStore::open(store).await.context("open the object directory")?;
    let key = ObjectKey::from(node);
    Ok((store.get(&key).await?, store.get(&key).await?))
}

struct Answer<'a> {
    node: &'a NodeName,
    config: &'a NodeConfig,
    state: Option<&'a NodeState>,
}

/// IPv4 addresses of a node by what they are doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    held: u128,
    leaving: u128,
    used: u64,
    resting: u64,
    ready: u64,
}

impl Answer<'_> {
    fn eni(&self) -> Option<&EniConfig> {
        self.config.spec.eni.as_ref()
    }

    fn blocks(&self) -> impl Iterator<Item = &PodCidr> {
        let v4 = |block: &&PodCidr| block.interface.is_some() && block.cidr.family() == Family::V4;
        self.config.spec.pod_cidrs.iter().filter(v4)
    }

    fn count(&self) -> Count {
        let sum = |leaving: bool| {
            self.blocks()
                .filter(|block| block.releasing.is_some() == leaving)
                .map(|block| block.cidr.size())
                .sum()
        };
        let pools: Vec<&str> = self.blocks().map(|block| block.pool.as_str()).collect();
        let usage = self.state.iter().flat_map(|state| &state.status.pools);
        let usage = usage.filter(|usage| usage.family == Family::V4 && pools.contains(&usage.pool.as_str()));
        usage.fold(Count { held: sum(false), leaving: sum(true), ..Count::default() }, |count, usage| Count {
            used: count.used + usage.used,
            resting: count.resting + usage.cooling,
            ready: count.ready + usage.free,
            ..count
        })
    }

    /// Why there are no more addresses, and what would help.
    fn reason(&self) -> (String, String) {
        let say = |code: &str, text: String| (code.to_owned(), text);
        if let Some(unserved) = &self.config.spec.unserved {
            return (unserved.code.clone(), unserved.message.clone());
        }
        let Some(eni) = self.eni() else {
            let text = "No ENIPool serves this node: its addresses are from PodPools. Check spec.nodeSelector of the \
                        ENIPools, and that the node's agent found its instance (NodeState status.instance).";
            return say("NoPool", text.to_owned());
        };
        if let Some(waiting) = &eni.waiting {
            return (waiting.code.clone(), waiting.message.clone());
        }
        let Some(state) = self.state else {
            return say(
                "NoAgent",
                "The node's agent has not spoken: look whether rhumb-agent runs there.".to_owned(),
            );
        };
        let (seen, newest) = (state.status.observed_generation, eni.generation);
        if seen < newest {
            let text = format!(
                "The node's agent has seen generation {seen} of {newest}: it is slow to read its NodeConfig, or stopped. \
                 Look at rhumb-agent on the node."
            );
            return say("AgentBehind", text);
        }
        let count = self.count();
        let pending = state.status.pending;
        match (pending, count.ready) {
            (0, _) => say("Enough", "No pod waits for an address.".to_owned()),
            (_, 0) if count.resting > 0 => say(
                "Resting",
                format!(
                    "{pending} pods wait, and {} addresses rest after their pods went. They are given again after the \
                     pool's coolDownSeconds; a greater preAllocate bridges such times.",
                    count.resting
                ),
            ),
            (_, 0) => say(
                "Growing",
                format!(
                    "{pending} pods wait, and the operator is about to assign more: look at its log if this stays."
                ),
            ),
            (_, 1..) => say(
                "AgentBusy",
                format!(
                    "{pending} pods waited within the last minute, and {} addresses are ready now.",
                    count.ready
                ),
            ),
        }
    }

    fn json(&self) -> Value {
        let (code, message) = self.reason();
        let count = self.count();
        let interfaces = self.eni().map_or(&[][..], |eni| &eni.interfaces);
        let each = |it: &EniInterface| json!({"id": it.id, "deviceIndex": it.device_index, "pods": it.pods, "addresses": self.on(it, false), "leaving": self.on(it, true)});
        json!({
            "node": self.node,
            "instance": self.eni().map(|eni| &eni.instance),
            "maxPods": self.eni().map(|eni| eni.max_pods),
            "interfaces": interfaces.iter().map(each).collect::<Vec<_>>(),
            "addresses": {"held": count.held, "leaving": count.leaving, "used": count.used, "resting": count.resting, "ready": count.ready},
            "pending": self.state.map_or(0, |state| state.status.pending),
            "reason": {"code": code, "message": message},
        })
    }

    fn on(&self, interface: &EniInterface, leaving: bool) -> u64 {
        let mine = self.blocks().filter(|block| block.interface.as_ref() == Some(&interface.id));
        let size: u128 =
            mine.filter(|block| block.releasing.is_some() == leaving).map(|block| block.cidr.size()).sum();
        u64::try_from(size).unwrap_or(u64::MAX)
    }

    fn text(&self, colour: bool) -> String {
        let mut text = String::new();
        if let Some(eni) = self.eni() {
            text += &format!(
                "node {}: instance {} in {}, at most {} pods\n",
                self.node, eni.instance, eni.zone, eni.max_pods
            );
            let mut table = Table::new(&["INTERFACE", "INDEX", "PODS", "ADDRESSES", "LEAVING"]);
            for interface in &eni.interfaces {
                table.row([
                    interface.id.to_string(),
                    interface.device_index.to_string(),
                    if interface.pods { "yes" } else { "no" }.to_owned(),
                    self.on(interface, false).to_string(),
                    self.on(interface, true).to_string(),
                ]);
            }
            text += &table.render(colour);
            let count = self.count();
            text += &format!(
                "{} addresses: {} in use, {} resting, {} ready; {} more on their way back\n",
                count.held, count.used, count.resting, count.ready, count.leaving
            );
        }
        let (code, message) = self.reason();
        text + &format!("{code}: {message}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(eni: &str) -> NodeConfig {
        let text = format!(
            r#"{{"apiVersion": "rhumb.io/v1alpha1", "kind": "NodeConfig", "metadata": {{"name": "a"}}, "spec": {{
                "podCIDRs": [
                    {{"pool": "vpc", "cidr": "10.0.0.16/28", "interface": "eni-1"}},
                    {{"pool": "vpc", "cidr": "10.0.0.32/28", "interface": "eni-1", "releasing": 4}}],
                "eni": {{"instance": "i-1", "zone": "eu-central-1a", "generation": 5, "maxPods": 29,
                    "interfaces": [{{"id": "eni-1", "mac": "02:00:00:00:00:01", "deviceIndex": 0, "primary": "10.0.0.4", "pods": true}}]
                    {eni}}}}}}}"#
        );
        serde_json::from_str(&text).expect("valid")
    }

    fn state(seen: u64, pending: u32, free: u64, cooling: u64) -> NodeState {
        let text = format!(
            r#"{{"apiVersion": "rhumb.io/v1alpha1", "kind": "NodeState", "metadata": {{"name": "a"}}, "status": {{
                "observedGeneration": {seen}, "pending": {pending}, "pools": [{{"pool": "vpc", "family": "ipv4",
                "capacity": 16, "used": 3, "cooling": {cooling}, "free": {free}}}]}}}}"#
        );
        serde_json::from_str(&text).expect("valid")
    }

    fn code(config: &NodeConfig, state: Option<&NodeState>) -> String {
        let node = NodeName::new("a").expect("valid");
        Answer { node: &node, config, state }.reason().0
    }

    #[test]
    fn the_operators_reason_is_shown_with_interfaces_and_numbers() {
        let config = config(r#", "waiting": {"code": "SubnetExhausted", "message": "Add a subnet."}"#);
        let (node, state) = (NodeName::new("a").expect("valid"), state(5, 2, 0, 13));
        let answer = Answer { node: &node, config: &config, state: Some(&state) };
        let text = answer.text(false);
        for line in [
            "node a: instance i-1 in eu-central-1a, at most 29 pods\n",
            "eni-1      0      yes   16         16\n",
            "16 addresses: 3 in use, 13 resting, 0 ready; 16 more on their way back\n",
            "SubnetExhausted: Add a subnet.\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert_eq!(answer.json()["reason"]["code"], "SubnetExhausted");
        assert_eq!(code(&config, None), "SubnetExhausted", "also where no agent ever spoke");
        assert_eq!(answer.json()["addresses"]["leaving"], 16);
    }

    #[test]
    fn every_reason_of_the_node_itself_is_told_apart() {
        let served = config("");
        let mut unserved = served.clone();
        unserved.spec.eni = None;
        assert_eq!(code(&unserved, None), "NoPool");
        assert_eq!(code(&served, None), "NoAgent");
        for (state, reason) in [
            (state(4, 2, 0, 0), "AgentBehind"),
            (state(5, 0, 0, 0), "Enough"),
            (state(5, 2, 0, 3), "Resting"),
            (state(5, 2, 0, 0), "Growing"),
            (state(5, 2, 4, 0), "AgentBusy"),
        ] {
            assert_eq!(code(&served, Some(&state)), reason);
        }
    }

    #[test]
    fn a_node_that_the_operator_can_do_nothing_for_is_told_why_with_what_it_has() {
        let mut config = config("");
        let (code, message) = ("NoInstance".to_owned(), "Set spec.providerID.".to_owned());
        config.spec.unserved = Some(rhumb_api::EniWaiting { code, message });
        let (node, state) = (NodeName::new("a").expect("valid"), state(5, 0, 0, 0));
        let text = Answer { node: &node, config: &config, state: Some(&state) }.text(false);
        assert!(text.starts_with("node a: instance i-1"), "{text}");
        assert!(text.ends_with("NoInstance: Set spec.providerID.\n"), "{text}");
    }

    #[test]
    fn it_answers_from_the_files_alone() {
        let folder = tempfile::tempdir().expect("room");
        let node = NodeName::new("a").expect("valid");
        let error = run(folder.path(), &node, false, false).expect_err("nothing is there").to_string();
        assert!(error.contains("has no NodeConfig"), "{error}");
        let text = serde_json::to_string(&config("")).expect("written");
        std::fs::write(folder.path().join("a.yaml"), text).expect("written");
        let text = run(folder.path(), &node, false, false).expect("answered");
        assert!(text.ends_with("look whether rhumb-agent runs there.\n"), "{text}");
    }
}
