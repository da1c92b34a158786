// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Daemon, KEY, Net, OUR_AS, Peer, THEIR_AS, run, until};

/// An FRR: zebra, staticd, bfdd and bgpd.
pub(crate) struct Frr {
    // Dropped in this order, clients before zebra.
    daemons: Vec<Daemon>,
    name: String,
    /// Address or interface of the neighbour that we are.
    neighbour: String,
    state: PathBuf,
}

impl Frr {
    /// Starts FRR in a namespace; `neighbour` is the one that [`Peer`] is about.
    pub(crate) fn start(net: &Net, namespace: &str, neighbour: &str, config: &[(&str, &str)]) -> Self {
        let name = net.namespace(namespace).name().to_owned();
        let state = Path::new("/var/run/frr").join(&name);
        run(Command::new("install").args(["-d", "-o", "frr", "-g", "frr"]).arg(&state));
        let mut frr = Self { daemons: Vec::new(), name, neighbour: neighbour.to_owned(), state };
        for daemon in ["zebra", "staticd", "bfdd", "bgpd"] {
            let text = config.iter().find_map(|(name, text)| (*name == daemon).then_some(*text));
            let file = net.file(&format!("{namespace}-{daemon}.conf"), text.unwrap_or_default());
            let program = format!("/usr/lib/frr/{daemon}");
            let label = format!("frr-{namespace}-{daemon}");
            let mut started = net.start(namespace, &label, &program, &["-N", &frr.name, "-f", &file], &[]);
            let socket = frr.state.join(format!("{daemon}.vty"));
            started.until("hearing", || socket.exists());
            if daemon == "zebra" {
                started.until("serving", || frr.state.join("zserv.api").exists());
                // What is told before it knows the links of the next hops never gets into the kernel.
                let links = net.namespace(namespace).ip_show("-o link show up").expect("told");
                let links = links.lines().filter_map(|line| line.split([' ', '@']).nth(1));
                for link in links.filter(|link| *link != "lo:") {
                    let link = link.trim_end_matches(':');
                    started.until("knowing its links", || {
                        frr.ask(&["show ipv6 route connected"]).contains(&format!("{link},"))
                    });
                }
            }
            frr.daemons.insert(0, started);
        }
        // A route that bgpd learns before it has met zebra never gets into the kernel.
        until("bgpd has met zebra", || frr.ask(&["show zebra client summary"]).contains("bgp"));
        frr
    }

    /// The other end of [`Net::pair`], with a route of each family that have communities. `more` are lines about the
    /// neighbour, `{}` standing for `neighbor 10.99.0.1`.
    pub(crate) fn pair(net: &Net, more: &[&str]) -> Self {
        let neighbour = "neighbor 10.99.0.1";
        let more: String = more.iter().map(|line| format!(" {}\n", line.replace("{}", neighbour))).collect();
        let bgpd = format!(
            "router bgp {THEIR_AS}
 bgp router-id 10.99.0.2
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 {neighbour} remote-as {OUR_AS}
 {neighbour} password {KEY}
 {neighbour} timers 10 30
 {neighbour} timers connect 1
{more} address-family ipv4 unicast
  {neighbour} activate
  {neighbour} route-map MARK out
  redistribute static
 exit-address-family
 address-family ipv6 unicast
  {neighbour} activate
  {neighbour} route-map MARK out
  redistribute static
 exit-address-family
route-map MARK permit 10
 set community 65002:5
 set large-community 4200000002:5:6
 set ipv6 next-hop global fd99::2
"
        );
        let staticd = "ip route 10.200.1.0/24 blackhole\nipv6 route fd00:200:1::/64 blackhole\n";
        Self::start(net, "b", "10.99.0.1", &[("bgpd", &bgpd), ("staticd", staticd)])
    }

    /// Ends one of its programs by SIGKILL.
    pub(crate) fn kill(&mut self, name: &str) {
        let daemon = self.daemons.iter_mut().find(|daemon| daemon.program.ends_with(name));
        daemon.expect("it was started").kill();
    }

    /// What it answers.
    pub(crate) fn ask(&self, lines: &[&str]) -> String {
        run(Command::new("vtysh").args(["-N", &self.name]).args(lines.iter().flat_map(|line| ["-c", line])))
    }

    /// What it says of the neighbour.
    pub(crate) fn neighbour(&self) -> Value {
        let told = self.ask(&[&format!("show bgp neighbors {} json", self.neighbour)]);
        let told: Value = serde_json::from_str(&told).unwrap_or_default();
        told[&self.neighbour].clone()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        self.daemons.clear();
        fs::remove_dir_all(&self.state).ok();
    }
}

impl Peer for Frr {
    fn is_established(&self) -> bool {
        self.neighbour()["bgpState"] == "Established"
    }

    fn route(&self, prefix: &str) -> Option<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let told = self.ask(&[&format!("show bgp {family} unicast {prefix}")]);
        told.contains("Paths:").then_some(told)
    }

    fn ask_again(&self) -> bool {
        for family in ["ipv4", "ipv6"] {
            self.ask(&[&format!("clear bgp {family} unicast {} in", self.neighbour)]);
        }
        true
    }

    fn told(&self) -> u64 {
        self.neighbour()["messageStats"]["updatesRecv"].as_u64().unwrap_or(0)
    }
}
