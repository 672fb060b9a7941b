//! `sandbar remove`: takes an application off the host.

use clap::Args;

use crate::arguments::HostSocket;
use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  sandbar remove thermostat";

/// Remove an application with its sandbox, its files and its log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RemoveArguments {
    /// The application's name
    #[arg(value_name = "APP")]
    application: String,
    #[command(flatten)]
    host: HostSocket,
}

impl RemoveArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        self.host.client().remove(&self.application).await?;
        output::line(&format!("removed {}", self.application))
    }
}
