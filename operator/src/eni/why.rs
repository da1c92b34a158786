// SPDX-License-Identifier: Apache-2.0
//! Why a node gets nothing, where the plan does not know: EC2 cannot be seen, calls wait for their turn, nobody knows the
//! instance. Pure. Texts change only with what they say, as they stand in objects.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_api::EniWaiting;
use rhumb_cloud::{ActionReport, Class, CloudError};
use rhumb_ipam::eni::{Code, Memory, Plan, Verdict};
use rhumb_model::NodeName;

use super::facts::Claim;

/// So many looks in a row fail before nodes are said to wait because of it, unless a person must act.
const PATIENCE: u32 = 2;
/// Who waits for longer in line than this for a turn of ours, and than this after a refusal, is told so.
const LONG: Duration = Duration::from_secs(30);
const LONG_AFTER_REFUSAL: Duration = Duration::from_millis(500);

/// Looks at EC2 that failed since the last that did not.
#[derive(Debug, Default)]
pub(crate) struct Blind {
    times: u32,
    last: Option<CloudError>,
}

impl Blind {
    pub(crate) fn failed(&mut self, error: CloudError) {
        self.times = self.times.saturating_add(1);
        self.last = Some(error);
    }

    pub(crate) fn seen(&mut self) {
        *self = Self::default();
    }

    /// Whether the last look did not fail.
    pub(crate) fn is_over(&self) -> bool {
        self.last.is_none()
    }

    /// What keeps the operator from seeing EC2.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        let error = self.last.as_ref()?;
        let (action, code) = (error.action, &error.code);
        let is_final = match error.class {
            Class::Terminal | Class::StopAndReport => true,
            Class::Transient
            | Class::RefreshAndRetry
            | Class::TrySiblingSubnet
            | Class::Gone
            | Class::UnknownOutcome => false,
        };
        if is_final {
            let text = format!(
                "EC2 cannot be seen: {code} to {action}. Allow ec2:{action} in the operator's IAM policy, or give the \
                 operator credentials that hold; it goes on by itself."
            );
            return Some(Verdict { code: Code::Refused, text });
        }
        if self.times < PATIENCE {
            return None;
        }
        Some(if error.is_throttle() {
            throttled(action.name())
        } else {
            let text = format!(
                "EC2 cannot be seen: {code} to {action}. Look at the operator's log, at the endpoint's reachability and \
                 at the AWS health page; it goes on by itself."
            );
            Verdict { code: Code::Unreachable, text }
        })
    }
}

fn throttled(call: &str) -> Verdict {
    let text = format!(
        "Calls of {call} wait for their turn: EC2 limits how often the account may ask (RequestLimitExceeded). Find who \
         else asks, have the limit raised, or give rhumb a greater part of it (--ec2-share); it goes on by itself."
    );
    Verdict { code: Code::Throttled, text }
}

/// Says why, for nodes that lack addresses and of which the plan says nothing; and what would help, where EC2's answer
/// to the node's last call tells.
pub(crate) fn complete(
    plan: &mut Plan,
    memory: &Memory,
    lines: &[ActionReport],
    blind: Option<&Verdict>,
    help: &BTreeMap<NodeName, &'static str>,
) {
    let is_long = |line: &&ActionReport| {
        line.estimated_wait >= LONG || (line.factor < 1.0 && line.estimated_wait >= LONG_AFTER_REFUSAL)
    };
    let long: Vec<&'static str> = lines.iter().filter(is_long).map(|line| line.action.name()).collect();
    let asked = plan.actions.iter().map(|planned| &planned.action).chain(memory.under_way());
    let asked = asked.filter_map(|action| Some((action.node()?.clone(), action.call())));
    let later = plan.nodes.iter().filter_map(|(name, node)| Some((name.clone(), node.waits_for?)));
    let waiting: BTreeMap<NodeName, &str> =
        asked.chain(later).filter(|(_, call)| long.contains(call)).collect();
    for (name, node) in &mut plan.nodes {
        match &mut node.verdict {
            Some(verdict) if verdict.code == Code::Backoff => {
                let helps = help.get(name).map_or_else(
                    || "Compare the instance's interfaces with what EC2 shows of them.".to_owned(),
                    |help| format!("What would help: {help}."),
                );
                verdict.text = format!("{} {helps}", verdict.text);
            }
            None if node.has < node.wanted => {
                let throttled = || waiting.get(name).map(|call| throttled(call));
                node.verdict = blind.cloned().or_else(throttled);
            }
            Some(_) | None => {}
        }
    }
}

/// Why nothing can be done for a node that one chooses and that is in no plan. `is_missing`: whether EC2 was looked at
/// for its instance, which is not there.
pub(crate) fn unserved(claim: &Claim, is_missing: bool, blind: Option<&Verdict>) -> Option<EniWaiting> {
    let said = |code: Code, message: String| Some(EniWaiting { code: code.to_string(), message });
    match (claim, blind) {
        (Claim::Unknown, _) => said(
            Code::NoInstance,
            "Nobody knows which instance this node is. Set spec.providerID of the Node object (aws:///ZONE/INSTANCE), or \
             start its agent with --cloud aws."
                .to_owned(),
        ),
        (Claim::Disputed(instance, other), _) => said(
            Code::NoInstance,
            format!(
                "Instance {instance} is said to be node {other} as well: nothing is given to this node and nothing taken. \
                 Delete the Node object of the two that is stale, or correct its spec.providerID; a node without one is \
                 what its agent says (status.instance of its NodeState)."
            ),
        ),
        (Claim::Sole(_), Some(verdict)) => said(verdict.code, verdict.text.clone()),
        (Claim::Sole(instance), None) if is_missing => said(
            Code::NoInstance,
            format!(
                "EC2 shows no instance {instance} in the operator's account and Region. Compare spec.providerID of the \
                 Node object, --region and the operator's credentials; remove the Node object when the instance is gone."
            ),
        ),
        (Claim::Sole(_), None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_cloud::{Action as Asked, Outcome, Pacer};
    use rhumb_ipam::eni::{Action, NodePlan, Planned, Priority, Record};
    use rhumb_model::{EniId, InstanceId};

    fn error(status: u16, code: &str) -> CloudError {
        CloudError::answered(Asked::DescribeSubnets, status, Some(code), "", None)
    }

    fn node() -> NodeName {
        NodeName::new("a").expect("valid")
    }

    /// A node that lacks an address, for which one call is planned.
    fn plan() -> Plan {
        let eni = EniId::new("eni-1").expect("valid");
        let planned = Planned { priority: Priority::Waiting, action: Action::AssignV6 { node: node(), eni } };
        let short = NodePlan {
            record: Record::default(),
            max_pods: 29,
            most: 27,
            wanted: 9,
            has: 8,
            free: 0,
            ipv6: false,
            waits_for: None,
            verdict: None,
        };
        Plan { actions: vec![planned], nodes: [(node(), short)].into(), wake_at: None, look_at: None }
    }

    fn completed(mut plan: Plan, lines: &[ActionReport], blind: Option<&Verdict>) -> Option<Code> {
        complete(&mut plan, &Memory::default(), lines, blind, &BTreeMap::new());
        plan.nodes[&node()].verdict.as_ref().map(|verdict| verdict.code)
    }

    #[test]
    fn a_missing_permission_is_told_at_once_and_an_outage_when_it_lasts() {
        let mut blind = Blind::default();
        assert_eq!(blind.verdict(), None);
        blind.failed(error(503, "Unavailable"));
        assert_eq!(blind.verdict(), None, "one alone may be chance");
        blind.failed(error(503, "Unavailable"));
        assert_eq!(blind.verdict().expect("told").code, Code::Unreachable);
        blind.failed(error(503, "RequestLimitExceeded"));
        assert_eq!(blind.verdict().expect("told").code, Code::Throttled);
        blind.seen();
        assert_eq!(blind.verdict(), None);
        blind.failed(error(403, "UnauthorizedOperation"));
        let verdict = blind.verdict().expect("told");
        assert!(verdict.code == Code::Refused && verdict.text.contains("ec2:DescribeSubnets"), "{verdict:?}");
    }

    #[test]
    fn who_lacks_addresses_while_ec2_cannot_be_seen_is_told_so_and_who_lacks_none_is_not() {
        let mut blind = Blind::default();
        blind.failed(error(403, "UnauthorizedOperation"));
        let verdict = blind.verdict();
        assert_eq!(completed(plan(), &[], verdict.as_ref()), Some(Code::Refused));
        let mut served = plan();
        served.nodes.get_mut(&node()).expect("there").has = 9;
        assert_eq!(completed(served, &[], verdict.as_ref()), None);
    }

    #[test]
    fn a_node_whose_call_waits_after_a_refusal_is_told_so() {
        let pacer = Pacer::new(1.0);
        assert_eq!(completed(plan(), &pacer.report(), None), None);
        pacer.ended(Asked::UnassignPrivateIpAddresses, Outcome::Throttled);
        assert_eq!(completed(plan(), &pacer.report(), None), None, "another call");
        pacer.ended(Asked::AssignIpv6Addresses, Outcome::Throttled);
        assert_eq!(completed(plan(), &pacer.report(), None), Some(Code::Throttled));
        let mut later = plan();
        later.actions.clear();
        assert_eq!(completed(later.clone(), &pacer.report(), None), None);
        later.nodes.get_mut(&node()).expect("there").waits_for = Some("AssignIpv6Addresses");
        assert_eq!(completed(later, &pacer.report(), None), Some(Code::Throttled), "not planned yet");
    }

    #[test]
    fn what_ec2_answered_last_says_what_would_help() {
        let mut plan = plan();
        let text = "CreateNetworkInterface answered InvalidGroup.NotFound.".to_owned();
        let verdict = Verdict { code: Code::Backoff, text };
        plan.nodes.get_mut(&node()).expect("there").verdict = Some(verdict);
        let refused =
            CloudError::answered(Asked::CreateNetworkInterface, 400, Some("InvalidGroup.NotFound"), "", None);
        let help = [(node(), refused.help().expect("known"))].into();
        complete(&mut plan, &Memory::default(), &[], None, &help);
        let verdict = plan.nodes[&node()].verdict.as_ref().expect("kept");
        assert!(
            verdict.text.ends_with("What would help: correct securityGroups of the ENIPool."),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_node_without_an_instance_is_told_what_to_set() {
        let id = InstanceId::new("i-1").expect("valid");
        let code = |why: Option<EniWaiting>| why.map(|why| why.code);
        let sole = Claim::Sole(id.clone());
        assert_eq!(code(unserved(&Claim::Unknown, false, None)).as_deref(), Some("NoInstance"));
        assert_eq!(code(unserved(&sole, true, None)).as_deref(), Some("NoInstance"));
        assert_eq!(unserved(&sole, false, None), None, "nobody looked yet");
        let mut blind = Blind::default();
        blind.failed(error(403, "AuthFailure"));
        assert_eq!(code(unserved(&sole, true, blind.verdict().as_ref())).as_deref(), Some("Refused"));
        let other = NodeName::new("stale").expect("valid");
        let disputed = unserved(&Claim::Disputed(id, other), false, blind.verdict().as_ref()).expect("told");
        let words = ["i-1", "node stale", "Delete the Node object"];
        assert!(disputed.code == "NoInstance" && words.iter().all(|word| disputed.message.contains(word)));
    }
}
