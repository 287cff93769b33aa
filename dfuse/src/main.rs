//! The `dfuse` command.

use std::process::ExitCode;

use clap::Parser;
use dfuse::background::{self, Reporter};
use dfuse::daemon;
use dfuse::log::Log;
use dfuse::options::{CommandLine, Settings};

/// The C library's allocator takes a fifth of the daemon's time in changes of names: futures and buffers of requests are just above the
/// sizes that it keeps at hand.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As clap's: the command line is wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let daemon_child = command_line.daemon_child;
    let settings = match settings(command_line) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("dfuse: {why}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if settings.remount {
        return remount(&settings);
    }
    if !settings.foreground && !daemon_child {
        return background::start();
    }
    if daemon_child {
        background::leave_session();
    }
    let log = Log::install(settings.foreground);
    let reporter = Reporter::new(daemon_child);
    let code = match daemon::run(&settings, &reporter, &log) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error}");
            reporter.failed(&error.to_string());
            1
        }
    };
    // Threads may still wait for a kernel that does not answer: the process ends all the same.
    std::process::exit(code)
}

/// What `mount -o remount` calls, where the flags of the mount are the kernel's and no daemon is asked.
fn remount(settings: &Settings) -> ExitCode {
    let at = &settings.mountpoint;
    let changed = match daos_server::mounts::at(at) {
        Some(mount) if mount.is_dfuse() => {
            dfuse::fuse::remount(at, &settings.flags, settings.read_only).map_err(|e| e.to_string())
        }
        _ => Err("no dfuse is mounted there".into()),
    };
    match changed {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("dfuse: {} is not remounted: {why}", at.display());
            ExitCode::FAILURE
        }
    }
}

fn settings(command_line: CommandLine) -> Result<Settings, String> {
    let root = rustix::process::geteuid().is_root();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = command_line.path().map(|path| dfuse::path::find(path)).transpose()?;
    let mut settings = command_line.settings(root, cores, found)?;
    let absolute = |path: &std::path::Path| {
        std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))
    };
    settings.store = absolute(&settings.store)?;
    settings.mountpoint = absolute(&settings.mountpoint)?;
    Ok(settings)
}
