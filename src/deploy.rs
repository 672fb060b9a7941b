//! `sandbar deploy`: puts an application on the host.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sandbar_proxy::management::ClientError;
use sandbar_runtime::Deployed;
use tokio::time::{Instant, interval_at};

use crate::arguments::HostSocket;
use crate::failure::Failure;
use crate::output;

/// After this long in silence, and then every [`REMINDER_PERIOD`], we say what we wait for.
const PATIENCE: Duration = Duration::from_secs(1);
const REMINDER_PERIOD: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  sandbar deploy examples/thermostat
  tar -czf thermostat.tgz -C examples thermostat && sandbar deploy thermostat.tgz
  sandbar check . && sandbar deploy .";

/// Deploy the application in a folder or an archive, or a new version of it
///
/// An archive is a .zip, a .tar, or a .tar.gz or .tar.zst of one, whatever its name. It has sandbar.toml at its top, or in
/// one folder that holds all else.
///
/// Returns once the application answers calls. A version that is already there answers until then; if the new one
/// does not come up, it goes on.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeployArguments {
    /// The folder with the application's sandbar.toml, or an archive of it
    #[arg(value_name = "DIR|FILE")]
    source: PathBuf,
    #[command(flatten)]
    host: HostSocket,
}

impl DeployArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let path = self
            .source
            .canonicalize()
            .map_err(|source| Failure::Input { what: self.source.display().to_string(), source })?;
        let client = self.host.client();
        let deployed = with_reminders(client.deploy(&path)).await?;
        output::line(&summary(&deployed))
    }
}

async fn with_reminders(
    deployment: impl Future<Output = Result<Deployed, ClientError>>,
) -> Result<Deployed, ClientError> {
    let start = Instant::now();
    let mut reminders = interval_at(start + PATIENCE, REMINDER_PERIOD);
    let mut deployment = std::pin::pin!(deployment);
    loop {
        tokio::select! {
            result = &mut deployment => return result,
            _ = reminders.tick() => output::note(&format!(
                "sandbar: waiting for the application's workers to be ready for calls ({} s)",
                start.elapsed().as_secs()
            )),
        }
    }
}

fn summary(deployed: &Deployed) -> String {
    let done = if deployed.replaced { "redeployed" } else { "deployed" };
    format!("{done} {}: {}", deployed.application, deployed.functions.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_version_is_told_from_a_new_application() {
        let mut deployed = Deployed {
            application: "thermostat".into(),
            functions: vec!["ingest".into(), "average".into()],
            replaced: false,
        };
        assert_eq!(summary(&deployed), "deployed thermostat: ingest, average");
        deployed.replaced = true;
        assert_eq!(summary(&deployed), "redeployed thermostat: ingest, average");
    }
}
