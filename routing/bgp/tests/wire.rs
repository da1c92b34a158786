// SPDX-License-Identifier: Apache-2.0
//! Octets of whole messages in, what they say out: `tests/wire/*.hex` are read on the session that their first line names, and
//! compared with the `.txt` of the same name. `UPDATE=1` writes the latter anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use bytes::BytesMut;
use rhumb_bgp::wire::{
    AddPath, Asn, Attributes, Capabilities, Codec, Message, Negotiated, Notification, Open, RouterId, Update,
};
use rhumb_model::Family;

/// The session that a line like `session external extended-next-hop add-path-ipv6` names.
fn codec(line: &str) -> Codec {
    let words: BTreeSet<&str> = line.split_whitespace().skip(1).collect();
    let has = |word: &str| words.contains(word);
    let known = [
        "opening",
        "external",
        "internal",
        "two-octets",
        "add-path-ipv4",
        "add-path-ipv6",
        "extended-next-hop",
        "extended-message",
        "enhanced-refresh",
        "ipv4-only",
    ];
    assert!(words.iter().all(|word| known.contains(word)), "{line}");
    if has("opening") {
        return Codec::opening();
    }
    let families = if has("ipv4-only") { BTreeSet::from([Family::V4]) } else { BTreeSet::from(Family::BOTH) };
    let paths = [(Family::V4, "add-path-ipv4"), (Family::V6, "add-path-ipv6")];
    let both = AddPath { receive: true, send: true };
    let capabilities = |asn| Capabilities {
        families: families.clone(),
        asn4: (!has("two-octets")).then_some(Asn(asn)),
        add_path: paths
            .iter()
            .filter(|(_, word)| has(word))
            .map(|(family, _)| (*family, both))
            .collect::<BTreeMap<_, _>>(),
        extended_next_hop: if has("extended-next-hop") {
            BTreeSet::from([Family::V4])
        } else {
            BTreeSet::new()
        },
        extended_message: has("extended-message"),
        enhanced_route_refresh: has("enhanced-refresh"),
        ..Capabilities::default()
    };
    let open = |asn, id| Open {
        asn: Asn(asn),
        hold_time: 90,
        router_id: RouterId(id),
        capabilities: capabilities(asn),
    };
    let peer = if has("internal") { 65000 } else { 65001 };
    Codec::new(&Negotiated::of(&open(65000, 1), &open(peer, 2)).expect("families in common"))
}

/// The octets of all lines but the first; what is behind `#` is left out.
fn octets(text: &str) -> BytesMut {
    let digits: String = text
        .lines()
        .skip(1)
        .flat_map(|line| line.split('#').next().unwrap_or_default().chars())
        .filter(|char| !char.is_whitespace())
        .collect();
    let pairs = digits.as_bytes().as_chunks::<2>();
    assert!(pairs.1.is_empty(), "an odd number of digits");
    let octet =
        |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    BytesMut::from(pairs.0.iter().map(octet).collect::<Vec<_>>().as_slice())
}

fn joined<T: ToString>(list: impl IntoIterator<Item = T>) -> String {
    list.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

fn shown_attributes(attributes: &Attributes, text: &mut String) -> std::fmt::Result {
    writeln!(text, "  origin {:?}", attributes.origin)?;
    writeln!(text, "  path [{}]", attributes.as_path)?;
    let mut optional = |name: &str, value: Option<String>| match value {
        Some(value) => writeln!(text, "  {name} {value}"),
        None => Ok(()),
    };
    let list = |list: String| (!list.is_empty()).then_some(list);
    optional("med", attributes.med.map(|med| med.to_string()))?;
    optional("local preference", attributes.local_pref.map(|preference| preference.to_string()))?;
    optional("atomic", attributes.atomic_aggregate.then_some("aggregate".to_owned()))?;
    optional("aggregator", attributes.aggregator.map(|(asn, addr)| format!("{asn} {addr}")))?;
    optional("communities", list(joined(&attributes.communities)))?;
    optional("large communities", list(joined(&attributes.large_communities)))?;
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    optional(
        "extended communities",
        list(joined(attributes.extended_communities.iter().map(|octets| hex(octets)))),
    )?;
    optional("originator", attributes.originator_id.map(|id| id.to_string()))?;
    optional("clusters", list(joined(&attributes.cluster_list)))?;
    for raw in &attributes.unknown {
        writeln!(text, "  unknown {} flags {:02x} value {}", raw.code, raw.flags, hex(&raw.value))?;
    }
    Ok(())
}

fn shown_update(update: &Update, text: &mut String) -> std::fmt::Result {
    if let Some(family) = update.end_of_rib() {
        return writeln!(text, "UPDATE end of {family}");
    }
    writeln!(text, "UPDATE")?;
    for problem in &update.problems {
        writeln!(text, "  problem: {problem}")?;
    }
    if let Some(attributes) = &update.attributes {
        shown_attributes(attributes, text)?;
    }
    for part in &update.withdrawn {
        writeln!(
            text,
            "  withdrawn {}: {}",
            part.family,
            part.nlri.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        )?;
    }
    for part in &update.reach {
        let nlri = part.nlri.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        writeln!(text, "  reach {} via {}: {nlri}", part.family, part.next_hop)?;
    }
    Ok(())
}

fn shown_open(open: &Open, text: &mut String) -> std::fmt::Result {
    writeln!(text, "OPEN as {} hold {} id {}", open.asn, open.hold_time, open.router_id)?;
    let capabilities = &open.capabilities;
    let mut line = |name: &str, value: String| match value.is_empty() {
        true => Ok(()),
        false => writeln!(text, "  {name} {value}"),
    };
    line("families", joined(&capabilities.families))?;
    let flags = [
        (capabilities.route_refresh, "route-refresh"),
        (capabilities.enhanced_route_refresh, "enhanced-route-refresh"),
        (capabilities.extended_message, "extended-message"),
    ];
    line("offers", joined(flags.iter().filter(|(offered, _)| *offered).map(|(_, name)| name)))?;
    line("asn4", joined(capabilities.asn4))?;
    line("extended next hop", joined(&capabilities.extended_next_hop))?;
    let flag = |set: bool, name: &'static str| if set { name } else { "-" };
    if let Some(restart) = &capabilities.graceful_restart {
        let families = restart.families.iter().map(|(family, kept)| format!("{family}:{}", flag(*kept, "F")));
        let flags = (flag(restart.restarting, "R"), flag(restart.notification, "N"));
        line(
            "graceful restart",
            format!("{} s {} {} {}", restart.restart_time, flags.0, flags.1, joined(families)),
        )?;
    }
    let stale = |(family, offer): (&Family, &rhumb_bgp::wire::LongLived)| {
        format!("{family}:{}:{} s", flag(offer.forwarding, "F"), offer.stale_time)
    };
    line("long-lived", joined(capabilities.long_lived.iter().flatten().map(stale)))?;
    let paths = |(family, offer): (&Family, &AddPath)| {
        format!("{family}:{}:{}", flag(offer.receive, "receive"), flag(offer.send, "send"))
    };
    line("add-path", joined(capabilities.add_path.iter().map(paths)))?;
    line(
        "fqdn",
        capabilities.fqdn.as_ref().map(|name| format!("{} {}", name.host, name.domain)).unwrap_or_default(),
    )?;
    for (code, value) in &capabilities.unknown {
        line("unknown", format!("{code} {value:02x?}"))?;
    }
    Ok(())
}

fn shown(result: &Result<Message, Notification>) -> String {
    let mut text = String::new();
    let written = match result {
        Err(notification) => writeln!(text, "refused: {notification}"),
        Ok(Message::Open(open)) => shown_open(open, &mut text),
        Ok(Message::Update(update)) => shown_update(update, &mut text),
        Ok(Message::Notification(notification)) => writeln!(text, "NOTIFICATION {notification}"),
        Ok(Message::Keepalive) => writeln!(text, "KEEPALIVE"),
        Ok(Message::RouteRefresh(refresh)) => {
            writeln!(text, "ROUTE-REFRESH {} {:?}", refresh.family, refresh.kind)
        }
    };
    written.expect("text has room");
    text
}

fn read(input: &str) -> String {
    let mut codec = codec(input.lines().next().unwrap_or_default());
    let mut buffer = octets(input);
    let mut text = String::new();
    loop {
        match codec.decode(&mut buffer).transpose() {
            Some(result) => {
                text.push_str(&shown(&result));
                if result.is_err() {
                    return text;
                }
            }
            None if buffer.is_empty() => return text,
            None => return text + &format!("{} octets of a message that is not whole\n", buffer.len()),
        }
    }
}

#[test]
fn each_file_of_octets_says_what_its_text_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "hex"));
    cases.sort();
    assert!(cases.len() > 10, "the cases are there");
    let mut wrong = Vec::new();
    for case in cases {
        let text = read(&fs::read_to_string(&case).expect("readable"));
        let expected = case.with_extension("txt");
        if env::var_os("UPDATE").is_some() {
            fs::write(&expected, &text).expect("written");
        }
        if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "UPDATE=1 writes what is read now:\n{}", wrong.join("\n"));
}
