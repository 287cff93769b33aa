//! What is on the lines.

use std::collections::BTreeMap;
use std::path::PathBuf;

use daos_types::rpc::{
    CheckReport, ContainerInfo, ContainerUsage, PoolInfo, Quota, SnapshotInfo, TargetUsage,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::config::SyncMode;
use crate::stats::TargetStats;

/// Both sides say it in every line; another version is refused by number.
pub const VERSION: u32 = 1;
/// Longest line in either direction.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// What can be asked. Pools and containers go by label or UUID.
impl Ask {
    /// Whether its answer takes as long as there is data, and no bound on it means anything.
    pub(crate) fn may_take_long(&self) -> bool {
        !matches!(
            self,
            Self::About
                | Self::PoolList
                | Self::PoolQuery { .. }
                | Self::ContainerList { .. }
                | Self::ContainerQuery { .. }
                | Self::ContainerAttributes { .. }
                | Self::SnapshotList { .. }
                | Self::Stats
        )
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", content = "arguments", rename_all = "kebab-case")]
pub enum Ask {
    /// Answer: `About`.
    About,
    /// Answer: `Pools`.
    PoolList,
    /// Answer: `Pool`.
    PoolQuery { pool: String },
    /// Answer: `Container`.
    ContainerCreate { pool: String, label: String },
    /// Answer: `Containers`.
    ContainerList { pool: String },
    /// Answer: `Container`.
    ContainerQuery { pool: String, container: String },
    /// Refused while the container is mounted. Answer: `Done`.
    ContainerDestroy { pool: String, container: String },
    /// Changes the properties that are given. Answer: `Container`.
    ContainerSetProps {
        pool: String,
        container: String,
        #[serde(default)]
        label: Option<String>,
        #[serde(default)]
        quota: Option<Limits>,
    },
    /// Answer: `Attributes`.
    ContainerAttributes { pool: String, container: String },
    /// Sets attributes, and deletes those that are null; all or none of them. Answer: `Done`.
    ContainerSetAttributes {
        pool: String,
        container: String,
        attributes: BTreeMap<String, Option<String>>,
    },
    /// A snapshot of now: what was acknowledged before this request is in it. Answer: `Snapshot`.
    SnapshotCreate {
        pool: String,
        container: String,
        #[serde(default)]
        name: Option<String>,
    },
    /// Answer: `Snapshots`, oldest first.
    SnapshotList { pool: String, container: String },
    /// By name or epoch. Refused while it is mounted. Answer: `Done`.
    SnapshotDestroy { pool: String, container: String, snapshot: String },
    /// Verifies the store; other requests wait meanwhile. Answer: `Checked`.
    Check { repair: bool },
    /// Reads and verifies some more of what is stored, while it is in use. `place`: where the step before ended; empty at the
    /// start. Answer: `Scrubbed`.
    Scrub { place: String, bytes_max: u64 },
    /// Answer: `Stats`, one for each target.
    Stats,
    /// Everything acknowledged before is on stable media when the answer comes. Answer: `Done`.
    Sync,
    /// The engine's process begins to stop when the answer has gone out, and closes the connection when it has. Answer: `Done`.
    Stop,
    /// For whoever runs the engine: what dfuse knows and the engine does not. Answer: `Filesystem`.
    Filesystem {
        verb: String,
        #[serde(default)]
        arguments: Value,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "kebab-case")]
pub enum Answer {
    Done,
    About(About),
    Pools(Vec<PoolEntry>),
    Pool(PoolDetails),
    Containers(Vec<ContainerEntry>),
    Container(ContainerDetails),
    Attributes(BTreeMap<String, String>),
    Snapshot(SnapshotEntry),
    Snapshots(Vec<SnapshotEntry>),
    Checked(Checked),
    Scrubbed(super::scrub::ScrubStep),
    Stats(Vec<TargetStats>),
    Filesystem(Value),
}

/// Who holds the store, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub pid: u32,
    /// What the process says it is: "dfuse on /mnt/daos".
    pub holder: String,
    pub path: PathBuf,
    /// Version of the program.
    pub program: String,
    pub sync: SyncMode,
    pub read_only: bool,
    pub memory_bytes: u64,
    pub targets: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolEntry {
    pub uuid: Uuid,
    pub label: String,
}

impl From<PoolInfo> for PoolEntry {
    fn from(info: PoolInfo) -> Self {
        Self { uuid: info.id.0, label: info.label }
    }
}

/// A pool and its space, in bytes where not said otherwise. capacity = used + free + reserve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolDetails {
    pub uuid: Uuid,
    pub label: String,
    pub targets: usize,
    pub containers: usize,
    pub capacity: u64,
    pub used: u64,
    pub free: u64,
    /// Kept back for deletes and checkpoints.
    pub reserve: u64,
    /// Of what is used.
    pub metadata: u64,
    pub counters: Vec<(String, u64)>,
    /// Why a target accepts no changes, if one does not.
    pub latched: Option<String>,
}

impl PoolDetails {
    pub(crate) fn new(
        info: PoolEntry,
        targets: usize,
        containers: usize,
        usage: TargetUsage,
    ) -> Self {
        Self {
            uuid: info.uuid,
            label: info.label,
            targets,
            containers,
            capacity: usage.capacity,
            used: usage.capacity.saturating_sub(usage.free).saturating_sub(usage.reserve),
            free: usage.free,
            reserve: usage.reserve,
            metadata: usage.metadata,
            counters: usage.counters,
            latched: usage.latched,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerEntry {
    pub uuid: Uuid,
    pub label: String,
    /// The container's number in its pool.
    pub number: u16,
    /// Nanoseconds since the Unix epoch.
    pub created_ns: u64,
}

impl From<ContainerInfo> for ContainerEntry {
    fn from(info: ContainerInfo) -> Self {
        Self { uuid: info.uuid, label: info.label, number: info.id.0, created_ns: info.created.0 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerDetails {
    #[serde(flatten)]
    pub entry: ContainerEntry,
    pub objects: u64,
    pub stored_bytes: u64,
    pub snapshots: u32,
    pub quota: Limits,
    /// How it is used by the engine's process now: "mounted on /mnt/daos".
    pub in_use: Option<String>,
}

impl ContainerDetails {
    pub(crate) fn new(usage: ContainerUsage, in_use: Option<String>) -> Self {
        Self {
            entry: usage.info.into(),
            objects: usage.objects,
            stored_bytes: usage.stored_bytes,
            snapshots: usage.snapshots,
            quota: usage.quota.into(),
            in_use,
        }
    }
}

/// What a container may hold; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub bytes: u64,
    pub inodes: u64,
}

impl From<Quota> for Limits {
    fn from(quota: Quota) -> Self {
        Self { bytes: quota.bytes, inodes: quota.inodes }
    }
}

impl From<Limits> for Quota {
    fn from(limits: Limits) -> Self {
        Self { bytes: limits.bytes, inodes: limits.inodes }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// Also when it was made, in nanoseconds since the Unix epoch.
    pub epoch: u64,
    pub name: Option<String>,
}

impl From<SnapshotInfo> for SnapshotEntry {
    fn from(info: SnapshotInfo) -> Self {
        Self { epoch: info.epoch.0, name: info.name }
    }
}

/// What a check saw. The store is sound when there are no findings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    pub objects: u64,
    pub keys: u64,
    pub extents: u64,
    pub buckets: u64,
    pub blocks: u64,
    pub findings: Vec<String>,
    /// Those of them that are data.
    pub data: Vec<CheckedData>,
    /// What a repair has done, and what it could not do.
    pub mended: Vec<String>,
    pub unmended: Vec<String>,
}

/// Data that is damaged, and cannot be rebuilt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckedData {
    /// Its place among the findings.
    pub finding: usize,
    /// The container's number.
    pub container: u16,
    /// `hi`, `lo`.
    pub object: [u64; 2],
    /// What is damaged where.
    pub message: String,
}

impl From<CheckReport> for Checked {
    fn from(report: CheckReport) -> Self {
        let CheckReport { objects, keys, extents, buckets, blocks, findings, .. } = report;
        let data = report.data.into_iter().map(|data| CheckedData {
            finding: data.finding,
            container: data.container.0,
            object: [data.object.hi, data.object.lo],
            message: data.damage.to_string(),
        });
        let (data, mended, unmended) = (data.collect(), report.mended, report.unmended);
        Self { objects, keys, extents, buckets, blocks, findings, data, mended, unmended }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The line was not understood.
    Protocol,
    NotFound,
    Exists,
    Invalid,
    InUse,
    ReadOnly,
    NoSpace,
    Damaged,
    /// The engine is stopping or gone; a change that was under way is unknown.
    Stopped,
    /// The process that runs the engine cannot do this.
    Unsupported,
    Failed,
}

impl From<daos_types::Error> for Failure {
    fn from(error: daos_types::Error) -> Self {
        use daos_types::Error as E;
        let kind = match &error {
            E::NonExistent(_) => FailureKind::NotFound,
            E::Exists(_) => FailureKind::Exists,
            E::Invalid(_) | E::TooLarge { .. } => FailureKind::Invalid,
            E::ReadOnly => FailureKind::ReadOnly,
            E::NoSpace | E::Quota => FailureKind::NoSpace,
            E::Damaged(_) => FailureKind::Damaged,
            E::Stopped => FailureKind::Stopped,
            E::SeveralTargets => FailureKind::Unsupported,
            E::Condition { .. } | E::Latched { .. } | E::Device { .. } => FailureKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct AskLine {
    version: u32,
    #[serde(flatten)]
    ask: Ask,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AnswerLine {
    version: u32,
    #[serde(flatten)]
    answer: Option<Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

/// One line, with its end.
pub(super) fn write_ask(ask: &Ask) -> String {
    line(&AskLine { version: VERSION, ask: ask.clone() })
}

pub(super) fn write_answer(answer: Result<Answer, Failure>) -> String {
    let (answer, error) = match answer {
        Ok(answer) => (Some(answer), None),
        Err(failure) => (None, Some(failure)),
    };
    let text = line(&AnswerLine { version: VERSION, answer, error });
    if text.len() <= LINE_BYTES_MAX {
        return text;
    }
    let message = "the answer is longer than a line may be; ask for less";
    write_answer(Err(Failure::new(FailureKind::Failed, message)))
}

fn line(body: &impl Serialize) -> String {
    let mut text =
        serde_json::to_string(body).expect("types of the protocol are all representable");
    text.push('\n');
    text
}

pub(super) fn read_ask(line: &[u8]) -> Result<Ask, Failure> {
    check_version(line)?;
    let parsed: Result<AskLine, _> = serde_json::from_slice(line);
    Ok(parsed.map_err(|error| protocol(format!("the request was not understood: {error}")))?.ask)
}

pub(super) fn read_answer(line: &[u8]) -> Result<Answer, Failure> {
    check_version(line)?;
    let parsed: Result<AnswerLine, _> = serde_json::from_slice(line);
    let parsed =
        parsed.map_err(|error| protocol(format!("the answer was not understood: {error}")))?;
    match (parsed.answer, parsed.error) {
        (_, Some(failure)) => Err(failure),
        (Some(answer), None) => Ok(answer),
        (None, None) => Err(protocol("the answer is of a kind that is not known here")),
    }
}

/// Before the rest is looked at: another version may have other words.
fn check_version(line: &[u8]) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let found: Result<Versioned, _> = serde_json::from_slice(line);
    let found = found
        .map_err(|error| protocol(format!("a line is a JSON object with a version: {error}")))?;
    if found.version == VERSION {
        return Ok(());
    }
    Err(protocol(format!(
        "the other side speaks version {} of the control protocol, this one {VERSION}; use programs of one release",
        found.version
    )))
}

pub(super) fn protocol(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Protocol, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_and_answers_survive_their_lines() {
        let asks = [
            Ask::About,
            Ask::PoolQuery { pool: "default".into() },
            Ask::ContainerDestroy { pool: "p".into(), container: "c".into() },
            Ask::Filesystem { verb: "query".into(), arguments: serde_json::json!({"a": 1}) },
            Ask::Filesystem {
                verb: "query".into(),
                arguments: serde_json::json!([
                    0.100_000_000_000_000_02,
                    2.225_073_858_507_201e-308
                ]),
            },
        ];
        for ask in asks {
            assert_eq!(read_ask(write_ask(&ask).as_bytes()).unwrap(), ask);
        }
        let checked = Answer::Checked(CheckReport::default().into());
        for answer in [Answer::Done, checked, Answer::Pools(vec![])] {
            assert_eq!(read_answer(write_answer(Ok(answer.clone())).as_bytes()).unwrap(), answer);
        }
        let failure = Failure::new(FailureKind::InUse, "x");
        let line = write_answer(Err(failure.clone()));
        assert_eq!(read_answer(line.as_bytes()).unwrap_err(), failure);
    }

    #[test]
    fn request_is_what_a_person_would_write() {
        let line = br#"{"version":1,"request":"container-list","arguments":{"pool":"default"}}"#;
        assert_eq!(read_ask(line).unwrap(), Ask::ContainerList { pool: "default".into() });
        assert_eq!(read_ask(br#"{"version":1,"request":"stop"}"#).unwrap(), Ask::Stop);
    }

    #[test]
    fn other_versions_and_unknown_requests_are_named() {
        let message = |line: &str| read_ask(line.as_bytes()).unwrap_err().message;
        assert!(message(r#"{"version":2,"request":"fly"}"#).contains("version 2"));
        assert!(message(r#"{"version":1,"request":"fly"}"#).contains("fly"));
        assert!(message("[1,2]").contains("JSON object"));
        assert!(message(r#"{"version":1,"request":"pool-query"}"#).contains("not understood"));
    }

    #[test]
    fn answer_too_long_for_a_line_becomes_a_failure() {
        let long = Answer::Filesystem(Value::String("x".repeat(LINE_BYTES_MAX)));
        let failure = read_answer(write_answer(Ok(long)).as_bytes()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Failed);
    }
}
