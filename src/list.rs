//! `sandbar list`: what is on the host.

use clap::Args;
use sandbar_runtime::ApplicationStatus;

use crate::arguments::HostSocket;
use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  sandbar list
  sandbar list --json";

/// List the applications on the host
///
/// STATE says "running", how far the application has gone to rest ("running, no instances", "running, no workers", "resting"), or what keeps
/// it from running; PID is its sandbox's first process, as the host
/// sees it; MEMORY counts processes, temporary files and messages; CALLS are those answered since the application was
/// deployed or the agent started, whatever their outcome.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArguments {
    /// Print a list of JSON objects
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostSocket,
}

impl ListArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let applications = self.host.client().applications().await?;
        if self.json { output::json(&applications) } else { output::write(table(&applications).as_bytes()) }
    }
}

fn table(applications: &[ApplicationStatus]) -> String {
    let titles = ["NAME", "STATE", "PID", "PROCESSES", "MEMORY MiB", "CALLS", "ENTRY", "FUNCTIONS"];
    let rows = applications.iter().map(|application| {
        [
            application.name.clone(),
            state(application),
            number(application.pid),
            number(application.processes),
            number(application.memory_bytes.map(mebibytes)),
            application.calls.to_string(),
            application.entry.clone(),
            application.functions.join(","),
        ]
    });
    let titles = titles.map(str::to_owned);
    output::table(&std::iter::once(titles).chain(rows).collect::<Vec<_>>())
}

/// Whether it runs, and what of it does not as it is at rest.
fn state(application: &ApplicationStatus) -> String {
    match application.resting.as_deref() {
        Some(without @ ("instances" | "workers")) => format!("running, no {without}"),
        _ => output::visible(&application.state).into_owned(),
    }
}

fn number(number: Option<impl ToString>) -> String {
    number.map_or(output::NOTHING.to_owned(), |number| number.to_string())
}

/// Bytes as mebibytes with one digit after the point, rounded down.
fn mebibytes(bytes: u64) -> String {
    let mebibyte = 1 << 20;
    format!("{}.{}", bytes / mebibyte, bytes % mebibyte * 10 / mebibyte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_that_does_not_run_says_why() {
        let down = ApplicationStatus {
            name: "porch".into(),
            state: "down: no memory".into(),
            resting: None,
            entry: "hello".into(),
            functions: vec!["hello".into(), "other".into()],
            pid: None,
            memory_bytes: None,
            processes: None,
            calls: 7,
        };
        let text = table(&[down]);
        assert!(
            text.ends_with("\nporch  down: no memory  -    -          -               7  hello  hello,other\n"),
            "{text}"
        );
    }

    #[test]
    fn each_step_to_rest_is_told() {
        let told = |running: &str, resting: Option<&str>| {
            let status = ApplicationStatus {
                name: "porch".into(),
                state: running.into(),
                resting: resting.map(str::to_owned),
                entry: "hello".into(),
                functions: vec![],
                pid: None,
                memory_bytes: None,
                processes: None,
                calls: 0,
            };
            state(&status)
        };
        assert_eq!(told("running", None), "running");
        assert_eq!(told("running", Some("instances")), "running, no instances");
        assert_eq!(told("running", Some("workers")), "running, no workers");
        assert_eq!(told("resting", Some("sandbox")), "resting");
    }

    #[test]
    fn memory_is_told_in_mebibytes() {
        assert_eq!(mebibytes(0), "0.0");
        assert_eq!(mebibytes((12 << 20) + (1 << 19)), "12.5");
        assert_eq!(mebibytes(u64::MAX), "17592186044415.9");
    }
}
