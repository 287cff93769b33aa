//! The client: the targets of one system, and what concerns them all.

use std::sync::Arc;

use daos_fabric::Caller;
use daos_types::rpc::{CheckReport, PoolInfo, Reply, Request, TargetUsage};
use daos_types::{Error, Noun, PoolId, Result, check_label};
use uuid::Uuid;

use crate::merge;
use crate::pool::Pool;
use crate::route::TargetIndex;
use crate::scrub::Scrub;

/// A way to every target. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    targets: Arc<[Caller]>,
}

impl Client {
    /// # Panics
    /// If there is no target.
    #[must_use]
    pub fn new(targets: Vec<Caller>) -> Self {
        assert!(!targets.is_empty(), "a system has a target");
        Self { targets: targets.into() }
    }

    #[must_use]
    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    pub async fn pools(&self) -> Result<Vec<PoolInfo>> {
        match self.call(LEADER, Request::PoolList).await? {
            Reply::Pools(pools) => Ok(pools),
            other => unexpected(&other),
        }
    }

    /// The pool with this label or UUID.
    pub async fn pool(&self, name: &str) -> Result<Pool> {
        let pools = self.pools().await?;
        let uuid = Uuid::parse_str(name).ok();
        let named = |info: &PoolInfo| info.label == name || Some(info.id.0) == uuid;
        let info = pools.into_iter().find(named).ok_or(Error::NonExistent(Noun::Pool))?;
        Ok(Pool::new(self.clone(), info))
    }

    pub async fn pool_create(&self, label: &str) -> Result<Pool> {
        check_label(label)?;
        let info = PoolInfo { id: PoolId(Uuid::new_v4()), label: label.to_owned() };
        self.call_each(Request::PoolCreate { id: info.id, label: info.label.clone() }).await?;
        Ok(Pool::new(self.clone(), info))
    }

    /// The pool with this label or UUID; made now if there is none.
    pub async fn pool_or_create(&self, label: &str) -> Result<Pool> {
        match self.pool(label).await {
            Err(Error::NonExistent(Noun::Pool)) => {}
            found => return found,
        }
        match self.pool_create(label).await {
            // Somebody else was faster.
            Err(Error::Exists(Noun::Pool)) => self.pool(label).await,
            created => created,
        }
    }

    /// Waits until everything that was acknowledged before is on stable media, on every target.
    pub async fn sync(&self) -> Result<()> {
        self.call_each(Request::Sync).await.map(drop)
    }

    /// Space and counters of each target.
    pub async fn usage(&self) -> Result<Vec<TargetUsage>> {
        let usage = |reply| match reply {
            Reply::Usage(usage) => Ok(usage),
            other => unexpected(&other),
        };
        self.call_each(Request::Query).await?.into_iter().map(usage).collect()
    }

    /// Space and counters of all targets together.
    pub async fn total_usage(&self) -> Result<TargetUsage> {
        Ok(merge::usages(self.usage().await?))
    }

    /// Verifies every target's store while nobody else uses it.
    pub async fn check(&self, repair: bool) -> Result<CheckReport> {
        let report = |reply| match reply {
            Reply::Checked(report) => Ok(report),
            other => unexpected(&other),
        };
        let replies = self.call_each(Request::Check { repair }).await?;
        Ok(merge::reports(replies.into_iter().map(report).collect::<Result<_>>()?))
    }

    /// Begins to read and verify everything that is stored.
    #[must_use]
    pub fn scrub(&self) -> Scrub {
        Scrub::new(self.clone())
    }

    pub(crate) async fn call(&self, target: TargetIndex, request: Request) -> Result<Reply> {
        self.targets[target.0].call(request).await
    }

    /// Sends the same to every target at once; the answers in the order of targets.
    pub(crate) async fn call_each(&self, request: Request) -> Result<Vec<Reply>> {
        let all = (0..self.targets.len()).map(TargetIndex);
        self.call_some(all.map(|target| (target, request.clone())).collect()).await
    }

    /// Sends each request to its target, all at once; the answers in the same order. Every answer is waited for.
    pub(crate) async fn call_some(
        &self,
        requests: Vec<(TargetIndex, Request)>,
    ) -> Result<Vec<Reply>> {
        let calls: Vec<_> = requests
            .into_iter()
            .map(|(target, request)| self.targets[target.0].call(request))
            .collect();
        let mut replies = Vec::with_capacity(calls.len());
        for call in calls {
            replies.push(call.await);
        }
        replies.into_iter().collect()
    }
}

/// The target that is asked about what all targets know.
pub(crate) const LEADER: TargetIndex = TargetIndex(0);

/// A target that answers another request than the one it was sent is broken beyond use.
pub(crate) fn unexpected<T>(reply: &Reply) -> Result<T> {
    tracing::error!(?reply, "a target answered another request than the one that it was sent");
    Err(Error::Invalid("the target answered another request than the one that it was sent"))
}
