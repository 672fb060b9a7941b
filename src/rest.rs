//! `sandbar rest`: puts an application to rest.

use clap::Args;

use crate::arguments::HostSocket;
use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  sandbar rest thermostat";

/// Put an application to rest now, as if it had not been called for long
///
/// Its sandbox ends, and with it all its processes; the next call has it made again. Calls under way are waited for, up to five seconds.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RestArguments {
    /// The application's name
    #[arg(value_name = "APP")]
    application: String,
    #[command(flatten)]
    host: HostSocket,
}

impl RestArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        self.host.client().rest(&self.application).await?;
        output::line(&format!("{} is at rest", self.application))
    }
}
