// SPDX-License-Identifier: Apache-2.0

use rhumb_bgp_feed::{Instance, MessageCounts, SessionState, StreamError};
use rhumb_model::Timestamp;

use super::super::plan::Problem;
use super::*;

fn plan() -> Plan {
    let instance = Instance {
        name: "main".into(),
        asn: 65000,
        router_id: "192.0.2.1".parse().expect("valid"),
        listen: Vec::new(),
        cluster_id: None,
        multipath: 1,
        own: Vec::new(),
        peers: Vec::new(),
        routes: Vec::new(),
        stations: Vec::new(),
    };
    let missing =
        |peer: &str| Problem::MissingPeerConfig { peer: PeerKey(peer.into()), config: "tor".into() };
    Plan { instances: vec![instance], problems: vec![missing("main/a"), missing("main/b")] }
}

fn peer() -> PeerState {
    PeerState {
        key: PeerKey("main/tor".into()),
        instance: "main".into(),
        address: "192.0.2.1".into(),
        remote_address: None,
        local_address: None,
        asn: Some(65001),
        router_id: None,
        session: SessionState::Established,
        since: Timestamp(1),
        hold_time: None,
        established_count: 1,
        last_error: None,
        restarting: false,
        families: Vec::new(),
        received: MessageCounts::default(),
        sent: MessageCounts::default(),
        bfd: None,
    }
}

fn speaker(report: &Report) -> (ConditionStatus, String, String) {
    let summary = report.summary(&plan(), Revision(2), true);
    let condition =
        summary.conditions.into_iter().find(|condition| condition.kind == SPEAKER).expect("there");
    (condition.status, condition.reason, condition.message)
}

#[test]
fn a_condition_is_true_when_the_plan_has_its_problem_and_names_all() {
    let summary = Report::default().summary(&plan(), Revision(1), true);
    let told = |kind: &str| {
        let condition = summary.conditions.iter().find(|condition| condition.kind == kind).expect(kind);
        (condition.status, condition.message.clone())
    };
    let message =
        "peer main/a is left out: no BGPPeerConfig tor; peer main/b is left out: no BGPPeerConfig tor";
    assert_eq!(told("BGPMissingPeerConfig"), (ConditionStatus::True, message.into()));
    for kind in ["BGPConflictingClusterConfig", "BGPMissingAuthSecret"] {
        assert_eq!(told(kind), (ConditionStatus::False, String::new()));
    }
}

#[test]
fn every_problem_has_a_condition_that_is_published() {
    let peer = PeerKey("main/a".into());
    let problems = [
        Problem::ConflictingClusterConfig { config: "a".into(), in_force: "b".into() },
        Problem::MissingPeerConfig { peer: peer.clone(), config: "a".into() },
        Problem::MissingAuthSecret { peer, why: "absent".into() },
    ];
    assert_eq!(problems.map(|problem| problem.condition()), PROBLEMS);
}

#[test]
fn the_speaker_is_ready_when_it_has_taken_over_the_newest() {
    let mut report = Report::default();
    assert_eq!(speaker(&report).0, ConditionStatus::False);
    let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
    report.take(Event::Lost(StreamError::Io(gone)));
    assert_eq!(
        speaker(&report),
        (ConditionStatus::False, "NotReached".into(), "socket: entity not found".into())
    );
    report.take(Event::Connected("rhumb-bgp 1".into()));
    assert_eq!(speaker(&report).0, ConditionStatus::Unknown);
    report.take(Event::Applied(Revision(1)));
    assert_eq!(speaker(&report).0, ConditionStatus::Unknown);
    report.take(Event::Applied(Revision(2)));
    assert_eq!(speaker(&report).0, ConditionStatus::True);
    report.take(Event::Refused { revision: Revision(3), why: "port 179 is taken".into() });
    assert_eq!(speaker(&report), (ConditionStatus::False, "Refused".into(), "port 179 is taken".into()));
}

#[test]
fn what_a_speaker_said_goes_with_it() {
    let mut report = Report::default();
    report.take(Event::Changes(vec![StateChange::Peer(Box::new(peer()))]));
    let summary = report.summary(&plan(), Revision(1), true);
    let [status] = summary.peers.as_slice() else { unreachable!("one peer") };
    assert_eq!(
        (status.peer.as_str(), status.session.as_str(), status.asn),
        ("main/tor", "established", Some(65001))
    );
    report.take(Event::Lost(StreamError::Closed));
    assert_eq!(report.summary(&plan(), Revision(1), true).peers, []);
}

#[test]
fn a_node_without_bgp_publishes_nothing_about_it() {
    assert_eq!(Report::default().summary(&Plan::default(), Revision(0), false), Summary::default());
}
