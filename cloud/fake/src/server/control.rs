// SPDX-License-Identifier: Apache-2.0
//! The control endpoint: JSON in, JSON out, for tests that start the double as a process.
//!
//! | Request | Body | What it does |
//! |---|---|---|
//! | `GET /state` | | what there is, as it is |
//! | `GET /clock`, `POST /clock` | `{"advance":MS}`, `{"pace":"still"}` or `{"pace":{"running":SPEED}}` | the clock |
//! | `POST /world` | as `world` in the file | adds things; answers with the instances launched |
//! | `POST /instances` | one of `world.instances` | launches |
//! | `DELETE /instances/ID` | | terminates, as `TerminateInstances` |
//! | `POST /instances/ID/interrupt` | | a spot instance gets its notice |
//! | `POST /instances/ID/rehook` | | tells of its interfaces again, for a guest that was started anew |
//! | `POST /instances/ID/imds` | `{"listen":"ADDRESS:PORT"}` | starts its metadata service; answers with its address |
//! | `GET /imds` | | the addresses of all metadata services |
//! | `POST /subnets/ID/fragment`, `fill`, `defragment` | `{"count":N}` | blocks to spoil, addresses to leave |
//! | `GET`, `POST`, `DELETE /faults` | one rule | what goes wrong |
//! | `PUT /limits`, `PUT /metadata`, `PUT /settings` | all of it, or the fields to change | how it behaves |
//! | `PUT /watch` | `{"longestIdle":MS,"mostCalls":{ACTION:N}}` | what is a violation |
//! | `GET /calls` | | counts by action |
//! | `GET /ledger?last=N` | | the latest calls |
//! | `GET /violations` | | what must not be and was |
//! | `POST`, `DELETE /claims` | `{"vpc":…,"address":…,"pod":…,"instance":…}` | addresses in use |
//! | `GET /hooks?from=N` | | what came to instances and left them; also a stream on a port of its own |

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use rhumb_model::{InstanceId, SubnetId, VpcId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::http::{self, Asked, Cut};
use super::imds::Listeners;
use super::{Handle, Pace};
use crate::call::Action;
use crate::config::{NewInstance, Things};
use crate::faults::Rule;
use crate::invariants::User;
use crate::query::Form;
use crate::refusal::Refusal;

pub(super) async fn serve(listener: TcpListener, handle: Handle, imds: Arc<Listeners>) {
    http::serve(listener, move |asked| {
        let control = Control { handle: handle.clone(), imds: Arc::clone(&imds) };
        async move { Ok::<_, Cut>(control.answer(&asked).await) }
    })
    .await;
}

struct Control {
    handle: Handle,
    imds: Arc<Listeners>,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("there is no {0}")]
    Path(String),
    #[error("read the body: {0}")]
    Body(#[from] serde_json::Error),
    #[error("{0}")]
    Id(#[from] rhumb_model::NameError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("listen: {0}")]
    Listen(#[from] std::io::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockChange {
    advance: Option<u64>,
    pace: Option<Pace>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    #[serde(default)]
    count: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenOn {
    listen: SocketAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Watch {
    longest_idle: Option<u64>,
    #[serde(default)]
    most_calls: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    vpc: VpcId,
    address: IpAddr,
    pod: String,
    instance: InstanceId,
}

impl Control {
    async fn answer(&self, asked: &Asked) -> Response<String> {
        let (status, body) = match self.act(asked).await {
            Ok(value) => (StatusCode::OK, value),
            Err(error) => {
                let status = match &error {
                    ControlError::Path(_) => StatusCode::NOT_FOUND,
                    ControlError::Body(_)
                    | ControlError::Id(_)
                    | ControlError::Refused(_)
                    | ControlError::Listen(_) => StatusCode::BAD_REQUEST,
                };
                (status, json!({ "error": error.to_string() }))
            }
        };
        http::reply(status, HeaderValue::from_static("application/json"), format!("{body}\n"))
    }

    async fn act(&self, asked: &Asked) -> Result<Value, ControlError> {
        let parts: Vec<&str> = asked.path.split('/').filter(|part| !part.is_empty()).collect();
        match (asked.method.as_str(), parts.as_slice()) {
            ("GET", ["state"]) => Ok(self.state()),
            ("GET", ["clock"]) => Ok(json!({ "now": self.handle.now() })),
            ("POST", ["clock"]) => {
                let change: ClockChange = body(asked)?;
                if let Some(pace) = change.pace {
                    self.handle.pace(pace);
                }
                let now = self.handle.advance(Duration::from_millis(change.advance.unwrap_or(0)));
                Ok(json!({ "now": now }))
            }
            ("POST", ["world"]) => {
                let things: Things = body(asked)?;
                let launched = self.handle.with(|fake, _| things.put(fake.world_mut()))?;
                Ok(json!({ "instances": launched }))
            }
            ("POST", ["instances"]) => {
                let new: NewInstance = body(asked)?;
                let launched = self.handle.with(|fake, _| new.launch(fake.world_mut()))?;
                Ok(json!({ "instances": launched }))
            }
            ("DELETE", ["instances", id]) => {
                let ids = vec![InstanceId::new(*id)?];
                self.handle
                    .with(|fake, _| fake.world_mut().answer(&Action::TerminateInstances(ids).into()))?;
                Ok(json!({}))
            }
            ("POST", ["instances", id, "interrupt"]) => {
                let id = InstanceId::new(*id)?;
                let at = self.handle.with(|fake, _| fake.world_mut().interrupt(&id))?;
                Ok(json!({ "ends": at }))
            }
            ("POST", ["instances", id, "rehook"]) => {
                let id = InstanceId::new(*id)?;
                self.handle.with(|fake, _| fake.world_mut().rehook(&id));
                Ok(json!({}))
            }
            ("POST", ["instances", id, "imds"]) => {
                let id = InstanceId::new(*id)?;
                let on: ListenOn = body(asked)?;
                let address = self.imds.start(self.handle.clone(), id, on.listen).await?;
                Ok(json!({ "address": address }))
            }
            ("GET", ["imds"]) => Ok(json!(self.imds.addresses())),
            ("POST", ["subnets", id, what]) => self.spoil(&SubnetId::new(*id)?, what, asked),
            _ => self.behaviour(asked, &parts),
        }
    }

    fn spoil(&self, id: &SubnetId, what: &str, asked: &Asked) -> Result<Value, ControlError> {
        let count = body::<Count>(asked).map(|body| body.count);
        let done = match what {
            "fragment" => {
                let count = count?;
                self.handle.with(|fake, _| fake.world_mut().fragment(id, count))?
            }
            "fill" => {
                let count = count?;
                self.handle.with(|fake, _| fake.world_mut().fill(id, count))?
            }
            "defragment" => self.handle.with(|fake, _| fake.world_mut().defragment(id))?,
            _ => return Err(ControlError::Path(asked.path.clone())),
        };
        Ok(json!({ "count": done }))
    }

    fn behaviour(&self, asked: &Asked, parts: &[&str]) -> Result<Value, ControlError> {
        let handle = &self.handle;
        match (asked.method.as_str(), parts) {
            ("GET", ["faults"]) => Ok(handle.with(|fake, _| json!(fake.faults().collect::<Vec<_>>()))),
            ("POST", ["faults"]) => {
                let rule: Rule = body(asked)?;
                handle.with(|fake, _| fake.fault(rule));
                Ok(json!({}))
            }
            ("DELETE", ["faults"]) => {
                handle.with(|fake, _| fake.clear_faults());
                Ok(json!({}))
            }
            ("PUT", ["limits"]) => {
                let limits = body(asked)?;
                handle.with(|fake, _| fake.limit(limits));
                Ok(json!({}))
            }
            ("PUT", ["metadata"]) => {
                let metadata = body(asked)?;
                handle.with(|fake, _| *fake.metadata_mut() = metadata);
                Ok(json!({}))
            }
            ("PUT", ["settings"]) => {
                let new: Value = body(asked)?;
                let old = handle.with(|fake, _| fake.world().settings().clone());
                let settings = changed(&old, new)?;
                handle.with(|fake, _| *fake.world_mut().settings_mut() = settings);
                Ok(json!({}))
            }
            ("PUT", ["watch"]) => {
                let watch: Watch = body(asked)?;
                handle.with(|fake, _| {
                    fake.longest_idle(watch.longest_idle.map(Duration::from_millis));
                    fake.most_calls(watch.most_calls);
                });
                Ok(json!({}))
            }
            ("GET", ["calls"]) => Ok(handle.with(
                |fake, _| json!({ "calls": fake.ledger().calls(), "actions": fake.ledger().counts() }),
            )),
            ("GET", ["ledger"]) => {
                let last = number(asked, "last").unwrap_or(100);
                Ok(handle.with(|fake, _| {
                    let mut entries: Vec<_> = fake.ledger().entries().rev().take(last).collect();
                    entries.reverse();
                    json!(entries)
                }))
            }
            ("GET", ["violations"]) => Ok(handle.with(|fake, _| json!(fake.violations()))),
            ("POST", ["claims"]) => {
                let claim: Claim = body(asked)?;
                let user = User { pod: claim.pod, instance: claim.instance };
                handle.with(|fake, _| fake.claim(&claim.vpc, claim.address, user));
                Ok(json!({}))
            }
            ("DELETE", ["claims"]) => {
                let claim: Claim = body(asked)?;
                handle.with(|fake, _| fake.disclaim(&claim.vpc, claim.address));
                Ok(json!({}))
            }
            ("GET", ["hooks"]) => Ok(json!(handle.hooks(number(asked, "from").unwrap_or(0)))),
            _ => Err(ControlError::Path(format!("{} {}", asked.method, asked.path))),
        }
    }

    fn state(&self) -> Value {
        self.handle.with(|fake, now| {
            let world = fake.world();
            let subnets: Vec<Value> = world
                .subnets()
                .map(|id| json!({ "id": id, "free": world.free(id), "cidrs": world.cidrs_of_subnet(id) }))
                .collect();
            json!({
                "now": now,
                "subnets": subnets,
                "instances": world.instances().map(|found| &**found).collect::<Vec<_>>(),
                "interfaces": world.interfaces().map(|found| &**found).collect::<Vec<_>>(),
            })
        })
    }
}

fn body<T: DeserializeOwned>(asked: &Asked) -> Result<T, ControlError> {
    Ok(serde_json::from_str(if asked.body.is_empty() { "{}" } else { &asked.body })?)
}

fn number(asked: &Asked, name: &str) -> Option<usize> {
    Form::parse(&asked.query).ok()?.text(name)?.parse().ok()
}

/// A value with some of its fields replaced.
fn changed<T: Serialize + DeserializeOwned>(old: &T, new: Value) -> Result<T, ControlError> {
    let mut all = serde_json::to_value(old)?;
    if let (Value::Object(all), Value::Object(new)) = (&mut all, new) {
        all.extend(new);
    }
    Ok(serde_json::from_value(all)?)
}
