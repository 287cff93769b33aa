//! Workloads that are the same whoever carries out their calls: the C library of a process of its own, or dfs in this one (`inside.rs`).
//!
//! # Not here
//! What is compared with what: `library.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Error, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use daos_media::IoBuf;

use crate::bench::Sample;
use crate::rng::Rng;

const PAGE: usize = 4096;
const STREAM_BYTES: usize = 1 << 20;
/// Of names, which the kernel answers in a moment.
const WARM_PASSES: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Makes the files of the data calls.
    Fill,
    ReadRandom,
    WriteRandom,
    ReadStream,
    WriteStream,
    Create,
    Stat,
    StatOnce,
    Open,
    Readdir,
    /// There and back.
    Rename,
    Unlink,
    Mkdir,
    Rmdir,
    Chmod,
}

impl What {
    fn writes(self) -> bool {
        matches!(self, Self::Fill | Self::WriteRandom | Self::WriteStream)
    }

    fn of_names(self) -> bool {
        !self.writes() && !matches!(self, Self::ReadRandom | Self::ReadStream)
    }
}

/// What is to be done, and how much of it.
#[derive(Args, Clone, Debug)]
pub struct Work {
    #[arg(value_enum)]
    pub what: What,
    /// Is there
    pub folder: PathBuf,
    /// Threads; of data calls each has a file of its own
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// For calls here and there
    #[arg(long, default_value_t = 0.1)]
    pub seconds: f64,
    #[arg(long, default_value_t = 0)]
    pub files: usize,
    /// Of a file
    #[arg(long, default_value_t = 0)]
    pub bytes: u64,
    /// O_DIRECT
    #[arg(long)]
    pub direct: bool,
    /// Once before it is measured
    #[arg(long)]
    pub warm: bool,
}

impl Work {
    pub fn arguments(&self) -> Vec<String> {
        let what = self.what.to_possible_value().expect("no value is skipped");
        let mut words = vec!["calls".to_owned(), what.get_name().to_owned()];
        words.push(self.folder.to_string_lossy().into_owned());
        words.extend(["--jobs".to_owned(), self.jobs.to_string()]);
        words.extend(["--seconds".to_owned(), self.seconds.to_string()]);
        words.extend(["--files".to_owned(), self.files.to_string()]);
        words.extend(["--bytes".to_owned(), self.bytes.to_string()]);
        words.extend(self.direct.then(|| "--direct".to_owned()));
        words.extend(self.warm.then(|| "--warm".to_owned()));
        words
    }

    fn sample(&self, operations: u64, took: Duration) -> Sample {
        match self.what {
            What::ReadStream | What::WriteStream | What::Fill => {
                let bytes = (self.bytes * self.jobs as u64) as f64;
                Sample { value: bytes / 1e6 / took.as_secs_f64(), operations }
            }
            _ => Sample::rate(operations, took),
        }
    }
}

/// Whoever carries out calls, in one directory.
pub trait Calls: Sync {
    type Handle: Send;
    fn open(&self, name: &str, writes: bool, direct: bool) -> io::Result<Self::Handle>;
    fn read(&self, handle: &Self::Handle, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    fn write(&self, handle: &Self::Handle, bytes: &[u8], at: u64) -> io::Result<()>;
    fn sync(&self, handle: &Self::Handle) -> io::Result<()>;
    fn close(&self, handle: Self::Handle) -> io::Result<()>;
    /// With its file made.
    fn create(&self, name: &str) -> io::Result<Self::Handle>;
    fn stat(&self, name: &str) -> io::Result<()>;
    fn readdir(&self) -> io::Result<u64>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn unlink(&self, name: &str) -> io::Result<()>;
    fn mkdir(&self, name: &str) -> io::Result<()>;
    fn rmdir(&self, name: &str) -> io::Result<()>;
    fn chmod(&self, name: &str, mode: u32) -> io::Result<()>;
}

/// Does the work, and says how fast that was.
pub fn run<C: Calls>(calls: &C, work: &Work) -> io::Result<Sample> {
    let turn = || if work.what.of_names() { names(calls, work) } else { data(calls, work) };
    if work.warm {
        turn()?;
    }
    let begin = Instant::now();
    let operations = turn()?;
    Ok(work.sample(operations, begin.elapsed()))
}

/// Every job does `each` with its number; the sum of what they count.
fn jobs(count: usize, each: impl Fn(usize) -> io::Result<u64> + Sync) -> io::Result<u64> {
    let each = &each;
    thread::scope(|scope| {
        let jobs: Vec<_> = (0..count).map(|job| scope.spawn(move || each(job))).collect();
        jobs.into_iter().map(|job| job.join().expect("a bench thread does not panic")).sum()
    })
}

fn names<C: Calls>(calls: &C, work: &Work) -> io::Result<u64> {
    if work.what == What::Readdir {
        return calls.readdir();
    }
    let passes = if matches!(work.what, What::Stat | What::Open) { WARM_PASSES } else { 1 };
    let share = work.files.div_ceil(work.jobs);
    jobs(work.jobs, |job| {
        let mut done = 0;
        for _ in 0..passes {
            for i in job * share..work.files.min((job + 1) * share) {
                done += name(calls, work.what, &format!("file{i:06}"))?;
            }
        }
        Ok(done)
    })
}

fn name<C: Calls>(calls: &C, what: What, name: &str) -> io::Result<u64> {
    match what {
        What::Create => calls.create(name).and_then(|handle| calls.close(handle))?,
        What::Stat | What::StatOnce => calls.stat(name)?,
        What::Open => calls.open(name, false, false).and_then(|handle| calls.close(handle))?,
        What::Unlink => calls.unlink(name)?,
        What::Mkdir => calls.mkdir(name)?,
        What::Rmdir => calls.rmdir(name)?,
        What::Chmod => calls.chmod(name, 0o640)?,
        What::Rename => {
            let moved = format!("{name}.moved");
            calls.rename(name, &moved)?;
            calls.rename(&moved, name)?;
            return Ok(2);
        }
        _ => return Err(Error::new(ErrorKind::InvalidInput, "not a call of a name")),
    }
    Ok(1)
}

fn data<C: Calls>(calls: &C, work: &Work) -> io::Result<u64> {
    let limit = Duration::from_secs_f64(work.seconds);
    jobs(work.jobs, |job| {
        let mut rng = Rng(job as u64 + 1);
        let random = matches!(work.what, What::ReadRandom | What::WriteRandom);
        let mut buffer = IoBuf::zeroed(if random { PAGE } else { STREAM_BYTES });
        rng.fill(&mut buffer);
        let name = format!("data{job}");
        let handle = match work.what {
            What::Fill => calls.create(&name)?,
            what => calls.open(&name, what.writes(), work.direct)?,
        };
        let (begin, mut done) = (Instant::now(), 0);
        loop {
            let at = match random {
                true if done > 0 && begin.elapsed() >= limit => break,
                true => rng.next() % (work.bytes / PAGE as u64) * PAGE as u64,
                false if done * STREAM_BYTES as u64 >= work.bytes => break,
                false => done * STREAM_BYTES as u64,
            };
            if work.what.writes() {
                buffer[..8].copy_from_slice(&rng.next().to_le_bytes());
                calls.write(&handle, &buffer, at)?;
            } else if calls.read(&handle, &mut buffer, at)? != buffer.len() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            done += 1;
        }
        // What is only in the kernel's cache is not written yet.
        if work.what.writes() {
            calls.sync(&handle)?;
        }
        calls.close(handle)?;
        Ok(done)
    })
}

/// The C library's calls.
pub struct Libc {
    pub folder: PathBuf,
}

impl Calls for Libc {
    type Handle = File;

    fn open(&self, name: &str, writes: bool, direct: bool) -> io::Result<File> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        let mut options = OpenOptions::new();
        options.read(!writes).write(writes).custom_flags(flags).open(self.folder.join(name))
    }

    fn read(&self, file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        file.read_at(buffer, at)
    }

    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn close(&self, file: File) -> io::Result<()> {
        drop(file);
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        File::create_new(self.folder.join(name))
    }

    fn stat(&self, name: &str) -> io::Result<()> {
        // Where Rust's own is statx, of a C program it is this.
        nix::sys::stat::lstat(&self.folder.join(name)).map(drop).map_err(Into::into)
    }

    fn readdir(&self) -> io::Result<u64> {
        let mut entries = 0;
        for entry in fs::read_dir(&self.folder)? {
            entry?;
            entries += 1;
        }
        Ok(entries)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn mkdir(&self, name: &str) -> io::Result<()> {
        fs::create_dir(self.folder.join(name))
    }

    fn rmdir(&self, name: &str) -> io::Result<()> {
        fs::remove_dir(self.folder.join(name))
    }

    fn chmod(&self, name: &str, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.folder.join(name), fs::Permissions::from_mode(mode))
    }
}
