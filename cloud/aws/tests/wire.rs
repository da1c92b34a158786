// SPDX-License-Identifier: Apache-2.0
//! The SDK against an EC2 in memory, over HTTP: every action, every kind of trouble, and what the pacer hears of it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use rhumb_cloud::{
    Amount, AttachEni, AttachmentRef, Class, CloudError, CreateEni, EniFilter, InstanceFilter, Outcome,
    Pacer, Priority, Provider, UnassignAddresses, V4Slots,
};
use rhumb_cloud_aws::{Aws, AwsSettings, StaticCredentials};
use rhumb_cloud_fake::server::{Handle, Listen, Servers};
use rhumb_cloud_fake::{Action as Call, Fake, Fault, Launch, NewSubnet, NewVpc, Rule, Settings};
use rhumb_model::{
    AttachmentId, EniId, EniStatus, InstanceId, Prefix, ReservationKind, SubnetId, Timestamp, VpcId, Zone,
};

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const PODS: Priority = Priority::PodsWaiting;

struct Cloud {
    servers: Servers,
    aws: Aws,
    pacer: Pacer,
    vpc: VpcId,
    subnet: SubnetId,
    instance: InstanceId,
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("valid")
}

impl Cloud {
    /// A VPC with a subnet of both families and one running m5.large.
    async fn start() -> Self {
        let (vpc, subnet) = (VpcId::new("vpc-1").expect("valid"), SubnetId::new("subnet-1").expect("valid"));
        let mut fake = Fake::new(Settings::at_once(), NOW);
        let world = fake.world_mut();
        let new = NewVpc {
            id: Some(vpc.clone()),
            cidrs: vec![prefix("10.0.0.0/16")],
            cidrs_v6: vec![prefix("2001:db8:0:100::/56")],
            tags: BTreeMap::new(),
        };
        world.create_vpc(new).expect("made");
        let new = NewSubnet {
            id: Some(subnet.clone()),
            vpc: vpc.clone(),
            zone: Zone::new("eu-central-1a").expect("valid"),
            cidr: prefix("10.0.4.0/24"),
            cidr_v6: Some(prefix("2001:db8:0:104::/64")),
            tags: tags(&[("pods", "yes")]),
        };
        world.create_subnet(new).expect("made");
        let launch = Launch { tags: tags(&[("Name", "node")]), ..Launch::new("m5.large", subnet.clone()) };
        world.answer(&Call::RunInstances(launch).into()).expect("launched");
        let handle = Handle::new(fake);
        let servers = Servers::start(handle, Listen::loopback()).await.expect("listening");
        let instance = servers.handle().with(|fake, _| {
            let instance = fake.world().instances().next().expect("launched");
            instance.id.clone()
        });
        let (aws, pacer) = client(&servers, Duration::from_secs(20)).await;
        Self { servers, aws, pacer, vpc, subnet, instance }
    }

    fn fault(&self, action: &str, fault: Fault) {
        let rule = Rule { action: Some(action.to_owned()), times: Some(1), fault, ..Rule::default() };
        self.servers.handle().with(|fake, _| fake.fault(rule));
    }

    fn calls(&self, action: &str) -> u64 {
        self.servers
            .handle()
            .with(|fake, _| fake.ledger().counts().get(action).map_or(0, |count| count.calls))
    }

    fn create(&self, token: &str) -> CreateEni {
        CreateEni {
            token: token.to_owned(),
            subnet: self.subnet.clone(),
            groups: Vec::new(),
            description: "a test".to_owned(),
            primary: None,
            v4: None,
            prefixes_v6: 0,
            tags: tags(&[("rhumb.io/cluster", "c"), ("rhumb.io/node", "a")]),
        }
    }
}

async fn client(servers: &Servers, deadline: Duration) -> (Aws, Pacer) {
    client_of(servers.ec2(), deadline).await
}

async fn client_of(ec2: SocketAddr, deadline: Duration) -> (Aws, Pacer) {
    let pacer = Pacer::new(1.0);
    let settings = AwsSettings {
        endpoint: Some(format!("http://{ec2}")),
        region: Some("eu-central-1".to_owned()),
        credentials: Some(StaticCredentials { key_id: "test".to_owned(), secret: "test".to_owned() }),
        deadline,
    };
    (Aws::new(&settings, pacer.clone()).await, pacer)
}

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn outcomes(pacer: &Pacer, action: rhumb_cloud::Action) -> BTreeMap<Outcome, u64> {
    let report = pacer.report();
    report.into_iter().find(|line| line.action == action).expect("every action has a line").ended
}

#[tokio::test]
async fn what_there_is_is_shown_in_our_words() {
    let cloud = Cloud::start().await;
    let aws = &cloud.aws;
    let ids = InstanceFilter { ids: vec![cloud.instance.clone()], ..InstanceFilter::default() };
    let instance = aws.instances(PODS, &ids).await.expect("shown").remove(0);
    assert_eq!((instance.kind.as_str(), instance.zone.as_str()), ("m5.large", "eu-central-1a"));
    assert_eq!((instance.vpc.as_ref(), instance.subnet.as_ref()), (Some(&cloud.vpc), Some(&cloud.subnet)));
    assert_eq!(instance.tags, tags(&[("Name", "node")]));

    let of_vpc = EniFilter { vpcs: vec![cloud.vpc.clone()], ..EniFilter::default() };
    let eni = aws.enis(PODS, &of_vpc).await.expect("shown").remove(0);
    let attachment = eni.attachment.clone().expect("attached");
    assert_eq!((attachment.device_index, attachment.instance.as_ref()), (0, Some(&cloud.instance)));
    assert_eq!(eni.status, EniStatus::InUse);
    let truth = cloud.servers.handle().with(|fake, _| fake.world().interface(&eni.id).cloned());
    assert_eq!(truth.as_deref(), Some(&eni), "nothing is lost on the way");

    let subnet = aws.subnets(PODS, std::slice::from_ref(&cloud.vpc)).await.expect("shown").remove(0);
    assert_eq!((subnet.cidr, subnet.free), (Some(prefix("10.0.4.0/24")), 250));
    assert_eq!(subnet.cidrs_v6, [prefix("2001:db8:0:104::/64")]);
    assert_eq!(subnet.tags, tags(&[("pods", "yes")]));

    let vpc = aws.vpcs(PODS, std::slice::from_ref(&cloud.vpc)).await.expect("shown").remove(0);
    assert_eq!((vpc.cidrs, vpc.cidrs_v6), (vec![prefix("10.0.0.0/16")], vec![prefix("2001:db8:0:100::/56")]));

    let group = aws.security_groups(PODS, std::slice::from_ref(&cloud.vpc)).await.expect("shown");
    assert_eq!((group[0].name.as_str(), &group[0].id), ("default", &eni.security_groups[0]));
    let other = VpcId::new("vpc-other").expect("valid");
    assert_eq!(aws.security_groups(PODS, &[other]).await.expect("shown"), []);

    let kinds = ["m5.large".to_owned(), "no.such".to_owned()];
    let limits = aws.instance_limits(PODS, &kinds).await.expect("shown");
    assert_eq!(limits.len(), 1, "a type that is not there hides no other");
    let limits = &limits["m5.large"];
    assert_eq!((limits.interfaces, limits.v4_per_interface, limits.prefixes), (3, 10, true));
}

#[tokio::test]
async fn an_interface_lives_from_one_create_call_to_its_end() {
    let cloud = Cloud::start().await;
    let aws = &cloud.aws;
    let request =
        CreateEni { v4: Some(V4Slots::Addresses(Amount::Count(9))), prefixes_v6: 1, ..cloud.create("t1") };
    let made = aws.create_eni(PODS, &request).await.expect("made");
    assert_eq!((made.slots_v4(), made.prefixes_v6.len()), (10, 1));
    assert_eq!(made.tags, request.tags, "from the first moment");
    assert_eq!(
        aws.create_eni(PODS, &request).await.expect("again").id,
        made.id,
        "the same token, the same interface"
    );

    let attach =
        AttachEni { eni: made.id.clone(), instance: cloud.instance.clone(), device_index: 1, card: 0 };
    let attachment = aws.attach_eni(PODS, &attach).await.expect("attached");
    aws.set_delete_on_termination(PODS, &made.id, &attachment, true).await.expect("set");
    aws.set_source_dest_check(PODS, &made.id, false).await.expect("set");
    aws.set_security_groups(PODS, &made.id, &made.security_groups).await.expect("set");
    let by_tag = EniFilter { tags: tags(&[("rhumb.io/cluster", "c")]), ..EniFilter::default() };
    let seen = aws.enis(PODS, &by_tag).await.expect("shown").remove(0);
    assert!(seen.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination));
    assert!(!seen.source_dest_check);

    let got = aws.assign_v6(PODS, &made.id, 1).await.expect("assigned");
    assert!(got.prefixes_v6.len() == 1 && got.prefixes_v6 != made.prefixes_v6, "{got:?}");
    let two = UnassignAddresses { addresses: seen.addresses[..2].to_vec(), ..UnassignAddresses::default() };
    aws.unassign(PODS, &made.id, &two).await.expect("unassigned");
    let back = V4Slots::Addresses(Amount::Exactly(two.addresses.clone()));
    let got = aws.assign_v4(PODS, &made.id, &back).await.expect("assigned");
    let sorted = |mut addresses: Vec<std::net::Ipv4Addr>| {
        addresses.sort();
        addresses
    };
    assert_eq!(sorted(got.addresses), sorted(two.addresses), "only the new ones are answered");

    let attachment = AttachmentRef { id: attachment, eni: made.id.clone() };
    aws.detach_eni(PODS, &attachment).await.expect("detached");
    aws.delete_eni(PODS, &made.id).await.expect("deleted");
    let error = aws.delete_eni(PODS, &made.id).await.expect_err("gone");
    assert_eq!((error.class, error.code.as_str()), (Class::Gone, "InvalidNetworkInterfaceID.NotFound"));
    assert!(error.request_id.is_some(), "the request can be found");
    cloud.servers.handle().with(|fake, _| assert!(fake.violations().is_empty(), "{:?}", fake.violations()));
}

#[tokio::test]
async fn prefixes_explicit_or_counted_and_parts_of_subnets_kept_for_them() {
    let cloud = Cloud::start().await;
    let aws = &cloud.aws;
    let none = BTreeMap::new();
    let kept = prefix("10.0.4.128/25");
    aws.reserve(PODS, &cloud.subnet, kept, ReservationKind::Prefix, &none).await.expect("kept");
    let reservations = aws.reservations(PODS, &cloud.subnet).await.expect("shown");
    assert_eq!((reservations.len(), reservations[0].cidr), (1, kept));
    let exactly = Amount::Exactly(vec![prefix("10.0.4.128/28"), prefix("10.0.4.144/28")]);
    let request = CreateEni { v4: Some(V4Slots::Prefixes(exactly)), ..cloud.create("t2") };
    let made = aws.create_eni(PODS, &request).await.expect("made");
    assert_eq!(made.prefixes, [prefix("10.0.4.128/28"), prefix("10.0.4.144/28")]);
    let more = aws.assign_v4(PODS, &made.id, &V4Slots::Prefixes(Amount::Count(1))).await.expect("assigned");
    assert_eq!((more.prefixes.len(), more.addresses.len()), (1, 0));
    let all = UnassignAddresses { prefixes: made.prefixes.clone(), ..UnassignAddresses::default() };
    aws.unassign(PODS, &made.id, &all).await.expect("unassigned");
    aws.delete_eni(PODS, &made.id).await.expect("deleted");
}

#[tokio::test]
async fn every_page_of_a_describe_is_read() {
    let cloud = Cloud::start().await;
    let handle = cloud.servers.handle();
    handle.with(|fake, _| {
        let many = NewSubnet {
            id: Some(SubnetId::new("subnet-2").expect("valid")),
            vpc: cloud.vpc.clone(),
            zone: Zone::new("eu-central-1b").expect("valid"),
            cidr: prefix("10.0.16.0/20"),
            cidr_v6: None,
            tags: BTreeMap::new(),
        };
        let subnet = fake.world_mut().create_subnet(many).expect("made");
        let launch = Launch { count: 1100, ..Launch::new("t3.nano", subnet) };
        fake.world_mut().answer(&Call::RunInstances(launch).into()).expect("launched");
    });
    let filter = EniFilter { vpcs: vec![cloud.vpc.clone()], ..EniFilter::default() };
    assert_eq!(cloud.aws.enis(PODS, &filter).await.expect("shown").len(), 1101);
    assert_eq!(cloud.calls("DescribeNetworkInterfaces"), 2);
    let all = InstanceFilter { vpcs: vec![cloud.vpc.clone()], ..InstanceFilter::default() };
    assert_eq!(cloud.aws.instances(PODS, &all).await.expect("shown").len(), 1101);
}

#[tokio::test]
async fn every_kind_of_trouble_has_its_class_and_is_asked_about_once() {
    let cloud = Cloud::start().await;
    let made = cloud.aws.create_eni(PODS, &cloud.create("t3")).await.expect("made");
    let one = V4Slots::Addresses(Amount::Count(1));
    let error = |code: &str, status| Fault::Error {
        code: code.to_owned(),
        message: "told so".to_owned(),
        status: Some(status),
    };
    let mut asked = 0;
    for (fault, class) in [
        (error("RequestLimitExceeded", 503), Class::Transient),
        (error("InsufficientFreeAddressesInSubnet", 400), Class::TrySiblingSubnet),
        (error("InsufficientCidrBlocks", 400), Class::TrySiblingSubnet),
        (error("PrivateIpAddressLimitExceeded", 400), Class::RefreshAndRetry),
        (error("NetworkAddressUsageLimitExceeded", 400), Class::StopAndReport),
        (error("InvalidNetworkInterfaceID.NotFound", 400), Class::Gone),
        (error("UnauthorizedOperation", 403), Class::Terminal),
        (error("InternalError", 500), Class::UnknownOutcome),
        (Fault::Garbage { status: 500 }, Class::UnknownOutcome),
        (Fault::LostReply, Class::UnknownOutcome),
        (Fault::LostCall, Class::UnknownOutcome),
    ] {
        cloud.fault("AssignPrivateIpAddresses", fault.clone());
        let error = cloud.aws.assign_v4(PODS, &made.id, &one).await.expect_err("refused");
        assert_eq!(error.class, class, "{fault:?}: {error}");
        asked += 1;
        assert_eq!(cloud.calls("AssignPrivateIpAddresses"), asked, "{fault:?}: asked again behind our back");
    }
    let ended = outcomes(&cloud.pacer, rhumb_cloud::Action::AssignPrivateIpAddresses);
    assert_eq!(ended.get(&Outcome::Throttled), Some(&1));
    assert_eq!(ended.get(&Outcome::Failed(Class::UnknownOutcome)), Some(&4));
}

#[tokio::test]
async fn a_reply_that_was_lost_is_found_by_a_look_and_by_the_token() {
    let cloud = Cloud::start().await;
    cloud.fault("CreateNetworkInterface", Fault::LostReply);
    let request = cloud.create("t4");
    let error = cloud.aws.create_eni(PODS, &request).await.expect_err("lost");
    assert_eq!((error.class, error.code.as_str()), (Class::Transient, CloudError::CONNECTION), "{error}");
    let by_tag = EniFilter { tags: tags(&[("rhumb.io/node", "a")]), ..EniFilter::default() };
    let seen = cloud.aws.enis(PODS, &by_tag).await.expect("shown");
    let again = cloud.aws.create_eni(PODS, &request).await.expect("answered");
    assert_eq!(seen.iter().map(|eni| &eni.id).collect::<Vec<_>>(), [&again.id]);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_at_the_deadline() {
    let cloud = Cloud::start().await;
    let (aws, _) = client(&cloud.servers, Duration::from_millis(500)).await;
    cloud.fault("DescribeVpcs", Fault::Hang);
    let begun = Instant::now();
    let error = aws.vpcs(PODS, &[]).await.expect_err("silent");
    assert_eq!((error.class, error.code.as_str()), (Class::Transient, CloudError::TIMEOUT), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(cloud.calls("DescribeVpcs"), 1);
}

#[tokio::test]
async fn nobody_there_is_no_answer() {
    let cloud = Cloud::start().await;
    let Cloud { servers, aws, .. } = cloud;
    drop(servers);
    tokio::task::yield_now().await;
    let error = aws.vpcs(PODS, &[]).await.expect_err("nobody");
    assert_eq!((error.class, error.code.as_str()), (Class::Transient, CloudError::REFUSED), "{error}");
    let eni = EniId::new("eni-1").expect("valid");
    let lost = AttachmentRef { id: AttachmentId::new("eni-attach-1").expect("valid"), eni };
    let error = aws.detach_eni(PODS, &lost).await.expect_err("nobody");
    assert_eq!((error.class, error.code.as_str()), (Class::Transient, CloudError::REFUSED), "{error}");
}

/// Answers the first request that comes with this text.
fn answer_once(text: String) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("asked");
        let mut request = Vec::new();
        // The body of every describe ends with its parameters, the version among them.
        while !String::from_utf8_lossy(&request).contains("Version=") {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).expect("readable");
            assert!(length > 0, "the request ended");
            request.extend_from_slice(&part[..length]);
        }
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", text.len());
        stream.write_all((head + &text).as_bytes()).expect("written");
    });
    (address, server)
}

#[tokio::test]
async fn blocks_that_are_not_associated_are_nobodys() {
    let states = ["associating", "associated", "disassociating", "disassociated", "failing", "failed"];
    let set = |name: &str, of: &str, block: fn(usize) -> String| {
        let one = |(number, state): (usize, &&str)| {
            let block = block(number);
            format!("<item><{of}>{block}</{of}><{of}State><state>{state}</state></{of}State></item>")
        };
        let all: String = states.iter().enumerate().map(one).collect();
        format!("<{name}>{all}</{name}>")
    };
    let v4 = set("cidrBlockAssociationSet", "cidrBlock", |number| format!("10.{number}.0.0/16"));
    let v6 = |length: fn(usize) -> String| set("ipv6CidrBlockAssociationSet", "ipv6CidrBlock", length);
    let of_vpc = v6(|number| format!("2001:db8:{number}::/56"));
    let of_subnet = v6(|number| format!("2001:db8:{number}::/64"));
    let vpc = format!("<item><vpcId>vpc-1</vpcId><cidrBlock>10.1.0.0/16</cidrBlock>{v4}{of_vpc}</item>");
    let subnet = format!(
        "<item><subnetId>subnet-1</subnetId><vpcId>vpc-1</vpcId><availabilityZone>z</availabilityZone>\
         <cidrBlock>10.1.4.0/24</cidrBlock>{of_subnet}</item>"
    );
    let patience = Duration::from_secs(20);

    let text = format!("<DescribeVpcsResponse><vpcSet>{vpc}</vpcSet></DescribeVpcsResponse>");
    let (address, server) = answer_once(text);
    let (aws, _) = client_of(address, patience).await;
    let vpc = aws.vpcs(PODS, &[]).await.expect("shown").remove(0);
    server.join().expect("answered");
    assert_eq!((vpc.cidrs, vpc.cidrs_v6), (vec![prefix("10.1.0.0/16")], vec![prefix("2001:db8:1::/56")]));

    let text = format!("<DescribeSubnetsResponse><subnetSet>{subnet}</subnetSet></DescribeSubnetsResponse>");
    let (address, server) = answer_once(text);
    let (aws, _) = client_of(address, patience).await;
    let subnet = aws.subnets(PODS, &[]).await.expect("shown").remove(0);
    server.join().expect("answered");
    assert_eq!(subnet.cidrs_v6, [prefix("2001:db8:1::/64")]);
}
