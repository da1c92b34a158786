// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rhumb_integration::lab::Binaries;
use serde_json::{Value, json};

use super::{Daemon, KEY, Net, OUR_AS, PATIENCE, THEIR_AS};

/// Table of the kernel where the speaker puts what it learned.
pub(crate) const TABLE: &str = "7268";

/// What the speaker is to do, in the form that the agent gives it.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot(pub(crate) Value);

impl Snapshot {
    /// One instance, without peers and routes.
    pub(crate) fn new(asn: u32, router_id: &str) -> Self {
        Self(json!({ "revision": 1, "instances": [{
            "name": "main", "asn": asn, "router_id": router_id, "listen": ["0.0.0.0:179", "[::]:179"],
            "cluster_id": null, "multipath": 8, "own": [], "peers": [], "routes": [],
        }] }))
    }

    /// Our end of [`Net::pair`], with a route of each family that have communities: one peer, which has to sign, and of
    /// whose routes those are taken that carry its communities. `change` gets the peer.
    pub(crate) fn pair(change: impl FnOnce(&mut Value)) -> Self {
        let mut peer = peer("tor", json!({ "ip": "10.99.0.2" }), json!({ "number": THEIR_AS }));
        peer["md5"] = KEY.into();
        peer["import"] = json!({ "rules": [rule(
            "marked",
            json!({ "communities": [65002_u32 << 16 | 5], "large_communities": [[THEIR_AS, 5, 6]] }),
        )] });
        change(&mut peer);
        let mut snapshot = Self::new(OUR_AS, "10.99.0.1");
        snapshot.add_peer(peer);
        for prefix in ["10.100.1.0/24", "fd00:100:1::/64"] {
            snapshot.add_route(prefix);
        }
        snapshot
    }

    pub(crate) fn add_peer(&mut self, peer: Value) {
        let peers = self.0["instances"][0]["peers"].as_array_mut().expect("a list");
        peers.push(peer);
        peers.sort_by_key(|peer| peer["key"].to_string());
    }

    /// Adds a route with communities 65001:100 and 4200000001:1:2.
    pub(crate) fn add_route(&mut self, prefix: &str) {
        let routes = self.0["instances"][0]["routes"].as_array_mut().expect("a list");
        routes.push(json!({
            "prefix": prefix, "kind": "pod_cidr", "next_hop": "own", "discard": false, "recipients": "all",
            "exceptions": {}, "attributes": {
                "communities": [65001_u32 << 16 | 100], "large_communities": [[OUR_AS, 1, 2]], "local_pref": null,
                "med": null,
            },
        }));
    }
}

/// A peer to which everything of ours is told and of which everything is taken.
pub(crate) fn peer(key: &str, address: Value, asn: Value) -> Value {
    let family = |name: &str| json!({ "family": name, "max_prefixes": null, "extended_next_hop": false, "next_hop_self": false });
    json!({
        "key": key, "address": address, "asn": asn, "port": 179, "local_asn": null, "local_address": null,
        "source_interface": null, "md5": null, "ttl": "direct", "passive": false,
        "timers": { "hold_time": 30, "keepalive": 10, "connect_retry": 1 },
        "families": [family("ipv4"), family("ipv6")],
        "graceful_restart": null,
        "import": { "rules": [rule("all", json!({}))] }, "export": { "rules": [rule("all", json!({}))] },
        "route_reflector_client": false, "bfd": null, "shutdown": null,
    })
}

/// A rule that accepts what it matches.
pub(crate) fn rule(name: &str, matches: Value) -> Value {
    let mut all =
        json!({ "prefixes": [], "communities": [], "large_communities": [], "kinds": [], "neighbours": [] });
    for (field, value) in matches.as_object().expect("an object") {
        all[field] = value.clone();
    }
    json!({ "name": name, "match": all, "action": { "accept": {
        "local_pref": null, "med": null, "remove_communities": [], "add_communities": [],
        "remove_large_communities": [], "add_large_communities": [], "prepend": 0,
    } } })
}

/// BFD as the peers of [`Net::pair`] have it.
pub(crate) fn bfd() -> Value {
    json!({ "transmit_ms": 50, "receive_ms": 50, "multiplier": 3, "multihop": false, "hold": false })
}

/// `rhumb-bgp` in a namespace, alone.
pub(crate) struct Speaker<'a> {
    net: &'a Net,
    namespace: String,
    pub(crate) daemon: Daemon,
}

impl<'a> Speaker<'a> {
    /// Starts it with a configuration, or with the one that it remembers, and waits until it tries its sessions.
    pub(crate) fn start(net: &'a Net, namespace: &str, snapshot: &Snapshot) -> Self {
        let config = net.file(&format!("rhumb-{namespace}.json"), &snapshot.0.to_string());
        let state = net.path(&format!("rhumb-{namespace}"));
        fs::create_dir_all(&state).expect("made");
        let daemon = Self::launch(net, namespace, &config);
        Self { net, namespace: namespace.to_owned(), daemon }
    }

    /// Starts it again after its end.
    pub(crate) fn restart(&mut self) {
        let config = self.net.path(&format!("rhumb-{}.json", self.namespace));
        self.daemon = Self::launch(self.net, &self.namespace, config.to_str().expect("text"));
    }

    /// Whether it wrote down what it has to know after a restart.
    pub(crate) fn has_saved(&self) -> bool {
        self.net.path(&format!("rhumb-{}/bgp.json", self.namespace)).exists()
    }

    fn launch(net: &Net, namespace: &str, config: &str) -> Daemon {
        let program = Binaries::find().expect("found").path("rhumb-bgp");
        assert!(program.is_file(), "{} is not there: cargo build -p rhumb-bgp", program.display());
        let state = net.path(&format!("rhumb-{namespace}"));
        let ready = net.path(&format!("rhumb-{namespace}.ready"));
        fs::remove_file(&ready).ok();
        // The shell gives it a descriptor to say that it is ready by.
        let line = format!("exec \"$0\" \"$@\" --ready-fd 3 3>{}", ready.display());
        let program = program.to_str().expect("text");
        let [state, socket] = [&state, &net.path(&format!("rhumb-{namespace}.sock"))]
            .map(|path| path.to_str().expect("text").to_owned());
        let args = ["-c", &line, program, "--config", config, "--state-dir", &state, "--socket", &socket];
        let label = format!("rhumb-bgp-{namespace}");
        let mut daemon = net.start(namespace, &label, "sh", &args, &[("RUST_LOG", "rhumb_bgp=debug")]);
        daemon.until("ready", || fs::read_to_string(&ready).is_ok_and(|text| text.contains("ready")));
        daemon
    }

    /// What it answers to a question of `rhumb bgp`.
    pub(crate) fn ask(&self, question: &Value) -> Value {
        let path = self.net.path(&format!("rhumb-{}.sock", self.namespace));
        let mut stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        for frame in
            [json!({ "protocol": 1, "software": "lab", "role": "asker" }), json!({ "ask": question })]
        {
            let text = frame.to_string();
            let length = u32::try_from(text.len()).expect("short").to_be_bytes();
            stream.write_all(&[&length[..], text.as_bytes()].concat()).expect("asked");
        }
        let mut frame = || {
            let mut length = [0; 4];
            stream.read_exact(&mut length).expect("an answer");
            let mut text = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut text).expect("all of it");
            serde_json::from_slice::<Value>(&text).expect("JSON")
        };
        let welcome = frame();
        assert_eq!(welcome["refused"], Value::Null, "{welcome}");
        frame()["answer"].take()
    }

    /// How it stands with one of its peers.
    pub(crate) fn peer(&self, key: &str) -> Value {
        let answer = self.ask(&json!("peers"));
        let peers = answer["peers"].as_array().unwrap_or_else(|| panic!("no peers in {answer}"));
        peers.iter().find(|peer| peer["key"] == key).cloned().unwrap_or_default()
    }

    /// What it was told of a prefix and took.
    pub(crate) fn best(&self, prefix: &str) -> Option<Value> {
        let question = json!({ "routes": { "table": "best", "peer": null, "family": null, "most": 1000 } });
        let answer = self.ask(&question);
        let routes = answer["routes"]["routes"].as_array().unwrap_or_else(|| panic!("no routes in {answer}"));
        routes.iter().find(|route| route["prefix"] == prefix).cloned()
    }

    /// Whether the kernel has a route to this prefix from the speaker, and by which way.
    pub(crate) fn learned(&self, prefix: &str) -> Option<String> {
        self.net.kernel_route(&self.namespace, TABLE, prefix)
    }
}
