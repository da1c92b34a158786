// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use rhumb_model::Prefix;

/// What a lab is to look like.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Two to six letters; namespaces are named `rhl<pid>-<name>-…`.
    pub name: String,
    /// How many nodes, at most 200.
    pub nodes: usize,
    /// On how many segments the nodes are, in turns; the router is between them.
    pub segments: usize,
    /// The pool's IPv4 block and the length of what a node gets of it.
    pub pool_v4: Option<(Prefix, u8)>,
    /// The pool's IPv6 block and the length of what a node gets of it.
    pub pool_v6: Option<(Prefix, u8)>,
    /// Addresses that the pool keeps back.
    pub reserved: Vec<Prefix>,
    /// How long the operator keeps the prefixes of a deleted node; its own default when absent.
    pub grace: Option<Duration>,
}

impl Default for Spec {
    fn default() -> Self {
        let block = |text: &str| text.parse().expect("a literal prefix");
        Self {
            name: "lab".to_owned(),
            nodes: 2,
            segments: 1,
            pool_v4: Some((block("10.244.0.0/16"), 24)),
            pool_v6: Some((block("fd00:10:244::/104"), 120)),
            reserved: Vec::new(),
            grace: None,
        }
    }
}

impl Spec {
    /// The default lab (two nodes, both families) under this name.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}
