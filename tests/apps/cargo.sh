# cargo: a workspace with a library, a build script and tests builds offline, incrementally, and runs its tests.
# limit: 240
. "$(dirname "$0")/lib.sh"
need cargo rustc
export CARGO_NET_OFFLINE=true CARGO_TARGET_DIR=$WORK/target
unset RUSTFLAGS CARGO_BUILD_TARGET
mkdir -p adder/src tool/src
cat >Cargo.toml <<'T'
[workspace]
resolver = "2"
members = ["adder", "tool"]
T
cat >adder/Cargo.toml <<'T'
[package]
name = "adder"
version = "0.1.0"
edition = "2021"
T
cat >adder/src/lib.rs <<'R'
/// Adds.
///
/// ```
/// assert_eq!(adder::add(1, 2), 3);
/// ```
pub fn add(a: u64, b: u64) -> u64 { a + b }
#[test]
fn adds() { assert_eq!(add(2, 2), 4); }
R
cat >tool/Cargo.toml <<'T'
[package]
name = "tool"
version = "0.1.0"
edition = "2021"
build = "build.rs"
[dependencies]
adder = { path = "../adder" }
T
cat >tool/build.rs <<'R'
use std::{env, fs, path::Path};
fn main() {
    fs::write(Path::new(&env::var("OUT_DIR").unwrap()).join("made.rs"), "const MADE: u64 = 40;").unwrap();
    println!("cargo:rerun-if-changed=build.rs");
}
R
cat >tool/src/main.rs <<'R'
include!(concat!(env!("OUT_DIR"), "/made.rs"));
fn main() { println!("{}", adder::add(MADE, 2)); }
R
cargo build -q && same "program" "$(target/debug/tool)" 42
cargo build -v 2>&1 | grep -q 'Fresh tool' || fail "cargo builds again what is fresh"
sleep 0.02 && sed -i 's/a + b/a + b + 1/' adder/src/lib.rs
cargo build -q && same "after a change" "$(target/debug/tool)" 43
sed -i 's/a + b + 1/a + b/' adder/src/lib.rs
cargo test -q 2>&1 | tee "$OUTSIDE/test.log" >/dev/null
same "test binaries that passed" "$(grep -c '^test result: ok' "$OUTSIDE/test.log")" 3
cargo build -q --release && same "release" "$(target/release/tool)" 42
cargo clean -q && [ ! -e target/debug ]
