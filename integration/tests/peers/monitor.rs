// SPDX-License-Identifier: Apache-2.0

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{Net, until};

/// What changes in the routes of a namespace, and when it was heard.
pub(crate) struct Monitor {
    child: Child,
    heard: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Monitor {
    /// Begins to listen; what changes from now on is heard.
    pub(crate) fn start(net: &Net, namespace: &str) -> Self {
        let name = net.namespace(namespace).name().to_owned();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "stdbuf", "-oL", "ip", "-n", &name, "monitor", "route"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let output = child.stdout.take().expect("piped");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let monitor = Self { child, heard: Arc::clone(&heard) };
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                heard.lock().expect("no panic").push((Instant::now(), line));
            }
        });
        // It says nothing of being there: a route comes and goes until it tells of that.
        until("the monitor hears", || {
            net.namespace(namespace).ip("route replace unreachable 203.0.113.0/24").expect("put");
            net.namespace(namespace).ip("route del unreachable 203.0.113.0/24").expect("removed");
            monitor.lines().iter().any(|(_, line)| line.contains("203.0.113.0/24"))
        });
        monitor
    }

    fn lines(&self) -> Vec<(Instant, String)> {
        self.heard.lock().expect("no panic").clone()
    }

    /// When the route to a prefix was removed; the first time.
    pub(crate) fn removed(&self, prefix: &str) -> Option<Instant> {
        let is = |line: &str| line.starts_with("Deleted") && line.split(' ').any(|word| word == prefix);
        self.lines().into_iter().find_map(|(at, line)| is(&line).then_some(at))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
