//! The commands: each asks the store and says how its answer looks.

use daos_server::control::{Answer, Ask, Failure, FailureKind};
use daos_types::ByteSize;
use dfs::uns::EntryPoint;
use serde_json::{Value, json};

use crate::args::{Command, Container, Filesystem, Names, Pool, Which, split};
use crate::assign::{self, Props};
use crate::entry;
use crate::oclass::Of;
use crate::output::{Answered, Text};
use crate::status;
use crate::store::{Mended, Store};
use crate::time::utc;

type Result<T> = std::result::Result<T, Failure>;

/// Whether the command changes nothing that lasts, so that a store may be opened read-only for it.
pub fn reads_only(command: &Command) -> bool {
    match command {
        Command::Pool(_) => true,
        Command::Container(
            Container::List { .. }
            | Container::Query(_)
            | Container::GetAttr { .. }
            | Container::ListAttrs { .. }
            | Container::GetProp { .. }
            | Container::ListSnap(_),
        ) => true,
        Command::Container(_) => false,
        Command::Filesystem(Filesystem::Check { repair, .. }) => !repair,
        Command::Filesystem(
            Filesystem::Query { .. }
            | Filesystem::Sync { .. }
            | Filesystem::Scrub(_)
            | Filesystem::GetAttr(_)
            | Filesystem::SetAttr { .. }
            | Filesystem::ResetAttr(_),
        ) => true,
    }
}

/// What is being done, for whoever waits.
pub fn doing(command: &Command) -> &'static str {
    match command {
        Command::Filesystem(Filesystem::Check { .. }) => "checking the store",
        Command::Filesystem(Filesystem::Sync { .. }) => "syncing the store",
        Command::Container(Container::Destroy(_)) => "destroying the container",
        _ => "asking the store",
    }
}

pub fn run(command: Command, store: &mut Store) -> Result<Answered> {
    match command {
        Command::Pool(Pool::List) => pool_list(store),
        Command::Pool(Pool::Query { pool, counters }) => pool_query(store, pool, counters),
        Command::Container(command) => about_container(command, store),
        Command::Filesystem(Filesystem::Check { repair, .. }) => check(store, repair),
        Command::Filesystem(Filesystem::Scrub(_)) => unreachable!("main runs it by itself"),
        Command::Filesystem(Filesystem::Query { pool, container, stats, .. }) => {
            query(store, &pool, &container, stats)
        }
        Command::Filesystem(Filesystem::GetAttr(at)) => crate::layout::get(store, &at),
        Command::Filesystem(Filesystem::SetAttr { at, chunk_size, oclass }) => {
            crate::layout::set(store, &at, chunk_size, oclass.as_deref())
        }
        Command::Filesystem(Filesystem::ResetAttr(at)) => crate::layout::reset(store, &at),
        Command::Filesystem(Filesystem::Sync { .. }) => {
            store.ask(Ask::Sync)?;
            Ok(good(Text::line("everything acknowledged is on stable media"), Value::Null))
        }
    }
}

fn about_container(command: Container, store: &mut Store) -> Result<Answered> {
    match command {
        Container::Create { names, path, properties, attrs, mode, .. } => {
            let props = properties.as_deref().map(assign::parse).transpose().map_err(usage)?;
            let attributes = attrs.as_deref().map(assign::parse).transpose().map_err(usage)?;
            let new = New {
                names: new_names(store, names)?,
                props: Props::parse(props.unwrap_or_default()).map_err(usage)?,
                attributes: assign::attributes(attributes.unwrap_or_default()).map_err(usage)?,
            };
            create(store, new, path.as_deref(), mode)
        }
        Container::Link { names, path, mode } => {
            let (pool, container) = split(&names);
            let found = match store.ask(Ask::ContainerQuery { pool: pool.clone(), container })? {
                Answer::Container(found) => found,
                other => return Err(unexpected(&other)),
            };
            let shown = path.display();
            let done = format!("{shown} shows container '{}' of pool '{pool}'", found.entry.label);
            let point = entry_point_of(store, &pool, &found)?;
            entry::link(store, &path, &point, mode)?;
            Ok(good(Text::line(done), json_of(&found)?))
        }
        Container::List { pool } => container_list(store, pool),
        Container::Query(names) => {
            let (pool, name) = named(&names)?;
            let found = store.ask(Ask::ContainerQuery { pool, container: name })?;
            container("", found)
        }
        Container::Destroy(names) => {
            let (pool, name) = named(&names)?;
            let directory = names.which.path.as_deref().map(entry::removable).transpose()?;
            let done = Text::line(format!("container '{name}' of pool '{pool}' is destroyed"));
            store.ask(Ask::ContainerDestroy { pool, container: name })?;
            // The container first: what is left when this is cut short says that it is gone and can be removed.
            if let Some(directory) = directory {
                entry::remove(&directory)?;
            }
            Ok(good(done, Value::Null))
        }
        Container::GetAttr { which, words } => {
            let (names, wanted) =
                assign::names_and_list(&words, which.path.is_some(), false).map_err(usage)?;
            attributes(store, which_one(&which, names)?, &wanted, true)
        }
        Container::ListAttrs { names, verbose } => attributes(store, named(&names)?, &[], verbose),
        Container::SetAttr { which, words } => {
            let (names, pairs) =
                assign::names_and_pairs(&words, which.path.is_some()).map_err(usage)?;
            let attributes = assign::attributes(pairs).map_err(usage)?;
            let (pool, container) = which_one(&which, names)?;
            store.ask(Ask::ContainerSetAttributes { pool, container, attributes })?;
            Ok(good(Text::default(), Value::Null))
        }
        Container::DelAttr { which, words } => {
            let (names, gone) =
                assign::names_and_list(&words, which.path.is_some(), true).map_err(usage)?;
            let (pool, container) = which_one(&which, names)?;
            let attributes = gone.into_iter().map(|name| (name, None)).collect();
            store.ask(Ask::ContainerSetAttributes { pool, container, attributes })?;
            Ok(good(Text::default(), Value::Null))
        }
        Container::GetProp { which, words } => {
            let (names, wanted) =
                assign::names_and_list(&words, which.path.is_some(), false).map_err(usage)?;
            properties(store, which_one(&which, names)?, &wanted)
        }
        Container::SetProp { which, words } => {
            let (names, pairs) =
                assign::names_and_pairs(&words, which.path.is_some()).map_err(usage)?;
            let Props { label, quota } = Props::parse(pairs).map_err(usage)?;
            let (pool, container) = which_one(&which, names)?;
            store.ask(Ask::ContainerSetProps { pool, container, label, quota })?;
            Ok(good(Text::default(), Value::Null))
        }
        Container::CreateSnap { names, snap } => {
            let (pool, container) = named(&names)?;
            create_snapshot(store, pool, container, snap)
        }
        Container::ListSnap(names) => {
            let (pool, container) = named(&names)?;
            list_snapshots(store, pool, container)
        }
        Container::DestroySnap { names, snap, epc } => {
            let (pool, container) = named(&names)?;
            let snapshot = snap.or(epc.map(|epoch| epoch.to_string()));
            let snapshot = snapshot.ok_or_else(|| usage("name the snapshot with --snap".into()))?;
            let done = Text::line(format!("snapshot '{snapshot}' is destroyed"));
            store.ask(Ask::SnapshotDestroy { pool, container, snapshot })?;
            Ok(good(done, Value::Null))
        }
    }
}

/// A container to be made.
struct New {
    names: (String, String),
    props: Props,
    attributes: std::collections::BTreeMap<String, Option<String>>,
}

/// Pool and label of a new container. Without a label it gets one; one name is the pool's, if there is a pool of that name and
/// the command line could do without a label (clap has seen to that).
fn new_names(store: &mut Store, names: Vec<String>) -> Result<(String, String)> {
    let own_label = || format!("container-{}", uuid::Uuid::new_v4());
    match names.as_slice() {
        [] => Ok((crate::args::POOL_DEFAULT.into(), own_label())),
        [one] => match store.ask(Ask::PoolQuery { pool: one.clone() }) {
            Ok(_) => Ok((one.clone(), own_label())),
            Err(_) => Ok(split(&names)),
        },
        _ => Ok(split(&names)),
    }
}

fn create(
    store: &mut Store,
    new: New,
    path: Option<&std::path::Path>,
    mode: u32,
) -> Result<Answered> {
    if let Some(path) = path {
        entry::check_new(path)?;
    }
    let (pool, label) = new.names;
    let made = match store.ask(Ask::ContainerCreate { pool: pool.clone(), label })? {
        Answer::Container(made) => made,
        other => return Err(unexpected(&other)),
    };
    let container = made.entry.uuid.to_string();
    let finished = finish(store, (&pool, &made), (new.props, new.attributes), path, mode);
    if let Err(failure) = finished {
        // Nothing half made stays behind.
        store.ask(Ask::ContainerDestroy { pool, container })?;
        return Err(failure);
    }
    let found = store.ask(Ask::ContainerQuery { pool, container })?;
    self::container("made", found)
}

fn finish(
    store: &mut Store,
    (pool, made): (&str, &daos_server::control::ContainerDetails),
    (props, attributes): (Props, std::collections::BTreeMap<String, Option<String>>),
    path: Option<&std::path::Path>,
    mode: u32,
) -> Result<()> {
    let (pool, container) = (pool.to_owned(), made.entry.uuid.to_string());
    let Props { label, quota } = props;
    if label.is_some() || quota.is_some() {
        let (pool, container) = (pool.clone(), container.clone());
        store.ask(Ask::ContainerSetProps { pool, container, label, quota })?;
    }
    if !attributes.is_empty() {
        let (pool, container) = (pool.clone(), container.clone());
        store.ask(Ask::ContainerSetAttributes { pool, container, attributes })?;
    }
    match path {
        None => Ok(()),
        Some(path) => {
            let point = entry_point_of(store, &pool, made)?;
            entry::link(store, path, &point, mode)
        }
    }
}

/// By UUIDs, which never change.
fn entry_point_of(
    store: &mut Store,
    pool: &str,
    container: &daos_server::control::ContainerDetails,
) -> Result<EntryPoint> {
    match store.ask(Ask::PoolQuery { pool: pool.to_owned() })? {
        Answer::Pool(pool) => Ok(EntryPoint {
            pool: pool.uuid.to_string(),
            container: container.entry.uuid.to_string(),
        }),
        other => Err(unexpected(&other)),
    }
}

pub fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Invalid, message)
}

/// Pool and container that a command means.
fn named(names: &Names) -> Result<(String, String)> {
    which_one(&names.which, &names.names)
}

fn which_one(which: &Which, names: &[String]) -> Result<(String, String)> {
    match &which.path {
        None => Ok(split(names)),
        Some(path) => entry::container_at(path),
    }
}

fn attributes(
    store: &mut Store,
    (pool, container): (String, String),
    wanted: &[String],
    with_values: bool,
) -> Result<Answered> {
    let label = container.clone();
    let mut found = match store.ask(Ask::ContainerAttributes { pool, container })? {
        Answer::Attributes(attributes) => attributes,
        other => return Err(unexpected(&other)),
    };
    if let Some(none) = wanted.iter().find(|name| !found.contains_key(*name)) {
        let message = format!("container '{label}' has no attribute '{none}'");
        return Err(Failure::new(FailureKind::NotFound, message));
    }
    found.retain(|name, _| wanted.is_empty() || wanted.contains(name));
    let row = |(name, value): (&String, &String)| match with_values {
        true => vec![name.clone(), value.clone()],
        false => vec![name.clone()],
    };
    let headings: &[&str] = if with_values { &["NAME", "VALUE"] } else { &["NAME"] };
    let text = match found.is_empty() {
        true => Text::line("no attributes"),
        false => Text::table(headings, &found.iter().map(row).collect::<Vec<_>>()),
    };
    let json = match with_values {
        true => json_of(&found)?,
        false => json_of(&found.keys().collect::<Vec<_>>())?,
    };
    Ok(good(text, json))
}

/// 0 is no limit.
fn limit(n: u64, shown: String) -> String {
    if n == 0 { "none".into() } else { shown }
}

fn properties(
    store: &mut Store,
    (pool, container): (String, String),
    wanted: &[String],
) -> Result<Answered> {
    let found = match store.ask(Ask::ContainerQuery { pool, container })? {
        Answer::Container(container) => container,
        other => return Err(unexpected(&other)),
    };
    let quota = found.quota;
    let quota_text = format!(
        "bytes {}, inodes {}",
        limit(quota.bytes, size(quota.bytes)),
        limit(quota.inodes, quota.inodes.to_string())
    );
    let label = found.entry.label;
    let mut all = vec![
        ("label", label.clone(), json!(label)),
        ("layout_type", "POSIX".into(), json!("POSIX")),
        ("quota", quota_text, json_of(&quota)?),
    ];
    if let Some(none) = wanted.iter().find(|name| all.iter().all(|(there, ..)| there != name)) {
        let message =
            format!("there is no property '{none}'; there are label, layout_type and quota");
        return Err(Failure::new(FailureKind::NotFound, message));
    }
    all.retain(|(name, ..)| wanted.is_empty() || wanted.iter().any(|w| w == name));
    let rows: Vec<_> =
        all.iter().map(|(name, text, _)| vec![(*name).into(), text.clone()]).collect();
    let json = all.into_iter().map(|(name, _, json)| (name.to_owned(), json)).collect();
    Ok(good(Text::table(&["NAME", "VALUE"], &rows), Value::Object(json)))
}

fn create_snapshot(
    store: &mut Store,
    pool: String,
    container: String,
    name: Option<String>,
) -> Result<Answered> {
    match store.ask(Ask::SnapshotCreate { pool, container, name })? {
        Answer::Snapshot(made) => {
            let name = made.name.as_ref().map(|name| format!(" '{name}'")).unwrap_or_default();
            let text = format!("snapshot{name} of epoch {} is made", made.epoch);
            Ok(good(Text::line(text), json_of(&made)?))
        }
        other => Err(unexpected(&other)),
    }
}

fn list_snapshots(store: &mut Store, pool: String, container: String) -> Result<Answered> {
    match store.ask(Ask::SnapshotList { pool, container })? {
        Answer::Snapshots(snapshots) => {
            let row = |s: &daos_server::control::SnapshotEntry| {
                vec![s.epoch.to_string(), utc(s.epoch), s.name.clone().unwrap_or_default()]
            };
            let text = match snapshots.is_empty() {
                true => Text::line("no snapshots"),
                false => Text::table(
                    &["EPOCH", "MADE", "NAME"],
                    &snapshots.iter().map(row).collect::<Vec<_>>(),
                ),
            };
            Ok(good(text, json_of(&snapshots)?))
        }
        other => Err(unexpected(&other)),
    }
}

pub fn good(text: Text, json: Value) -> Answered {
    Answered { text, json, status: status::DONE }
}

pub fn unexpected(answer: &Answer) -> Failure {
    Failure::new(FailureKind::Protocol, format!("the engine answered something else: {answer:?}"))
}

fn json_of(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Failure::new(FailureKind::Failed, e.to_string()))
}

pub fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

fn pool_list(store: &mut Store) -> Result<Answered> {
    match store.ask(Ask::PoolList)? {
        Answer::Pools(pools) => {
            let rows: Vec<_> =
                pools.iter().map(|p| vec![p.label.clone(), p.uuid.to_string()]).collect();
            Ok(good(Text::table(&["POOL", "UUID"], &rows), json_of(&pools)?))
        }
        other => Err(unexpected(&other)),
    }
}

fn pool_query(store: &mut Store, pool: String, counters: bool) -> Result<Answered> {
    let pool = match store.ask(Ask::PoolQuery { pool })? {
        Answer::Pool(pool) => pool,
        other => return Err(unexpected(&other)),
    };
    let share = |part: u64| match pool.capacity {
        0 => String::new(),
        whole => format!(" ({:.1} %)", part as f64 * 100.0 / whole as f64),
    };
    let mut pairs = vec![
        ("pool", pool.label.clone()),
        ("uuid", pool.uuid.to_string()),
        ("targets", pool.targets.to_string()),
        ("containers", pool.containers.to_string()),
        ("capacity", size(pool.capacity)),
        ("used", format!("{}{}", size(pool.used), share(pool.used))),
        ("  metadata", size(pool.metadata)),
        ("free", format!("{}{}", size(pool.free), share(pool.free))),
        ("reserve", size(pool.reserve)),
    ];
    if let Some(why) = &pool.latched {
        pairs.push(("ACCEPTS NO CHANGES", why.clone()));
    }
    let mut text = Text::pairs(&pairs);
    if counters {
        let rows: Vec<_> =
            pool.counters.iter().map(|(name, n)| vec![name.clone(), n.to_string()]).collect();
        text = text.and(Text::line("")).and(Text::table(&["COUNTER", "VALUE"], &rows));
    }
    Ok(good(text, json_of(&pool)?))
}

fn container_list(store: &mut Store, pool: String) -> Result<Answered> {
    match store.ask(Ask::ContainerList { pool })? {
        Answer::Containers(containers) => {
            let row = |c: &daos_server::control::ContainerEntry| {
                vec![c.label.clone(), c.uuid.to_string(), utc(c.created_ns)]
            };
            let rows: Vec<_> = containers.iter().map(row).collect();
            let text = Text::table(&["CONTAINER", "UUID", "CREATED"], &rows);
            Ok(good(text, json_of(&containers)?))
        }
        other => Err(unexpected(&other)),
    }
}

fn container(done: &str, answer: Answer) -> Result<Answered> {
    let container = match answer {
        Answer::Container(container) => container,
        other => return Err(unexpected(&other)),
    };
    let mut pairs = vec![
        ("container", container.entry.label.clone()),
        ("uuid", container.entry.uuid.to_string()),
        ("number", container.entry.number.to_string()),
        ("created", utc(container.entry.created_ns)),
        ("objects", container.objects.to_string()),
        ("stored", size(container.stored_bytes)),
        ("snapshots", container.snapshots.to_string()),
        ("class of files", Of::Files.class().into()),
        ("of directories", Of::Directories.class().into()),
    ];
    if container.quota.bytes > 0 {
        pairs.push(("most bytes", size(container.quota.bytes)));
    }
    if container.quota.inodes > 0 {
        pairs.push(("most inodes", container.quota.inodes.to_string()));
    }
    if let Some(how) = &container.in_use {
        pairs.push(("in use", how.clone()));
    }
    let text = match done {
        "" => Text::pairs(&pairs),
        done => Text::line(format!("container '{}' is {done}", container.entry.label))
            .and(Text::pairs(&pairs[1..4])),
    };
    Ok(good(text, json_of(&container)?))
}

/// How the store's repair ends what it says of something that is gone (`engine/vos/src/repair.rs`).
const LOST: &str = " is lost";

/// The store's checker, then the filesystems' own, which believes nothing of it.
fn check(store: &mut Store, repair: bool) -> Result<Answered> {
    let Mended { done, undone } = match repair {
        true => store.repair()?,
        false => Mended { done: Vec::new(), undone: Vec::new() },
    };
    let mut report = match store.ask(Ask::Check { repair: false })? {
        Answer::Checked(report) => report,
        other => return Err(unexpected(&other)),
    };
    for data in &report.data {
        // Whoever has the bytes elsewhere can put them back; nothing here has them.
        let whose = store.whose_in_full(data.container, data.object)?;
        report.findings[data.finding] = format!(
            "{whose}: {}: these bytes cannot be rebuilt; restore the file, overwrite them, or remove it",
            data.message
        );
    }
    let filesystems = store.check_filesystems()?;
    let line =
        |text: Text, how: &str, what: &String| text.and(Text::line(format!("{how}: {what}")));
    let told = done.iter().fold(Text::default(), |text, what| line(text, "mended", what));
    let told = undone.iter().fold(told, |text, what| line(text, "not mended", what));
    let mut text = told.and(Text::pairs(&[
        ("objects", report.objects.to_string()),
        ("keys", report.keys.to_string()),
        ("extents", report.extents.to_string()),
        ("buckets", report.buckets.to_string()),
        ("blocks", report.blocks.to_string()),
    ]));
    for checked in &filesystems {
        let (name, found) = (format!("{}/{}", checked.pool, checked.container), &checked.report);
        text = text.and(Text::line(format!(
            "filesystem {name}: {} directories, {} files of {}, {} symlinks, {} others, {} more links, {} orphans",
            found.directories,
            found.files,
            size(found.bytes),
            found.symlinks,
            found.others,
            found.links,
            found.orphans
        )));
        report.findings.extend(found.findings.iter().map(|finding| format!("{name}: {finding}")));
        if found.findings_more > 0 {
            report.findings.push(format!("{name}: and {} findings more", found.findings_more));
        }
    }
    // What the store has lost nobody can mend, sound as the rest may be.
    let has_lost = done.iter().any(|what| what.ends_with(LOST));
    let verdict = match report.findings.len() {
        0 if has_lost => Text::line(
            "the store and its filesystems are sound, without what is lost: files of the inodes that are named above may be empty or shorter; compare them with a backup",
        ),
        0 => Text::line("the store and its filesystems are sound"),
        n => Text::line(format!("{n} findings:")),
    };
    let text = report
        .findings
        .iter()
        .fold(text.and(verdict), |text, finding| text.and(Text::line(format!("  {finding}"))));
    let is_whole = report.findings.is_empty() && !has_lost;
    let status = if is_whole { status::DONE } else { status::DAMAGED };
    let mut json = json_of(&report)?;
    json["filesystems"] = json_of(&filesystems)?;
    json["mended"] = done.into();
    json["unmended"] = undone.into();
    Ok(Answered { text, json, status })
}

fn query(store: &mut Store, pool: &str, container: &str, stats: bool) -> Result<Answered> {
    let mut found = store.filesystem(pool, container)?;
    let mut text = filesystem_text(&found);
    if stats {
        let targets = match store.ask(Ask::Stats)? {
            Answer::Stats(targets) => targets,
            other => return Err(unexpected(&other)),
        };
        for (index, target) in targets.iter().enumerate() {
            let row = |l: &daos_server::Latency| {
                let us = |us: u64| format!("{us} us");
                vec![
                    l.name.clone(),
                    l.count.to_string(),
                    us(l.mean_us),
                    us(l.p50_us),
                    us(l.p99_us),
                    us(l.max_us),
                ]
            };
            let rows: Vec<_> = target.requests.iter().chain(&target.stages).map(row).collect();
            text = text
                .and(Text::line(format!("\ntarget {index}, {} requests failed", target.failed)))
                .and(Text::table(
                    &["REQUEST OR STAGE", "COUNT", "MEAN", "P50", "P99", "MAX"],
                    &rows,
                ));
        }
        found["targets"] = json_of(&targets)?;
    }
    Ok(good(text, found))
}

/// The object of `dfuse`'s and [`Store::filesystem`]'s answers; what is not in it is not shown.
fn filesystem_text(found: &Value) -> Text {
    let pairs = filesystem_pairs(found);
    match found["door"]["operations"].as_object().filter(|operations| !operations.is_empty()) {
        Some(operations) => pairs.and(Text::line("")).and(door_text(operations)),
        None => pairs,
    }
}

/// What programs under libpil4dfs.so have asked.
fn door_text(operations: &serde_json::Map<String, Value>) -> Text {
    let row = |(operation, latency): (&String, &Value)| {
        let number = |name: &str| latency[name].as_u64().unwrap_or_default();
        let us = |name: &str| format!("{:.1} us", number(name) as f64 / 1000.0);
        let count = number("count").to_string();
        vec![operation.clone(), count, us("p50_ns"), us("p99_ns"), us("max_ns")]
    };
    let rows: Vec<_> = operations.iter().map(row).collect();
    Text::table(&["AT THE DOOR", "COUNT", "P50", "P99", "MAX"], &rows)
}

fn filesystem_pairs(found: &Value) -> Text {
    let text = |name: &str| found[name].as_str().map(str::to_owned);
    let number = |name: &str| found[name].as_u64().map(|n| n.to_string());
    let bytes = |name: &str| found["space"][name].as_u64().map(size);
    let inodes = found["space"]["inodes"].as_u64().map(|n| n.to_string());
    let requests = found["requests"].as_object().map(|kinds| {
        let kinds: Vec<_> = kinds.iter().map(|(name, n)| format!("{name} {n}")).collect();
        kinds.join(", ")
    });
    let door = found["door"].as_object().map(|counts| {
        let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or_default();
        format!("{} clients, {} files, {} calls", count("clients"), count("files"), count("calls"))
    });
    let flag = |name: &str| found[name].as_bool().map(|b| if b { "yes" } else { "no" }.to_owned());
    let pairs: Vec<(&str, String)> = [
        ("mountpoint", text("mountpoint")),
        ("store", text("store")),
        ("pool", text("pool")),
        ("container", text("container")),
        ("snapshot", text("snapshot")),
        ("process", number("pid")),
        ("sync", text("sync")),
        ("read-only", flag("read_only")),
        ("caching", flag("caching")),
        ("threads", number("threads")),
        ("in flight", number("requests_in_flight")),
        ("requests", requests),
        ("door", door),
        ("capacity", bytes("capacity")),
        ("free", bytes("free")),
        ("available", bytes("available")),
        ("inodes", inodes),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    Text::pairs(&pairs)
}

/// What [`Store::filesystem`] says of a filesystem that is not mounted.
pub fn unmounted(
    store: &std::path::Path,
    pool: &str,
    container: &str,
    space: &dfs::Space,
) -> Value {
    json!({
        "mountpoint": null,
        "store": store,
        "pool": pool,
        "container": container,
        "space": {
            "capacity": space.capacity,
            "free": space.free,
            "available": space.available,
            "inodes": space.inodes,
        },
    })
}
