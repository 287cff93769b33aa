//! The model target as a backend, for tests of what is above the store.

use std::cell::RefCell;

use daos_model::ModelTarget;
use daos_types::rpc::{Reply, Request};
use daos_xstream::Handle;

use crate::error::Result;
use crate::target::Backend;

pub(crate) struct Model(RefCell<ModelTarget>);

impl Backend for Model {
    async fn handle(&self, request: Request) -> daos_types::Result<Reply> {
        self.0.borrow_mut().handle(request)
    }

    async fn stop(&self) -> daos_types::Result<()> {
        Ok(())
    }
}

pub(crate) async fn open(handle: Handle) -> Result<Model> {
    let seed = handle.random_u64();
    Ok(Model(RefCell::new(ModelTarget::new(seed, move || handle.now()))))
}
