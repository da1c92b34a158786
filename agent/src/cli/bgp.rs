// SPDX-License-Identifier: Apache-2.0
//! `rhumb bgp`: asks the BGP speaker of this node itself, so that it answers without the agent as well.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use rhumb_api::BgpCommunity;
use rhumb_bgp_feed::{
    Action, Answer, Changes, Explanation, FamilyState, Match, PeerKey, PeerState, Policy, PolicyView,
    Question, RouteView, Table as RouteTable, ask,
};
use rhumb_model::{Family, Prefix, Timestamp};
use serde_json::{Value, json};

use crate::table::Table;

/// How long the speaker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to leave: peers are given time to choose other ways.
const DRAIN: Duration = Duration::from_secs(120);

/// What is asked.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// How it stands with each peer.
    Peers,
    /// Routes: as peers told them (in), as they are told (out), or the best of each prefix (best).
    Routes {
        #[arg(value_enum, default_value = "best")]
        table: Which,
        /// Only those from, or to, this peer.
        #[arg(long, value_name = "PEER")]
        peer: Option<String>,
        /// Only those of this family.
        #[arg(long, value_name = "ipv4|ipv6", value_parser = family)]
        family: Option<Family>,
        /// At most this many.
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        most: usize,
    },
    /// The policies in force.
    Policy {
        /// Only those of this peer.
        #[arg(long, value_name = "PEER")]
        peer: Option<String>,
    },
    /// Why a prefix is reached as it is, and who is told of it.
    Explain {
        /// The prefix, or an address.
        #[arg(value_parser = prefix)]
        prefix: Prefix,
    },
    /// Takes the node out of service: tells every peer to prefer others, withdraws, and closes the sessions.
    Drain {
        /// What peers are told.
        #[arg(long, value_name = "TEXT", default_value = "drained")]
        reason: String,
    },
    /// Ends a drain.
    Undrain,
}

/// Which routes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Which {
    In,
    Out,
    Best,
}

fn family(text: &str) -> Result<Family, String> {
    let found = Family::BOTH.into_iter().find(|family| family.to_string() == text);
    found.ok_or_else(|| "want ipv4 or ipv6".to_owned())
}

fn prefix(text: &str) -> Result<Prefix, String> {
    match text.parse() {
        Ok(address) => Ok(Prefix::host(address)),
        Err(_) => text.parse().map_err(|error: rhumb_model::PrefixError| error.to_string()),
    }
}

impl Command {
    fn question(self) -> Question {
        let key = |peer: Option<String>| peer.map(PeerKey);
        match self {
            Command::Peers => Question::Peers,
            Command::Routes { table, peer, family, most } => {
                let table = match table {
                    Which::In => RouteTable::In,
                    Which::Out => RouteTable::Out,
                    Which::Best => RouteTable::Best,
                };
                Question::Routes { table, peer: key(peer), family, most }
            }
            Command::Policy { peer } => Question::Policy { peer: key(peer) },
            Command::Explain { prefix } => Question::Explain { prefix },
            Command::Drain { reason } => Question::Drain { reason },
            Command::Undrain => Question::Undrain,
        }
    }
}

/// Asks the speaker at `socket`; gives what is printed.
///
/// # Errors
/// When it does not answer, or refuses.
pub(crate) fn run(socket: &Path, command: &Command, in_json: bool, colour: bool) -> Result<String> {
    let patience = if matches!(command, Command::Drain { .. }) { DRAIN } else { PATIENCE };
    let software = concat!("rhumb ", env!("CARGO_PKG_VERSION"));
    let answer = ask(socket, software, command.clone().question(), patience).with_context(|| {
        format!("no BGP speaker answers at {}: is rhumb-bgp running on this node?", socket.display())
    })?;
    if let Answer::Refused(why) = answer {
        bail!("the BGP speaker refuses: {why}");
    }
    if in_json {
        return Ok(format!("{:#}\n", document(&answer)));
    }
    Ok(render(&answer, SystemTime::now().into(), colour))
}

/// An answer as JSON.
fn document(answer: &Answer) -> Value {
    match answer {
        Answer::Peers(peers) => json!(peers),
        Answer::Routes { routes, more } => json!({"routes": routes, "more": more}),
        Answer::Policies(policies) => json!(policies),
        Answer::Explanation(explanation) => json!(explanation),
        Answer::Done => json!("done"),
        Answer::Refused(why) => json!(why),
    }
}

fn render(answer: &Answer, now: Timestamp, colour: bool) -> String {
    match answer {
        Answer::Peers(peers) => show_peers(peers, now, colour),
        Answer::Routes { routes, more } => {
            let mut text = show_routes(routes, colour);
            if *more > 0 {
                text.push_str(&format!("{more} more: choose with --peer or --family, or raise --most\n"));
            }
            text
        }
        Answer::Policies(policies) => policies.iter().map(show_policies).collect(),
        Answer::Explanation(explanation) => explain(explanation, colour),
        Answer::Done => "done\n".to_owned(),
        Answer::Refused(why) => format!("{why}\n"),
    }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn show_peers(peers: &[PeerState], now: Timestamp, colour: bool) -> String {
    let head =
        ["PEER", "ADDRESS", "AS", "STATE", "FOR", "BFD", "RECEIVED", "ACCEPTED", "ADVERTISED", "LAST ERROR"];
    let mut table = Table::new(&head);
    for peer in peers {
        let sum = |of: fn(&FamilyState) -> u64| peer.families.iter().map(of).sum::<u64>().to_string();
        let state =
            if peer.restarting { format!("{} (restarting)", peer.session) } else { peer.session.to_string() };
        table.row([
            peer.key.to_string(),
            peer.address.clone(),
            text(peer.asn),
            state,
            format!("{}s", now.since(peer.since).as_secs()),
            text(peer.bfd),
            sum(|family| family.received),
            sum(|family| family.accepted),
            sum(|family| family.advertised),
            text(peer.last_error.as_ref()),
        ]);
    }
    table.render(colour)
}

fn show_routes(routes: &[RouteView], colour: bool) -> String {
    let head = ["", "PREFIX", "PEER", "KIND", "NEXT HOP", "AS PATH", "PREF", "MED", "COMMUNITIES", "WHY"];
    let mut table = Table::new(&head);
    for route in routes {
        let mark = match (route.best, route.stale) {
            (true, false) => "*",
            (true, true) => "*s",
            (false, true) => "s",
            (false, false) => " ",
        };
        table.row([
            mark.to_owned(),
            route.prefix.to_string(),
            text(route.peer.as_ref()),
            route.kind.to_string(),
            route.next_hop.clone(),
            route.as_path.clone(),
            text(route.local_pref),
            text(route.med),
            communities(&route.communities, &route.large_communities),
            route.why.clone(),
        ]);
    }
    table.render(colour)
}

fn communities(standard: &[u32], large: &[[u32; 3]]) -> String {
    let standard = standard.iter().map(|value| BgpCommunity::Standard(*value));
    let all = standard.chain(large.iter().map(|value| BgpCommunity::Large(*value)));
    all.map(|community| community.to_string()).collect::<Vec<_>>().join(" ")
}

fn show_policies(view: &PolicyView) -> String {
    let part = |word: &str, policy: &Policy| {
        let mut text = format!("{} {word}\n", view.peer);
        for rule in &policy.rules {
            text.push_str(&format!(
                "  {}: {} -> {}\n",
                rule.name,
                matches(&rule.matches),
                action(&rule.action)
            ));
        }
        text + "  anything else -> reject\n"
    };
    part("import", &view.import) + &part("export", &view.export)
}

fn matches(matches: &Match) -> String {
    let mut parts = Vec::new();
    let prefixes =
        matches.prefixes.iter().map(|range| format!("{} length {}-{}", range.prefix, range.ge, range.le));
    let lists = [
        ("prefix", prefixes.collect::<Vec<_>>()),
        ("community", vec![communities(&matches.communities, &matches.large_communities)]),
        ("kind", matches.kinds.iter().map(ToString::to_string).collect()),
        ("from", matches.neighbours.iter().map(ToString::to_string).collect()),
    ];
    for (word, items) in lists {
        let items = items.join(", ");
        if !items.is_empty() {
            parts.push(format!("{word} {items}"));
        }
    }
    if parts.is_empty() { "anything".to_owned() } else { parts.join("; ") }
}

fn action(action: &Action) -> String {
    let Action::Accept(changes) = action else { return "reject".to_owned() };
    let Changes {
        local_pref,
        med,
        remove_communities,
        add_communities,
        remove_large_communities,
        add_large_communities,
        prepend,
    } = changes;
    let parts = [
        ("preference", text(*local_pref)),
        ("med", text(*med)),
        ("without", communities(remove_communities, remove_large_communities)),
        ("with", communities(add_communities, add_large_communities)),
        ("prepend", text((*prepend > 0).then_some(prepend))),
    ];
    let said =
        parts.iter().filter(|(_, value)| !value.is_empty()).map(|(word, value)| format!(", {word} {value}"));
    format!("accept{}", said.collect::<String>())
}

fn explain(explanation: &Explanation, colour: bool) -> String {
    let mut text = match explanation.candidates.is_empty() {
        true => format!("no route to {}\n", explanation.prefix),
        false => show_routes(&explanation.candidates, colour),
    };
    if !explanation.told.is_empty() {
        text.push_str("\ntold:\n");
        text.push_str(&show_routes(&explanation.told, colour));
    }
    for note in &explanation.notes {
        text.push_str(&format!("{note}\n"));
    }
    text
}

#[cfg(test)]
mod tests;
