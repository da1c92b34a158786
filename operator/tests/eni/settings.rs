// SPDX-License-Identifier: Apache-2.0
//! What interfaces that are there are told when it changes.

use rhumb_cloud_fake::{Action as Call, Attach, Change, NewInterface};
use rhumb_model::{Eni, EniId, SecurityGroupId};

use crate::cluster::{Cluster, vpc};

const MODIFY: &str = "ModifyNetworkInterfaceAttribute";

impl Cluster {
    fn eni(&self, id: &EniId) -> Eni {
        self.interfaces().into_iter().find(|eni| eni.id == *id).expect("there")
    }

    /// The primary interface, and the one that the operator made.
    fn both(&self) -> (EniId, EniId) {
        let all = self.interfaces();
        let find = |ours: bool| all.iter().find(|eni| eni.tags.is_empty() != ours).expect("there").id.clone();
        (find(false), find(true))
    }

    /// Attaches an interface that the operator knows nothing of.
    fn attach_foreign(&self) -> EniId {
        let eni = self.create(NewInterface::new(self.subnet.clone()));
        let (interface, instance) = (eni.clone(), self.instance.clone());
        self.ask(Call::AttachNetworkInterface(Attach { interface, instance, device_index: 2, card: 0 }));
        eni
    }

    fn group(&self, name: &str) -> SecurityGroupId {
        self.servers.handle().with(|fake, _| {
            fake.world_mut().create_group(&vpc(), None, name, Default::default()).expect("made")
        })
    }
}

#[tokio::test]
async fn groups_that_change_in_the_pool_change_on_interfaces_of_ours_by_one_call_each() {
    let mut cluster = Cluster::new().await;
    let foreign = cluster.attach_foreign();
    cluster.start();
    cluster
        .until("two interfaces", |cluster, _| cluster.interfaces().iter().any(|eni| !eni.tags.is_empty()))
        .await;
    let (primary, ours) = cluster.both();
    let before = cluster.eni(&primary).security_groups;
    let settled =
        |eni: &Eni| eni.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination);
    cluster.until("it goes with its instance", |cluster, _| settled(&cluster.eni(&ours))).await;
    let (calls, group) = (cluster.calls(MODIFY), cluster.group("pods"));

    let wanted = vec![group.clone()];
    cluster.change_pool(|pool| pool.security_groups.ids.clone_from(&wanted)).await;
    cluster.until("groups", |cluster, _| cluster.eni(&ours).security_groups == wanted).await;
    let looks = cluster.calls("DescribeSubnets");
    cluster.until("two more looks", |cluster, _| cluster.calls("DescribeSubnets") >= looks + 2).await;
    assert_eq!(cluster.calls(MODIFY), calls + 1, "once, and not where they are so");
    assert_eq!(cluster.eni(&primary).security_groups, before);

    cluster.change_pool(|pool| pool.security_groups.primary = true).await;
    cluster
        .until("the primary one as well", |cluster, _| cluster.eni(&primary).security_groups == wanted)
        .await;
    assert_eq!(cluster.eni(&foreign).security_groups, before, "other people's are left alone");
    assert_eq!(cluster.calls(MODIFY), calls + 2);
}

#[tokio::test]
async fn interfaces_that_are_there_are_told_to_go_with_their_instance_and_to_pass_foreign_addresses() {
    let mut cluster = Cluster::new().await;
    cluster.start();
    cluster.until_served().await;
    let (primary, ours) = cluster.both();
    cluster.stop();
    let attachment = cluster.eni(&ours).attachment.expect("attached").id;
    cluster.ask(Call::ModifyNetworkInterfaceAttribute(
        ours.clone(),
        Change::DeleteOnTermination(attachment, false),
    ));
    cluster.change_pool(|pool| pool.source_dest_check = false).await;
    cluster.start();
    cluster
        .until("both are told", |cluster, _| {
            let goes =
                cluster.eni(&ours).attachment.is_some_and(|attachment| attachment.delete_on_termination);
            goes && [&primary, &ours].iter().all(|id| !cluster.eni(id).source_dest_check)
        })
        .await;
    cluster.check(2).await;
}
