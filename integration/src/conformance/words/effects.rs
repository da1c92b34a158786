// SPDX-License-Identifier: Apache-2.0

use super::addresses as addr;
use super::chaining as chain;
use super::interfaces as links;
use super::traffic;
use super::{Deed, addresses};

/// Does several looks, one after the other.
macro_rules! all {
    ($($look:expr),+) => {
        |scene| {
            $($look(scene)?;)+
            Ok(())
        }
    };
}

/// The effect that a container which took a namespace's path over is not harmed.
pub(crate) const NEW_CONTAINER_WORKS: &str = "eth0 of the new container still works";

/// Effects.
pub(crate) const WORDS: &[(&str, Deed)] = &[
    ("${CID} of podnet still works", traffic::first_works),
    ("${CID} still works", traffic::first_works),
    (
        "${NODEIP}:18053/UDP reaches the container port 53, other node addresses do not",
        traffic::udp_port_of_one_address,
    ),
    ("50 distinct addresses", addresses::fifty_distinct),
    (
        "address differs from the one just released, when the pool is large enough",
        addr::differs_from_the_released,
    ),
    ("address free", addr::free),
    ("address free again", addr::free),
    ("address free, endpoint gone", all!(addr::free, addr::endpoint_gone)),
    ("address of ${CID}-b free", |scene| addr::free_of(scene, "${CID}-b", "eth0")),
    ("address of net1 free", |scene| addr::free_of(scene, "${CID}", "net1")),
    ("after portmap ADD the host port reaches the container", chain::portmap_port_works),
    ("all addresses free", addr::all_free),
    ("all pairwise reachable", traffic::pairwise),
    ("both host ports closed", traffic::host_ports_closed),
    ("capability not declared in our list, ignored", traffic::subject_works),
    ("client with a fixed source port is answered", traffic::fixed_source_port),
    ("datapath attached to ${HOSTIF}", chain::attached_to_the_pair),
    ("default route in ${NS} (per family)", links::default_route),
    ("different address", addr::different),
    ("eth0 exists in ${NS} and is up", links::inner_up),
    ("eth0 gone from ${NS}", links::inner_gone),
    ("eth0 has c2:11:22:33:44:55", |scene| links::inner_mac(scene, "c2:11:22:33:44:55")),
    (NEW_CONTAINER_WORKS, traffic::newest_works),
    ("eth0 still works", traffic::first_works),
    ("first and last address of the subnet and the gateway never appear", addr::no_edge_of_the_subnet),
    ("first interface, address and connectivity unchanged", links::first_unchanged),
    ("foreign interface untouched", links::foreign_untouched),
    ("host can ping the address", traffic::host_pings),
    ("host interface gone", links::host_end_gone),
    ("host interface of ${CID}-b gone", |scene| links::host_end_gone_of(scene, "${CID}-b", "eth0")),
    ("host interfaces unchanged", links::host_unchanged),
    ("host side interface gone", links::host_end_gone),
    ("host side interface of the result exists and is up", links::host_end_up),
    ("interface gone", all!(links::inner_gone, links::host_end_gone)),
    ("its address is used", chain::recorder_address_is_used),
    ("its address, MAC and MTU equal the result", links::inner_equals_result),
    ("mapping ignored", traffic::subject_works),
    (
        "measured TCP rate to the container about 10 Mbit/s, from it about 20 Mbit/s",
        traffic::rates_are_limited,
    ),
    ("no address allocated", addr::none_allocated),
    (
        "no address, interface or rule left",
        all!(
            addr::as_at_the_start,
            links::inner_gone_if_any,
            links::host_as_at_the_start,
            links::rules_as_at_the_start
        ),
    ),
    ("no host interface left", links::host_as_at_the_start),
    ("no other interface was added to ${NS}", links::inner_none_added),
    ("no qdisc or map entry left", all!(links::no_qdisc, addr::endpoint_gone)),
    ("no routes, neighbours or map entries left", all!(links::no_routes_or_neighbours, addr::endpoint_gone)),
    ("no second address allocated", addr::none_allocated),
    ("no state left for this id", addr::nothing_of_this_id),
    ("node:18080/TCP reaches the container port 80", traffic::tcp_port_of_the_node),
    ("nothing allocated", addr::none_allocated),
    ("nothing left", all!(addr::as_at_the_start, links::host_as_at_the_start, links::inner_gone_if_any)),
    (
        "nothing left in ${NS} or on the host",
        all!(addr::none_allocated, links::host_unchanged, links::inner_gone_if_any),
    ),
    ("nothing removed", addr::nothing_removed),
    ("only the peer of eth0 in ${NS} is touched", chain::only_the_peer_is_touched),
    ("pool empty, no endpoint left", addr::pool_is_unused),
    ("queued, address free after the agent is back", addr::queued),
    ("recorder called with CHECK", |scene| chain::recorded(scene, "CHECK")),
    ("recorder called with DEL", |scene| chain::recorded(scene, "DEL")),
    ("recorder called with GC", |scene| chain::recorded(scene, "GC")),
    ("recorder called with STATUS", |scene| chain::recorded(scene, "STATUS")),
    ("recorder saw ADD then DEL", chain::recorded_add_then_del),
    ("recorder saw identical stdin and CNI_* variables", chain::recorded_identically),
    ("result accepted by the portmap plugin as prevResult", chain::portmap_accepts),
    ("result has ${FREEIP}", addr::has_the_requested),
    ("same client, same source port is answered by the new container", traffic::new_container_answers),
    ("the IPAM plugin was called again with DEL", |scene| chain::recorded(scene, "DEL")),
    ("the agent knows the endpoint as x/a", |scene| addr::known_as(scene, "x/a")),
    ("the other container still reaches the host and the world", traffic::other_works),
    ("the other stale attachments are removed", addr::other_stale_removed),
    ("works after the later plugins were already deleted", chain::works_after_later_plugins),
];
