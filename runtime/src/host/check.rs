//! Looking at an archive as a deployment would, without one.

use std::path::Path;

use nix::errno::Errno;
use nix::unistd::mkdtemp;

use super::DeployError;
use crate::bundle::{self, BundleError, BundleLimits};
use crate::manifest::Application;

/// Unpacks an archive as a deployment does, into a directory of its own that is gone afterwards, and checks the application in
/// it.
///
/// # Errors
/// It would not be deployed.
pub fn check_archive(archive: &Path) -> Result<Application, DeployError> {
    let unwritable = |error: Errno| BundleError::Write { path: std::env::temp_dir(), source: error.into() };
    let directory = mkdtemp(&std::env::temp_dir().join("sandbar-check-XXXXXX")).map_err(unwritable)?;
    let checked = bundle::stage(archive, &directory, &BundleLimits::default())
        .map_err(DeployError::from)
        .and_then(|staged| Ok(Application::load(&staged.path())?));
    bundle::discard(&directory).map_err(|source| BundleError::Write { path: directory, source })?;
    checked
}
