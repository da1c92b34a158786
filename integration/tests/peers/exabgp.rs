// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;

use serde_json::Value;

use super::{Daemon, KEY, Net, OUR_AS, Peer, THEIR_AS, run};

/// An ExaBGP at the other end of [`Net::pair`]. It has no table: a program of its own hears as JSON what comes, and
/// tells it what to send.
pub(crate) struct Exabgp<'a> {
    net: &'a Net,
    pub(crate) daemon: Daemon,
}

impl<'a> Exabgp<'a> {
    /// Starts it, with a route of each family that have communities.
    pub(crate) fn pair(net: &'a Net) -> Self {
        let (heard, tell) = (net.path("exabgp.json"), net.path("exabgp.fifo"));
        run(Command::new("mkfifo").arg(&tell));
        let script =
            format!("#!/bin/sh\nexec 3<>{}\ncat <&3 &\nexec cat > {}\n", tell.display(), heard.display());
        let script = net.file("exabgp.sh", &script);
        run(Command::new("chmod").args(["755", &script]));
        let marks = "community [65002:5] large-community [4200000002:5:6]";
        let config = format!(
            "process watch {{ run {script}; encoder json; }}
neighbor 10.99.0.1 {{
  router-id 10.99.0.2;
  local-address 10.99.0.2;
  local-as {THEIR_AS};
  peer-as {OUR_AS};
  hold-time 30;
  md5-password \"{KEY}\";
  family {{ ipv4 unicast; ipv6 unicast; }}
  capability {{ asn4 enable; route-refresh enable; add-path disable; extended-message enable; }}
  api {{ processes [ watch ]; neighbor-changes; receive {{ parsed; update; refresh; }} }}
  announce {{
    ipv4 {{ unicast 10.200.1.0/24 next-hop 10.99.0.2 {marks}; }}
    ipv6 {{ unicast fd00:200:1::/64 next-hop fd99::2 {marks}; }}
  }}
}}
"
        );
        let file = net.file("exabgp.conf", &config);
        let env = [
            ("exabgp.daemon.daemonize", "false"),
            ("exabgp.daemon.user", "root"),
            ("exabgp.log.destination", "stdout"),
            ("exabgp.api.cli", "false"),
        ];
        let mut daemon = net.start("b", "exabgp", "/usr/sbin/exabgp", &[&file], &env);
        daemon.until("hearing", || heard.exists());
        Self { net, daemon }
    }

    /// Has it send something, in the words of its API.
    pub(crate) fn tell(&self, line: &str) {
        let mut pipe = OpenOptions::new().write(true).open(self.net.path("exabgp.fifo")).expect("there");
        writeln!(pipe, "{line}").expect("told");
    }

    /// What it heard, oldest first.
    fn heard(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.net.path("exabgp.json")).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Peer for Exabgp<'_> {
    fn is_established(&self) -> bool {
        let heard = self.heard();
        let last = heard.iter().rev().find(|line| line["type"] == "state");
        last.is_some_and(|line| line["neighbor"]["state"] == "up")
    }

    fn route(&self, prefix: &str) -> Option<String> {
        let mut route = None;
        for line in self.heard() {
            if line["type"] == "state" && line["neighbor"]["state"] == "down" {
                route = None;
            }
            let update = &line["neighbor"]["message"]["update"];
            if update["withdraw"].to_string().contains(&format!("\"{prefix}\"")) {
                route = None;
            }
            if update["announce"].to_string().contains(&format!("\"{prefix}\"")) {
                route = Some(update.to_string());
            }
        }
        route
    }

    fn ask_again(&self) -> bool {
        for family in ["ipv4", "ipv6"] {
            self.tell(&format!("neighbor 10.99.0.1 announce route-refresh {family} unicast"));
        }
        true
    }

    fn told(&self) -> u64 {
        self.heard().iter().filter(|line| line["type"] == "update").count() as u64
    }
}
