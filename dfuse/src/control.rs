//! What the control socket answers that only a mount knows.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use daos_server::Handler;
use daos_server::control::{Failure, FailureKind};
use daos_types::ContainerId;
use dfs::Dfs;
use futures_lite::future::block_on;
use serde_json::{Value, json};

use crate::daemon::Event;
use crate::exec::Executor;
use crate::fuse::Requests;
use crate::options::Settings;

pub struct Control {
    pub settings: Settings,
    pub container: ContainerId,
    pub dfs: Arc<Dfs>,
    pub executor: Executor,
    pub requests: Arc<Requests>,
    pub events: Mutex<Sender<Event>>,
}

impl Control {
    /// Checks the mounted filesystem as it is now, while it is in use.
    fn check(&self) -> Result<Value, Failure> {
        let failed = |e: String| Failure::new(FailureKind::Failed, e);
        let report = block_on(self.dfs.check(|_| {})).map_err(|e| failed(e.to_string()))?;
        let settings = &self.settings;
        let report = serde_json::to_value(report).map_err(|e| failed(e.to_string()))?;
        Ok(json!({ "pool": settings.pool, "container": settings.container, "report": report }))
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
        let whose = block_on(self.dfs.whose(container, daos_types::ObjectId { hi, lo }));
        let whose = whose.map_err(|e| Failure::new(FailureKind::Failed, e.to_string()))?;
        Ok(json!({ "whose": whose.to_string() }))
    }

    fn query(&self) -> Result<Value, Failure> {
        let space = block_on(self.dfs.statfs())
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
            "read_only": settings.read_only,
            "caching": settings.caching,
            "threads": settings.threads,
            "requests_in_flight": self.executor.in_flight(),
            "requests": requests,
            "space": {
                "capacity": space.capacity,
                "free": space.free,
                "available": space.available,
                "inodes": space.inodes - space.inodes_free,
            },
        }))
    }
}

impl Handler for Control {
    fn in_use(&self, container: ContainerId) -> Option<String> {
        let at = self.settings.mountpoint.display();
        (container == self.container).then(|| format!("mounted on {at}"))
    }

    fn filesystem(&self, verb: &str, arguments: Value) -> Result<Value, Failure> {
        match verb {
            "query" => self.query(),
            "check" => self.check(),
            "whose" => self.whose(&arguments),
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
