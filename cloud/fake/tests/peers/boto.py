# SPDX-License-Identifier: Apache-2.0
"""Every action of the double, asked by boto3: what it sends is read, what it answers is understood.

Environment: EC2 (URL), CONTROL (URL), SUBNET, VPC.
"""
import ipaddress
import json
import os
import urllib.request

import boto3
import botocore.config
import botocore.exceptions

CONTROL = os.environ["CONTROL"]
SUBNET, VPC = os.environ["SUBNET"], os.environ["VPC"]


def client(url):
    config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=20)
    return boto3.client(
        "ec2", endpoint_url=url, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x",
        config=config,
    )


ec2 = client(os.environ["EC2"])


def control(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(CONTROL + path, data=data, method=method)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def later(seconds):
    control("POST", "/clock", {"advance": seconds * 1000})


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, f"{found}, want {code}: {error}"
        assert error.response["ResponseMetadata"]["RequestId"], error
        return error.response
    raise AssertionError(f"not refused by {code}: {arguments}")


def tags(**pairs):
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


def specification(kind, **pairs):
    return [{"ResourceType": kind, "Tags": tags(**pairs)}]


def the_network():
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert [zone["ZoneName"] for zone in zones] == ["eu-central-1a"], zones
    vpc, = ec2.describe_vpcs(VpcIds=[VPC])["Vpcs"]
    assert vpc["CidrBlock"] == "10.0.0.0/16" and len(vpc["CidrBlockAssociationSet"]) == 2, vpc
    assert vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"] == "fd00:0:0:100::/56", vpc
    subnet, = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [VPC]}])["Subnets"]
    assert subnet["AvailableIpAddressCount"] == 4091 and subnet["SubnetId"] == SUBNET, subnet
    assert subnet["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"] == "fd00:0:0:101::/64", subnet
    group, = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["default"]}])["SecurityGroups"]
    same, = ec2.get_security_groups_for_vpc(VpcId=VPC)["SecurityGroupForVpcs"]
    assert group["GroupId"] == same["GroupId"], same
    table, = ec2.describe_route_tables(Filters=[{"Name": "association.main", "Values": ["true"]}])["RouteTables"]
    assert table["VpcId"] == VPC and table["Routes"][0]["GatewayId"] == "local", table
    kinds = ec2.describe_instance_types(InstanceTypes=["m5.large", "p4d.24xlarge"])["InstanceTypes"]
    network = {kind["InstanceType"]: kind["NetworkInfo"] for kind in kinds}
    assert network["m5.large"]["MaximumNetworkInterfaces"] == 3, network
    assert network["m5.large"]["Ipv4AddressesPerInterface"] == 10, network
    assert len(network["p4d.24xlarge"]["NetworkCards"]) == 4, network
    refused("InvalidInstanceType", ec2.describe_instance_types, InstanceTypes=["m5.tiny"])
    refused("InvalidParameterValue", ec2.describe_subnets, Filters=[{"Name": "colour", "Values": ["red"]}])


def launch():
    reply = ec2.run_instances(
        ImageId="ami-1", InstanceType="m5.large", MinCount=1, MaxCount=1, SubnetId=SUBNET,
        TagSpecifications=specification("instance", Name="node-1") + specification("network-interface", of="node-1"),
    )
    instance = reply["Instances"][0]
    assert instance["State"]["Name"] == "pending" and instance["PrivateIpAddress"].startswith("10."), instance
    later(30)
    found = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["node-*"]}])
    running = found["Reservations"][0]["Instances"][0]
    assert running["State"]["Name"] == "running" and running["Placement"]["AvailabilityZone"] == "eu-central-1a"
    primary, = running["NetworkInterfaces"]
    assert primary["Attachment"]["DeviceIndex"] == 0 and primary["Attachment"]["DeleteOnTermination"], primary
    refused("OperationNotPermitted", ec2.detach_network_interface, AttachmentId=primary["Attachment"]["AttachmentId"])
    return instance["InstanceId"], primary["NetworkInterfaceId"]


def an_interface(instance):
    wish = dict(
        SubnetId=SUBNET, Description="one & <two>", Ipv4PrefixCount=2, Ipv6PrefixCount=1, ClientToken="token-1",
        TagSpecifications=specification("network-interface", **{"rhumb.io/cluster": "a b+c&d=ä"}),
    )
    refused("DryRunOperation", ec2.create_network_interface, DryRun=True, **wish)
    eni = ec2.create_network_interface(**wish)["NetworkInterface"]
    again = ec2.create_network_interface(**wish)["NetworkInterface"]
    assert eni["NetworkInterfaceId"] == again["NetworkInterfaceId"], "a token makes one"
    refused("IdempotentParameterMismatch", ec2.create_network_interface, SubnetId=SUBNET, ClientToken="token-1")
    assert eni["Description"] == "one & <two>" and eni["Status"] == "available", eni
    assert eni["TagSet"] == tags(**{"rhumb.io/cluster": "a b+c&d=ä"}), eni
    assert len(eni["Ipv4Prefixes"]) == 2 and eni["Ipv4Prefixes"][0]["Ipv4Prefix"].endswith("/28"), eni
    assert eni["Ipv6Prefixes"][0]["Ipv6Prefix"].endswith("/80") and eni["SourceDestCheck"], eni
    name = eni["NetworkInterfaceId"]
    attachment = ec2.attach_network_interface(NetworkInterfaceId=name, InstanceId=instance, DeviceIndex=1)
    attachment = attachment["AttachmentId"]
    shown, = ec2.describe_network_interfaces(NetworkInterfaceIds=[name])["NetworkInterfaces"]
    assert shown["Attachment"]["Status"] == "attaching" and shown["Status"] == "in-use", shown
    later(10)
    shown, = ec2.describe_network_interfaces(
        Filters=[{"Name": "attachment.instance-id", "Values": [instance]},
                 {"Name": "attachment.device-index", "Values": ["1"]},
                 {"Name": "attachment.status", "Values": ["attached"]},
                 {"Name": "tag-key", "Values": ["rhumb.io/cluster"]}])["NetworkInterfaces"]
    assert shown["NetworkInterfaceId"] == name and shown["Attachment"]["NetworkCardIndex"] == 0, shown
    for change in (
        dict(Attachment={"AttachmentId": attachment, "DeleteOnTermination": True}),
        dict(SourceDestCheck={"Value": False}),
        dict(Description={"Value": "three"}),
        dict(Groups=[group["GroupId"] for group in shown["Groups"]]),
    ):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=name, **change)
    shown, = ec2.describe_network_interfaces(NetworkInterfaceIds=[name])["NetworkInterfaces"]
    assert shown["Attachment"]["DeleteOnTermination"] and not shown["SourceDestCheck"], shown
    assert shown["Description"] == "three", shown
    return name, attachment


def its_addresses(name):
    some = ec2.assign_private_ip_addresses(NetworkInterfaceId=name, SecondaryPrivateIpAddressCount=2)
    addresses = [entry["PrivateIpAddress"] for entry in some["AssignedPrivateIpAddresses"]]
    assert len(addresses) == 2, "only the new ones"
    blocks = ec2.assign_private_ip_addresses(NetworkInterfaceId=name, Ipv4PrefixCount=1)["AssignedIpv4Prefixes"]
    block = blocks[0]["Ipv4Prefix"]
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=name, Ipv4Prefixes=[block])
    ec2.assign_private_ip_addresses(NetworkInterfaceId=name, Ipv4Prefixes=[block])
    refused("InvalidIPAddress.InUse", ec2.assign_private_ip_addresses, NetworkInterfaceId=name, Ipv4Prefixes=[block])
    refused("InvalidIPAddress.InUse", ec2.assign_private_ip_addresses, NetworkInterfaceId=name,
            PrivateIpAddresses=[addresses[0]])
    refused("PrivateIpAddressLimitExceeded", ec2.assign_private_ip_addresses, NetworkInterfaceId=name, Ipv4PrefixCount=5)
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=name, PrivateIpAddresses=addresses)
    refused("InvalidParameterValue", ec2.unassign_private_ip_addresses, NetworkInterfaceId=name,
            PrivateIpAddresses=addresses)
    v6 = ec2.assign_ipv6_addresses(NetworkInterfaceId=name, Ipv6AddressCount=1)["AssignedIpv6Addresses"]
    assert ipaddress.ip_address(v6[0]) in ipaddress.ip_network("fd00:0:0:101::/64"), v6
    gone = ec2.unassign_ipv6_addresses(NetworkInterfaceId=name, Ipv6Addresses=v6)
    assert gone["UnassignedIpv6Addresses"] == v6, gone
    more = ec2.assign_ipv6_addresses(NetworkInterfaceId=name, Ipv6PrefixCount=1)["AssignedIpv6Prefixes"]
    gone = ec2.unassign_ipv6_addresses(NetworkInterfaceId=name, Ipv6Prefixes=more)
    assert gone["UnassignedIpv6Prefixes"] == more, gone


def tags_and_reservations(name):
    ec2.create_tags(Resources=[name], Tags=tags(colour="red", size="1"))
    found = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [name]}, {"Name": "key", "Values": ["colour"]}])
    assert [tag["Value"] for tag in found["Tags"]] == ["red"], found
    ec2.delete_tags(Resources=[name], Tags=[{"Key": "colour"}])
    refused("InvalidNetworkInterfaceID.NotFound", ec2.create_tags, Resources=["eni-0123456789abcdef0"], Tags=tags(a="b"))
    free = ec2.describe_subnets(SubnetIds=[SUBNET])["Subnets"][0]["AvailableIpAddressCount"]
    kept = ec2.create_subnet_cidr_reservation(SubnetId=SUBNET, Cidr="10.0.15.0/25", ReservationType="explicit")
    number = kept["SubnetCidrReservation"]["SubnetCidrReservationId"]
    found = ec2.get_subnet_cidr_reservations(SubnetId=SUBNET)["SubnetIpv4CidrReservations"]
    assert [(entry["Cidr"], entry["ReservationType"]) for entry in found] == [("10.0.15.0/25", "explicit")], found
    ec2.delete_subnet_cidr_reservation(SubnetCidrReservationId=number)
    assert free == ec2.describe_subnets(SubnetIds=[SUBNET])["Subnets"][0]["AvailableIpAddressCount"]


def pages():
    made = [ec2.create_network_interface(SubnetId=SUBNET)["NetworkInterface"]["NetworkInterfaceId"] for _ in range(12)]
    pages = list(ec2.get_paginator("describe_network_interfaces").paginate(PaginationConfig={"PageSize": 5}))
    all_ids = [eni["NetworkInterfaceId"] for page in pages for eni in page["NetworkInterfaces"]]
    assert len(all_ids) == len(set(all_ids)) == 14 and len(pages) == 3, (len(all_ids), len(pages))
    refused("InvalidParameterValue", ec2.describe_network_interfaces, MaxResults=1001)
    refused("InvalidNextToken", ec2.describe_network_interfaces, MaxResults=5, NextToken="zz")
    refused("InvalidParameterCombination", ec2.describe_network_interfaces, MaxResults=5, NetworkInterfaceIds=made)
    for eni in made:
        ec2.delete_network_interface(NetworkInterfaceId=eni)
    refused("InvalidNetworkInterfaceID.NotFound", ec2.delete_network_interface, NetworkInterfaceId=made[0])


def faults(name):
    rule = {"action": "AssignPrivateIpAddresses", "times": 1, "fault": {"kind": "lostReply"}}
    control("POST", "/faults", rule)
    before = len(ec2.describe_network_interfaces(NetworkInterfaceIds=[name])["NetworkInterfaces"][0]["PrivateIpAddresses"])
    try:
        ec2.assign_private_ip_addresses(NetworkInterfaceId=name, SecondaryPrivateIpAddressCount=1)
        raise AssertionError("a reply came")
    except botocore.exceptions.HTTPClientError:
        pass
    after = len(ec2.describe_network_interfaces(NetworkInterfaceIds=[name])["NetworkInterfaces"][0]["PrivateIpAddresses"])
    assert after == before + 1, "it was done"
    control("POST", "/faults", {"action": "DescribeVpcs", "times": 1,
                                "fault": {"kind": "error", "code": "UnauthorizedOperation", "status": 403}})
    refused("UnauthorizedOperation", ec2.describe_vpcs)
    control("POST", "/faults", {"action": "DescribeVpcs", "times": 1, "fault": {"kind": "garbage", "status": 503}})
    try:
        ec2.describe_vpcs()
        raise AssertionError("it was answered")
    except (botocore.exceptions.ClientError, botocore.parsers.ResponseParserError):
        pass
    control("DELETE", "/faults")
    control("PUT", "/limits", {"scale": 0})
    assert refused("RequestLimitExceeded", ec2.describe_vpcs)["ResponseMetadata"]["HTTPStatusCode"] == 503
    control("PUT", "/limits", {"scale": None})


def the_end(instance, attachment, name):
    ec2.detach_network_interface(AttachmentId=attachment)
    refused("IncorrectState", ec2.detach_network_interface, AttachmentId=attachment)
    refused("InvalidNetworkInterface.InUse", ec2.delete_network_interface, NetworkInterfaceId=name)
    later(30)
    ec2.delete_network_interface(NetworkInterfaceId=name)
    change, = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]
    assert change["PreviousState"]["Name"] == "running" and change["CurrentState"]["Name"] == "shutting-down", change
    later(60)
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert found["State"]["Name"] == "terminated" and "VpcId" not in found, found
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    refused("InvalidInstanceID.NotFound", ec2.terminate_instances, InstanceIds=["i-0123456789abcdef0"])
    refused("InvalidInstanceID.Malformed", ec2.terminate_instances, InstanceIds=["node"])
    hooks = [(hook["event"], hook["deviceIndex"]) for hook in control("GET", "/hooks")]
    assert hooks == [("attached", 0), ("attached", 1), ("detached", 1), ("detached", 0)], hooks
    assert control("GET", "/violations") == []


the_network()
INSTANCE, _ = launch()
ENI, ATTACHMENT = an_interface(INSTANCE)
its_addresses(ENI)
tags_and_reservations(ENI)
pages()
faults(ENI)
the_end(INSTANCE, ATTACHMENT, ENI)
