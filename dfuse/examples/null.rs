//! Mounts an in-memory tree through the same adapter as the daemon, for benches to compare with.
//!
//! `cargo run --release -p dfuse --example null -- MOUNTPOINT [--threads N] [--disable-caching] [--requests SOCKET]`; unmount it with
//! `fusermount3 -u MOUNTPOINT`. Whoever connects to SOCKET is told the requests by kind so far, as JSON.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use dfuse::fuse::{FuseConfig, Mounted, Requests};
use dfuse::null::Null;
use dfuse::options::MountFlags;

struct Arguments {
    mountpoint: PathBuf,
    threads: usize,
    caching: bool,
    requests: Option<PathBuf>,
}

fn arguments() -> Option<Arguments> {
    let mut words = std::env::args().skip(1);
    let mountpoint = words.next()?.into();
    let mut all = Arguments { mountpoint, threads: 2, caching: true, requests: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--threads" => all.threads = words.next()?.parse().ok()?,
            "--disable-caching" => all.caching = false,
            "--requests" => all.requests = Some(words.next()?.into()),
            _ => return None,
        }
    }
    Some(all)
}

fn main() -> std::io::Result<()> {
    let Some(arguments) = arguments() else {
        eprintln!("usage: null MOUNTPOINT [--threads N] [--disable-caching] [--requests SOCKET]");
        std::process::exit(2);
    };
    let config = FuseConfig {
        mountpoint: arguments.mountpoint,
        source: "null".into(),
        threads: arguments.threads,
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
        caching: arguments.caching,
        door: false,
    };
    // Before the mount is there to be seen.
    let listener = arguments.requests.map(UnixListener::bind).transpose()?;
    let mounted = Mounted::new(Arc::new(Null::default()), &config)?;
    if let Some(listener) = listener {
        let requests = mounted.requests();
        thread::spawn(move || tell(&listener, &requests));
    }
    mounted.run()
}

fn tell(listener: &UnixListener, requests: &Requests) {
    for mut stream in listener.incoming().flatten() {
        let counts: BTreeMap<_, _> = requests.counts().into_iter().collect();
        // Who has gone away does not want to know.
        let _ = writeln!(stream, "{}", serde_json::json!(counts));
    }
}
