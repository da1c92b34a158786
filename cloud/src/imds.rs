// SPDX-License-Identifier: Apache-2.0
//! The instance metadata service, version 2, for one question: which instance is this.
//!
//! ```text
//!   PUT /latest/api/token ─► token, good for a minute ─┐
//!   GET /latest/meta-data/… with the token ◄───────────┘   404: absent
//! ```
//!
//! Addresses are never read here: the service lags behind EC2.

mod response;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rhumb_model::{InstanceId, MacAddr, NameError, SubnetId, VpcId, Zone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use response::{Response, ResponseError, parse};

/// The service over IPv4.
pub const V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
/// The service over IPv6, on Nitro instances whose metadata options have it.
pub const V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 80);

/// For how long a token is asked for, in seconds: longer than all the questions take, each at its deadline.
const TOKEN_SECONDS: u64 = 60;
/// One request with its answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// Which instance this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: InstanceId,
    /// Its type, for example `m5.large`.
    pub kind: String,
    /// Its zone.
    pub zone: Zone,
    /// The MAC address of its first interface.
    pub mac: MacAddr,
    /// The subnet of that interface.
    pub subnet: SubnetId,
    /// The VPC of that interface.
    pub vpc: VpcId,
}

/// A question to the metadata service that got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// No connection, or it broke.
    #[error("ask the metadata service at {endpoint} for {path}")]
    Connection {
        /// Where it was asked.
        endpoint: SocketAddr,
        /// What was asked.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// No answer in time. From a pod this is a hop limit that is too low.
    #[error("the metadata service at {endpoint} did not answer {path} in {} s", DEADLINE.as_secs())]
    Timeout {
        /// Where it was asked.
        endpoint: SocketAddr,
        /// What was asked.
        path: String,
    },
    /// The answer is not HTTP as expected.
    #[error("read the metadata service's answer to {path}")]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong.
        source: ResponseError,
    },
    /// The answer has another status than 200 and 404.
    #[error("the metadata service refused {path} with status {status}")]
    Refused {
        /// What was asked.
        path: String,
        /// The status: 403 when the service is switched off, 401 when it takes no token of ours.
        status: u16,
    },
    /// What every instance has is not there.
    #[error("the metadata service has no {path}")]
    Absent {
        /// What was asked.
        path: String,
    },
    /// A value is not what it is to be.
    #[error("the metadata service's {path}")]
    Value {
        /// What was asked.
        path: String,
        /// What is wrong.
        source: NameError,
    },
}

impl ImdsError {
    /// Whether the same question may have an answer a little later, as when the instance just started.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Timeout { .. } | Self::Absent { .. } => true,
            // The token may have gone with the service's memory; the next question has another.
            Self::Refused { status, .. } => *status >= 500 || matches!(status, 401 | 429),
            Self::Answer { .. } | Self::Value { .. } => false,
        }
    }

    /// What a person can do about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Refused { status: 403, .. } => Some(
                "the instance's metadata service is switched off: switch it on (HttpEndpoint: enabled in its metadata \
                 options), or set spec.providerID of the Node object",
            ),
            Self::Timeout { .. } => Some(
                "run the agent in the host's network, or raise the hop limit (HttpPutResponseHopLimit in the instance's \
                 metadata options)",
            ),
            Self::Connection { .. } => Some("look whether a firewall keeps the agent from the address"),
            Self::Refused { .. } | Self::Answer { .. } | Self::Absent { .. } | Self::Value { .. } => None,
        }
    }
}

/// A client of the metadata service. It keeps no token: each lives as long as one series of questions.
#[derive(Debug)]
pub struct Imds {
    endpoint: SocketAddr,
}

/// What questions are asked with. It cannot be printed.
struct Token(String);

impl Imds {
    /// A client of the service at [`V4`], [`V6`], or elsewhere for tests.
    pub fn new(endpoint: SocketAddr) -> Self {
        Self { endpoint }
    }

    /// Asks which instance this is.
    ///
    /// # Errors
    /// [`ImdsError`]; those that are retryable are common while an instance starts.
    pub async fn identity(&self) -> Result<Identity, ImdsError> {
        let token = self.token().await?;
        let needed = async |path: &str| {
            let told = self.get(&token, path).await?;
            told.ok_or_else(|| ImdsError::Absent { path: path.to_owned() })
        };
        let mac = "mac";
        let first: MacAddr = value(mac, &needed(mac).await?)?;
        let of_first = |item: &str| format!("network/interfaces/macs/{first}/{item}");
        let (subnet, vpc) = (of_first("subnet-id"), of_first("vpc-id"));
        let (id, zone) = ("instance-id", "placement/availability-zone");
        Ok(Identity {
            id: value(id, &needed(id).await?)?,
            kind: needed("instance-type").await?,
            zone: value(zone, &needed(zone).await?)?,
            mac: first,
            subnet: value(&subnet, &needed(&subnet).await?)?,
            vpc: value(&vpc, &needed(&vpc).await?)?,
        })
    }

    /// The text under `/latest/meta-data/`, or `None` when it is not there.
    async fn get(&self, token: &Token, path: &str) -> Result<Option<String>, ImdsError> {
        let Token(token) = token;
        let head = format!("GET /latest/meta-data/{path} HTTP/1.1\r\nX-aws-ec2-metadata-token: {token}\r\n");
        let answer = self.ask(path, &head).await?;
        match answer.status {
            200 => Ok(Some(answer.text().trim().to_owned())),
            404 => Ok(None),
            status => Err(ImdsError::Refused { path: path.to_owned(), status }),
        }
    }

    async fn token(&self) -> Result<Token, ImdsError> {
        let path = "/latest/api/token";
        let head = format!(
            "PUT {path} HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: {TOKEN_SECONDS}\r\n\
             Content-Length: 0\r\n"
        );
        let answer = self.ask(path, &head).await?;
        if answer.status != 200 {
            return Err(ImdsError::Refused { path: path.to_owned(), status: answer.status });
        }
        let text = answer.text().trim().to_owned();
        // It goes into a header of the next request.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ImdsError::Answer { path: path.to_owned(), source: ResponseError::Syntax("token") });
        }
        Ok(Token(text))
    }

    async fn ask(&self, path: &str, head: &str) -> Result<Response, ImdsError> {
        let exchange = tokio::time::timeout(DEADLINE, self.exchange(head));
        let timeout = || ImdsError::Timeout { endpoint: self.endpoint, path: path.to_owned() };
        match exchange.await.map_err(|_| timeout())? {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(ImdsError::Answer { path: path.to_owned(), source }),
            Err(source) => {
                Err(ImdsError::Connection { endpoint: self.endpoint, path: path.to_owned(), source })
            }
        }
    }

    async fn exchange(&self, head: &str) -> std::io::Result<Result<Response, ResponseError>> {
        let mut stream = TcpStream::connect(self.endpoint).await?;
        let host = match self.endpoint.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let request = format!("{head}Host: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            // `parse` refuses more than its bound, so this ends.
            let ended = stream.read_buf(&mut answer).await? == 0;
            match parse(&answer, ended) {
                Ok(None) => {}
                Ok(Some(response)) => return Ok(Ok(response)),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}

fn value<T: std::str::FromStr<Err = NameError>>(path: &str, text: &str) -> Result<T, ImdsError> {
    text.parse().map_err(|source| ImdsError::Value { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
