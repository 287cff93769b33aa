//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use daos_types::ByteSize;

use crate::oclass::{self, Of};

pub const POOL_DEFAULT: &str = "default";
pub const CONTAINER_DEFAULT: &str = "home";

const EXAMPLES: &str = "\
Examples:
  daos pool query --embedded ~/store          whether or not a daemon has it mounted
  daos container list --embedded /mnt/daos    a mountpoint names its store
  daos container create scratch               with one store mounted it need not be named
  daos container set-attr default home dfuse-attr-time:30s,dfuse-data-cache:otoc
  daos container set-prop default home quota:10G,100000     at most 10 GiB and 100,000 inodes; quota:0,0 for no limit
  daos container create-snap default home --snap monday     then: dfuse ... --snap monday
  daos fs query /mnt/daos
  daos fs check --embedded ~/store --json
  daos fs scrub /mnt/daos --rate 50M

Exit codes: 0 done; 1 failed; 2 the command line is wrong; 3 no such store, pool or container;
4 exists already; 5 in use; 6 damaged (also when a check finds something); 7 no space.

With --json every command prints one object: {\"response\": ..., \"error\": null, \"kind\": null, \"status\": 0}, and on an error
{\"response\": null, \"error\": \"what went wrong\", \"kind\": \"not-found\", \"status\": 3}; status is the exit code.
fs scrub prints lines with its progress and each finding before that.";

/// Look at DAOS stores and change what is in them.
#[derive(Parser, Debug)]
#[command(name = "daos", version, after_help = EXAMPLES)]
pub struct CommandLine {
    #[command(flatten)]
    pub global: Global,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Debug)]
pub struct Global {
    /// The store: its directory or block device, or any path in its mount [default: the one store that is mounted]
    #[arg(long, global = true, value_name = "DIR")]
    pub embedded: Option<PathBuf>,

    /// Print JSON, also of errors
    #[arg(short, long, global = true)]
    pub json: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Pools of a store
    #[command(subcommand)]
    Pool(Pool),
    /// Containers of a pool
    #[command(subcommand, visible_alias = "cont")]
    Container(Container),
    /// The filesystem in a container, and its store
    #[command(subcommand, visible_alias = "fs")]
    Filesystem(Filesystem),
}

#[derive(Subcommand, Debug)]
pub enum Pool {
    /// List the pools
    #[command(visible_alias = "ls")]
    List,
    /// Show a pool's space and counters
    Query {
        /// Label or UUID
        #[arg(default_value = POOL_DEFAULT)]
        pool: String,
        /// Show every counter of the targets
        #[arg(long)]
        counters: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum Container {
    /// Make a container, and with --path a directory that shows it
    #[command(after_help = CREATE)]
    Create {
        /// [POOL] CONTAINER; with --path neither is needed, and one that is a pool's name is the pool
        #[arg(value_name = "[POOL] CONTAINER", num_args = 0..=2, required_unless_present = "path")]
        names: Vec<String>,
        /// The directory to make, in a mount or on another filesystem that takes user xattrs
        #[arg(long, value_name = "DIR")]
        path: Option<PathBuf>,
        /// What the container holds
        #[arg(short, long, value_name = "TYPE", default_value = "POSIX", ignore_case = true, value_parser = ["POSIX"])]
        r#type: String,
        /// Properties: quota:BYTES,INODES
        #[arg(long, value_name = "NAME:VALUE[,...]", alias = "props")]
        properties: Option<String>,
        /// Attributes, as for set-attr
        #[arg(long, value_name = "NAME:VALUE[,...]")]
        attrs: Option<String>,
        /// Object class: SX or S1; files are always SX here, directories S1
        #[arg(short, long, value_name = "CLASS", value_parser = oclass)]
        oclass: Option<String>,
        /// Object class of files: SX
        #[arg(long, value_name = "CLASS", value_parser = file_oclass)]
        file_oclass: Option<String>,
        /// Object class of directories: S1
        #[arg(long, value_name = "CLASS", value_parser = dir_oclass)]
        dir_oclass: Option<String>,
        /// Permissions of the directory that is made, in octal
        #[arg(long, value_name = "MODE", default_value = "755", value_parser = octal)]
        mode: u32,
    },
    /// Make a directory that shows a container which is there
    Link {
        /// The container's label or UUID, after its pool's if that is not `default`
        #[arg(value_name = "[POOL] CONTAINER", required = true, num_args = 1..=2)]
        names: Vec<String>,
        /// The directory to make
        #[arg(long, value_name = "DIR")]
        path: PathBuf,
        /// Its permissions, in octal
        #[arg(long, value_name = "MODE", default_value = "755", value_parser = octal)]
        mode: u32,
    },
    /// List a pool's containers
    #[command(visible_alias = "ls")]
    List {
        /// Label or UUID
        #[arg(default_value = POOL_DEFAULT)]
        pool: String,
    },
    /// Show a container
    Query(Names),
    /// Destroy a container and everything in it; with --path, the directory that shows it too
    Destroy(Names),
    /// Show attributes, all of them or some by name
    #[command(visible_alias = "get-attribute")]
    GetAttr {
        #[command(flatten)]
        which: Which,
        /// [POOL] CONTAINER, or three: POOL CONTAINER NAME[,NAME...]; after --path only NAME[,NAME...]
        #[arg(value_name = "[POOL] CONTAINER [NAME[,...]]", num_args = 0..=3)]
        words: Vec<String>,
    },
    /// Set attributes; those that begin with dfuse- say what a mount's kernel may keep
    #[command(visible_alias = "set-attribute", after_help = ATTRIBUTES)]
    SetAttr {
        #[command(flatten)]
        which: Which,
        /// [POOL] CONTAINER NAME:VALUE[,NAME:VALUE...], or POOL CONTAINER NAME VALUE; no container after --path
        #[arg(value_name = "[POOL] CONTAINER NAME:VALUE[,...]", num_args = 1..=4, required = true)]
        words: Vec<String>,
    },
    /// List attributes
    #[command(visible_aliases = ["list-attr", "list-attributes"])]
    ListAttrs {
        #[command(flatten)]
        names: Names,
        /// Show their values too
        #[arg(short = 'V', long)]
        verbose: bool,
    },
    /// Delete attributes
    #[command(visible_aliases = ["delete-attr", "del-attribute"])]
    DelAttr {
        #[command(flatten)]
        which: Which,
        /// [POOL] CONTAINER NAME[,NAME...]; no container after --path
        #[arg(value_name = "[POOL] CONTAINER NAME[,...]", num_args = 1..=3, required = true)]
        words: Vec<String>,
    },
    /// Show properties
    #[command(visible_alias = "get-property")]
    GetProp {
        #[command(flatten)]
        which: Which,
        /// [POOL] CONTAINER, or three: POOL CONTAINER NAME[,NAME...]; after --path only NAME[,NAME...]
        #[arg(value_name = "[POOL] CONTAINER [NAME[,...]]", num_args = 0..=3)]
        words: Vec<String>,
    },
    /// Set properties: label:NAME, quota:BYTES,INODES (0 for no limit)
    #[command(visible_alias = "set-property")]
    SetProp {
        #[command(flatten)]
        which: Which,
        /// [POOL] CONTAINER NAME:VALUE[,NAME:VALUE...]; no container after --path
        #[arg(value_name = "[POOL] CONTAINER NAME:VALUE[,...]", num_args = 1..=3, required = true)]
        words: Vec<String>,
    },
    /// Make a snapshot of now
    #[command(visible_alias = "create-snapshot")]
    CreateSnap {
        #[command(flatten)]
        names: Names,
        /// Name of the snapshot
        #[arg(short, long, value_name = "NAME")]
        snap: Option<String>,
    },
    /// List snapshots, oldest first
    #[command(visible_aliases = ["list-snaps", "list-snapshots"])]
    ListSnap(Names),
    /// Destroy a snapshot; what only it held becomes free
    #[command(visible_alias = "destroy-snapshot")]
    DestroySnap {
        #[command(flatten)]
        names: Names,
        /// Name of the snapshot
        #[arg(
            short,
            long,
            value_name = "NAME",
            required_unless_present = "epc",
            conflicts_with = "epc"
        )]
        snap: Option<String>,
        /// Epoch of the snapshot
        #[arg(short, long, value_name = "EPOCH")]
        epc: Option<u64>,
    },
}

const CREATE: &str = "\
Examples:
  daos container create scratch                          in pool default
  daos container create --path /mnt/daos/data            shown in a mount at once, under a label of its own
  daos container create mypool data --path /home/me/data --attrs dfuse-data-cache:otoc";

fn oclass(name: &str) -> Result<String, String> {
    oclass::check_both(name).map(|()| name.to_owned())
}

fn file_oclass(name: &str) -> Result<String, String> {
    oclass::check(name, Of::Files).map(|()| name.to_owned())
}

fn dir_oclass(name: &str) -> Result<String, String> {
    oclass::check(name, Of::Directories).map(|()| name.to_owned())
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("'{text}' is not a mode; write for example 755"))
}

const ATTRIBUTES: &str = "\
Attributes for mounts. One that is not set leaves what it is about as the mount has it; setting one does not change the others:
  dfuse-attr-time           how long the kernel may keep an inode's attributes: seconds, or 30s, 5m, 1h, 1d
  dfuse-dentry-time         how long a name; of a directory too, without dfuse-dentry-dir-time
  dfuse-dentry-dir-time     how long the name of a directory
  dfuse-ndentry-time        how long that a name is not there
  dfuse-data-cache          what becomes of a file's pages: on, off, otoc (they go at the last close), or a time after it
  dfuse-direct-io-disable   on: a file opened with O_DIRECT is cached like any other
All other names are yours.";

/// A container by a path, instead of by its names.
#[derive(Args, Debug)]
pub struct Which {
    /// A directory that shows the container, or any path in it, instead of its names
    #[arg(long, value_name = "PATH")]
    pub path: Option<PathBuf>,
}

/// `[POOL] CONTAINER`
#[derive(Args, Debug)]
pub struct Names {
    /// The container's label or UUID, after its pool's if that is not `default`
    #[arg(value_name = "[POOL] CONTAINER", required_unless_present = "path", conflicts_with = "path", num_args = 1..=2)]
    pub names: Vec<String>,

    #[command(flatten)]
    pub which: Which,
}

/// Pool and container of one or two names.
pub fn split(names: &[String]) -> (String, String) {
    match names {
        [container] => (POOL_DEFAULT.into(), container.clone()),
        [pool, container] => (pool.clone(), container.clone()),
        _ => unreachable!("clap and `words` give one or two"),
    }
}

impl Container {
    /// The path that names the container.
    pub fn path(&self) -> Option<&PathBuf> {
        let which = match self {
            Self::List { .. } => return None,
            Self::Create { path, .. } => return path.as_ref(),
            Self::Link { path, .. } => return Some(path),
            Self::Query(names)
            | Self::Destroy(names)
            | Self::ListSnap(names)
            | Self::ListAttrs { names, .. }
            | Self::CreateSnap { names, .. }
            | Self::DestroySnap { names, .. } => &names.which,
            Self::GetAttr { which, .. }
            | Self::SetAttr { which, .. }
            | Self::DelAttr { which, .. }
            | Self::GetProp { which, .. }
            | Self::SetProp { which, .. } => which,
        };
        which.path.as_ref()
    }
}

#[derive(Subcommand, Debug)]
pub enum Filesystem {
    /// Verify every invariant of the store and of the filesystems in it
    Check {
        /// A path in the mount, or the store
        path: Option<PathBuf>,
        /// Mend what can be mended, of a store that is not mounted; what has lost its name goes into /lost+found
        #[arg(long)]
        repair: bool,
    },
    /// Read and verify everything that is stored, snapshots too, beside its users; Ctrl-C stops it
    Scrub(crate::scrub::How),
    /// Show how a filesystem is mounted and what is in it
    Query {
        /// A path in the mount, or the store
        path: Option<PathBuf>,
        /// Pool of a filesystem that is not mounted
        #[arg(long, default_value = POOL_DEFAULT)]
        pool: String,
        /// Container of a filesystem that is not mounted
        #[arg(long, alias = "cont", default_value = CONTAINER_DEFAULT)]
        container: String,
        /// Show latencies of the targets' requests and stages too
        #[arg(long)]
        stats: bool,
    },
    /// Show the object, its class and the chunk size of a file or directory in a mount
    #[command(visible_alias = "get-attribute")]
    GetAttr(InMount),
    /// Set the chunk size of an empty file (made if it is not there), or what new files in a directory get
    #[command(visible_alias = "set-attribute")]
    SetAttr {
        #[command(flatten)]
        at: InMount,
        /// Bytes of a chunk, a multiple of 4096
        #[arg(short = 'z', long, value_name = "SIZE", required_unless_present = "oclass")]
        chunk_size: Option<ByteSize>,
        /// Object class; of files it is SX here, of directories S1
        #[arg(short, long, value_name = "CLASS")]
        oclass: Option<String>,
    },
    /// Set the chunk size as the container has it
    #[command(visible_aliases = ["reset-attribute", "reset-chunk-size"])]
    ResetAttr(InMount),
    /// Wait until everything acknowledged is on stable media
    Sync {
        /// A path in the mount, or the store
        path: Option<PathBuf>,
    },
}

/// A file or directory in a mount.
#[derive(Args, Debug)]
pub struct InMount {
    /// A file or directory in the mount
    #[arg(value_name = "PATH", required_unless_present = "path")]
    place: Option<PathBuf>,
    /// The same, as DAOS has it
    #[arg(long, value_name = "PATH", conflicts_with = "place")]
    path: Option<PathBuf>,
}

impl InMount {
    pub fn path(&self) -> Option<&PathBuf> {
        self.place.as_ref().or(self.path.as_ref())
    }
}

impl Filesystem {
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Scrub(how) => how.path.as_ref(),
            Self::GetAttr(at) | Self::ResetAttr(at) | Self::SetAttr { at, .. } => at.path(),
            Self::Check { path, .. } | Self::Query { path, .. } | Self::Sync { path } => {
                path.as_ref()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Command {
        CommandLine::try_parse_from(line.split(' ')).unwrap().command
    }

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn short_forms_are_the_long_ones() {
        assert!(
            matches!(parse("daos cont ls"), Command::Container(Container::List { pool }) if pool == "default")
        );
        assert!(matches!(
            parse("daos fs sync"),
            Command::Filesystem(Filesystem::Sync { path: None })
        ));
        assert!(matches!(
            parse("daos filesystem check --repair"),
            Command::Filesystem(Filesystem::Check { repair: true, .. })
        ));
    }

    #[test]
    fn one_name_is_a_container_of_the_default_pool() {
        let names = |line| match parse(line) {
            Command::Container(Container::Destroy(names)) => split(&names.names),
            Command::Container(Container::Create { names, .. }) => split(&names),
            other => panic!("{other:?}"),
        };
        assert_eq!(names("daos cont create c"), ("default".into(), "c".into()));
        assert_eq!(names("daos container destroy p c"), ("p".into(), "c".into()));
        assert!(CommandLine::try_parse_from(["daos", "cont", "create"]).is_err());
        assert!(CommandLine::try_parse_from(["daos", "cont", "create", "a", "b", "c"]).is_err());
    }

    #[test]
    fn the_store_may_be_named_anywhere() {
        let line =
            CommandLine::try_parse_from(["daos", "pool", "list", "--embedded", "/s", "--json"])
                .unwrap();
        assert_eq!((line.global.embedded, line.global.json), (Some("/s".into()), true));
    }
}
