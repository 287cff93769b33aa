//! The `daos` command.
#![forbid(unsafe_code)]

mod args;
mod assign;
mod commands;
mod entry;
mod output;
mod progress;
mod status;
mod store;
mod time;

use std::process::ExitCode;

use clap::Parser;
use daos_server::control::Failure;

use args::{Command, CommandLine};
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
    match execute(line) {
        Ok(answered) => match output::print(&answered, as_json) {
            Ok(()) => ExitCode::from(answered.status),
            Err(e) => {
                eprintln!("daos: the answer cannot be printed: {e}");
                ExitCode::from(status::FAILED)
            }
        },
        Err(failure) => {
            let (kind, code) = status::of_failure(&failure);
            output::print_error(kind, &failure.message, code, as_json);
            ExitCode::from(code)
        }
    }
}

fn execute(line: CommandLine) -> Result<Answered, Failure> {
    let path = match &line.command {
        Command::Filesystem(filesystem) => filesystem.path().or(line.global.embedded.as_ref()),
        Command::Container(container) => container.path().or(line.global.embedded.as_ref()),
        Command::Pool(_) => line.global.embedded.as_ref(),
    };
    let _progress = Progress::start(commands::doing(&line.command).into());
    let mut store = Store::open(path.map(AsRef::as_ref), commands::reads_only(&line.command))?;
    let answered = commands::run(line.command, &mut store);
    // A change is told as done when the store is closed soundly.
    let closed = store.close();
    let answered = answered?;
    closed.map(|()| answered)
}
