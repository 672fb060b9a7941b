//! `sandbar check`: what is wrong with an application, without deploying it.

use std::path::PathBuf;

use clap::Args;
use sandbar_runtime::manifest::{Application, quantity};

use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  sandbar check examples/thermostat
  sandbar check thermostat.tgz
  sandbar check . && sandbar deploy .";

/// Check an application's manifest and the files it names
///
/// Prints what the application is, or every problem with its line. Needs no host agent.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArguments {
    /// The folder with the application's sandbar.toml, or an archive of it
    #[arg(value_name = "DIR|FILE")]
    source: PathBuf,
}

impl CheckArguments {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let application = if self.source.is_file() {
            sandbar_runtime::check_archive(&self.source)
                .map_err(|source| Failure::Archive { path: self.source, source })?
        } else {
            Application::load(&self.source).map_err(|source| Failure::Manifest { folder: self.source, source })?
        };
        output::write(description(&application).as_bytes())
    }
}

fn description(application: &Application) -> String {
    let name_of = |index: &usize| application.functions.get(*index).map(|it| it.name.as_str());
    let titles = ["FUNCTION", "RUNTIME", "CODE", "TIME-OUT", "NEXT"].map(str::to_owned);
    let rows = application.functions.iter().map(|function| {
        let next: Vec<&str> = function.next.iter().filter_map(name_of).collect();
        [
            function.name.to_string(),
            function.runtime.to_string(),
            function.code.display().to_string(),
            humantime::format_duration(function.timeout).to_string(),
            if next.is_empty() { output::NOTHING.to_owned() } else { next.join(", ") },
        ]
    });
    let table = output::table(&std::iter::once(titles).chain(rows).collect::<Vec<_>>());
    let calls = neighbours("may call", &application.calls);
    let callers = neighbours("may be called by", &application.callers);
    let private = application.functions.iter().filter(|function| !function.observe).map(|function| &function.name);
    let private = neighbours("may not be observed", private);
    let rootfs = application.rootfs.as_ref().map(|rootfs| format!("root file system: {rootfs}\n")).unwrap_or_default();
    let limits = application.limits;
    format!(
        "{}: calls start at {}\n{table}{calls}{callers}{private}{rootfs}limits: memory {}, processes {}, cpus {}, payload {}\n",
        application.name,
        name_of(&application.entry).unwrap_or(output::NOTHING),
        quantity::show_size(limits.memory_bytes),
        limits.processes,
        limits.cpus,
        quantity::show_size(limits.payload_bytes as u64),
    )
}

/// A line on how the application or its functions are joined to others, if they are.
fn neighbours(how: &str, names: impl IntoIterator<Item: ToString>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { String::new() } else { format!("{how}: {}\n", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_names_functions_and_where_they_lead() {
        let manifest = r#"
            name = "thermostat"
            entry = "ingest"
            calls = ["/gallery", "/gallery/thumbnail"]
            rootfs = "oci:image:slim"
            [functions.ingest]
            runtime = "python3"
            code = "ingest.py"
            timeout = "2s"
            next = ["average"]
            [functions.average]
            runtime = "native"
            code = "bin/average"
            observe = false
        "#;
        let application = Application::parse(manifest, "sandbar.toml").unwrap();
        let text = description(&application);
        assert!(text.starts_with("thermostat: calls start at ingest\n"), "{text}");
        assert!(text.contains("\ningest    python3  ingest.py    2s        average\n"), "{text}");
        assert!(text.contains("\naverage   native   bin/average  10s       -\n"), "{text}");
        assert!(
            text.contains(
                "\nmay call: /gallery, /gallery/thumbnail\nmay not be observed: average\nroot file system: oci:image:slim\nlimits: memory 128MiB,"
            ),
            "{text}"
        );
    }
}
