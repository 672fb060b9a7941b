//! Applications deployed, replaced and removed, one at a time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{DeployError, HostAgent, RemoveError, Shared};
use crate::bundle::{self, BundleLimits};
use crate::manifest::Application;
use crate::service::{Maker, Service};

/// What [`HostAgent::deploy`] did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployed {
    /// The application's name.
    pub application: String,
    /// Its functions, in the manifest's order.
    pub functions: Vec<String>,
    /// Whether an earlier version was replaced.
    pub replaced: bool,
}

impl HostAgent {
    /// Deploys the application in a folder or an archive; an earlier version of it serves until the new one is ready, finishes
    /// its calls, and is gone. Returns when the application answers calls.
    ///
    /// # Errors
    /// Why it is not deployed; nothing has changed then.
    pub async fn deploy(&self, source: &Path) -> Result<Deployed, DeployError> {
        let _changing = self.shared.changing.lock().await;
        let stopping = self.shared.stopping.subscribe();
        if *stopping.borrow() {
            return Err(DeployError::Stopping);
        }
        let deployed = self.deploy_alone(source, stopping).await;
        if deployed.is_err() {
            self.shared.delete_unused_images().await;
        }
        deployed
    }

    /// Deploys while nothing else is deployed or removed.
    async fn deploy_alone(&self, source: &Path, mut stopping: watch::Receiver<bool>) -> Result<Deployed, DeployError> {
        let (source, into) = (source.to_owned(), self.shared.applications_directory.clone());
        let staged = tokio::task::spawn_blocking(move || bundle::stage(&source, &into, &BundleLimits::default()))
            .await
            .map_err(|error| DeployError::Bundle(Box::new(error)))??;
        let application = Arc::new(Application::load(&staged.path())?);
        let first_user = match self.shared.bus.service(application.name.as_str()) {
            Some(earlier) => earlier.first_user,
            None => self.free_users()?,
        };
        let mut maker = self.maker(&application, &staged.path(), first_user).await?;
        let stops = async move {
            let _stops = stopping.wait_for(|stopping| *stopping).await;
        };
        let running = match maker.make(stops).await {
            Ok(running) => running,
            Err(error) => {
                self.forget_log(&maker);
                return Err(error.into());
            }
        };
        let installed = match staged.install(&application.name) {
            Ok(installed) => installed,
            Err(error) => {
                self.forget_log(&maker);
                Service::keep(maker, Some(running)).end().await;
                return Err(error.into());
            }
        };
        maker.set_directory(installed.directory);
        let replaced = self.shared.bus.put(Arc::new(Service::keep(maker, Some(running))));
        let deployed = Deployed {
            application: application.name.as_str().to_owned(),
            functions: application.functions.iter().map(|function| function.name.as_str().to_owned()).collect(),
            replaced: replaced.is_some(),
        };
        if let Some(replaced) = replaced {
            self.shared.retiring.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&replaced));
            tokio::spawn(retire(Arc::clone(&self.shared), replaced, installed.previous));
        }
        Ok(deployed)
    }

    /// Deletes the log of an application that was not deployed, unless an earlier version is.
    fn forget_log(&self, maker: &Maker) {
        if self.shared.bus.service(maker.specification.application.name.as_str()).is_none() {
            maker.log.delete();
        }
    }

    /// Removes an application: ends it, with the calls under way, and deletes its accepted calls, its files and its log.
    ///
    /// # Errors
    /// When there is none, or its files cannot be deleted.
    pub async fn remove(&self, application: &str) -> Result<(), RemoveError> {
        let _changing = self.shared.changing.lock().await;
        let removed = self.shared.bus.take(application);
        let removed = removed.ok_or_else(|| RemoveError::NoSuchApplication(application.to_owned()))?;
        self.shared.accepted.forget_application(application).await;
        removed.end().await;
        self.end_retiring(|name| name == application).await;
        // First the files: an application that comes back, should the agent end in between, has its log.
        let retired = bundle::retire(&self.shared.applications_directory, &removed.application.name);
        removed.log.delete();
        self.shared.delete_unused_images().await;
        retired.map_err(RemoveError::Files)
    }
}

/// Lets a version that was replaced finish its calls, ends it, and deletes its files.
async fn retire(shared: Arc<Shared>, replaced: Arc<Service>, files: Option<PathBuf>) {
    replaced.drain().await;
    let retiring = |service: &Arc<Service>| !Arc::ptr_eq(service, &replaced);
    shared.retiring.lock().unwrap_or_else(PoisonError::into_inner).retain(retiring);
    let discarded = files.map_or(Ok(()), |files| bundle::discard(&files));
    if let Err(error) = discarded {
        tracing::warn!(%error, "a replaced version's files are left behind");
    }
    let _changing = shared.changing.lock().await;
    shared.delete_unused_images().await;
}
