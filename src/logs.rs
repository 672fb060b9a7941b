//! `sandbar logs`: what an application's functions wrote.

use clap::Args;
use sandbar_proxy::management::LogRecord;

use crate::arguments::{HostSocket, Target};
use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  sandbar logs thermostat
  sandbar logs thermostat/average --follow
  sandbar logs thermostat --json | jq -r .text";

/// Print an application's log, or one function's
///
/// Lines bear the time at which the host agent read them, in UTC, and the function's name; lines of the sandbox
/// itself bear "(sandbox)" for it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArguments {
    /// The application, and the function if only its lines are wanted
    #[arg(value_name = "APP[/FUNCTION]")]
    target: Target,
    /// Go on with new lines as they come, until the application is removed
    #[arg(long, short)]
    follow: bool,
    /// Print a JSON object a line, with text as the function wrote it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostSocket,
}

impl LogsArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let Target { application, function } = self.target;
        let client = self.host.client();
        let mut records = client.logs(&application, function.as_deref(), self.follow).await?;
        while let Some(record) = records.next().await? {
            let line = if self.json { output::json_line(&record)? } else { readable(&record) };
            output::line(&line)?;
        }
        Ok(())
    }
}

fn readable(record: &LogRecord) -> String {
    let time = humantime::format_rfc3339_millis(record.time);
    let source = match record.function.as_str() {
        "" => "(sandbox)",
        function => function,
    };
    format!("{time} {source}: {}", output::visible(&record.text))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_line_says_when_who_and_what() {
        let mut record = LogRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_001),
            function: "average".into(),
            text: "21.5\u{1b}[0m".into(),
        };
        assert_eq!(readable(&record), "1970-01-01T00:00:01.001Z average: 21.5\\u{1b}[0m");
        record.function.clear();
        assert!(readable(&record).contains(" (sandbox): "));
    }
}
