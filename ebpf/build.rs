// SPDX-License-Identifier: Apache-2.0
//! Builds the kernel side for the BPF target and leaves the object where the crate embeds it.
//!
//! The compiler is, in this order: `RHUMB_BPF_RUSTC`; Debian's own, which has a standard library for BPF; rustup's
//! nightly with rust-src. The linker is `bpf-linker`.

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// A compiler that can build for the BPF target.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// Whether the standard library is built along.
    build_std: bool,
}

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    for source in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed=programs/{source}");
    }
    for source in ["src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed=common/{source}");
    }
    println!("cargo::rerun-if-env-changed=RHUMB_BPF_RUSTC");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let endian = env::var("CARGO_CFG_TARGET_ENDIAN").expect("cargo sets the endianness of the target");
    let target = if endian == "big" { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let (toolchain, linker) = match (find_toolchain(target), find_linker()) {
        (Ok(toolchain), Some(linker)) => (toolchain, linker),
        (toolchain, linker) => return Err(missing(toolchain.err().as_deref(), linker.is_none())),
    };

    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        "-Cdebuginfo=2".to_owned(),
    ];

    let target_dir = out.join("programs");
    let mut cargo = Command::new(&toolchain.cargo);
    cargo
        .args(["build", "--release", "--locked", "--bins", "--target", target, "--manifest-path"])
        .arg(manifest_dir().join("programs/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir);
    if toolchain.build_std {
        cargo.args(["-Z", "build-std=core"]);
    }
    // Whatever the outer build was told about its own compiler and flags is not for this one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let inherited = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_CAINFO"].contains(&text.as_ref());
        let foreign =
            text.starts_with("CARGO") || text.starts_with("RUST") || text == "TARGET" || text == "HOST";
        if foreign && !inherited && !text.starts_with("RUSTUP_HOME") {
            cargo.env_remove(&name);
        }
    }
    cargo
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));

    let done = cargo.output().map_err(|error| format!("run {}: {error}", toolchain.cargo.display()))?;
    if !done.status.success() {
        return Err(format!(
            "building the kernel side with {} failed:\n{}",
            toolchain.rustc.display(),
            String::from_utf8_lossy(&done.stderr)
        ));
    }
    let object = target_dir.join(target).join("release/rhumb");
    std::fs::copy(&object, out.join("rhumb.bpf.o"))
        .map_err(|error| format!("copy {}: {error}", object.display()))?;
    Ok(())
}

fn manifest_dir() -> PathBuf {
    PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
}

/// The compiler to use, or what was looked at and why it does not serve.
fn find_toolchain(target: &str) -> Result<Toolchain, String> {
    let mut looked_at = String::new();
    if let Some(rustc) = env::var_os("RHUMB_BPF_RUSTC").map(PathBuf::from) {
        let cargo = rustc.with_file_name("cargo");
        return match has_std(&rustc, target) {
            Some(true) => Ok(Toolchain { cargo, rustc, build_std: false }),
            Some(false) if has_source(&rustc) => Ok(Toolchain { cargo, rustc, build_std: true }),
            Some(false) => Err(format!(
                "RHUMB_BPF_RUSTC={}: has neither a standard library for {target} nor rust-src",
                rustc.display()
            )),
            None => Err(format!("RHUMB_BPF_RUSTC={}: does not run", rustc.display())),
        };
    }
    let debian = PathBuf::from("/usr/bin/rustc");
    match has_std(&debian, target) {
        Some(true) => {
            return Ok(Toolchain { cargo: "/usr/bin/cargo".into(), rustc: debian, build_std: false });
        }
        Some(false) => _ = writeln!(looked_at, "/usr/bin/rustc: has no standard library for {target}"),
        None => _ = writeln!(looked_at, "/usr/bin/rustc: is not there"),
    }
    match Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]).output() {
        Ok(done) if done.status.success() => {
            let rustc = PathBuf::from(String::from_utf8_lossy(&done.stdout).trim());
            if has_source(&rustc) {
                return Ok(Toolchain { cargo: rustc.with_file_name("cargo"), rustc, build_std: true });
            }
            _ = writeln!(looked_at, "rustup's nightly: has no rust-src");
        }
        Ok(_) => _ = writeln!(looked_at, "rustup: has no nightly"),
        Err(_) => _ = writeln!(looked_at, "rustup: is not there"),
    }
    Err(looked_at)
}

/// Whether the compiler has a standard library for `target`; nothing when it does not run.
fn has_std(rustc: &Path, target: &str) -> Option<bool> {
    let sysroot = sysroot(rustc)?;
    Some(sysroot.join("lib/rustlib").join(target).join("lib").is_dir())
}

fn has_source(rustc: &Path) -> bool {
    sysroot(rustc).is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let done = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    done.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&done.stdout).trim()))
}

fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    env::split_paths(&path)
        .chain(cargo_home.into_iter().chain(home).map(|dir| dir.join("bin")))
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
}

fn missing(toolchain: Option<&str>, linker: bool) -> String {
    let mut message = String::from("the kernel side of rhumb cannot be built on this machine:\n");
    for line in toolchain.into_iter().flat_map(str::lines) {
        _ = writeln!(message, "  compiler: {line}");
    }
    if linker {
        message.push_str("  linker: bpf-linker is neither in PATH nor in ~/.cargo/bin\n");
    }
    message.push_str(
        "`cargo xtask setup` installs what is missing. By hand, on Debian:\n  \
         apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev\n  \
         LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22\n\
         elsewhere:\n  \
         rustup toolchain install nightly --component rust-src && cargo install bpf-linker\n",
    );
    message
}
