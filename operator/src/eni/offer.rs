// SPDX-License-Identifier: Apache-2.0
//! What the scheduler is told of a node's addresses: an extended resource, and a taint while the node gets no more.

use std::collections::BTreeMap;

use rhumb_api::{Node, NodeStatus, ObjectKey, Quantity, Store, StoreError, Taint};
use rhumb_ipam::eni::{Code, NodePlan};

/// The extended resource: IPv4 addresses of the VPC for pods.
pub(crate) const RESOURCE: &str = "rhumb.io/pod-addresses";
/// The key of the taint, whose effect is [`EFFECT`].
pub(crate) const TAINT: &str = "rhumb.io/no-addresses";
const EFFECT: &str = "NoSchedule";

/// What the scheduler is told of a node's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// `status.capacity`: how many addresses pods of the node can have.
    pub(crate) capacity: Option<u32>,
    /// `status.allocatable`: those that it has, where it gets no more now; else the same.
    pub(crate) allocatable: Option<u32>,
    /// Whether the taint is there: all that it has are taken, and it gets no more now.
    pub(crate) full: bool,
}

impl Offer {
    /// What the Node object says.
    pub(crate) fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let number =
            |resources: Option<&BTreeMap<String, Quantity>>| resources?.get(RESOURCE)?.0.parse().ok();
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        Self {
            capacity: number(status.and_then(|status| status.capacity.as_ref())),
            allocatable: number(status.and_then(|status| status.allocatable.as_ref())),
            full: taints.into_iter().any(is_ours),
        }
    }

    /// What it is to say of a node with this plan.
    ///
    /// A node that was stuck is so until it has what it wants: that a call is tried again is no address yet.
    pub(crate) fn by(self, plan: &NodePlan) -> Self {
        let was_stuck = self.full || self.allocatable < self.capacity;
        let is_stuck = plan.has >= plan.most
            || plan.verdict.as_ref().is_some_and(|verdict| hinders(verdict.code))
            || (was_stuck && plan.has < plan.wanted);
        let allocatable = if is_stuck { plan.has.min(plan.most) } else { plan.most };
        Self { capacity: Some(plan.most), allocatable: Some(allocatable), full: is_stuck && plan.free == 0 }
    }

    /// What it is to say of a node that gets no addresses of ours: a resource that was told of is none any more.
    pub(crate) fn withdrawn(self) -> Self {
        Self { capacity: self.capacity.map(|_| 0), allocatable: self.allocatable.map(|_| 0), full: false }
    }
}

/// Whether a node with this reason gets no more addresses while it holds. A cordoned node and one whose kubelet takes no
/// more pods are known to the scheduler as such.
fn hinders(code: Code) -> bool {
    match code {
        Code::Leaving | Code::KubeletLimit => false,
        Code::NoSubnet
        | Code::NoSecurityGroup
        | Code::SubnetExhausted
        | Code::SubnetFragmented
        | Code::NoIpv6
        | Code::InstanceFull
        | Code::NoPrefixes
        | Code::UnknownType
        | Code::MaxAllocate
        | Code::Budget
        | Code::Backoff
        | Code::Unreachable
        | Code::Quota
        | Code::Refused
        | Code::BlockLost
        | Code::InstanceState
        | Code::NoInstance
        | Code::Throttled => true,
    }
}

/// Brings the Node object from one to the other; the object as it is then, where anything was written.
///
/// Only the resource and the taint are touched: the status by a merge patch, the taints, which are one field of many
/// writers, against the version that they were read as.
pub(crate) async fn publish<S: Store>(
    store: &S,
    key: &ObjectKey,
    from: Offer,
    to: Offer,
) -> Result<Option<Node>, StoreError> {
    let mut written = None;
    if (from.capacity, from.allocatable) != (to.capacity, to.allocatable) {
        let resource = |number: Option<u32>| {
            number.map(|number| BTreeMap::from([(RESOURCE.to_owned(), Quantity(number.to_string()))]))
        };
        let (capacity, allocatable) = (resource(to.capacity), resource(to.allocatable));
        let status = NodeStatus { capacity, allocatable, ..NodeStatus::default() };
        written = Some(store.patch_status::<Node>(key, &status).await?);
    }
    if from.full != to.full {
        written = Some(store.modify::<Node, _>(key, |node| set_taint(node, to)).await?);
    }
    Ok(written)
}

fn set_taint(node: &mut Node, offer: Offer) {
    let spec = node.spec.get_or_insert_default();
    let taints = spec.taints.get_or_insert_default();
    taints.retain(|taint| !is_ours(taint));
    if offer.full {
        let (key, effect) = (TAINT.to_owned(), EFFECT.to_owned());
        taints.push(Taint { key, effect, ..Taint::default() });
    }
    spec.taints.take_if(|taints| taints.is_empty());
}

fn is_ours(taint: &Taint) -> bool {
    taint.key == TAINT && taint.effect == EFFECT
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_api::DirStore;
    use rhumb_ipam::eni::{Record, Verdict};

    fn plan(has: u32, wanted: u32, free: u32, code: Option<Code>) -> NodePlan {
        let verdict = code.map(|code| Verdict { code, text: String::new() });
        let (record, waits_for) = (Record::default(), None);
        NodePlan { record, max_pods: 29, most: 27, wanted, has, free, ipv6: false, waits_for, verdict }
    }

    fn offer(allocatable: u32, full: bool) -> Offer {
        Offer { capacity: Some(27), allocatable: Some(allocatable), full }
    }

    #[test]
    fn a_node_that_can_grow_offers_all_that_it_can_have() {
        let fresh = Offer::default();
        assert_eq!(fresh.by(&plan(0, 8, 0, None)), offer(27, false));
        assert_eq!(fresh.by(&plan(9, 17, 0, None)), offer(27, false), "more is coming");
        assert_eq!(fresh.by(&plan(9, 9, 0, None)), offer(27, false), "nothing ready is wished for");
    }

    #[test]
    fn a_node_that_cannot_grow_offers_what_it_has_and_is_tainted_when_that_is_taken() {
        let fresh = Offer::default();
        let short = Some(Code::SubnetExhausted);
        assert_eq!(fresh.by(&plan(12, 20, 4, short)), offer(12, false));
        assert_eq!(fresh.by(&plan(12, 20, 0, short)), offer(12, true));
        assert_eq!(fresh.by(&plan(27, 27, 0, None)), offer(27, true), "the type allows no more");
        for code in [Code::Leaving, Code::KubeletLimit] {
            assert_eq!(fresh.by(&plan(12, 20, 0, Some(code))), offer(27, false), "{code}");
        }
    }

    #[test]
    fn the_taint_stays_while_it_is_only_tried_again_and_goes_with_the_first_free_address() {
        let stuck = offer(12, true);
        assert_eq!(stuck.by(&plan(12, 20, 0, None)), stuck, "a call is under way");
        assert_eq!(stuck.by(&plan(13, 20, 1, None)), offer(13, false));
        assert_eq!(stuck.by(&plan(20, 20, 8, None)), offer(27, false));
        // Its pods are gone, and no more is wished for than there is.
        assert_eq!(offer(12, true).by(&plan(12, 12, 0, None)), offer(27, false));
        let full = offer(27, true);
        assert_eq!(full.by(&plan(27, 27, 0, None)), full, "the one that came free rests");
        assert_eq!(full.by(&plan(27, 27, 1, None)), offer(27, false));
    }

    #[test]
    fn who_is_served_no_longer_offers_nothing_and_who_never_was_is_left_alone() {
        assert_eq!(
            offer(12, true).withdrawn(),
            Offer { capacity: Some(0), allocatable: Some(0), full: false }
        );
        assert_eq!(Offer::default().withdrawn(), Offer::default());
    }

    const NODE: &str = "# a node of ours
apiVersion: v1
kind: Node
metadata:
  name: a
  labels: {rack: r1}
spec:
  providerID: aws:///z/i-1
  futureField: {deep: [1, 2]}
  taints:
  - {key: people/own, effect: NoExecute, value: x, futureField: 7}
  - {key: rhumb.io/no-addresses, effect: NoExecute, value: somebody}
status:
  capacity: {pods: \"29\", cpu: \"2\"}
  allocatable: {pods: \"29\"}
  newerField: kept
";

    #[tokio::test]
    async fn everything_else_of_the_node_object_stays_as_it_was_written() {
        let folder = tempfile::tempdir().expect("room");
        let file = folder.path().join("node.yaml");
        std::fs::write(&file, NODE).expect("written");
        let store = DirStore::open(folder.path()).await.expect("opened");
        let key = ObjectKey::cluster("a");
        let get = || async { store.get::<Node>(&key).await.expect("readable").expect("there") };
        assert_eq!(Offer::of(&get().await), Offer::default(), "a taint of another effect is not ours");

        let node = publish(&store, &key, Offer::default(), offer(12, true)).await.expect("written");
        assert_eq!(Offer::of(&node.expect("changed")), offer(12, true));
        let text = std::fs::read_to_string(&file).expect("readable");
        for kept in
            ["# a node of ours", "rack: r1", "deep:", "futureField: 7", "newerField: kept", "cpu: '2'"]
        {
            assert!(text.contains(kept), "{kept} in\n{text}");
        }
        let there = get().await;
        let taints: Vec<_> =
            there.spec.expect("there").taints.expect("there").into_iter().map(|it| it.key).collect();
        assert_eq!(taints, ["people/own", TAINT, TAINT]);

        assert_eq!(
            publish(&store, &key, offer(12, true), offer(12, true)).await.expect("nothing to do"),
            None
        );
        assert_eq!(std::fs::read_to_string(&file).expect("readable"), text, "nothing is written");

        publish(&store, &key, offer(12, true), offer(27, false)).await.expect("written");
        let there = get().await;
        assert_eq!(Offer::of(&there), offer(27, false));
        let taints = there.spec.expect("there").taints.expect("there");
        assert_eq!(
            (taints[0].key.as_str(), taints[1].effect.as_str(), taints.len()),
            ("people/own", "NoExecute", 2)
        );
        assert!(std::fs::read_to_string(&file).expect("readable").contains("futureField: 7"));
    }

    #[tokio::test]
    async fn a_taint_list_that_held_ours_alone_goes_with_it() {
        let folder = tempfile::tempdir().expect("room");
        let text = "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n";
        std::fs::write(folder.path().join("node.yaml"), text).expect("written");
        let store = DirStore::open(folder.path()).await.expect("opened");
        let key = ObjectKey::cluster("a");
        publish(&store, &key, Offer::default(), offer(27, true)).await.expect("written");
        let node = publish(&store, &key, offer(27, true), offer(27, false)).await.expect("written");
        assert_eq!(node.expect("changed").spec.and_then(|spec| spec.taints), None);
    }
}
