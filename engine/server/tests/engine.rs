//! An engine on real files: what survives stop and death, and who may open what.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use daos_client::Object;
use daos_server::control::{Answer, Ask};
use daos_server::{Door, Engine, EngineConfig, Error, NoHandler, SyncMode};
use daos_types::{Error as TypesError, ObjectClass, ObjectId, ObjectType};
use futures_lite::future::block_on;

const DIRECTORY: ObjectId = ObjectId::new(ObjectType::MultiHashed, ObjectClass::SX, 0, 1);
const FILE: ObjectId = ObjectId::new(ObjectType::ArrayByte, ObjectClass::SX, 0, 2);

fn config(path: &Path) -> EngineConfig {
    EngineConfig { create: true, size: Some(256 << 20), ..EngineConfig::new(path, "the test") }
}

fn object(engine: &Engine, id: ObjectId) -> Object {
    engine.container("default", "home", false).unwrap().object(id)
}

fn block(byte: u8) -> Bytes {
    vec![byte; 100_000].into()
}

#[test]
fn containers_and_what_is_in_them_survive_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("store");
    let engine = Engine::start(config(&path)).unwrap();
    let home = engine.container("default", "home", true).unwrap();
    let other = engine.container("default", "other", true).unwrap();
    block_on(async {
        home.object(DIRECTORY).update_single("name", "inode", "value").await.unwrap();
        home.object(FILE).update_array(chunk(1), "0", 7, block(9)).await.unwrap();
        other.pool().container_destroy("other").await.unwrap();
    });
    engine.stop().unwrap();

    let engine = Engine::start(EngineConfig::new(&path, "the test")).unwrap();
    let found = engine.container("default", &home.info().uuid.to_string(), false).unwrap();
    assert_eq!(found.info(), home.info());
    assert!(matches!(engine.container("default", "other", false), Err(Error::NoContainer { .. })));
    block_on(async {
        let name = found.object(DIRECTORY).fetch_single("name", "inode").await.unwrap();
        assert_eq!(name, Some(Bytes::from("value")));
        let read = found.object(FILE).fetch_array(chunk(1), "0", 7, 100_000).await.unwrap();
        assert!(read == block(9));
        // A number is not given out again while the store may remember it.
        let new = found.pool().container_create("new").await.unwrap();
        assert!(new.id() != found.id());
        // Handles of an engine that has stopped say so.
        let stopped = home.object(DIRECTORY).fetch_single("name", "inode").await;
        assert_eq!(stopped, Err(TypesError::Stopped));
    });
}

fn chunk(number: u64) -> daos_types::Dkey {
    daos_types::Dkey::from_u64(number)
}

#[test]
fn store_that_is_not_there_is_not_made_by_accident() {
    let root = tempfile::tempdir().unwrap();
    let missing =
        Engine::start(EngineConfig::new(root.path().join("x"), "the test")).err().unwrap();
    assert!(matches!(&missing, Error::NoStore { .. }), "{missing}");
    assert!(missing.to_string().contains("dfuse --embedded"), "{missing}");
    assert!(!root.path().join("x").exists());
    let empty = Engine::start(EngineConfig::new(root.path(), "the test")).err().unwrap();
    assert!(matches!(&empty, Error::NoStore { .. }), "{empty}");
    let read_only = EngineConfig { read_only: true, ..config(root.path()) };
    assert!(matches!(Engine::start(read_only), Err(Error::NoStore { .. })));
}

#[test]
fn file_of_something_else_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let mut image = vec![0u8; 64 << 20];
    image[1024 + 56..1024 + 58].copy_from_slice(&0xef53u16.to_le_bytes());
    std::fs::write(root.path().join("target-0"), &image).unwrap();
    let refused = Engine::start(config(root.path())).err().unwrap().to_string();
    assert!(refused.contains("ext"), "{refused}");
    assert!(std::fs::read(root.path().join("target-0")).unwrap() == image);
}

#[test]
fn store_whose_file_was_emptied_is_not_replaced_by_a_new_one() {
    let root = tempfile::tempdir().unwrap();
    let engine = Engine::start(config(root.path())).unwrap();
    engine.container("default", "home", true).unwrap();
    engine.stop().unwrap();
    let file = root.path().join("target-0");
    let whole = std::fs::read(&file).unwrap();
    for bytes in [0, whole.len() as u64] {
        std::fs::File::create(&file).unwrap().set_len(bytes).unwrap();
        let refused = Engine::start(config(root.path())).err().unwrap();
        assert!(matches!(&refused, Error::Emptied { .. }), "{refused}");
        assert!(refused.to_string().contains("remove it to begin anew"), "{refused}");
        let kept = std::fs::read(&file).unwrap();
        assert!(kept.len() as u64 == bytes && kept.iter().all(|byte| *byte == 0));
    }
    std::fs::write(&file, &whole).unwrap();
    Engine::start(config(root.path())).unwrap().container("default", "home", false).unwrap();
    std::fs::remove_file(&file).unwrap();
    Engine::start(config(root.path())).unwrap().stop().unwrap();
}

#[test]
fn first_use_that_was_interrupted_is_begun_again() {
    // What ends while it makes the file leaves one of these.
    let whole = tempfile::tempdir().unwrap();
    Engine::start(config(whole.path())).unwrap().stop().unwrap();
    let formatted = std::fs::read(whole.path().join("target-0")).unwrap();
    for left in [&[][..], &[0; 8192], &formatted] {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("target-0.new"), left).unwrap();
        let without = Engine::start(EngineConfig::new(root.path(), "the test")).err().unwrap();
        assert!(matches!(&without, Error::NoStore { .. }), "{without}");
        let engine = Engine::start(config(root.path())).unwrap();
        assert_eq!(engine.bytes(), 256 << 20);
        engine.container("default", "home", true).unwrap();
        engine.stop().unwrap();
        assert!(!root.path().join("target-0.new").exists());
        assert!(root.path().join("target-0").exists());
    }
}

#[test]
fn read_only_engine_reads_and_refuses_changes() {
    let root = tempfile::tempdir().unwrap();
    let engine = Engine::start(config(root.path())).unwrap();
    engine.container("default", "home", true).unwrap();
    block_on(object(&engine, DIRECTORY).update_single("d", "a", "1")).unwrap();
    engine.stop().unwrap();

    let read_only = EngineConfig { read_only: true, ..EngineConfig::new(root.path(), "the test") };
    let engine = Engine::start(read_only).unwrap();
    let object = object(&engine, DIRECTORY);
    assert_eq!(block_on(object.fetch_single("d", "a")), Ok(Some(Bytes::from("1"))));
    let refused = block_on(object.update_single("d", "a", "2"));
    assert_eq!(refused.err(), Some(TypesError::ReadOnly));
    assert!(engine.container("default", "new", true).is_err());
    engine.stop().unwrap();
}

#[test]
fn commands_open_a_store_that_nobody_holds() {
    let root = tempfile::tempdir().unwrap();
    let engine = Engine::start(config(root.path())).unwrap();
    engine.container("default", "home", true).unwrap();
    engine.stop().unwrap();
    let mut door = Door::open(EngineConfig::new(root.path(), "daos")).unwrap();
    assert!(!door.is_daemon());
    let Answer::Pool(pool) = door.ask(Ask::PoolQuery { pool: "default".into() }).unwrap() else {
        panic!()
    };
    assert_eq!((pool.containers, &pool.latched), (1, &None));
    assert!(pool.capacity > 200 << 20 && pool.free > pool.capacity / 2, "{pool:?}");
    let Answer::Checked(checked) = door.ask(Ask::Check { repair: false }).unwrap() else {
        panic!()
    };
    assert_eq!(checked.findings, Vec::<String>::new());
    let Answer::Stats(stats) = door.ask(Ask::Stats).unwrap() else { panic!() };
    assert!(stats[0].requests.iter().any(|kind| kind.name == "query" && kind.count > 0));
    door.close().unwrap();
}

/// A process with an engine that writes until it is killed; it says the number of each write that was acknowledged.
struct Writer {
    child: Child,
    said: std::io::Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn start(path: &Path, sync: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env("WRITER_STORE", path)
            .env("WRITER_SYNC", sync)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// Waits until a write of at least this number was acknowledged.
    fn wait_for(&mut self, number: u64) -> u64 {
        for line in self.said.by_ref() {
            let found = line.unwrap().rsplit(' ').next().and_then(|word| word.parse().ok());
            if let Some(found) = found.filter(|found| *found >= number) {
                return found;
            }
        }
        panic!("the writer ended before write {number}");
    }

    /// Kills it; the last write that it said.
    fn kill(mut self, mut last: u64) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for line in self.said.by_ref() {
            let number = line.unwrap().rsplit(' ').next().and_then(|word| word.parse().ok());
            last = number.unwrap_or(last);
        }
        last
    }
}

#[test]
#[ignore = "the process that the next test starts and kills"]
fn writer() {
    let Some(path) = std::env::var_os("WRITER_STORE") else { return };
    let mut config = config(Path::new(&path));
    if std::env::var("WRITER_SYNC").unwrap() == "always" {
        config.sync = SyncMode::Always;
    }
    config.holder = "the writer".into();
    let engine = Engine::start(config).unwrap();
    let home = engine.container("default", "home", true).unwrap();
    let _control = engine.serve_control(Arc::new(NoHandler)).unwrap();
    let stop = home.object(DIRECTORY);
    let first = block_on(stop.fetch_single("last", "n")).unwrap();
    let first = first.map_or(0, |n| u64::from_le_bytes(n.as_ref().try_into().unwrap()));
    for number in first + 1.. {
        // One transaction: the count and a file whose bytes tell which write they are of.
        let mut transaction = home.transaction();
        transaction
            .update_single(home.object(DIRECTORY).key("last", "n"), number.to_le_bytes().to_vec());
        let key = home.object(FILE).key(chunk(number % 50), "0");
        transaction.update_array(key, number % 3 * 1000, block(number as u8));
        block_on(transaction.commit()).unwrap();
        println!("acknowledged {number}");
    }
}

#[test]
fn killed_engine_unlocks_its_store_and_loses_nothing_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let mut last = 0;
    for sync in ["posix", "always", "posix"] {
        let mut writer = Writer::start(root.path(), sync);
        last = writer.wait_for(last + 100);
        let pid = writer.child.id();
        let refused = Engine::start(config(root.path())).err().unwrap().to_string();
        assert!(refused.contains(&format!("process {pid} (the writer)")), "{refused}");
        let mut door = Door::open(EngineConfig::new(root.path(), "daos")).unwrap();
        assert!(matches!(door.ask(Ask::About), Ok(Answer::About(about)) if about.pid == pid));
        last = writer.kill(last);

        let begin = std::time::Instant::now();
        let engine = Engine::start(config(root.path())).unwrap();
        assert!(begin.elapsed().as_secs() < 2, "recovery took {:?}", begin.elapsed());
        let count =
            block_on(object(&engine, DIRECTORY).fetch_single("last", "n")).unwrap().unwrap();
        let count = u64::from_le_bytes(count.as_ref().try_into().unwrap());
        // The write after the last that was said may have happened too: its answer was on the way.
        assert!(
            (last..=last + 1).contains(&count),
            "{count} writes are there, {last} were acknowledged"
        );
        for number in count.saturating_sub(49).max(1)..=count {
            let file = object(&engine, FILE);
            let read = file.fetch_array(chunk(number % 50), "0", number % 3 * 1000, 100_000);
            assert!(block_on(read).unwrap() == block(number as u8), "write {number} of {count}");
        }
        let mut door = Door::Direct(Box::new(engine));
        let Answer::Checked(checked) = door.ask(Ask::Check { repair: false }).unwrap() else {
            panic!()
        };
        assert_eq!(checked.findings, Vec::<String>::new());
        door.close().unwrap();
        last = count;
    }
}
