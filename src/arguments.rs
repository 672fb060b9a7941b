//! What is typed, as clap reads it: each subcommand's arguments stand in that subcommand's file.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use sandbar_proxy::management::Client;

use crate::bench::BenchArguments;
use crate::calls::CallsArguments;
use crate::check::CheckArguments;
use crate::counts::CountsArguments;
use crate::demo::DemoArguments;
use crate::deploy::DeployArguments;
use crate::exit;
use crate::failure::Failure;
use crate::init::InitArguments;
use crate::invoke::InvokeArguments;
use crate::key::KeyArguments;
use crate::list::ListArguments;
use crate::logs::LogsArguments;
use crate::remove::RemoveArguments;
use crate::rest::RestArguments;
use crate::serve::ServeArguments;

/// Runs chains of functions on this host: a sandbox per application, a process per call.
///
/// `sandbar serve` is the host agent; all other commands speak to it over its socket, or to nobody.
#[derive(Debug, Parser)]
#[command(name = "sandbar", version, after_help = exit::TABLE, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(Box<ServeArguments>),
    Deploy(DeployArguments),
    Remove(RemoveArguments),
    Rest(RestArguments),
    List(ListArguments),
    Counts(CountsArguments),
    #[command(visible_alias = "call")]
    Invoke(InvokeArguments),
    Calls(CallsArguments),
    Logs(LogsArguments),
    Bench(BenchArguments),
    Check(CheckArguments),
    Init(InitArguments),
    Key(KeyArguments),
    Demo(DemoArguments),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Serve(arguments) => arguments.run(),
            Self::Deploy(arguments) => alone(arguments.run()),
            Self::Remove(arguments) => alone(arguments.run()),
            Self::Rest(arguments) => alone(arguments.run()),
            Self::List(arguments) => alone(arguments.run()),
            Self::Counts(arguments) => alone(arguments.run()),
            Self::Invoke(arguments) => alone(arguments.run()),
            Self::Calls(arguments) => alone(arguments.run()),
            Self::Logs(arguments) => alone(arguments.run()),
            Self::Bench(arguments) => alone(arguments.run()),
            Self::Check(arguments) => arguments.run(),
            Self::Init(arguments) => arguments.run(),
            Self::Key(arguments) => arguments.run(),
            Self::Demo(arguments) => alone(arguments.run()),
        }
    }
}

/// Runs a command that only waits for the host agent, on this thread.
fn alone(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::System)?.block_on(command)
}

/// Where the host agent is.
#[derive(Debug, Args)]
pub(crate) struct HostSocket {
    /// The host agent's management socket
    #[arg(long, value_name = "PATH", env = "SANDBAR_SOCKET", default_value = "/run/sandbar/sandbar.sock")]
    pub(crate) socket: PathBuf,
}

impl HostSocket {
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

/// `APP` or `APP/FUNCTION`. Whether they exist, and could, is for the host agent to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) application: String,
    pub(crate) function: Option<String>,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (application, function) = match text.split_once('/') {
            Some((application, function)) => (application, Some(function)),
            None => (text, None),
        };
        let part_of_a_path = |part: &str| part.is_empty() || part.contains('/');
        if part_of_a_path(application) || function.is_some_and(part_of_a_path) {
            return Err("give APP or APP/FUNCTION");
        }
        Ok(Self { application: application.to_owned(), function: function.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_examples() {
        for subcommand in Arguments::command().get_subcommands() {
            let help = subcommand.get_after_help().map(ToString::to_string);
            let shown = help.is_some_and(|help| help.contains("Examples:\n  sandbar"));
            assert!(shown, "{} has no examples", subcommand.get_name());
        }
    }

    #[test]
    fn a_target_is_an_application_and_perhaps_a_function() {
        let target: Target = "thermostat".parse().unwrap();
        assert_eq!((target.application.as_str(), target.function), ("thermostat", None));
        let target: Target = "thermostat/average".parse().unwrap();
        assert_eq!(target.function.as_deref(), Some("average"));
        for wrong in ["", "/", "a/", "/f", "a/f/g", "a//f", "/a/f"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_typed_is_what_is_meant() {
        let typed = "sandbar invoke a/f [1] --timeout 1500ms --content-format 110 --socket /s";
        let Command::Invoke(invoke) = Arguments::parse_from(typed.split(' ')).command else {
            panic!("not an invocation");
        };
        assert_eq!(invoke.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(invoke.content_format, Some(110));
        assert_eq!(invoke.host.socket, PathBuf::from("/s"));
        assert_eq!(invoke.data.as_deref(), Some("[1]".as_ref()));
        let frost = "sandbar invoke thermostat -12.5";
        assert!(Arguments::try_parse_from(frost.split(' ')).is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "sandbar invoke a data --file f",
            "sandbar invoke a --timeout 5",
            "sandbar invoke a --content-format 65536",
            "sandbar invoke http://h/a",
            "sandbar invoke a 1 --async --trace",
            "sandbar calls answer /a/.calls/feed",
            "sandbar calls replay",
            "sandbar calls list --state asleep",
            "sandbar serve --accepted-attempts 0",
            "sandbar serve --accepted-keep 0s",
            "sandbar invoke coap://h/%",
            "sandbar serve --coap nowhere",
            "sandbar serve --coaps 127.0.0.1",
            "sandbar serve --coap-from 10.0.0.1/8",
            "sandbar key new",
            "sandbar key new x --grant Bad",
            "sandbar serve --payload-max 1MB",
            "sandbar serve --calls-max 0",
            "sandbar serve --log a=b=c",
            "sandbar bench a --rate 5 --in-flight 2",
            "sandbar bench a --rate 0",
            "sandbar bench ftp://host/a",
            "sandbar init here --runtime cobol",
            "sandbar init here --runtime python3 --name Upper",
        ] {
            assert!(Arguments::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }
}
