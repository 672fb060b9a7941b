//! What applications' sandboxes have for a root file system: the host's system, or one of their own, which may be an image.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::{DeployError, HostAgent, HostConfig, Shared};
use crate::manifest::{Application, Runtime};
use crate::python::{self, Python};
use crate::rootfs::{Rootfs, Sources};

impl HostAgent {
    /// The interpreter for the application's functions in Python, if it has any: the host's, or that of its own root.
    pub(super) fn python_for(
        &self,
        application: &Application,
        rootfs: Option<&Rootfs>,
    ) -> Result<Option<Python>, DeployError> {
        if !application.functions.iter().any(|function| function.runtime == Runtime::Python3) {
            return Ok(None);
        }
        Ok(Some(match rootfs {
            Some(rootfs) => Python { executable: rootfs.python()?, directories: Vec::new() },
            None => python::find(&self.shared.config.python)?,
        }))
    }

    /// The application's own root file system, if it has one. To unpack an image may take a while.
    pub(super) async fn rootfs_for(
        &self,
        application: &Application,
        directory: &Path,
    ) -> Result<Option<Rootfs>, DeployError> {
        let Some(wanted) = application.rootfs.clone() else { return Ok(None) };
        let (shared, bundle) = (Arc::clone(&self.shared), directory.to_owned());
        let found = tokio::task::spawn_blocking(move || {
            let HostConfig { state, rootfs_allowed: allowed, .. } = &shared.config;
            Rootfs::find(&wanted, &Sources { bundle: &bundle, allowed, state, images: &shared.images })
        });
        Ok(Some(found.await.map_err(|error| DeployError::Rootfs(Box::new(error)))??))
    }
}

impl Shared {
    /// Deletes the images that no application has any more. To be called while nothing is deployed or removed.
    pub(super) async fn delete_unused_images(&self) {
        let mut services = self.bus.services();
        services.extend(self.retiring.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        let used: BTreeSet<_> = services.iter().filter_map(|service| service.image.clone()).collect();
        let images = Arc::clone(&self.images);
        match tokio::task::spawn_blocking(move || images.keep_only(&used)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "an image that nobody has any more is left behind"),
            Err(error) => tracing::warn!(%error, "an image that nobody has any more is left behind"),
        }
    }
}
