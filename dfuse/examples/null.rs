//! Mounts an in-memory tree through the same adapter as the daemon, for benches to compare with.
//!
//! `cargo run --release -p dfuse --example null -- MOUNTPOINT [THREADS]`; unmount it with `fusermount3 -u MOUNTPOINT`.

use std::path::PathBuf;
use std::sync::Arc;

use dfuse::fuse::{Caching, FuseConfig, Mounted};
use dfuse::null::Null;
use dfuse::options::MountFlags;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let Some(mountpoint) = args.next() else {
        eprintln!("usage: null MOUNTPOINT [THREADS] [--disable-caching]");
        std::process::exit(2);
    };
    let threads = args.next().and_then(|t| t.parse().ok()).unwrap_or(2);
    let caching = if args.next().is_some() { Caching::NONE } else { Caching::ALL };
    let config = FuseConfig {
        mountpoint: PathBuf::from(mountpoint),
        source: "null".into(),
        threads,
        requests_max: 256,
        read_only: false,
        flags: MountFlags {
            suid: false,
            dev: false,
            exec: true,
            noatime: false,
            dirsync: false,
            allow_other: true,
            default_permissions: true,
        },
        caching,
    };
    Mounted::new(Arc::new(Null::default()), &config)?.run()
}
