// SPDX-License-Identifier: Apache-2.0
//! A look at EC2 for the whole cluster: a handful of describes, however many nodes there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use rhumb_cloud::{CloudError, EniFilter, InstanceFilter, Priority, Provider, limits};
use rhumb_ipam::eni::{LAG, TAG_CLUSTER, View};
use rhumb_model::{Instance, InstanceId, InstanceLimits, Prefix, SubnetReservation, Timestamp, VpcId};
use tracing::warn;

/// Describes keep pods waiting as much as what they are for.
const PRIORITY: Priority = Priority::BelowMinimum;
/// Reservations are asked for subnet by subnet, and people make them seldom. After one that we made there is a look.
const RESERVATIONS: Duration = Duration::from_secs(600);

/// What EC2 showed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    pub(crate) view: View,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    /// Of every type of these instances; `None`: nobody knows it.
    pub(crate) limits: BTreeMap<String, Option<InstanceLimits>>,
    pub(crate) vpcs: BTreeMap<VpcId, Vec<Prefix>>,
    reserved_at: Timestamp,
}

/// For what EC2 is looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// The value of the tag by which interfaces of this cluster are known.
    pub(crate) cluster: String,
    /// The instances of the nodes in question.
    pub(crate) instances: BTreeSet<InstanceId>,
    /// Whether reservations matter: some pool uses prefixes.
    pub(crate) prefixes: bool,
    /// When the last reservation was asked for.
    pub(crate) reserved: Timestamp,
}

impl Look {
    /// Looks anew; `self` is the look before.
    ///
    /// # Errors
    /// Of the first describe that failed: half a look is none. Types of instances alone may stay unknown.
    pub(crate) async fn again<P: Provider>(&self, provider: &P, scope: &Scope) -> Result<Self, CloudError> {
        let at = Timestamp::from(SystemTime::now());
        let instances = self.find_instances(provider, scope).await?;
        let mut vpcs: BTreeSet<VpcId> =
            instances.values().filter_map(|instance| instance.vpc.clone()).collect();
        // Also without nodes, or with none left: what they left over is to be found.
        vpcs.extend(self.vpcs.keys().cloned());
        if vpcs.is_empty() {
            let tags = BTreeMap::from([(TAG_CLUSTER.to_owned(), scope.cluster.clone())]);
            let ours = provider.enis(PRIORITY, &EniFilter { tags, ..EniFilter::default() }).await?;
            vpcs.extend(ours.into_iter().map(|eni| eni.vpc));
        }
        if vpcs.is_empty() {
            return Ok(Self { view: View { at, ..View::default() }, instances, ..Self::default() });
        }
        let vpcs: Vec<VpcId> = vpcs.into_iter().collect();
        let enis = EniFilter { vpcs: vpcs.clone(), ..EniFilter::default() };
        let (enis, subnets, groups, blocks) = tokio::try_join!(
            provider.enis(PRIORITY, &enis),
            provider.subnets(PRIORITY, &vpcs),
            provider.security_groups(PRIORITY, &vpcs),
            provider.vpcs(PRIORITY, &vpcs),
        )?;
        let limits = self.find_limits(provider, &instances).await;
        let mut look = Self {
            view: View {
                at,
                enis: enis.into_iter().map(|eni| (eni.id.clone(), eni)).collect(),
                subnets: subnets.into_iter().map(|subnet| (subnet.id.clone(), subnet)).collect(),
                groups: groups.into_iter().map(|group| (group.id, group.tags)).collect(),
                reservations: self.view.reservations.clone(),
            },
            instances,
            limits,
            vpcs: blocks.into_iter().map(|vpc| (vpc.id, [vpc.cidrs, vpc.cidrs_v6].concat())).collect(),
            reserved_at: self.reserved_at,
        };
        let is_old =
            at.since(self.reserved_at) >= RESERVATIONS || self.reserved_at < scope.reserved.after(LAG);
        if scope.prefixes && is_old {
            look.view.reservations = look.find_reservations(provider).await?;
            look.reserved_at = at;
        }
        Ok(look)
    }

    /// By the VPCs that are known; by id where an instance is not in them, or none is known yet.
    async fn find_instances<P: Provider>(
        &self,
        provider: &P,
        scope: &Scope,
    ) -> Result<BTreeMap<InstanceId, Instance>, CloudError> {
        let mut found = BTreeMap::new();
        if !self.vpcs.is_empty() {
            let filter =
                InstanceFilter { vpcs: self.vpcs.keys().cloned().collect(), ..InstanceFilter::default() };
            let all = provider.instances(PRIORITY, &filter).await?;
            found.extend(all.into_iter().map(|instance| (instance.id.clone(), instance)));
        }
        let missing: Vec<InstanceId> =
            scope.instances.iter().filter(|id| !found.contains_key(*id)).cloned().collect();
        if !missing.is_empty() {
            let filter = InstanceFilter { ids: missing, ..InstanceFilter::default() };
            let all = provider.instances(PRIORITY, &filter).await?;
            found.extend(all.into_iter().map(|instance| (instance.id.clone(), instance)));
        }
        found.retain(|id, _| scope.instances.contains(id));
        Ok(found)
    }

    /// By the table, by an earlier answer, else by the cloud. A type that it cannot be asked about is one that nobody
    /// knows: its nodes get little, and all others what they should have.
    async fn find_limits<P: Provider>(
        &self,
        provider: &P,
        instances: &BTreeMap<InstanceId, Instance>,
    ) -> BTreeMap<String, Option<InstanceLimits>> {
        let kinds: BTreeSet<&String> = instances.values().map(|instance| &instance.kind).collect();
        let known = |kind: &String| {
            limits::of(kind).or_else(|| self.limits.get(kind).and_then(Option::<InstanceLimits>::clone))
        };
        let mut limits: BTreeMap<String, Option<InstanceLimits>> =
            kinds.into_iter().map(|kind| (kind.clone(), known(kind))).collect();
        let strange: Vec<String> =
            limits.iter().filter(|(_, known)| known.is_none()).map(|(kind, _)| kind.clone()).collect();
        if !strange.is_empty() {
            match provider.instance_limits(PRIORITY, &strange).await {
                Ok(told) => limits.extend(told.into_iter().map(|(kind, told)| (kind, Some(told)))),
                Err(error) => {
                    let help = error.help().unwrap_or_default();
                    warn!(types = strange.join(" "), %error, help, "types of instances are not known");
                }
            }
        }
        limits
    }

    async fn find_reservations<P: Provider>(
        &self,
        provider: &P,
    ) -> Result<Vec<SubnetReservation>, CloudError> {
        let zones: BTreeSet<_> = self.instances.values().map(|instance| &instance.zone).collect();
        let subnets = self.view.subnets.values().filter(|subnet| zones.contains(&subnet.zone));
        let mut reservations = Vec::new();
        for subnet in subnets {
            reservations.extend(provider.reservations(PRIORITY, &subnet.id).await?);
        }
        Ok(reservations)
    }
}
