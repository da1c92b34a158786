// SPDX-License-Identifier: Apache-2.0

use serde_json::Value;

use super::{Daemon, KEY, Net, OUR_AS, Peer, THEIR_AS, run};

/// A GoBGP at the other end of [`Net::pair`]. It installs no routes.
pub(crate) struct Gobgp<'a> {
    net: &'a Net,
    pub(crate) daemon: Daemon,
}

impl<'a> Gobgp<'a> {
    /// Starts it, with a route of each family that have communities.
    pub(crate) fn pair(net: &'a Net) -> Self {
        let family = |name: &str| {
            format!(
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}\"\n\
                 [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n"
            )
        };
        let config = format!(
            r#"[global.config]
as = {THEIR_AS}
router-id = "10.99.0.2"
local-address-list = ["10.99.0.2"]
[[neighbors]]
[neighbors.config]
neighbor-address = "10.99.0.1"
peer-as = {OUR_AS}
auth-password = "{KEY}"
[neighbors.timers.config]
connect-retry = 1
hold-time = 30
keepalive-interval = 10
[neighbors.graceful-restart.config]
enabled = true
restart-time = 120
{}{}"#,
            family("ipv4-unicast"),
            family("ipv6-unicast")
        );
        let file = net.file("gobgp.toml", &config);
        let args = ["-f", &file, "--api-hosts", "127.0.0.1:50051", "--pprof-disable"];
        let mut daemon = net.start("b", "gobgp", "gobgpd", &args, &[]);
        daemon.until("hearing", || net.try_exec("b", &["gobgp", "neighbor"]).is_some());
        let gobgp = Self { net, daemon };
        gobgp.announce("ipv4", "10.200.1.0/24", "10.99.0.2");
        gobgp.announce("ipv6", "fd00:200:1::/64", "fd99::2");
        gobgp
    }

    fn announce(&self, family: &str, prefix: &str, next_hop: &str) {
        let marks = ["community", "65002:5", "large-community", "4200000002:5:6"];
        let words = ["gobgp", "global", "rib", "add", "-a", family, prefix, "nexthop", next_hop];
        run(self.net.namespace("b").command(words[0]).args(&words[1..]).args(marks));
    }

    fn neighbour(&self) -> Value {
        let told = self.net.exec("b", &["gobgp", "neighbor", "10.99.0.1", "-j"]);
        serde_json::from_str(&told).expect("GoBGP prints JSON")
    }
}

impl Peer for Gobgp<'_> {
    fn is_established(&self) -> bool {
        self.net.exec("b", &["gobgp", "neighbor", "10.99.0.1"]).contains("BGP state = ESTABLISHED")
    }

    fn route(&self, prefix: &str) -> Option<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let words = ["gobgp", "neighbor", "10.99.0.1", "adj-in", "-a", family];
        // Without a session there is nothing to ask for.
        let told = self.net.try_exec("b", &words)?;
        told.lines().find(|line| line.split_whitespace().any(|word| word == prefix)).map(str::to_owned)
    }

    fn ask_again(&self) -> bool {
        // It keeps what it was told, and looks at that again instead.
        false
    }

    fn told(&self) -> u64 {
        self.neighbour()["state"]["messages"]["received"]["update"].as_u64().unwrap_or(0)
    }
}
