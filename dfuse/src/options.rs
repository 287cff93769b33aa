//! What the command line asks for, whether a person, `mount -t fuse.dfuse` or fstab wrote it.
//!
//! # Invariants
//! 1. Flags and `-o` options mean the same and end up in the same [`Settings`]; a flag wins over an option.
//! 2. An option that is not known is refused by its name; none is dropped in silence.
//!
//! # Not here
//! Looking at the file system: `mountpoint.rs` judges the mountpoint, the engine judges the store.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use daos_types::ByteSize;
use dfs::uns::EntryPoint;
use serde::{Deserialize, Serialize};

use crate::path::Found;

pub const POOL_DEFAULT: &str = "default";
pub const CONTAINER_DEFAULT: &str = "home";
/// FUSE threads when nothing is said: requests do not hold a thread while they wait.
const THREADS_MAX_DEFAULT: usize = 8;
/// Less than this holds no operation's buckets.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  dfuse --embedded ~/store /mnt/daos             a store in a directory, made on first use
  dfuse --embedded ~/store /mnt/daos mypool data another pool and container of it
  dfuse --embedded /dev/vdb /mnt/daos --size 1T  a store on a block device
  dfuse --embedded ~/store /mnt/data --path ~/data  the container that ~/data stands for (daos container create --path ~/data)
  dfuse --embedded ~/store /mnt/daos --read-only
  dfuse --embedded ~/store /mnt/old --snap monday (made with: daos container create-snap default home --snap monday),
                                                 also beside the live mount, by the daemon that serves it
  mount -t fuse.dfuse /srv/store /mnt/daos -o size=200G,sync=always
  /srv/store /mnt/daos fuse.dfuse pool=default,container=home,_netdev,nofail 0 0    (in /etc/fstab)
  fusermount3 -u /mnt/daos                       stop it (as do umount, SIGTERM and Ctrl-C)
  daos fs query /mnt/daos                        look inside

Options of -o: ro, rw, size=, sync=always|posix, sync (= sync=always), pool=, container=, snap=, memory=, cache=,
threads=, disable_caching, single_user, multi_user, allow_other, default_permissions, suid, nosuid, dev, nodev,
exec, noexec, noatime, dirsync, and the ones that only mount(8) and systemd read (auto, user, _netdev, nofail, x-*, ...).";

/// Mount a container of a DAOS store as a file system.
#[derive(Parser, Debug, Default)]
#[command(
    name = "dfuse",
    version,
    after_help = EXAMPLES,
    override_usage = "dfuse --embedded DIR MOUNTPOINT [POOL [CONTAINER]] [OPTIONS]\n       \
                      dfuse DIR MOUNTPOINT [POOL [CONTAINER]] [-o OPTION,...]   (as mount -t fuse.dfuse calls it)"
)]
pub struct CommandLine {
    /// Directory or block device that holds the store; the engine runs inside this process
    #[arg(long, value_name = "DIR")]
    embedded: Option<PathBuf>,

    /// MOUNTPOINT, then the names of a pool and a container (made when they do not exist)
    #[arg(value_name = "MOUNTPOINT [POOL [CONTAINER]]", num_args = 0..=4, hide_possible_values = true)]
    names: Vec<OsString>,

    /// Where to mount, instead of the first name
    #[arg(short, long, value_name = "DIR")]
    mountpoint: Option<PathBuf>,

    /// Pool, instead of a name [default: default]
    #[arg(long)]
    pool: Option<String>,

    /// Container, instead of a name [default: home]
    #[arg(long, alias = "cont")]
    container: Option<String>,

    /// Directory that stands for the container (xattr user.daos, as `daos container create --path` makes it), instead of names
    #[arg(long, value_name = "DIR", conflicts_with_all = ["pool", "container"])]
    path: Option<PathBuf>,

    /// Size of a new store [default: 64G or 80 % of what is free, whichever is less]
    #[arg(long, value_name = "SIZE")]
    size: Option<ByteSize>,

    /// What an acknowledged write survives: the death of the process (posix; fsync survives a power cut) or a power cut (always)
    #[arg(long, value_enum, value_name = "WHEN")]
    sync: Option<Sync>,

    /// Mount read-only
    #[arg(long)]
    read_only: bool,

    /// Stay in the foreground and log to the terminal
    #[arg(short, long)]
    foreground: bool,

    /// Threads that read requests from the kernel
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    thread_count: Option<u16>,

    /// Let the kernel cache nothing: no names, no attributes, no data, whatever the container's attributes say
    #[arg(long)]
    disable_caching: bool,

    /// Let the kernel cache what the container's attributes say, everything if they say nothing [the default]
    #[arg(long, conflicts_with = "disable_caching")]
    enable_caching: bool,

    /// Mount a snapshot of the container, read-only; beside the live container if that is mounted
    #[arg(long, value_name = "NAME", conflicts_with = "snap_epoch")]
    snap: Option<String>,

    /// Mount the snapshot of this epoch, read-only
    #[arg(long, value_name = "EPOCH")]
    snap_epoch: Option<u64>,

    /// Memory for metadata of the store [default: 256M]; what is known of inodes takes up to half as much beside it
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,

    /// Memory for cached data, beside the kernel's page cache
    #[arg(long, value_name = "SIZE")]
    cache: Option<ByteSize>,

    /// Only the user who mounts may enter; no setuid programs, no devices
    #[arg(long, conflicts_with = "multi_user")]
    single_user: bool,

    /// Every user may enter and the kernel checks permissions [the default for root]
    #[arg(long)]
    multi_user: bool,

    /// Mount options, as mount(8) and fstab give them; see below
    #[arg(short, value_name = "OPTION[,...]", action = clap::ArgAction::Append)]
    options: Vec<String>,

    /// The state of things, for command lines of DAOS: locks are the node's
    #[arg(long, hide = true)]
    enable_local_flock: bool,

    /// The state of things, for command lines of DAOS: nothing is acknowledged before the store has it
    #[arg(long, hide = true)]
    disable_wb_cache: bool,

    #[arg(long, hide = true)]
    enable_wb_cache: bool,

    /// Set by the parent for the process that goes to the background: report on standard output
    #[arg(long, hide = true)]
    pub daemon_child: bool,
}

/// When a write is stable before it is acknowledged; see the crate `dfuse`'s README.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sync {
    Always,
    Posix,
}

/// Flags of the mount itself, in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    pub suid: bool,
    pub dev: bool,
    pub exec: bool,
    pub noatime: bool,
    pub dirsync: bool,
    pub allow_other: bool,
    pub default_permissions: bool,
}

/// A command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub store: PathBuf,
    pub mountpoint: PathBuf,
    pub pool: String,
    pub container: String,
    /// The container is there already: it is not made, and neither is a store.
    pub existing: bool,
    /// A snapshot of it, by name or epoch.
    pub snap: Option<String>,
    pub size: Option<u64>,
    pub sync: Sync,
    pub read_only: bool,
    pub foreground: bool,
    pub threads: usize,
    pub caching: bool,
    pub memory: Option<u64>,
    pub cache: Option<u64>,
    pub flags: MountFlags,
    /// Not a new mount: the flags of one that is there change, `read_only` among them.
    pub remount: bool,
}

impl CommandLine {
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    /// `root`: the process may mount for everyone. `cores`: what the machine has. `found`: what `--path` says.
    pub fn settings(
        self,
        root: bool,
        cores: usize,
        found: Option<Found>,
    ) -> Result<Settings, String> {
        if self.enable_wb_cache {
            return Err("--enable-wb-cache: there is no such cache: nothing is acknowledged before the store has it. \
                        Leave the flag away"
                .into());
        }
        let asked = MountOptions::parse(&self.options)?;
        let (store, mountpoint, pool, container) = self.names(&asked, found.as_ref())?;
        let memory = self.memory.or(asked.memory).map(|s| s.0);
        if let Some(memory) = memory.filter(|memory| *memory < MEMORY_BYTES_MIN) {
            let (given, min) = (ByteSize(memory), ByteSize(MEMORY_BYTES_MIN));
            return Err(format!("--memory {given} is too little; give at least {min}"));
        }
        let single_user = self.single_user || (asked.single_user && !self.multi_user);
        let everyone = !single_user && (root || self.multi_user || asked.multi_user);
        Ok(Settings {
            store,
            mountpoint,
            pool,
            container,
            existing: found.is_some(),
            snap: self.snap.or(self.snap_epoch.map(|epoch| epoch.to_string())).or(asked.snap),
            size: self.size.or(asked.size).map(|s| s.0),
            sync: self.sync.or(asked.sync).unwrap_or(Sync::Posix),
            read_only: self.read_only || asked.read_only,
            foreground: self.foreground,
            threads: (self.thread_count.map(usize::from))
                .or(asked.threads)
                .unwrap_or(cores.clamp(2, THREADS_MAX_DEFAULT)),
            caching: !(self.disable_caching || asked.disable_caching && !self.enable_caching),
            memory,
            cache: self.cache.or(asked.cache).map(|s| s.0),
            flags: MountFlags {
                suid: asked.suid.unwrap_or(everyone && root),
                dev: asked.dev.unwrap_or(everyone && root),
                exec: asked.exec.unwrap_or(true),
                noatime: asked.noatime,
                dirsync: asked.dirsync,
                allow_other: everyone || asked.allow_other,
                default_permissions: everyone || asked.allow_other || asked.default_permissions,
            },
            remount: asked.remount,
        })
    }

    /// Store, mountpoint, pool, container: the names are MOUNTPOINT POOL CONTAINER after `--embedded`, and
    /// SOURCE MOUNTPOINT POOL CONTAINER as mount(8) gives them.
    fn names(
        &self,
        asked: &MountOptions,
        found: Option<&Found>,
    ) -> Result<(PathBuf, PathBuf, String, String), String> {
        let mut names = self.names.iter().cloned();
        let one_is_left = self.names.len() == usize::from(self.mountpoint.is_none());
        let store = match (&self.embedded, found) {
            (Some(store), _) => store.clone(),
            (None, Some(found)) if one_is_left => found.store.clone().ok_or_else(|| {
                let EntryPoint { pool, container } = &found.point;
                format!(
                    "--path names pool {pool} and container {container}, but not the store that they are in: say --embedded DIR too"
                )
            })?,
            (None, _) if self.names.len() >= 2
                || (self.mountpoint.is_some() && !self.names.is_empty()) =>
            {
                names.next().map(PathBuf::from).ok_or("no store is named")?
            }
            (None, _) => return Err(
                "no store is named: say --embedded DIR, a directory or block device that holds \
                                the store or is to hold it"
                    .into(),
            ),
        };
        let mountpoint = self.mountpoint.clone().or_else(|| names.next().map(PathBuf::from)).ok_or(
            "no mountpoint is named: say dfuse --embedded DIR MOUNTPOINT, an empty directory for the mount",
        )?;
        if let Some(found) = found {
            if names.next().is_some() || asked.pool.is_some() || asked.container.is_some() {
                return Err("the container is named twice: by --path and by its name".into());
            }
            let EntryPoint { pool, container } = found.point.clone();
            return Ok((store, mountpoint, pool, container));
        }
        let pool = self.name("pool", &self.pool, names.next(), &asked.pool, POOL_DEFAULT)?;
        let container = self.name(
            "container",
            &self.container,
            names.next(),
            &asked.container,
            CONTAINER_DEFAULT,
        )?;
        if let Some(extra) = names.next() {
            return Err(format!("'{}' is one name too many", extra.to_string_lossy()));
        }
        Ok((store, mountpoint, pool, container))
    }

    fn name(
        &self,
        what: &str,
        flag: &Option<String>,
        name: Option<OsString>,
        option: &Option<String>,
        default: &str,
    ) -> Result<String, String> {
        let name = name
            .map(|n| n.into_string().map_err(|n| format!("the {what}'s name {n:?} is not UTF-8")))
            .transpose()?;
        if flag.is_some() && name.is_some() {
            return Err(format!("the {what} is named twice: by --{what} and after the mountpoint"));
        }
        Ok(flag.clone().or(name).or_else(|| option.clone()).unwrap_or_else(|| default.into()))
    }
}

/// What `-o` said.
#[derive(Debug, Default)]
struct MountOptions {
    size: Option<ByteSize>,
    sync: Option<Sync>,
    pool: Option<String>,
    container: Option<String>,
    snap: Option<String>,
    memory: Option<ByteSize>,
    cache: Option<ByteSize>,
    threads: Option<usize>,
    read_only: bool,
    disable_caching: bool,
    single_user: bool,
    multi_user: bool,
    allow_other: bool,
    default_permissions: bool,
    suid: Option<bool>,
    dev: Option<bool>,
    exec: Option<bool>,
    noatime: bool,
    dirsync: bool,
    remount: bool,
    /// An option that only a mount that is there can have.
    listed: Option<String>,
}

impl MountOptions {
    fn parse(lists: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for option in lists.iter().flat_map(|list| list.split(',')).filter(|o| !o.is_empty()) {
            match option.split_once('=') {
                Some((key, value)) => options.assign(key, value)?,
                None => options.set(option)?,
            }
        }
        match &options.listed {
            Some(option) if !options.remount => Err(unknown(option)),
            _ => Ok(options),
        }
    }

    fn assign(&mut self, key: &str, value: &str) -> Result<(), String> {
        let size = || value.parse::<ByteSize>().map(Some).map_err(|e| format!("-o {key}: {e}"));
        match key {
            "size" => self.size = size()?,
            "memory" => self.memory = size()?,
            "cache" => self.cache = size()?,
            "pool" => self.pool = Some(value.into()),
            "snap" => self.snap = Some(value.into()),
            "container" | "cont" => self.container = Some(value.into()),
            "threads" | "thread_count" => match value.parse() {
                Ok(n @ 1..=256) => self.threads = Some(n),
                _ => return Err(format!("-o {key}: '{value}' is not a number from 1 to 256")),
            },
            "sync" => match value {
                "always" => self.sync = Some(Sync::Always),
                "posix" => self.sync = Some(Sync::Posix),
                _ => return Err(format!("-o sync: '{value}' is neither always nor posix")),
            },
            // What the mount is called and how mount(8) and systemd treat it is theirs.
            "fsname" | "subtype" | "comment" => {}
            // What mount(8) finds listed with a mount that it is to change.
            "user_id" | "group_id" | "max_read" | "blksize" => self.listed = Some(key.into()),
            _ if key.starts_with("x-") || key.starts_with("X-") => {}
            _ => return Err(unknown(&format!("{key}={value}"))),
        }
        Ok(())
    }

    fn set(&mut self, option: &str) -> Result<(), String> {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "sync" => self.sync = Some(Sync::Always),
            "disable_caching" => self.disable_caching = true,
            "single_user" => self.single_user = true,
            "multi_user" => self.multi_user = true,
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.default_permissions = true,
            "suid" => self.suid = Some(true),
            "nosuid" => self.suid = Some(false),
            "dev" => self.dev = Some(true),
            "nodev" => self.dev = Some(false),
            "exec" => self.exec = Some(true),
            "noexec" => self.exec = Some(false),
            "noatime" => self.noatime = true,
            // The kernel leaves it to the filesystem: every change is stable before its answer, not only those of names.
            "dirsync" => {
                self.dirsync = true;
                self.sync = Some(Sync::Always);
            }
            // The state of things anyway.
            "async" | "atime" | "relatime" | "strictatime" | "norelatime" | "nostrictatime"
            | "diratime" | "nodiratime" | "lazytime" | "nolazytime" | "defaults" => {}
            // Addressed to mount(8) and systemd.
            "auto" | "noauto" | "user" | "users" | "nouser" | "owner" | "group" | "nofail"
            | "_netdev" => {}
            "remount" => self.remount = true,
            _ if option.starts_with("x-") || option.starts_with("X-") => {}
            _ => return Err(unknown(option)),
        }
        Ok(())
    }
}

fn unknown(option: &str) -> String {
    format!("unknown mount option '{option}'; dfuse --help lists those that exist")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn settings(args: &[&str]) -> Result<Settings, String> {
        as_user(args, true)
    }

    fn as_user(args: &[&str], root: bool) -> Result<Settings, String> {
        CommandLine::try_parse_from(std::iter::once(&"dfuse").chain(args))
            .map_err(|e| e.to_string())?
            .settings(root, 4, None)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_store_and_a_mountpoint_are_enough() {
        let s = settings(&["--embedded", "/s", "/m"]).unwrap();
        assert_eq!((s.store, s.mountpoint), ("/s".into(), "/m".into()));
        assert_eq!((s.pool.as_str(), s.container.as_str()), ("default", "home"));
        assert_eq!(
            (s.sync, s.threads, s.caching, s.read_only, s.foreground),
            (Sync::Posix, 4, true, false, false)
        );
        assert_eq!((s.size, s.memory, s.cache), (None, None, None));
    }

    #[test]
    fn pool_and_container_follow_the_mountpoint() {
        let s = settings(&["--embedded", "/s", "/m", "p", "c"]).unwrap();
        assert_eq!((s.pool.as_str(), s.container.as_str()), ("p", "c"));
        let s = settings(&["--embedded", "/s", "/m", "p"]).unwrap();
        assert_eq!((s.pool.as_str(), s.container.as_str()), ("p", "home"));
    }

    #[test]
    fn mount_and_fstab_name_the_store_first() {
        let list = "rw,size=2G,sync=always,pool=p,container=c,memory=64M,cache=1G,threads=3,_netdev,nofail,\
                    noauto,x-systemd.automount,X-mine=1,comment=hi,user,noatime,dev,suid,allow_other";
        let s = settings(&["/s", "/m", "-o", list]).unwrap();
        assert_eq!((s.store, s.mountpoint), ("/s".into(), "/m".into()));
        assert_eq!((s.pool.as_str(), s.container.as_str()), ("p", "c"));
        assert_eq!((s.size, s.memory, s.cache), (Some(2 << 30), Some(64 << 20), Some(1 << 30)));
        assert_eq!((s.sync, s.threads), (Sync::Always, 3));
        assert!(s.flags.noatime && s.flags.dev && s.flags.suid && s.flags.allow_other);
    }

    #[test]
    fn a_later_option_and_any_flag_win() {
        assert!(settings(&["/s", "/m", "-o", "ro"]).unwrap().read_only);
        assert!(!settings(&["/s", "/m", "-o", "ro,rw"]).unwrap().read_only);
        assert!(settings(&["/s", "/m", "--read-only", "-o", "rw"]).unwrap().read_only);
        let s = settings(&["/s", "/m", "-o", "sync=always", "--sync", "posix"]).unwrap();
        assert_eq!(s.sync, Sync::Posix);
        assert_eq!(settings(&["/s", "/m", "-o", "sync"]).unwrap().sync, Sync::Always);
    }

    #[test]
    fn a_path_names_the_container_and_in_a_mount_its_store() {
        let by_path = |args: &[&str], store: Option<&str>| {
            let (pool, container) = ("p".into(), "c".into());
            let point = EntryPoint { pool, container };
            let found = Found { point, store: store.map(PathBuf::from) };
            let line = ["dfuse", "--path", "/d"].iter().chain(args);
            let line = CommandLine::try_parse_from(line).map_err(|e| e.to_string())?;
            line.settings(true, 4, Some(found))
        };
        let s = by_path(&["--embedded", "/s", "/m"], None).unwrap();
        assert_eq!((s.store, s.mountpoint), ("/s".into(), "/m".into()));
        assert_eq!((s.pool.as_str(), s.container.as_str(), s.existing), ("p", "c", true));
        for args in [&["/m"][..], &["-m", "/m"]] {
            assert_eq!(by_path(args, Some("/s")).unwrap().store, PathBuf::from("/s"));
            let error = by_path(args, None).unwrap_err();
            assert!(error.contains("--embedded DIR") && error.contains("container c"), "{error}");
        }
        assert_eq!(by_path(&["/s", "/m"], None).unwrap().store, PathBuf::from("/s"));
        for twice in
            [&["/s", "/m", "q"][..], &["/s", "/m", "-o", "pool=q"], &["/s", "/m", "--pool", "q"]]
        {
            assert!(by_path(twice, None).is_err(), "{twice:?}");
        }
        assert!(settings(&["/s", "/m"]).is_ok_and(|s| !s.existing));
        assert!(settings(&["/s", "/m", "--enable-local-flock", "--disable-wb-cache"]).is_ok());
        assert!(settings(&["/s", "/m", "--enable-wb-cache"]).unwrap_err().contains("acknowledged"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (option, part) in [
            ("frobnicate", "'frobnicate'"),
            ("uid=5", "'uid=5'"),
            ("size=lots", "'lots' is not a size"),
            ("sync=sometimes", "'sometimes'"),
            ("threads=0", "'0'"),
            ("user_id=0", "'user_id'"),
        ] {
            let error = settings(&["/s", "/m", "-o", option]).unwrap_err();
            assert!(error.contains(part), "{option}: {error}");
        }
    }

    #[test]
    fn a_remount_takes_what_is_listed_with_the_mount() {
        let listed = "ro,relatime,nodev,user_id=0,group_id=0,default_permissions,remount";
        let s = settings(&["/s", "/m", "-o", listed]).unwrap();
        assert!(s.remount && s.read_only && !s.flags.dev && s.flags.suid);
        assert!(!settings(&["/s", "/m"]).unwrap().remount);
    }

    #[test]
    fn missing_and_surplus_names_are_explained() {
        assert!(settings(&[]).unwrap_err().contains("--embedded DIR"));
        assert!(settings(&["/only"]).unwrap_err().contains("--embedded DIR"));
        assert!(settings(&["--embedded", "/s"]).unwrap_err().contains("no mountpoint"));
        assert!(settings(&["--embedded", "/s", "/m", "p", "c", "d"]).unwrap_err().contains("'d'"));
        assert!(
            settings(&["--embedded", "/s", "/m", "p", "--pool", "q"])
                .unwrap_err()
                .contains("twice")
        );
    }

    #[test]
    fn root_mounts_for_everyone_unless_told_not_to() {
        let open = settings(&["/s", "/m"]).unwrap().flags;
        assert!(open.allow_other && open.default_permissions && open.suid && open.dev && open.exec);
        let closed = settings(&["/s", "/m", "--single-user"]).unwrap().flags;
        assert!(!closed.allow_other && !closed.default_permissions && !closed.suid && !closed.dev);
        let user = as_user(&["/s", "/m"], false).unwrap().flags;
        assert!(!user.allow_other && !user.suid && !user.dev);
        assert!(as_user(&["/s", "/m", "--multi-user"], false).unwrap().flags.allow_other);
        assert!(!settings(&["/s", "/m", "-o", "nosuid,nodev,noexec"]).unwrap().flags.suid);
        assert!(settings(&["/s", "/m", "--single-user", "--multi-user"]).is_err());
    }
}
