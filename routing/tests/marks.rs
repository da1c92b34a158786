// SPDX-License-Identifier: Apache-2.0
//! The numbers by which our objects are known are those that `docs/reference/kernel-objects.md` tells.

use rhumb_routing::{eni, kernel, learned};

const DOCUMENT: &str = include_str!("../../docs/reference/kernel-objects.md");

#[test]
fn the_document_tells_tables_priorities_and_protocols_as_they_are() {
    let [own, spoken] = [kernel::PROTOCOL, learned::PROTOCOL];
    let (table, priority) = (learned::TABLE, learned::PRIORITY);
    let (first, pods) = (eni::TABLE, eni::TABLE - 1);
    for told in [
        format!("| address protocol {own} (`IFA_PROTO`;"),
        format!("| host, main table | route protocol {own} |"),
        format!(
            "| routes that `rhumb-bgp` learned, metric {} | host, table {table} | route protocol {spoken} |",
            learned::METRIC
        ),
        format!(
            "| rules {priority} (`lookup main suppress_prefixlength 0`) and {} (`lookup {table}`)",
            priority + 1
        ),
        format!("| host, table {pods} | route protocol {own} |"),
        format!("| host, table {first} and its place (see below) | route protocol {own} |"),
        format!(
            "| rules {} to {}, where the node has interfaces of a VPC | host | rule protocol {own} |",
            eni::PRIORITY,
            eni::PRIORITY + 3
        ),
        format!("| {} | `lookup {pods}` |", eni::PRIORITY),
        format!("| {} | `fwmark MARK/{:#x} lookup TABLE`,", eni::PRIORITY + 1, eni::MARK_MASK),
    ] {
        assert!(DOCUMENT.contains(&told), "the document does not say: {told}");
    }
}
