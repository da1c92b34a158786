// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask limits FILE --source TEXT`: the table of what instance types can have, from the JSON that
//! `aws ec2 describe-instance-types` prints, or from an object of such entries by type.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

const TABLE: &str = "cloud/src/limits/types.txt";

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Listed {
        #[serde(rename = "InstanceTypes")]
        types: Vec<Entry>,
    },
    ByType(BTreeMap<String, Entry>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    instance_type: String,
    hypervisor: Option<String>,
    bare_metal: Option<bool>,
    v_cpu_info: Processors,
    network_info: Network,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Processors {
    default_v_cpus: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    maximum_network_interfaces: u8,
    ipv4_addresses_per_interface: u16,
    ipv6_addresses_per_interface: u16,
    #[serde(default)]
    network_cards: Vec<Card>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Card {
    network_card_index: u8,
    maximum_network_interfaces: u8,
}

/// Writes the table from the data in `file`; `source` says where they are from, and of what date.
pub(crate) fn write(root: &Path, file: &Path, source: &str) -> anyhow::Result<()> {
    let data = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let entries = match serde_json::from_str(&data).context("read the instance types")? {
        Input::Listed { types } => types,
        Input::ByType(types) => types.into_values().collect(),
    };
    fs::write(root.join(TABLE), table(entries, source)?).context("write the table")?;
    println!("wrote {TABLE}");
    Ok(())
}

fn table(mut entries: Vec<Entry>, source: &str) -> anyhow::Result<String> {
    entries.sort_by(|one, other| one.instance_type.cmp(&other.instance_type));
    let mut text = format!(
        "# SPDX-License-Identifier: Apache-2.0\n# Made by `cargo xtask limits` from {source}.\n\
         # TYPE CARDS V4 V6 PREFIXES VCPUS\n"
    );
    for entry in entries {
        let network = &entry.network_info;
        let cards = cards(network).with_context(|| format!("cards of {}", entry.instance_type))?;
        // Instances on Nitro have prefixes; bare metal has no hypervisor, but Nitro's cards.
        let prefixes = entry.hypervisor.as_deref() == Some("nitro") || entry.bare_metal == Some(true);
        writeln!(
            text,
            "{} {cards} {} {} {} {}",
            entry.instance_type,
            network.ipv4_addresses_per_interface,
            network.ipv6_addresses_per_interface,
            if prefixes { 'y' } else { 'n' },
            entry.v_cpu_info.default_v_cpus
        )?;
    }
    Ok(text)
}

fn cards(network: &Network) -> anyhow::Result<String> {
    let mut each: Vec<u8> = Vec::new();
    for (index, card) in network.network_cards.iter().enumerate() {
        if usize::from(card.network_card_index) != index {
            bail!("card {} stands in place {index}", card.network_card_index);
        }
        each.push(card.maximum_network_interfaces);
    }
    if each.is_empty() {
        each.push(network.maximum_network_interfaces);
    }
    let same = each.iter().all(|interfaces| Some(interfaces) == each.first());
    Ok(match each.as_slice() {
        [one] => one.to_string(),
        [first, ..] if same => format!("{}x{first}", each.len()),
        _ => each.iter().map(u8::to_string).collect::<Vec<_>>().join("+"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = r#"{"InstanceTypes": [
        {"InstanceType": "p9.big", "Hypervisor": "nitro", "BareMetal": false, "VCpuInfo": {"DefaultVCpus": 192},
         "NetworkInfo": {"MaximumNetworkInterfaces": 4, "Ipv4AddressesPerInterface": 50,
                         "Ipv6AddressesPerInterface": 50, "NetworkCards": [
            {"NetworkCardIndex": 0, "MaximumNetworkInterfaces": 2},
            {"NetworkCardIndex": 1, "MaximumNetworkInterfaces": 2}]}},
        {"InstanceType": "m1.old", "Hypervisor": "xen", "BareMetal": false, "VCpuInfo": {"DefaultVCpus": 1},
         "NetworkInfo": {"MaximumNetworkInterfaces": 2, "Ipv4AddressesPerInterface": 4,
                         "Ipv6AddressesPerInterface": 0}}]}"#;

    #[test]
    fn the_table_is_sorted_and_has_a_line_per_type() {
        let Input::Listed { types } = serde_json::from_str(DATA).expect("readable") else {
            unreachable!("the data are listed")
        };
        let text = table(types, "a test").expect("whole");
        let lines: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(lines, ["m1.old 2 4 0 n 1", "p9.big 2x2 50 50 y 192"]);
    }
}
