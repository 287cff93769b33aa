//! A scrub, step by step: all that it knows is where it goes on, so whoever drives it sets its pace and may stop at any step.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use daos_types::rpc::{Reply, Request, Scrub as Step, Scrubbed};
use daos_types::{Error, Result};

use crate::client::{Client, unexpected};
use crate::route::TargetIndex;

/// A way through everything that is stored on all targets, one after the other.
#[derive(Clone, Debug)]
pub struct Scrub {
    client: Client,
    /// The target, and where on it; `None`: everything was read.
    at: Option<(TargetIndex, Bytes)>,
}

impl Scrub {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, at: Some((TargetIndex(0), Bytes::new())) }
    }

    /// Goes on at [`Scrub::place`] of another one; from the start if that is empty.
    ///
    /// # Errors
    /// When it is no such place.
    pub fn resume(client: Client, mut place: Bytes) -> Result<Self> {
        if place.is_empty() {
            return Ok(Self::new(client));
        }
        let target = place.try_get_u32().map(|target| TargetIndex(target as usize));
        let known = target.ok().filter(|target| target.0 < client.targets());
        let target = known.ok_or(Error::Invalid("a scrub cannot go on from there"))?;
        Ok(Self { client, at: Some((target, place)) })
    }

    /// Where it goes on; `None`: everything was read.
    #[must_use]
    pub fn place(&self) -> Option<Bytes> {
        let (target, after) = self.at.as_ref()?;
        let mut place = BytesMut::with_capacity(4 + after.len());
        place.put_u32(target.0 as u32);
        place.put_slice(after);
        Some(place.freeze())
    }

    /// Reads about `bytes_max` more; `None`: everything was read.
    ///
    /// # Errors
    /// Those of the targets; damage is no error here.
    pub async fn step(&mut self, bytes_max: u64) -> Result<Option<Scrubbed>> {
        let Some((target, after)) = self.at.clone() else { return Ok(None) };
        let request = Request::Scrub(Step { after, bytes_max });
        let step = match self.client.call(target, request).await? {
            Reply::Scrubbed(step) => step,
            other => return unexpected(&other),
        };
        self.at = match &step.next {
            Some(next) => Some((target, next.clone())),
            None if target.0 + 1 < self.client.targets() => {
                Some((TargetIndex(target.0 + 1), Bytes::new()))
            }
            None => None,
        };
        Ok(Some(step))
    }
}
