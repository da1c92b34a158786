// SPDX-License-Identifier: Apache-2.0
//! Whatever the runtime writes to the plugin's stdin, the plugin answers with one JSON object, or with nothing.
#![no_main]

use std::ffi::OsStr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rhumb_cni::call::{SOCKET_VARIABLE, Variables};
use rhumb_cni::config::NetConf;
use rhumb_cni::plugin::{Patience, run};

const COMMANDS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];

fuzz_target!(|data: &[u8]| {
    let Some((&command, stdin)) = data.split_first() else { return };
    if let Ok(conf) = NetConf::parse(stdin) {
        let _ = (conf.dns(), conf.valid_attachments());
        // A configuration chooses whom the plugin talks to: only our own folder, and no program.
        if conf.socket.is_some() || conf.delegate.is_some() {
            return;
        }
    }
    // No agent listens here; DEL finds its queue here.
    let folder = tempfile::Builder::new().prefix("rhumb-fuzz").tempdir_in("/dev/shm").expect("room");
    let socket = folder.path().join("agent.sock");
    let variables = Variables::from_iter([
        ("CNI_COMMAND", OsStr::new(COMMANDS[usize::from(command) % COMMANDS.len()])),
        ("CNI_CONTAINERID", OsStr::new("fuzz")),
        ("CNI_NETNS", OsStr::new("/proc/self/ns/net")),
        ("CNI_IFNAME", OsStr::new("eth0")),
        ("CNI_PATH", folder.path().as_os_str()),
        (SOCKET_VARIABLE, socket.as_os_str()),
    ]);
    let short = Duration::from_millis(100);
    let outcome = run(&variables, &mut &stdin[..], Patience { call: short, status: short });
    if !outcome.success {
        let error: serde_json::Value =
            serde_json::from_slice(&outcome.stdout).expect("an error is one JSON object");
        assert!(error["code"].as_u64().is_some_and(|code| code > 0), "{error}");
    } else if !outcome.stdout.is_empty() {
        serde_json::from_slice::<serde_json::Value>(&outcome.stdout).expect("a result is one JSON object");
    }
});
