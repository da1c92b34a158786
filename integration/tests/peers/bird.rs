// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Daemon, KEY, Net, OUR_AS, Peer, THEIR_AS, run};

/// A BIRD.
pub(crate) struct Bird {
    pub(crate) daemon: Daemon,
    control: PathBuf,
    /// The protocol that speaks with us.
    protocol: String,
}

impl Bird {
    /// Starts BIRD in a namespace; `protocol` is the one whose session [`Peer`] is about.
    pub(crate) fn start(net: &Net, namespace: &str, protocol: &str, config: &str) -> Self {
        let file = net.file(&format!("bird-{namespace}.conf"), &telling(config));
        let control = net.path(&format!("bird-{namespace}.ctl"));
        let pid = net.path(&format!("bird-{namespace}.pid"));
        let [control_text, pid] = [&control, &pid].map(|path| path.to_str().expect("text").to_owned());
        let label = format!("bird-{namespace}");
        let args = ["-f", "-c", &file, "-s", &control_text, "-P", &pid];
        let mut daemon = net.start(namespace, &label, "bird", &args, &[]);
        daemon.until("hearing", || Path::new(&control).exists());
        Self { daemon, control, protocol: protocol.to_owned() }
    }

    /// The other end of [`Net::pair`], with two routes of each family, the first one the default route, that have
    /// communities. `more` goes into the BGP protocol.
    pub(crate) fn pair(net: &Net, more: &str) -> Self {
        Self::start(net, "b", "p1", &Self::pair_config(more))
    }

    pub(crate) fn pair_config(more: &str) -> String {
        let marked = "if source != RTS_STATIC then reject; bgp_community.add((65002,5)); \
                      bgp_large_community.add((4200000002,5,6)); accept;";
        format!(
            r#"router id 10.99.0.2;
            protocol device {{}}
            protocol kernel k4 {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
            protocol kernel k6 {{ ipv6 {{ import none; export where source = RTS_BGP; }}; }}
            protocol static s4 {{ ipv4; route 0.0.0.0/0 blackhole; route 10.200.1.0/24 blackhole; }}
            protocol static s6 {{ ipv6; route ::/0 blackhole; route fd00:200:1::/64 blackhole; }}
            protocol bfd {{ interface "vb" {{ min rx interval 50 ms; min tx interval 50 ms; multiplier 3; }}; }}
            protocol bgp p1 {{
                local 10.99.0.2 as {THEIR_AS};
                neighbor 10.99.0.1 as {OUR_AS};
                password "{KEY}";
                connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 5;
                enable extended messages on;
                {more}
                ipv4 {{ import all; export filter {{ {marked} }}; next hop self; }};
                ipv6 {{ import all; export filter {{ {marked} }}; next hop address fd99::2; }};
            }}"#
        )
    }

    /// What it answers.
    pub(crate) fn ask(&self, words: &str) -> String {
        run(Command::new("birdc").arg("-s").arg(&self.control).args(words.split(' ')))
    }

    /// What it knows of a route, from any protocol; nothing where it has none.
    pub(crate) fn show_route(&self, words: &str) -> String {
        // Having none is an error.
        let mut command = Command::new("birdc");
        command.arg("-s").arg(&self.control).args(["show", "route"]).args(words.split(' ')).arg("all");
        String::from_utf8_lossy(&command.output().expect("run").stdout).into_owned()
    }

    /// Takes another configuration.
    pub(crate) fn configure(&self, net: &Net, namespace: &str, config: &str) {
        fs::write(net.path(&format!("bird-{namespace}.conf")), telling(config)).expect("written");
        self.ask("configure");
    }
}

/// A configuration with which it writes a line when a session or a route changes: who waits for that hears it.
fn telling(config: &str) -> String {
    format!("log stderr all;\ndebug protocols {{ states, routes }};\n{config}\n")
}

impl Peer for Bird {
    fn is_established(&self) -> bool {
        self.ask(&format!("show protocols {}", self.protocol)).contains("Established")
    }

    fn route(&self, prefix: &str) -> Option<String> {
        let told = self.show_route(&format!("{prefix} protocol {}", self.protocol));
        told.contains("BGP.as_path").then_some(told)
    }

    fn ask_again(&self) -> bool {
        self.ask(&format!("reload in {}", self.protocol));
        true
    }

    fn told(&self) -> u64 {
        let told = self.ask(&format!("show protocols all {}", self.protocol));
        let updates = told.lines().filter_map(|line| line.trim().strip_prefix("Import updates:"));
        updates.filter_map(|numbers| numbers.split_whitespace().next()?.parse::<u64>().ok()).sum()
    }
}
