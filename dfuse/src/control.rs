//! What the control socket answers that only a mount knows.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daos_server::control::{Failure, FailureKind};
use daos_server::{Claim, Handler};
use daos_types::{ContainerId, Epoch, ObjectClass};
use dfs::uns::EntryPoint;
use dfs::{Caller, Ino};
use futures_lite::future::block_on;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::beside::{Beside, Shown, View};
use crate::containers;
use crate::daemon::Event;
use crate::door::{Desk, Latency};
use crate::notices::Notice;

/// For the kernel to take notices: it waits for requests in progress.
const NOTICE_PATIENCE: Duration = Duration::from_secs(5);

pub struct Control {
    /// The mount that the daemon was started for.
    pub own: Arc<View>,
    pub beside: Arc<Beside>,
    pub events: Mutex<Sender<Event>>,
}

/// Which mount is asked, by `st_dev` of what is in it.
#[derive(Deserialize)]
struct Of {
    #[serde(default)]
    device: Option<(u32, u32)>,
}

/// Where an entry point is to be, and what it shows: the arguments of `link`.
#[derive(Deserialize)]
struct Link {
    /// The directory's inode, as `stat` shows it.
    parent: u64,
    /// The bytes of the name.
    name: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    pool: String,
    container: String,
}

/// An inode, and for `set-chunk` the bytes of its chunk; none for the container's.
#[derive(Deserialize)]
struct About {
    ino: u64,
    #[serde(default)]
    chunk_bytes: Option<u64>,
}

fn understood<T: serde::de::DeserializeOwned>(arguments: Value) -> Result<T, Failure> {
    serde_json::from_value(arguments)
        .map_err(|e| Failure::new(FailureKind::Protocol, e.to_string()))
}

fn failure(error: dfs::Error) -> Failure {
    let kind = match &error {
        dfs::Error::Exists => FailureKind::Exists,
        dfs::Error::NoEntry | dfs::Error::EntryPoint(_) => FailureKind::NotFound,
        dfs::Error::ReadOnly => FailureKind::ReadOnly,
        dfs::Error::Invalid(_) | dfs::Error::NotPermitted(_) => FailureKind::Invalid,
        dfs::Error::Engine(e) => Failure::from(e.clone()).kind,
        _ => FailureKind::Failed,
    };
    Failure::new(kind, error.to_string())
}

impl Control {
    /// The mount that `arguments` name, the daemon's own if none.
    fn view(&self, arguments: &Value) -> Result<Arc<View>, Failure> {
        let of = Of::deserialize(arguments).ok().and_then(|of| of.device);
        if of.is_none() || self.own.device.is_none() {
            return Ok(self.own.clone());
        }
        self.views().into_iter().find(|view| view.device == of).ok_or_else(|| {
            let message = "the mount that the path was in is gone; mount it again, or name a path in one that is there";
            Failure::new(FailureKind::NotFound, message)
        })
    }

    fn views(&self) -> Vec<Arc<View>> {
        let mut views = self.beside.views();
        views.push(self.own.clone());
        views
    }

    fn check(&self) -> Result<Value, Failure> {
        let checked = block_on(self.own.namespace.containers.check()).map_err(failure)?;
        serde_json::to_value(checked).map_err(|e| Failure::new(FailureKind::Failed, e.to_string()))
    }

    /// Whose an object is that a scrub names: `{"container": number, "object": [hi, lo]}`.
    fn whose(&self, arguments: &Value) -> Result<Value, Failure> {
        let container = arguments["container"].as_u64().and_then(|id| u16::try_from(id).ok());
        let object = &arguments["object"];
        let (Some(container), Some(hi), Some(lo)) =
            (container, object[0].as_u64(), object[1].as_u64())
        else {
            return Err(Failure::new(FailureKind::Invalid, "whose: a container and an object"));
        };
        let containers = &self.own.namespace.containers;
        let shown = containers.get(ContainerId(container)).unwrap_or(containers.root().clone());
        let whose = block_on(shown.dfs.whose(container, daos_types::ObjectId { hi, lo }));
        let whose = whose.map_err(|e| Failure::new(FailureKind::Failed, e.to_string()))?;
        Ok(json!({ "whose": whose.to_string() }))
    }
}

impl View {
    fn root(&self) -> &containers::Shown {
        self.namespace.containers.root()
    }

    /// Of an inode, as `stat` shows its number.
    fn layout(&self, arguments: Value) -> Result<Value, Failure> {
        let about: About = understood(arguments)?;
        let (ino, shown) = self.of(about.ino)?;
        let layout = block_on(shown.dfs.layout(ino)).map_err(failure)?;
        Ok(json!({
            "oid": format!("{:x}.{:x}", layout.object.hi, layout.object.lo),
            "class": if layout.object.class() == ObjectClass::S1 { "S1" } else { "SX" },
            "chunk_bytes": layout.chunk_bytes,
            "directory": layout.kind == dfs::Kind::Directory,
        }))
    }

    fn set_chunk(&self, arguments: Value) -> Result<Value, Failure> {
        let about: About = understood(arguments)?;
        let (ino, shown) = self.of(about.ino)?;
        block_on(shown.dfs.set_chunk(ino, about.chunk_bytes)).map_err(failure)?;
        self.namespace.notices.push(Notice::Attributes(ino));
        self.tell();
        Ok(Value::Null)
    }

    fn of(&self, ino: u64) -> Result<(Ino, Arc<containers::Shown>), Failure> {
        let ino = self.ino(ino);
        Ok((ino, block_on(self.namespace.containers.of(ino)).map_err(failure)?))
    }

    /// In the mount the root directory is number 1.
    fn ino(&self, ino: u64) -> Ino {
        if ino == 1 { self.root().dfs.root() } else { Ino(ino) }
    }

    fn link(&self, arguments: Value) -> Result<Value, Failure> {
        let link: Link = understood(arguments)?;
        let parent = self.ino(link.parent);
        let point = EntryPoint { pool: link.pool, container: link.container };
        let caller = Caller::new(link.uid, link.gid);
        let linked = self.namespace.link((parent, &link.name), link.mode, caller, &point);
        block_on(linked).map_err(failure)?;
        self.tell();
        Ok(Value::Null)
    }

    /// Whoever asked finds that the kernel shows what was done.
    fn tell(&self) {
        if !self.namespace.notices.delivered(NOTICE_PATIENCE) {
            tracing::warn!("the kernel has not taken every notice yet");
        }
    }

    fn query(&self) -> Result<Value, Failure> {
        let space = block_on(self.root().dfs.statfs())
            .map_err(|e| Failure::new(FailureKind::Failed, e.to_string()))?;
        let settings = &self.settings;
        let requests: BTreeMap<_, _> = self.requests.counts().into_iter().collect();
        Ok(json!({
            "mountpoint": settings.mountpoint,
            "store": settings.store,
            "pool": settings.pool,
            "container": settings.container,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "sync": format!("{:?}", settings.sync).to_lowercase(),
            "read_only": self.root().dfs.read_only(),
            "snapshot": settings.snap,
            "containers": self.namespace.containers.len(),
            "caching": settings.caching,
            "threads": settings.threads,
            "requests_in_flight": self.executor.in_flight(),
            "requests": requests,
            "door": self.desk.as_ref().map(|desk| json!({
                "clients": desk.clients.count(),
                "calls": desk.calls(),
                "files": desk.grants.count(),
                "operations": operations(desk),
            })),
            "space": {
                "capacity": space.capacity,
                "free": space.free,
                "available": space.available,
                "inodes": space.inodes - space.inodes_free,
            },
        }))
    }
}

/// What was asked at the door, and how long it took; what nobody has asked is not there.
fn operations(desk: &Desk) -> Value {
    let asked = desk.stats.report().into_iter().filter(|latency| latency.count > 0);
    let object = |l: Latency| {
        let numbers = json!({
            "count": l.count, "p50_ns": l.p50_ns, "p99_ns": l.p99_ns, "max_ns": l.max_ns,
        });
        (l.operation.to_owned(), numbers)
    };
    Value::Object(asked.map(object).collect())
}

impl Handler for Control {
    fn in_use(&self, container: ContainerId) -> Option<String> {
        if let Some(how) = self.beside.shows(Shown { container, snapshot: None }) {
            return Some(how);
        }
        let at = self.own.settings.mountpoint.display();
        if container == self.own.root().id() {
            return Some(format!("mounted on {at}"));
        }
        let used = |view: Arc<View>| {
            let at = view.settings.mountpoint.display();
            let shown = view.namespace.containers.get(container)?;
            let open = block_on(shown.dfs.query()).ok()?.files_open;
            (open > 0).then(|| format!("shown in {at}, with {open} files open"))
        };
        self.views().into_iter().find_map(used)
    }

    fn claim(
        &self,
        container: ContainerId,
        snapshot: Option<Epoch>,
    ) -> Result<Box<dyn Claim>, String> {
        // What is mounted beside comes and goes; the daemon's own is there from before the first question to its end.
        let claim = self.beside.claim_to_destroy(Shown { container, snapshot })?;
        let at = self.own.settings.mountpoint.display();
        let is_ours = container == self.own.root().id() && snapshot == self.own.snapshot;
        let used = match snapshot {
            Some(_) => is_ours.then(|| format!("mounted on {at}")),
            None => self.in_use(container),
        };
        used.map_or(Ok(Box::new(claim)), Err)
    }

    fn changed(&self, container: ContainerId) {
        for view in self.views() {
            block_on(view.namespace.changed(container));
            view.tell();
        }
    }

    fn filesystem(&self, verb: &str, arguments: Value) -> Result<Value, Failure> {
        match verb {
            "query" => self.view(&arguments)?.query(),
            "check" => self.check(),
            "whose" => self.whose(&arguments),
            "link" => self.view(&arguments)?.link(arguments),
            "layout" => self.view(&arguments)?.layout(arguments),
            "set-chunk" => self.view(&arguments)?.set_chunk(arguments),
            "mount" => self.beside.mount(arguments).map(Value::from),
            _ => Err(Failure::new(
                FailureKind::Unsupported,
                format!(
                    "this dfuse does not know the request '{verb}'; use programs of one release"
                ),
            )),
        }
    }

    fn stop(&self) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails when it is stopping already.
        let _ = events.send(Event::Asked("through the control socket"));
    }
}
