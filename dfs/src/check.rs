//! The filesystem's checker: walks every name from the root and compares what names, records, back pointers, counts, the
//! inode table and the orphans say of each other, and finds objects that nobody names. An opinion of its own: it shares
//! the codecs with the rest of dfs, not the ways through it.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use daos_client::Container;
use daos_types::rpc::{FetchPart, Fetched, ListedDkey, OPS_MAX, Value};
use daos_types::{Akey, Epoch, ObjectId};

use crate::change::Place;
use crate::keys::{self, Pointer};
use crate::load::{self, decode};
use crate::lookup::check_name;
use crate::mount::{Dfs, MountOptions};
use crate::pages::{self, Dkeys};
use crate::record::{RECORD_BYTES_MAX, Record};
use crate::superblock::Superblock;
use crate::{Error, Ino, Kind, Result};

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    pub directories: u64,
    pub files: u64,
    pub symlinks: u64,
    /// Fifos, sockets, devices.
    pub others: u64,
    /// Names beyond the first of their inode.
    pub links: u64,
    /// Inodes without a name that are, or were at a crash, open.
    pub orphans: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Longest path, in names.
    pub depth_max: u64,
    /// One sentence each; empty when the filesystem is sound.
    pub findings: Vec<String>,
    /// Findings beyond those that are kept.
    pub findings_more: u64,
}

/// Findings that are kept in words.
const FINDINGS_MAX: usize = 1000;

impl Report {
    fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_more += 1;
        }
    }

    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn count(&mut self, kind: Kind) {
        match kind {
            Kind::File => self.files += 1,
            Kind::Directory => self.directories += 1,
            Kind::Symlink => self.symlinks += 1,
            _ => self.others += 1,
        }
    }
}

impl Dfs {
    /// Checks the whole filesystem while it is in use: what is read is a snapshot, made and destroyed here. `progress` is told
    /// how many names were seen, about every thousand.
    pub async fn check(&self, progress: impl FnMut(u64) + Send) -> Result<Report> {
        if self.container.epoch() != Epoch::MAX {
            return Check::run(self.container.clone(), progress).await;
        }
        if self.read_only {
            return Check::run(self.container.clone(), progress).await;
        }
        let snapshot = self.container.snapshot_create(None).await?;
        let report = Check::run(self.container.at(snapshot.epoch), progress).await;
        self.container.snapshot_destroy(snapshot.epoch).await?;
        report
    }
}

/// Checks the filesystem of a container that nobody changes meanwhile. `None`: there is none. One that cannot be mounted for what is
/// stored in it is a finding.
pub async fn check(container: &Container) -> Result<Option<Report>> {
    let options = MountOptions { read_only: true, ..MountOptions::default() };
    match Dfs::mount(container.clone(), options).await {
        Err(Error::NotFormatted) => Ok(None),
        Err(
            error @ (Error::Damaged { .. }
            | Error::Foreign(_)
            | Error::Newer(_)
            | Error::Engine(daos_types::Error::Damaged(_))),
        ) => {
            let mut report = Report::default();
            report.find(format!("it cannot be mounted: {error}"));
            Ok(Some(report))
        }
        mounted => mounted?.check(|_| {}).await.map(Some),
    }
}

/// A name that was seen.
type Seen = (Ino, Bytes);

struct Check<P> {
    container: Container,
    progress: P,
    report: Report,
    /// Objects of the container that nobody has explained yet.
    unexplained: HashSet<ObjectId>,
    /// Inodes with their record in an entry.
    single: HashSet<Ino>,
    /// Names of inodes with their record in the inode table, and what the references say.
    references: HashMap<Ino, Vec<(Seen, Record)>>,
    /// Directories to walk: number, parent, depth.
    walk: VecDeque<(Ino, Ino, u64)>,
    ino_max: u64,
    names: u64,
}

impl<P: FnMut(u64) + Send> Check<P> {
    async fn run(container: Container, progress: P) -> Result<Report> {
        let mut check = Self {
            container,
            progress,
            report: Report::default(),
            unexplained: HashSet::new(),
            single: HashSet::new(),
            references: HashMap::new(),
            walk: VecDeque::new(),
            ino_max: 0,
            names: 0,
        };
        check.list_objects().await?;
        check.check_root().await?;
        while let Some((directory, parent, depth)) = check.walk.pop_front() {
            check.report.depth_max = check.report.depth_max.max(depth);
            check.check_directory(directory, parent, depth).await?;
        }
        let orphans = check.list_orphans().await?;
        check.check_table(&orphans).await?;
        check.check_orphans(&orphans);
        check.check_counters().await?;
        check.check_unexplained().await?;
        Ok(check.report)
    }

    async fn list_objects(&mut self) -> Result<()> {
        self.unexplained.extend(pages::objects(&self.container).await?);
        for own in [keys::SUPERBLOCK_OID, keys::TABLE_OID, keys::ORPHANS_OID] {
            self.unexplained.remove(&own);
        }
        Ok(())
    }

    async fn check_root(&mut self) -> Result<()> {
        let root = Ino::root(self.container.id());
        let place = Place::root();
        let records = self.records(&[place.clone()]).await?;
        match records.into_iter().next().flatten().map(|value| decode(&place, &value)) {
            None => self.report.find("the root directory has no record".into()),
            Some(Err(damage)) => self.report.find(format!("the root directory: {damage}")),
            Some(Ok(record)) => {
                self.check_record("the root directory", &record);
                if record.ino != root {
                    self.report.find(format!("the root directory has inode {}", record.ino));
                }
            }
        }
        let expected = [Pointer::Back(root, Bytes::new())];
        let found = self.pointers(&[keys::directory_oid(root)]).await?;
        for pointers in found {
            self.check_pointers(root, &pointers, &expected);
        }
        self.report.directories += 1;
        self.unexplained.remove(&keys::directory_oid(root));
        self.walk.push_back((root, root, 0));
        Ok(())
    }

    async fn check_directory(&mut self, directory: Ino, parent: Ino, depth: u64) -> Result<()> {
        let oid = keys::directory_oid(directory);
        let mut listing = Dkeys::of(&self.container, oid, &[keys::INODE]);
        let mut subdirectories = 0;
        while let Some(dkeys) = listing.next().await? {
            let mut batch = Vec::new();
            for dkey in &dkeys {
                batch.extend(self.check_entry(directory, oid, dkey));
            }
            subdirectories +=
                batch.iter().filter(|(_, record)| record.kind() == Kind::Directory).count() as u64;
            self.check_inodes(directory, depth, batch).await?;
        }
        let counted = self.counted_subdirectories(oid).await?;
        if counted != Some(subdirectories) {
            let counted = counted.map_or("no number".into(), |count| count.to_string());
            self.report.find(format!(
                "directory {directory} (in {parent}) has {subdirectories} subdirectories, its count says {counted}"
            ));
        }
        Ok(())
    }

    async fn counted_subdirectories(&self, oid: ObjectId) -> Result<Option<u64>> {
        let key = keys::self_key(oid, keys::SUBDIRECTORIES.into());
        let Some(value) = self.container.fetch_single(key).await? else { return Ok(Some(0)) };
        Ok(value.as_ref().try_into().ok().map(u64::from_le_bytes))
    }

    fn check_entry(
        &mut self,
        directory: Ino,
        oid: ObjectId,
        listed: &ListedDkey,
    ) -> Option<(Seen, Record)> {
        let name = Bytes::copy_from_slice(listed.dkey.as_bytes());
        if name == keys::SELF.as_bytes() {
            return None;
        }
        self.names += 1;
        if self.names % 1024 == 0 {
            (self.progress)(self.names);
        }
        let place = Place { object: oid, dkey: listed.dkey.clone() };
        let whose = format!("entry {:?} of directory {directory}", listed.dkey);
        if check_name(&name).is_err() || name == b".."[..] {
            self.report.find(format!("{whose}: such a name cannot be"));
        }
        let Some((_, value)) = listed.values.first() else {
            self.report.find(format!("{whose} has no inode record"));
            return None;
        };
        match decode(&place, value) {
            Ok(record) => {
                self.check_record(&whose, &record);
                Some(((directory, name), record))
            }
            Err(damage) => {
                self.report.find(format!("{whose}: {damage}"));
                None
            }
        }
    }

    /// What a record says of itself.
    fn check_record(&mut self, whose: &str, record: &Record) {
        if record.ino.container() != self.container.id() {
            self.report.find(format!("{whose}: inode {} is of another container", record.ino));
        }
        if record.oid != keys::oid(record.ino, record.kind()) {
            self.report.find(format!(
                "{whose}: inode {} has object {}, which is not its own",
                record.ino, record.oid
            ));
        }
        self.ino_max = self.ino_max.max(record.ino.counter());
    }

    /// Inodes of a batch of entries: their back pointers, and that nobody else has them.
    async fn check_inodes(
        &mut self,
        directory: Ino,
        depth: u64,
        batch: Vec<(Seen, Record)>,
    ) -> Result<()> {
        let (references, singles): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(_, record)| record.is_reference());
        for (seen, record) in references {
            let names = self.references.entry(record.ino).or_default();
            if record.kind() == Kind::Directory && names.is_empty() {
                self.walk.push_back((record.ino, directory, depth + 1));
            }
            names.push((seen, record));
        }
        for batch in singles.chunks(OPS_MAX) {
            let oids: Vec<ObjectId> = batch.iter().map(|(_, record)| record.oid).collect();
            let pointers = self.pointers(&oids).await?;
            for ((seen, record), found) in batch.iter().zip(pointers) {
                let expected = [Pointer::Back(seen.0, seen.1.clone())];
                self.check_pointers(record.ino, &found, &expected);
                self.check_single(directory, depth, record);
            }
            self.add_sizes(batch.iter().map(|(_, record)| record)).await?;
        }
        Ok(())
    }

    fn check_single(&mut self, directory: Ino, depth: u64, record: &Record) {
        let ino = record.ino;
        self.unexplained.remove(&record.oid);
        if !self.single.insert(ino) {
            self.report.find(format!("inode {ino} has a second entry, in directory {directory}"));
            return;
        }
        if record.nlink != 1 {
            self.report.find(format!("inode {ino} has 1 name, its link count is {}", record.nlink));
        }
        self.report.count(record.kind());
        if record.kind() == Kind::Directory {
            self.walk.push_back((ino, directory, depth + 1));
        }
    }

    async fn add_sizes(&mut self, records: impl Iterator<Item = &Record>) -> Result<()> {
        let files: Vec<&Record> = records.filter(|record| record.kind() == Kind::File).collect();
        let parts = files.iter().map(|record| load::object_part(record.oid)).collect();
        let fetched = if files.is_empty() { vec![] } else { self.container.fetch(parts).await? };
        for (record, fetched) in files.iter().zip(fetched) {
            let info = load::read_object(Some(fetched))?;
            let size = load::file_size(record, &info);
            self.report.bytes = self.report.bytes.saturating_add(size);
        }
        Ok(())
    }

    /// Back pointers and names of each object.
    async fn pointers(&self, oids: &[ObjectId]) -> Result<Vec<Vec<Pointer>>> {
        let mut all = Vec::with_capacity(oids.len());
        for batch in oids.chunks(OPS_MAX) {
            let part = |oid: &ObjectId| FetchPart::Akeys {
                object: *oid,
                dkey: keys::self_dkey(*oid),
                prefix: Bytes::new(),
                array_bytes_max: 0,
            };
            for fetched in self.container.fetch(batch.iter().map(part).collect()).await? {
                let Fetched::Akeys(akeys) = fetched else {
                    return Err(Error::Protocol { asked: "back pointers" });
                };
                let pointers = akeys.iter().filter_map(|(akey, _): &(Akey, _)| Pointer::of(akey));
                all.push(pointers.collect());
            }
        }
        Ok(all)
    }

    fn check_pointers(&mut self, ino: Ino, found: &[Pointer], expected: &[Pointer]) {
        for missing in expected.iter().filter(|pointer| !found.contains(pointer)) {
            self.report.find(format!("inode {ino} does not know its name: {}", say(missing)));
        }
        for wrong in found.iter().filter(|pointer| !expected.contains(pointer)) {
            self.report
                .find(format!("inode {ino} believes in a name it does not have: {}", say(wrong)));
        }
    }

    async fn records(&self, places: &[Place]) -> Result<Vec<Option<Value>>> {
        let part = |place: &Place| FetchPart::Akeys {
            object: place.object,
            dkey: place.dkey.clone(),
            prefix: Bytes::from_static(keys::INODE.as_bytes()),
            array_bytes_max: RECORD_BYTES_MAX,
        };
        let mut all = Vec::with_capacity(places.len());
        for fetched in self.container.fetch(places.iter().map(part).collect()).await? {
            let Fetched::Akeys(akeys) = fetched else {
                return Err(Error::Protocol { asked: "records" });
            };
            all.push(akeys.into_iter().next().map(|(_, value)| value));
        }
        Ok(all)
    }

    async fn list_orphans(&mut self) -> Result<HashMap<Ino, Record>> {
        let mut orphans = HashMap::new();
        let mut listing = Dkeys::of(&self.container, keys::ORPHANS_OID, &[keys::INODE]);
        while let Some(dkeys) = listing.next().await? {
            for dkey in &dkeys {
                let place = Place { object: keys::ORPHANS_OID, dkey: dkey.dkey.clone() };
                let value = dkey.values.first().map(|(_, value)| decode(&place, value));
                match (keys::orphan_of(&dkey.dkey), value) {
                    (Some((_, ino)), Some(Ok(record))) if record.ino == ino => {
                        orphans.insert(ino, record);
                    }
                    (_, Some(Err(damage))) => self.report.find(format!("orphan: {damage}")),
                    _ => self.report.find(format!("orphan {:?} is not what it says", dkey.dkey)),
                }
            }
        }
        Ok(orphans)
    }

    async fn check_table(&mut self, orphans: &HashMap<Ino, Record>) -> Result<()> {
        let mut listing = Dkeys::of(&self.container, keys::TABLE_OID, &[keys::INODE]);
        while let Some(dkeys) = listing.next().await? {
            let mut records = Vec::new();
            for dkey in &dkeys {
                let place = Place { object: keys::TABLE_OID, dkey: dkey.dkey.clone() };
                match dkey.values.first().map(|(_, value)| decode(&place, value)) {
                    Some(Ok(record)) if dkey.dkey.to_u64() == Some(record.ino.0) => {
                        records.push(record);
                    }
                    Some(Err(damage)) => self.report.find(format!("inode table: {damage}")),
                    _ => self
                        .report
                        .find(format!("inode table: {:?} holds another inode", dkey.dkey)),
                }
            }
            self.check_table_records(&records, orphans).await?;
        }
        for (ino, names) in std::mem::take(&mut self.references) {
            for ((parent, name), _) in names {
                self.report.find(format!(
                    "entry {:?} of directory {parent} refers to inode {ino}, which the inode table does not have",
                    name.escape_ascii().to_string()
                ));
            }
        }
        Ok(())
    }

    async fn check_table_records(
        &mut self,
        records: &[Record],
        orphans: &HashMap<Ino, Record>,
    ) -> Result<()> {
        let oids: Vec<ObjectId> = records.iter().map(|record| record.oid).collect();
        let pointers = self.pointers(&oids).await?;
        for (record, found) in records.iter().zip(pointers) {
            let ino = record.ino;
            self.check_record(&format!("inode table, inode {ino}"), record);
            self.unexplained.remove(&record.oid);
            let names = self.references.remove(&ino).unwrap_or_default();
            let mut expected = vec![Pointer::InTable];
            for ((parent, name), reference) in &names {
                expected.push(Pointer::Name(*parent, name.clone()));
                if reference.kind() != record.kind() {
                    self.report.find(format!("inode {ino}: a reference says another type"));
                }
            }
            self.check_pointers(ino, &found, &expected);
            if record.nlink as usize != names.len() {
                self.report.find(format!(
                    "inode {ino} has {} names, its link count is {}",
                    names.len(),
                    record.nlink
                ));
            }
            if names.is_empty() {
                if !orphans.get(&ino).is_some_and(Record::is_reference) {
                    self.report.find(format!("inode {ino} has no name and is no orphan"));
                }
                continue;
            }
            self.report.count(record.kind());
            self.report.links += names.len() as u64 - 1;
            if !self.single.insert(ino) {
                self.report.find(format!("inode {ino} is in the inode table and in an entry"));
            }
            if record.kind() == Kind::Directory && names.len() > 1 {
                self.report.find(format!("directory {ino} has {} names", names.len()));
            }
        }
        for batch in records.chunks(OPS_MAX) {
            self.add_sizes(batch.iter()).await?;
        }
        Ok(())
    }

    fn check_orphans(&mut self, orphans: &HashMap<Ino, Record>) {
        for (ino, record) in orphans {
            self.report.orphans += 1;
            self.unexplained.remove(&record.oid);
            self.check_record(&format!("orphan {ino}"), record);
            if self.single.contains(ino) {
                self.report.find(format!("inode {ino} is an orphan and has a name"));
            }
        }
    }

    async fn check_counters(&mut self) -> Result<()> {
        let key = Superblock::counters().key(keys::NEXT_INO);
        let value = self.container.fetch_single(key).await?;
        let next =
            value.and_then(|value| Some(u64::from_le_bytes(value.as_ref().try_into().ok()?)));
        match next {
            Some(next) if next > self.ino_max => {}
            Some(next) => self.report.find(format!(
                "inode number {} exists, but {next} is the next to be leased",
                self.ino_max
            )),
            None => self.report.find("the counter of inode numbers is missing".into()),
        }
        Ok(())
    }

    async fn check_unexplained(&mut self) -> Result<()> {
        let mut lost: Vec<ObjectId> = self.unexplained.drain().collect();
        lost.sort();
        let pointers = self.pointers(&lost).await?;
        for (oid, pointers) in lost.iter().zip(pointers) {
            let believed: Vec<String> = pointers.iter().map(say).collect();
            let believed = if believed.is_empty() { "nothing".into() } else { believed.join(", ") };
            self.report.find(format!("object {oid} belongs to no name; it believes in {believed}"));
        }
        Ok(())
    }
}

fn say(pointer: &Pointer) -> String {
    match pointer {
        Pointer::InTable => "the inode table".into(),
        Pointer::Back(parent, name) => format!("{:?} in {parent}", name.escape_ascii().to_string()),
        Pointer::Name(parent, name) => {
            format!("{:?} in {parent}, as one of several", name.escape_ascii().to_string())
        }
    }
}
