//! Opens the store of a target on its thread; makes it first if there is none.

use std::rc::Rc;
use std::time::Duration;

use daos_media::label::LabelError;
use daos_media::{
    Access, Device, OpenError as DeviceError, OpenOptions as DeviceOptions, UringDevice,
};
use daos_types::rpc::{Reply, Request};
use daos_types::{StoreId, TargetId};
use daos_vos::{
    FormatOptions, MEMORY_BUCKETS_MIN, OpenError, OpenOptions, Store, Sync, Vos, VosOptions,
};
use daos_xstream::Handle;

use crate::config::{EngineConfig, SyncMode};
use crate::error::{Error, Result};
use crate::place::Place;
use crate::target::Backend;

/// Five seconds.
const BUSY_TRIES_MAX: u32 = 500;
const BUSY_WAIT: Duration = Duration::from_millis(10);

impl Backend for Rc<Vos> {
    async fn handle(&self, request: Request) -> daos_types::Result<Reply> {
        Vos::handle(self, request).await
    }

    async fn stop(&self) -> daos_types::Result<()> {
        Vos::stop(self).await
    }

    fn set_alone(&self, alone: bool) {
        self.store().set_alone(alone);
    }
}

pub(crate) async fn open(handle: Handle, config: EngineConfig, place: Place) -> Result<Rc<Vos>> {
    let failed = |reason: String| Error::Open { path: place.path.clone(), reason };
    let device = open_device(&handle, &config, &place).await?;
    if place.unformatted().is_some() {
        let made = format(&device, &handle).await;
        made.map_err(|error| failed(error.to_string()))?;
        place.formatted()?;
    }
    let store = open_or_format(device, &handle, &config, &place).await;
    let store = store.map_err(|error| match error {
        OpenError::Label(LabelError::Empty) if !place.block_device => {
            Error::Emptied { file: place.target.clone() }
        }
        OpenError::Label(
            error @ (LabelError::Empty | LabelError::Unfinished | LabelError::NoStore { .. }),
        ) => Error::NoStoreOn { path: place.path.clone(), found: error.to_string() },
        error => unopened(&place, &error),
    })?;
    let vos = Vos::open(store, handle, VosOptions::default()).await;
    vos.map_err(|error| unopened(&place, &error.into()))
}

fn unopened(place: &Place, error: &OpenError) -> Error {
    let (path, reason) = (place.path.clone(), error.to_string());
    match error {
        OpenError::Label(LabelError::Damaged { .. })
        | OpenError::Engine(daos_types::Error::Damaged(_)) => Error::Damaged { path, reason },
        _ => Error::Open { path, reason },
    }
}

/// The kernel takes down a killed engine's io_uring after the process is gone, and until then its writes may still
/// land; media's own lock is held as long. We have the store's lock, so nobody else is waited for in vain, but for a
/// block device that is mounted.
async fn open_device(
    handle: &Handle,
    config: &EngineConfig,
    place: &Place,
) -> Result<Rc<dyn Device>> {
    let access = if config.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let options = DeviceOptions { access, ..DeviceOptions::default() };
    let path = || place.path.clone();
    let mut tries = BUSY_TRIES_MAX;
    let file = place.unformatted().unwrap_or_else(|| place.target.clone());
    loop {
        match UringDevice::open(&file, handle, &options) {
            Ok(device) => return Ok(device),
            Err(DeviceError::Busy { .. }) if tries > 0 => handle.sleep(BUSY_WAIT).await,
            Err(DeviceError::Busy { .. }) => return Err(Error::DeviceBusy { path: path() }),
            Err(error) => return Err(Error::Open { path: path(), reason: error.to_string() }),
        }
        tries -= 1;
    }
}

async fn format(device: &Rc<dyn Device>, handle: &Handle) -> Result<(), OpenError> {
    let store = StoreId(uuid::Uuid::new_v4());
    let options = FormatOptions { store, wal_bytes: None };
    Store::format(device.clone(), handle.clone(), options).await
}

/// A format that did not finish is begun again, and a block device that is empty is formatted; anything else on the device
/// is refused by its name.
async fn open_or_format(
    device: Rc<dyn Device>,
    handle: &Handle,
    config: &EngineConfig,
    place: &Place,
) -> Result<Store, OpenError> {
    let options = OpenOptions {
        target: TargetId(0),
        memory_buckets: memory_buckets(config.memory),
        sync: match config.sync {
            SyncMode::Always => Sync::Always,
            SyncMode::Posix => Sync::Posix,
        },
        read_only: config.read_only,
    };
    let opened = Store::open(device.clone(), handle.clone(), options).await;
    let claimable = match &opened {
        Err(OpenError::Label(LabelError::Empty)) => place.block_device,
        Err(OpenError::Label(LabelError::Unfinished)) => true,
        _ => false,
    };
    if !claimable || !config.create || config.read_only {
        return opened;
    }
    format(&device, handle).await?;
    Store::open(device, handle.clone(), options).await
}

fn memory_buckets(bytes: u64) -> usize {
    let buckets = bytes / daos_vos::pages::BUCKET_BYTES as u64;
    usize::try_from(buckets).unwrap_or(usize::MAX).max(MEMORY_BUCKETS_MIN)
}
