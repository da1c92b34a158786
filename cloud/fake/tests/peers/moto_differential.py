# SPDX-License-Identifier: Apache-2.0
"""The same calls to the double and to moto: the same answers, once ids, times and chosen addresses are called alike.

Only what moto does as EC2 does is compared. Environment: EC2, CONTROL (URLs of the double), SUBNET, VPC.
"""
import json
import logging
import os
import re
import urllib.request

import boto3
import botocore.config
import botocore.exceptions

logging.getLogger("werkzeug").setLevel(logging.ERROR)
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "true"
from moto.server import ThreadedMotoServer  # noqa: E402: it reads the environment when it is loaded

CONTROL = os.environ["CONTROL"]


def client(url):
    config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=60)
    return boto3.client(
        "ec2", endpoint_url=url, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x",
        config=config,
    )


def advance(seconds):
    body = json.dumps({"advance": seconds * 1000}).encode()
    urllib.request.urlopen(urllib.request.Request(CONTROL + "/clock", data=body, method="POST")).read()


ID = re.compile(r"\b(eni-attach|eni|i|subnet|vpc|sg|r|rtb|scr)-[0-9a-f]+\b")
# What EC2 says and this double leaves out, or says of a host that it does not have.
UNSAID = {
    "ResponseMetadata", "OwnerId", "InstanceOwnerId", "RequesterId", "AttachTime", "MacAddress", "PrivateDnsName",
    "VpcId", "NetworkInterfaceArn", "SubnetArn", "AvailabilityZoneId", "Association", "DefaultForAz",
    "MapPublicIpOnLaunch", "AssociationId", "PrivateDnsNameOptionsOnLaunch", "MapCustomerOwnedIpOnLaunch",
    "CustomerOwnedIpv4Pool", "EnableDns64", "Ipv6Native", "Groups", "DeleteOnTermination", "Ipv6AddressesSet",
    "InterfaceType", "RequesterManaged", "Ipv4Prefixes", "Ipv6Prefixes", "NetworkCardIndex", "Operator",
    "AssociatedResource", "ConnectionTrackingConfiguration", "Ipv6Address", "Status", "NextToken",
}


class Side:
    """One of the two, with names for its ids and addresses in the order in which they came."""

    def __init__(self, ec2, **names):
        self.ec2, self.names, self.addresses = ec2, {}, {}
        for name, value in names.items():
            self.names[value] = name

    def alike(self, value):
        if isinstance(value, dict):
            return {key: self.alike(entry) for key, entry in value.items() if key not in UNSAID and entry not in ([], "")}
        if isinstance(value, (list, tuple)):
            return [self.alike(entry) for entry in value]
        if isinstance(value, str):
            if re.fullmatch(r"10\.0\.\d+\.\d+", value):
                return self.addresses.setdefault(value, f"address-{len(self.addresses)}")
            return ID.sub(lambda found: self.names.setdefault(found[0], f"{found[1]}#{len(self.names)}"), value)
        return value


SERVER = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
SERVER.start()
try:
    host, port = SERVER.get_host_and_port()
    moto = client(f"http://{host}:{port}")
    vpc = moto.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = moto.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/20", AvailabilityZone="eu-central-1a")["Subnet"]["SubnetId"]
    image = moto.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    SIDES = [
        Side(client(os.environ["EC2"]), vpc=os.environ["VPC"], subnet=os.environ["SUBNET"], image="ami-1"),
        Side(moto, vpc=vpc, subnet=subnet, image=image),
    ]
    compared = 0

    def name_of(side, name):
        return next(value for value, known in side.names.items() if known == name)

    def both(call, pick=lambda reply: reply, **arguments):
        """Asks both; `{name}` in arguments stands for the id that each has for it."""
        global compared
        answers = []
        for side in SIDES:
            text = json.dumps(arguments)
            own = json.loads(re.sub(r"\{([a-z0-9#-]+)\}", lambda found: name_of(side, found[1]), text))
            try:
                reply = getattr(side.ec2, call)(**own)
                answers.append(side.alike(pick(reply)))
            except botocore.exceptions.ClientError as error:
                answers.append({"error": error.response["Error"]["Code"]})
        assert answers[0] == answers[1], f"{call} {arguments}:\n  double {answers[0]}\n  moto   {answers[1]}"
        compared += 1
        return answers[0]

    def interfaces(reply):
        return sorted(reply["NetworkInterfaces"], key=lambda eni: eni["Description"])

    def count(reply):
        return [subnet["AvailableIpAddressCount"] for subnet in reply["Subnets"]]

    both("describe_subnets", pick=count, SubnetIds=["{subnet}"])
    both("describe_subnets", Filters=[{"Name": "availability-zone", "Values": ["eu-central-1b"]}, {"Name": "vpc-id", "Values": ["{vpc}"]}])
    made = both("create_network_interface", SubnetId="{subnet}", Description="first one", PrivateIpAddress="10.0.1.10",
                TagSpecifications=[{"ResourceType": "network-interface", "Tags": [{"Key": "colour", "Value": "red & blue"}]}])
    first = made["NetworkInterface"]["NetworkInterfaceId"]
    made = both("create_network_interface", SubnetId="{subnet}", Description="second", SecondaryPrivateIpAddressCount=2,
                pick=lambda reply: reply["NetworkInterface"]["NetworkInterfaceId"])
    second = made
    both("describe_subnets", pick=count, SubnetIds=["{subnet}"])
    for filters in (
        [],
        [{"Name": "description", "Values": ["fir*"]}],
        [{"Name": "description", "Values": ["f?rst one", "sec*"]}],
        [{"Name": "tag:colour", "Values": ["red*"]}],
        [{"Name": "tag-key", "Values": ["colour"]}],
        [{"Name": "tag:colour", "Values": ["green"]}],
        [{"Name": "status", "Values": ["available"]}],
        [{"Name": "status", "Values": ["in-use"]}],
        [{"Name": "subnet-id", "Values": ["{subnet}"]}, {"Name": "vpc-id", "Values": ["{vpc}"]}],
        [{"Name": "network-interface-id", "Values": ["{" + first + "}"]}],
        [{"Name": "private-ip-address", "Values": ["10.0.1.10"]}],
        [{"Name": "interface-type", "Values": ["interface"]}],
    ):
        both("describe_network_interfaces", pick=lambda reply: [eni["Description"] for eni in interfaces(reply)], Filters=filters)
    both("describe_network_interfaces", NetworkInterfaceIds=["{" + first + "}"])

    launched = both("run_instances", ImageId="{image}", InstanceType="m5.large", MinCount=1, MaxCount=1, SubnetId="{subnet}",
                    pick=lambda reply: reply["Instances"][0]["InstanceId"])
    instance = launched
    advance(60)
    both("describe_instances", InstanceIds=["{" + instance + "}"],
         pick=lambda reply: [(entry["State"], entry["InstanceType"], entry["SubnetId"], len(entry["NetworkInterfaces"]))
                             for reservation in reply["Reservations"] for entry in reservation["Instances"]])
    attached = both("attach_network_interface", NetworkInterfaceId="{" + first + "}", InstanceId="{" + instance + "}", DeviceIndex=1)
    advance(60)
    both("describe_network_interfaces", Filters=[{"Name": "attachment.instance-id", "Values": ["{" + instance + "}"]}],
         pick=lambda reply: sorted((eni["Attachment"]["DeviceIndex"], eni["Attachment"]["Status"], eni["Status"])
                                   for eni in reply["NetworkInterfaces"]))
    both("modify_network_interface_attribute", NetworkInterfaceId="{" + first + "}", SourceDestCheck={"Value": False})
    both("describe_network_interfaces", NetworkInterfaceIds=["{" + first + "}"],
         pick=lambda reply: reply["NetworkInterfaces"][0]["SourceDestCheck"])

    # moto answers an assignment with all addresses of the interface, so what it did is looked at.
    def addresses(reply):
        eni = reply["NetworkInterfaces"][0]
        return (len(eni["PrivateIpAddresses"]), sum(entry["Primary"] for entry in eni["PrivateIpAddresses"]))

    both("assign_private_ip_addresses", NetworkInterfaceId="{" + first + "}", SecondaryPrivateIpAddressCount=3, pick=lambda _: None)
    both("describe_network_interfaces", NetworkInterfaceIds=["{" + first + "}"], pick=addresses)
    both("assign_private_ip_addresses", NetworkInterfaceId="{" + first + "}", PrivateIpAddresses=["10.0.1.77"], pick=lambda _: None)
    both("unassign_private_ip_addresses", NetworkInterfaceId="{" + first + "}", PrivateIpAddresses=["10.0.1.77"], pick=lambda _: None)
    both("describe_network_interfaces", NetworkInterfaceIds=["{" + first + "}"], pick=addresses)

    both("create_tags", Resources=["{" + second + "}"], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}], pick=lambda _: None)
    both("describe_tags", Filters=[{"Name": "resource-id", "Values": ["{" + second + "}"]}],
         pick=lambda reply: sorted((tag["Key"], tag["Value"], tag["ResourceType"]) for tag in reply["Tags"]))
    both("create_subnet_cidr_reservation", SubnetId="{subnet}", Cidr="10.0.8.0/24", ReservationType="prefix",
         pick=lambda reply: (reply["SubnetCidrReservation"]["Cidr"], reply["SubnetCidrReservation"]["ReservationType"]))
    both("get_subnet_cidr_reservations", SubnetId="{subnet}",
         pick=lambda reply: [entry["Cidr"] for entry in reply["SubnetIpv4CidrReservations"]])
    both("describe_instance_types", InstanceTypes=["m5.large"],
         pick=lambda reply: {key: value for key, value in reply["InstanceTypes"][0]["NetworkInfo"].items()
                             if key in ("MaximumNetworkInterfaces", "Ipv4AddressesPerInterface", "Ipv6AddressesPerInterface",
                                        "MaximumNetworkCards", "Ipv6Supported")})
    for kind in ("t3.medium", "m7g.medium", "c7g.2xlarge", "m5.4xlarge", "m8g.48xlarge", "m8i.96xlarge", "p5.48xlarge"):
        both("describe_instance_types", InstanceTypes=[kind],
             pick=lambda reply: (reply["InstanceTypes"][0]["NetworkInfo"]["MaximumNetworkInterfaces"],
                                 reply["InstanceTypes"][0]["NetworkInfo"]["Ipv4AddressesPerInterface"],
                                 reply["InstanceTypes"][0]["VCpuInfo"]["DefaultVCpus"],
                                 reply["InstanceTypes"][0].get("Hypervisor")))

    both("detach_network_interface", AttachmentId="{" + attached["AttachmentId"] + "}", pick=lambda _: None)
    advance(60)
    both("describe_network_interfaces", NetworkInterfaceIds=["{" + first + "}"],
         pick=lambda reply: (reply["NetworkInterfaces"][0]["Status"], "Attachment" in reply["NetworkInterfaces"][0]))
    both("delete_network_interface", NetworkInterfaceId="{" + first + "}", pick=lambda _: None)
    both("delete_network_interface", NetworkInterfaceId="{" + first + "}")
    both("describe_network_interfaces", NetworkInterfaceIds=["{" + first + "}"])
    both("create_network_interface", SubnetId="subnet-0123456789abcdef0")
    both("detach_network_interface", AttachmentId="eni-attach-0123456789abcdef0")
    both("describe_instance_types", InstanceTypes=["m5.tiny"])
    both("create_network_interface", SubnetId="{subnet}", DryRun=True)
    print(f"{compared} answers compared")
finally:
    SERVER.stop()
