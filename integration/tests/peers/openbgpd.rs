// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{Daemon, KEY, Net, OUR_AS, Peer, THEIR_AS, run};

/// An OpenBGPD at the other end of [`Net::pair`]. It installs no routes, and speaks of each family over a session of
/// that family, as it knows no next hop of the other one.
pub(crate) struct Openbgpd<'a> {
    net: &'a Net,
    pub(crate) daemon: Daemon,
    control: String,
}

impl<'a> Openbgpd<'a> {
    /// Starts it, with a route of each family that have communities.
    pub(crate) fn pair(net: &'a Net) -> Self {
        // Its service would make the folder, and none is started here.
        let known = Command::new("getent").args(["passwd", "_openbgpd"]).output().expect("run");
        assert!(known.status.success(), "user _openbgpd is missing: cargo xtask setup");
        fs::create_dir_all("/run/openbgpd").expect("made");
        let control = net.path("openbgpd.sock").to_str().expect("text").to_owned();
        let neighbour = |address: &str, families: &str| {
            format!(
                "neighbor {address} {{\n remote-as {OUR_AS}\n tcp md5sig password {KEY}\n {families}\n \
                 announce restart yes\n}}\n"
            )
        };
        let marks = "set { community 65002:5 large-community 4200000002:5:6 }";
        let config = format!(
            "AS {THEIR_AS}\nrouter-id 10.99.0.2\nlisten on 10.99.0.2\nlisten on fd99::2\nsocket \"{control}\"\n\
             connect-retry 1\n\
             network 10.200.1.0/24 {marks}\nnetwork fd00:200:1::/64 {marks}\n{}{}allow from any\nallow to any\n",
            neighbour("10.99.0.1", "announce IPv4 unicast"),
            neighbour("fd99::1", "announce IPv4 none\n announce IPv6 unicast"),
        );
        let file = net.file("openbgpd.conf", &config);
        run(Command::new("chmod").args(["600", &file]));
        let mut daemon = net.start("b", "openbgpd", "bgpd", &["-d", "-v", "-f", &file], &[]);
        daemon.until("hearing", || net.try_exec("b", &["bgpctl", "-s", &control, "show"]).is_some());
        Self { net, daemon, control }
    }

    fn ask(&self, words: &[&str]) -> Value {
        let words = [&["bgpctl", "-j", "-s", &self.control], words].concat();
        let told = self.net.exec("b", &words);
        serde_json::from_str(&told).unwrap_or_default()
    }

    fn neighbours(&self) -> Vec<Value> {
        self.ask(&["show", "neighbor"])["neighbors"].as_array().cloned().unwrap_or_default()
    }
}

impl Peer for Openbgpd<'_> {
    fn is_established(&self) -> bool {
        let neighbours = self.neighbours();
        neighbours.len() == 2 && neighbours.iter().all(|neighbour| neighbour["state"] == "Established")
    }

    fn route(&self, prefix: &str) -> Option<String> {
        let told = self.ask(&["show", "rib", "in", "detail", prefix]);
        let rib = told["rib"].as_array()?;
        (!rib.is_empty()).then(|| told.to_string())
    }

    fn ask_again(&self) -> bool {
        for neighbour in ["10.99.0.1", "fd99::1"] {
            self.net.exec("b", &["bgpctl", "-s", &self.control, "neighbor", neighbour, "refresh"]);
        }
        true
    }

    fn told(&self) -> u64 {
        let of = |neighbour: &Value| neighbour["stats"]["message"]["received"]["updates"].as_u64();
        self.neighbours().iter().filter_map(of).sum()
    }
}
