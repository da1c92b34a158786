// SPDX-License-Identifier: Apache-2.0
//! What one packet costs in each program, by the kernel's own test run (`BPF_PROG_TEST_RUN`), less what a program that does
//! nothing costs there.
//!
//! An established packet is run 250 times at a time, the mean taken: caches are warm. A new flow, and a packet that is
//! translated or wrapped, can be run once only: the kernel's own reading of the clock is in both figures and cancels, but caches are
//! as the system call leaves them. What our hooks tell each other, and what a tunnel says of a packet, a small program
//! writes before it goes on with the one in question; its cost is taken off too.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use rhumb_model::{Family, MacAddr};

use super::bpf::{self, Instruction, instruction};
use super::cost::pin;
use super::frame::{Frame, Source};
use super::report::{Aim, Measure, Report, median};
use crate::lab::{Node, Pod};

/// How many packets, or rounds of packets, make a figure.
const ROUNDS: u16 = 300;
/// Rounds of an established packet: it has no more hops.
const HOPS: u32 = 250;
/// An address of the world, of each family: none of the blocks towards which pods keep their addresses. No packet is sent.
const WORLD: [&str; 2] = ["11.0.0.9", "2a00::9"];
/// What `from_pod` writes in the packets that it sends (`docs/reference/kernel-objects.md`).
const MARK: u32 = 0x7268;
const MARK_KEEP: u32 = 0x7269;

/// What is said of a packet before it is run.
#[derive(Debug, Clone, Copy)]
enum Prelude {
    Nothing,
    /// The mark that our hooks leave each other.
    Mark(u32),
    /// The sender of the outer packet.
    Tunnel([u8; 4]),
}

/// How often an established packet can be run.
#[derive(Debug, Clone, Copy)]
enum Repeat {
    /// Again and again, for one hop each.
    Often,
    /// Once, as it is another one afterwards.
    Once,
}

/// A program behind its prelude, and one that does nothing behind the same.
struct Bench {
    program: OwnedFd,
    nothing: OwnedFd,
    _array: Option<OwnedFd>,
}

impl Bench {
    fn new(node: &Node, program: &str, prelude: Prelude) -> Result<Self> {
        let program = bpf::pinned(&pin(node.bpffs(), program)?)?;
        let nothing = bpf::load(&bpf::NOTHING)?;
        let before = match prelude {
            Prelude::Nothing => return Ok(Self { program, nothing, _array: None }),
            Prelude::Mark(mark) => set_mark(mark).to_vec(),
            Prelude::Tunnel(sender) => set_tunnel(sender).to_vec(),
        };
        let array = bpf::program_array(&[&program, &nothing])?;
        let [program, nothing] =
            [0, 1].map(|index| before_another(&before, &array, index).and_then(|words| bpf::load(&words)));
        Ok(Self { program: program?, nothing: nothing?, _array: Some(array) })
    }

    /// Nanoseconds of a packet that can be run again and again.
    fn established(&self, packet: &[u8], ifindex: u32) -> Result<Vec<f64>> {
        let nothing = self.baseline(packet, ifindex, HOPS)?;
        (0..ROUNDS).map(|_| Ok(bpf::run(&self.program, packet, ifindex, HOPS)?.0 - nothing)).collect()
    }

    /// Nanoseconds of packets that can be run once.
    fn once(&self, ifindex: u32, packet: impl Fn(u16) -> Result<Vec<u8>>) -> Result<Vec<f64>> {
        let nothing = self.baseline(&packet(0)?, ifindex, 1)?;
        (0..ROUNDS).map(|n| Ok(bpf::run(&self.program, &packet(n)?, ifindex, 1)?.0 - nothing)).collect()
    }

    fn baseline(&self, packet: &[u8], ifindex: u32, repeat: u32) -> Result<f64> {
        let samples: Result<Vec<f64>> =
            (0..ROUNDS).map(|_| Ok(bpf::run(&self.nothing, packet, ifindex, repeat)?.0)).collect();
        Ok(median(&samples?))
    }
}

/// `r6 = context; r6->tc_index = mark`.
fn set_mark(mark: u32) -> [Instruction; 3] {
    [instruction(0xbf, 0x16, 0, 0), instruction(0xb7, 1, 0, mark), instruction(0x63, 0x16, 44, 0)]
}

/// `r6 = context; bpf_skb_set_tunnel_key(r6, {local_ipv4: sender}, 44, 0)`: what a program that asks who sent the packet
/// hears.
fn set_tunnel(sender: [u8; 4]) -> Vec<Instruction> {
    let mut words = vec![instruction(0xbf, 0x16, 0, 0)];
    words.extend((1..=6).map(|word| instruction(0x7a, 10, -8 * word, 0)));
    words.extend([
        instruction(0x62, 10, -48 + 28, u32::from_be_bytes(sender)),
        instruction(0xbf, 0x61, 0, 0),
        instruction(0xbf, 0xa2, 0, 0),
        instruction(0x07, 2, 0, (-48i32).cast_unsigned()),
        instruction(0xb7, 3, 0, 44),
        instruction(0xb7, 4, 0, 0),
        instruction(0x85, 0, 0, 21),
    ]);
    words
}

/// `bpf_tail_call(r6, array, index)` after other instructions.
fn before_another(before: &[Instruction], array: &OwnedFd, index: u32) -> Result<Vec<Instruction>> {
    let mut words = before.to_vec();
    words.extend([
        instruction(0xbf, 0x61, 0, 0),
        instruction(0x18, 0x12, 0, bpf::number(array)?),
        instruction(0, 0, 0, 0),
        instruction(0xb7, 3, 0, index),
        instruction(0x85, 0, 0, 12),
        instruction(0xb7, 0, 0, u32::MAX),
        instruction(0x95, 0, 0, 0),
    ]);
    Ok(words)
}

/// What is measured, and where: two pods of `node` and one elsewhere.
pub(super) struct Trials<'a> {
    pub(super) node: &'a Node,
    pub(super) pods: &'a [Pod],
}

impl Trials<'_> {
    /// Adds the cost of packets that go directly, and of masqueraded ones.
    pub(super) fn direct(&self, report: &mut Report) -> Result<()> {
        for family in Family::BOTH {
            let [near, beside, far] = self.addresses(family);
            let world: IpAddr = WORLD[usize::from(family == Family::V6)].parse()?;
            let (pod, uplink) = (self.interface(near)?, self.interface(far)?);
            let from_pod = |to, port| Source { mac: pod.mac, from: near, to, port };
            for (what, to) in [("same node", beside), ("across nodes", far)] {
                let name = format!("from_pod, {what}, {family}");
                let program = ("from_pod", Prelude::Nothing);
                self.pair(report, &name, program, &pod, from_pod(to, 80), Repeat::Often)?;
            }
            let arriving = Source { mac: uplink.mac, from: far, to: near, port: 81 };
            let name = format!("from_wire, {family}");
            self.pair(report, &name, ("from_wire", Prelude::Nothing), &uplink, arriving, Repeat::Often)?;
            let kept = Bench::new(self.node, "to_wire", Prelude::Mark(MARK_KEEP))?;
            let packet = Frame { source: from_pod(far, 80), sender: 1 }.bytes();
            let samples = self.inside(|| kept.established(&packet, uplink.index))?;
            tell(report, &format!("to_wire, source kept, {family}"), &samples);
            self.masquerade(report, family, (&pod, &uplink), from_pod(world, 443))?;
        }
        Ok(())
    }

    /// Adds the cost of packets in the tunnel, which the node at `peer` sends.
    pub(super) fn tunnel(&self, report: &mut Report, peer: [u8; 4]) -> Result<()> {
        for family in Family::BOTH {
            let [near, _, far] = self.addresses(family);
            let (pod, tunnel) = (self.interface(near)?, self.link("rhumb_vxlan")?);
            let leaving = Source { mac: pod.mac, from: near, to: far, port: 80 };
            let arriving = Source { mac: tunnel.mac, from: far, to: near, port: 82 };
            for (what, program, link, source, repeat) in [
                ("from_pod, VXLAN", ("from_pod", Prelude::Nothing), &pod, leaving, Repeat::Once),
                ("to_tunnel", ("to_tunnel", Prelude::Mark(MARK_KEEP)), &tunnel, leaving, Repeat::Often),
                ("from_tunnel", ("from_tunnel", Prelude::Tunnel(peer)), &tunnel, arriving, Repeat::Often),
            ] {
                self.pair(report, &format!("{what}, {family}"), program, link, source, repeat)?;
            }
        }
        Ok(())
    }

    /// A packet of an established flow, and the first ones of flows.
    fn pair(
        &self,
        report: &mut Report,
        name: &str,
        (program, prelude): (&str, Prelude),
        link: &Link,
        source: Source,
        repeat: Repeat,
    ) -> Result<()> {
        let bench = Bench::new(self.node, program, prelude)?;
        let packet = Frame { source, sender: 1 }.bytes();
        let samples = self.inside(|| match repeat {
            Repeat::Often => bench.established(&packet, link.index),
            Repeat::Once => bench.once(link.index, |_| Ok(packet.clone())),
        })?;
        tell(report, &format!("{name}, established"), &samples);
        let opening = |n| Ok(Frame { source, sender: 1_024 + n }.opening());
        let samples = self.inside(|| bench.once(link.index, opening))?;
        tell(report, &format!("{name}, new flow"), &samples);
        Ok(())
    }

    /// Packets that take the node's address, and their answers.
    fn masquerade(
        &self,
        report: &mut Report,
        family: Family,
        (pod, uplink): (&Link, &Link),
        source: Source,
    ) -> Result<()> {
        let from_pod = Bench::new(self.node, "from_pod", Prelude::Nothing)?;
        let to_wire = Bench::new(self.node, "to_wire", Prelude::Mark(MARK))?;
        let from_wire = Bench::new(self.node, "from_wire", Prelude::Nothing)?;
        let (new, established) = self.inside(|| {
            let packet = |n: u16| {
                // The flow is that of the packet as the pod sends it.
                let packet = Frame { source, sender: 20_000 + n }.opening();
                bpf::run(&from_pod.program, &packet, pod.index, 1)?;
                Ok(packet)
            };
            Ok((to_wire.once(uplink.index, packet)?, to_wire.once(uplink.index, packet)?))
        })?;
        tell(report, &format!("to_wire, masqueraded, {family}, established"), &established);
        tell(report, &format!("to_wire, masqueraded, {family}, new flow"), &new);
        let sent = self.inside(|| {
            let packet = Frame { source, sender: 20_000 }.bytes();
            Ok(bpf::run(&to_wire.program, &packet, uplink.index, 1)?.1)
        })?;
        let answer = Frame::answering(&sent, uplink.mac).context("a packet with ports left")?;
        ensure!(answer.source.to != source.from, "{} left as it was", source.from);
        let answer = answer.bytes();
        let samples = self.inside(|| from_wire.once(uplink.index, |_| Ok(answer.clone())))?;
        tell(report, &format!("from_wire, masquerade return, {family}, established"), &samples);
        Ok(())
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.node.namespace().run(work)
    }

    fn addresses(&self, family: Family) -> [IpAddr; 3] {
        [0, 1, 2].map(|pod: usize| match family {
            Family::V4 => self.pods[pod].v4(),
            Family::V6 => self.pods[pod].v6(),
        })
    }

    /// The interface by which the node reaches an address.
    fn interface(&self, to: IpAddr) -> Result<Link> {
        let route = self.node.namespace().ip_show(&format!("route get {to}"))?;
        let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
        self.link(words.nth(1).context("a route has an interface")?)
    }

    fn link(&self, name: &str) -> Result<Link> {
        let line = self.node.namespace().ip_show(&format!("-o link show dev {name}"))?;
        let index = line.split(':').next().context("a link has a number")?.trim().parse()?;
        let mut words = line.split_whitespace().skip_while(|word| *word != "link/ether");
        let mac: MacAddr = words.nth(1).context("a link has an address")?.parse()?;
        Ok(Link { index, mac: mac.octets() })
    }
}

/// An interface of the node.
struct Link {
    index: u32,
    mac: [u8; 6],
}

fn tell(report: &mut Report, name: &str, samples: &[f64]) {
    report.add(Measure::alone(&format!("test run, {name}"), "ns", samples, Aim::None));
}
