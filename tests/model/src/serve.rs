//! The model behind a caller, on a thread of its own: what stands above the engine can be tested without a store.

use daos_fabric::{Caller, inproc};
use daos_types::Error;
use daos_types::rpc::Request;
use daos_xstream::{Xstream, XstreamConfig};

use crate::ModelTarget;

/// Starts a model target. Its thread ends when the last caller is dropped.
///
/// # Panics
/// If the machine has no thread left.
#[must_use]
pub fn spawn_model() -> Caller {
    spawn_model_refusing(|_| None)
}

/// As `spawn_model`; what `refuse` has an error for gets that for an answer.
///
/// # Panics
/// If the machine has no thread left.
#[must_use]
pub fn spawn_model_refusing(
    mut refuse: impl FnMut(&Request) -> Option<Error> + Send + 'static,
) -> Caller {
    let (caller, mut service) = inproc::pair(256);
    let config = XstreamConfig { name: "model".into(), spin_us: 0, ..Default::default() };
    let thread = Xstream::start(config, move |handle| async move {
        let clock = handle.clone();
        let mut target = ModelTarget::new(handle.random_u64(), move || clock.now());
        while let Some((request, responder)) = service.recv().await {
            match refuse(&request) {
                Some(error) => responder.answer(Err(error)),
                None => responder.answer(target.handle(request)),
            }
        }
    });
    drop(thread.expect("a thread for the model"));
    caller
}

#[cfg(test)]
mod tests {
    use super::*;
    use daos_types::rpc::Reply;

    #[test]
    fn model_answers_from_its_thread() {
        let caller = spawn_model();
        let answer = Xstream::run(&XstreamConfig::default(), |_| caller.call(Request::PoolList));
        assert!(matches!(answer.unwrap(), Ok(Reply::Pools(pools)) if pools.is_empty()));
    }
}
