// SPDX-License-Identifier: Apache-2.0
//! The few system calls of BPF that a bench makes itself: small programs written by hand, and runs of programs on packets
//! in memory. A loader would want more than these programs are.
#![expect(unsafe_code, reason = "system calls and descriptors that they make")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

const CREATE_MAP: libc::c_long = 0;
const UPDATE: libc::c_long = 2;
const LOAD: libc::c_long = 5;
const PIN: libc::c_long = 6;
const GET: libc::c_long = 7;
const RUN: libc::c_long = 10;
const CLASSIFIER: u32 = 3;
const PROGRAM_ARRAY: u32 = 3;

/// One instruction: code, registers, offset, number (struct `bpf_insn` in linux/bpf.h).
pub(super) type Instruction = [u8; 8];

/// An instruction.
pub(super) const fn instruction(code: u8, registers: u8, offset: i16, number: u32) -> Instruction {
    let ([a, b], [c, d, e, f]) = (offset.to_le_bytes(), number.to_le_bytes());
    [code, registers, a, b, c, d, e, f]
}

/// `r0 = TC_ACT_UNSPEC; exit`.
pub(super) const NOTHING: [Instruction; 2] = [instruction(0xb7, 0, 0, u32::MAX), instruction(0x95, 0, 0, 0)];

/// The first fields of the attributes of `BPF_PROG_LOAD`; the kernel takes the others as zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// The attributes of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct Pin {
    path: u64,
    program: u32,
    flags: u32,
}

/// The first fields of the attributes of `BPF_MAP_CREATE`.
#[repr(C)]
struct Map {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
}

/// The attributes of `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct Element {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// The first fields of the attributes of `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    code: u32,
    length: u32,
    length_out: u32,
    packet: u64,
    packet_out: u64,
    repeat: u32,
    nanoseconds: u32,
    context_length: u32,
    context_length_out: u32,
    context: u64,
    context_out: u64,
}

/// Loads a classifier.
pub(super) fn load(instructions: &[Instruction]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let load = Load {
        kind: CLASSIFIER,
        count: u32::try_from(instructions.len()).context("a short program")?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    descriptor(call(LOAD, &load).context("load a small program")?)
}

/// Pins a program at `path`.
pub(super) fn pin(program: &OwnedFd, path: &Path) -> Result<()> {
    let name = text(path)?;
    let pin = Pin { path: name.as_ptr() as u64, program: number(program)?, flags: 0 };
    call(PIN, &pin).with_context(|| format!("pin a program at {}", path.display()))?;
    Ok(())
}

/// The program pinned at `path`.
pub(super) fn pinned(path: &Path) -> Result<OwnedFd> {
    let name = text(path)?;
    let pin = Pin { path: name.as_ptr() as u64, program: 0, flags: 0 };
    descriptor(call(GET, &pin).with_context(|| format!("open program {}", path.display()))?)
}

/// An array by which a program goes on with another.
pub(super) fn program_array(programs: &[&OwnedFd]) -> Result<OwnedFd> {
    let entries = u32::try_from(programs.len()).context("a few programs")?;
    let map = Map { kind: PROGRAM_ARRAY, key: 4, value: 4, entries };
    let map = descriptor(call(CREATE_MAP, &map).context("make an array of programs")?)?;
    for (index, program) in programs.iter().enumerate() {
        let (key, value) = (u32::try_from(index).context("a small index")?, number(program)?);
        let element = Element {
            map: u64::from(number(&map)?),
            key: (&raw const key) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        call(UPDATE, &element).context("put a program into an array")?;
    }
    Ok(map)
}

/// The number that an instruction knows a map by.
pub(super) fn number(fd: &OwnedFd) -> Result<u32> {
    u32::try_from(fd.as_raw_fd()).context("a descriptor is not negative")
}

/// Runs a program `repeat` times on a packet that came by `ifindex` of the calling thread's namespace: the mean time of a
/// run in nanoseconds, and the packet afterwards.
pub(super) fn run(program: &OwnedFd, packet: &[u8], ifindex: u32, repeat: u32) -> Result<(f64, Vec<u8>)> {
    /// Size of the context, and where in it are the fields that are given (`struct __sk_buff`).
    const CONTEXT: usize = 192;
    const INGRESS: usize = 36;
    const INTERFACE: usize = 40;
    let mut context = [0u8; CONTEXT];
    for at in [INGRESS, INTERFACE] {
        context[at..at + 4].copy_from_slice(&ifindex.to_ne_bytes());
    }
    let mut out = vec![0u8; packet.len() + 256];
    let mut run = Run {
        program: number(program)?,
        length: u32::try_from(packet.len()).context("a short packet")?,
        length_out: u32::try_from(out.len()).context("a short packet")?,
        packet: packet.as_ptr() as u64,
        packet_out: out.as_mut_ptr() as u64,
        repeat,
        context_length: u32::try_from(CONTEXT).context("a short context")?,
        context: context.as_ptr() as u64,
        ..Run::default()
    };
    change(RUN, &mut run).context("run a program on a packet")?;
    out.truncate(usize::try_from(run.length_out).context("a length")?);
    Ok((f64::from(run.nanoseconds), out))
}

fn text(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("a path has no zero")
}

fn descriptor(result: libc::c_long) -> Result<OwnedFd> {
    let fd = i32::try_from(result).context("a descriptor is a small number")?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes, and what they point to, live until the call returns; their size is said.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`call`], for what the kernel writes its answer into.
fn change<T>(command: libc::c_long, attributes: &mut T) -> io::Result<()> {
    // SAFETY: as in `call`.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
