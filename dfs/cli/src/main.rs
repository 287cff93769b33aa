//! The `daos` command.
#![forbid(unsafe_code)]

mod args;
mod assign;
mod commands;
mod entry;
mod layout;
mod oclass;
mod output;
mod progress;
mod scrub;
mod status;
mod store;
mod time;

use std::process::ExitCode;

use clap::Parser;
use daos_server::control::Failure;

use args::{Command, CommandLine, Filesystem};
use output::Answered;
use progress::Progress;
use store::Store;

fn main() -> ExitCode {
    let json_wanted = std::env::args().any(|a| a == "--json" || a == "-j");
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(e) if e.use_stderr() && json_wanted => {
            output::print_error("usage", e.to_string().trim(), status::USAGE, true);
            return ExitCode::from(status::USAGE);
        }
        Err(e) => e.exit(),
    };
    let as_json = line.global.json;
    let repairs =
        matches!(line.command, Command::Filesystem(Filesystem::Check { repair: true, .. }));
    match run(line) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let (kind, code) = status::of_failure(&failure);
            let message = format!("{}{}", failure.message, status::advice(&failure, repairs));
            output::print_error(kind, &message, code, as_json);
            ExitCode::from(code)
        }
    }
}

/// The exit code of a command that could do its work.
fn run(line: CommandLine) -> Result<u8, Failure> {
    let as_json = line.global.json;
    if let Command::Filesystem(Filesystem::Scrub(how)) = &line.command {
        // It tells what it finds while it goes on.
        let path = how.path.as_ref().or(line.global.embedded.as_ref());
        is_answered(path.map(AsRef::as_ref))?;
        return scrub::run(path.map(AsRef::as_ref), how, as_json);
    }
    let answered = execute(line)?;
    Ok(match output::print(&answered, as_json) {
        Ok(()) => answered.status,
        Err(e) => {
            eprintln!("daos: the answer cannot be printed: {e}");
            status::FAILED
        }
    })
}

/// Before a path in a mount is looked at, which a stopped daemon would answer never.
fn is_answered(path: Option<&std::path::Path>) -> Result<(), Failure> {
    path.and_then(daos_server::Door::stopped).map_or(Ok(()), Err)
}

fn execute(line: CommandLine) -> Result<Answered, Failure> {
    is_answered(line.global.embedded.as_deref())?;
    is_answered(match &line.command {
        Command::Filesystem(filesystem) => filesystem.path().map(AsRef::as_ref),
        Command::Container(container) => container.path().map(AsRef::as_ref),
        Command::Pool(_) => None,
    })?;
    let path = match &line.command {
        Command::Filesystem(filesystem) => {
            let named = line.global.embedded.as_ref();
            match filesystem.path() {
                // Of a file that is to be made, the mount that it will be in.
                Some(path) if !path.exists() => store::store_by_path(path, named),
                path => path.or(named).cloned(),
            }
        }
        Command::Container(container) => match container.path() {
            Some(path) => store::store_by_path(path, line.global.embedded.as_ref()),
            None => line.global.embedded.clone(),
        },
        Command::Pool(_) => line.global.embedded.clone(),
    };
    let _progress = Progress::start(commands::doing(&line.command).into());
    let mut store = Store::open(path.as_deref(), commands::reads_only(&line.command))?;
    let answered = commands::run(line.command, &mut store);
    // A change is told as done when the store is closed soundly.
    let closed = store.close();
    let answered = answered?;
    closed.map(|()| answered)
}
