//! The objects of a container as they are in some pages.

use daos_types::{ContainerId, ObjectId};

use crate::commit::SHARD;
use crate::gather::ObjectState;
use crate::kv::Kv;
use crate::object::Object;
use crate::pages::{Abort, Pages};
use crate::plan::Objects;
use crate::roots::Roots;

pub(crate) struct Newest<'p, P> {
    pub pages: &'p P,
    pub roots: &'p Roots,
    pub container: ContainerId,
}

impl<P: Pages> Newest<'_, P> {
    fn object(&self, object: ObjectId) -> Object {
        self.roots.objects.object(self.container, object, SHARD)
    }

    pub fn state(&self, object: ObjectId) -> Result<Option<ObjectState>, Abort> {
        let header = self.object(object).header(self.pages)?;
        Ok(header.map(|header| ObjectState {
            data_epoch: header.data_epoch,
            stored_bytes: header.stored_bytes,
        }))
    }
}

impl<P: Pages> Objects for Newest<'_, P> {
    fn kv(&self, object: ObjectId) -> Result<Box<dyn Kv + '_>, Abort> {
        Ok(Box::new(self.object(object).view(self.pages)?))
    }

    fn has_record(&self, object: ObjectId) -> Result<bool, Abort> {
        Ok(self.state(object)?.is_some())
    }
}
