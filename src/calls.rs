//! `sandbar calls`: accepted calls: which there are, their answers, and what can be done about them.

mod location;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use sandbar_runtime::manifest::quantity;
use sandbar_runtime::{AcceptedState, AcceptedStatus, Outcome};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

pub(crate) use self::location::CallLocation;
use crate::answer;
use crate::arguments::HostSocket;
use crate::exit;
use crate::failure::Failure;
use crate::output;

/// The pause before it is asked again whether a call has ended, at first; twice as long each time, up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  sandbar invoke thermostat 21.5 --async          # prints the call's location
  sandbar calls list thermostat --state dead
  sandbar calls answer /thermostat/.calls/000000000000feed66d1bf2c0a4c8e01 --wait 30s
  sandbar calls replay /thermostat/.calls/000000000000feed66d1bf2c0a4c8e01
  sandbar calls list --state dead --json | jq -r '.[].location' | xargs -r sandbar calls forget";

const LIST_EXAMPLES: &str = "\
Examples:
  sandbar calls list
  sandbar calls list thermostat --state dead";

const ANSWER_EXAMPLES: &str = "\
Examples:
  sandbar calls answer /thermostat/.calls/000000000000feed66d1bf2c0a4c8e01 --wait 30s";

/// List accepted calls, print their answers, have them made again, forget them
///
/// An accepted call is one whose caller did not wait: `sandbar invoke --async`, `Prefer: respond-async` over HTTP, `?async` over CoAP.
/// It is made until it is answered, a few times at most; then it is dead, and kept to be looked at and replayed.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::TABLE))]
pub(crate) struct CallsArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List accepted calls, the oldest first
    ///
    /// ATTEMPTS are those that have ended, AGE is the time since the call was accepted, WHY says how the last attempt ended that was
    /// not done. Calls that are done are listed for as long as their answers are kept.
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Only those of this application
        #[arg(value_name = "APP")]
        application: Option<String>,
        /// Only those that are so far
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Print a list of JSON objects
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        host: HostSocket,
    },
    /// Print the answer to an accepted call as `sandbar invoke` prints it, and end as that does
    ///
    /// If the call has not ended, that is said on standard error, and the exit code is 11.
    #[command(after_help = ANSWER_EXAMPLES)]
    Answer {
        /// The call: /APP/.calls/TICKET, as it was printed
        #[arg(value_name = "LOCATION")]
        location: CallLocation,
        /// Wait for the call's end, this long at most, such as 500ms or 30s
        #[arg(long, value_name = "TIME", value_parser = quantity::time, default_value = "0s", hide_default_value = true)]
        wait: Duration,
        /// Print the whole answer as a JSON object, with the payload in it
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        host: HostSocket,
    },
    /// Have calls that are dead made again, as if they had just been accepted
    Replay {
        /// The calls; those after one that cannot be made again are left as they are
        #[arg(value_name = "LOCATION", required = true)]
        locations: Vec<CallLocation>,
        #[command(flatten)]
        host: HostSocket,
    },
    /// Forget calls that have ended, with payload and answer, and take back those that were not begun
    Forget {
        /// The calls; those after one that cannot be forgotten are left as they are
        #[arg(value_name = "LOCATION", required = true)]
        locations: Vec<CallLocation>,
        #[command(flatten)]
        host: HostSocket,
    },
}

/// How far a call is, as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// To be made, or made again
    Waiting,
    /// Being made
    UnderWay,
    /// Answered
    Done,
    /// Given up
    Dead,
}

impl State {
    fn is(self, state: AcceptedState) -> bool {
        state
            == match self {
                Self::Waiting => AcceptedState::Waiting,
                Self::UnderWay => AcceptedState::UnderWay,
                Self::Done => AcceptedState::Done,
                Self::Dead => AcceptedState::Dead,
            }
    }
}

impl CallsArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::List { application, state, json, host } => list(&host, application.as_deref(), state, json).await,
            Action::Answer { location, wait, json, host } => print_answer(&host, &location, wait, json).await,
            Action::Replay { locations, host } => {
                let client = host.client();
                for location in locations {
                    client.replay(&location.application, location.ticket).await?;
                    output::line(&format!("to be made again: {location}"))?;
                }
                Ok(())
            }
            Action::Forget { locations, host } => {
                let client = host.client();
                for location in locations {
                    client.forget(&location.application, location.ticket).await?;
                    output::line(&format!("forgotten: {location}"))?;
                }
                Ok(())
            }
        }
    }
}

async fn list(host: &HostSocket, application: Option<&str>, state: Option<State>, json: bool) -> Result<(), Failure> {
    let mut calls = host.client().accepted_calls(application).await?;
    calls.retain(|call| state.is_none_or(|state| state.is(call.state)));
    if json {
        return output::json(&calls.into_iter().map(Listed::of).collect::<Vec<_>>());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    output::write(table(&calls, now).as_bytes())
}

async fn print_answer(host: &HostSocket, location: &CallLocation, wait: Duration, json: bool) -> Result<(), Failure> {
    let client = host.client();
    let until = Instant::now() + wait;
    let mut pause = PAUSE_MIN;
    let answer = loop {
        let answer = client.accepted_answer(&location.application, location.ticket).await?;
        let now = Instant::now();
        if answer.outcome != Outcome::Accepted || now >= until {
            break answer;
        }
        sleep_until(until.min(now + pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    };
    answer::print(&answer, json)?;
    if answer.outcome == Outcome::Accepted {
        return Err(Failure::NotEnded { location: location.to_string() });
    }
    answer::judge(answer)
}

/// A call in a list, with what other subcommands take.
#[derive(Serialize)]
struct Listed {
    location: String,
    #[serde(flatten)]
    status: AcceptedStatus,
}

impl Listed {
    fn of(status: AcceptedStatus) -> Self {
        Self { location: location::of(&status), status }
    }
}

/// `now`: since 1970.
fn table(calls: &[AcceptedStatus], now: Duration) -> String {
    let titles = ["LOCATION", "FUNCTION", "STATE", "ATTEMPTS", "AGE", "WHY"].map(str::to_owned);
    let rows = calls.iter().map(|call| {
        [
            location::of(call),
            call.function.clone().unwrap_or_else(|| output::NOTHING.to_owned()),
            words(call.state).to_owned(),
            call.attempts.to_string(),
            age(now.saturating_sub(Duration::from_millis(call.accepted_ms))),
            why(call),
        ]
    });
    output::table(&std::iter::once(titles).chain(rows).collect::<Vec<_>>())
}

fn words(state: AcceptedState) -> &'static str {
    match state {
        AcceptedState::Waiting => "waiting",
        AcceptedState::UnderWay => "under way",
        AcceptedState::Done => "done",
        AcceptedState::Dead => "dead",
    }
}

/// How the last attempt ended, if it was not as it should be.
fn why(call: &AcceptedStatus) -> String {
    match call.outcome {
        None | Some(Outcome::Done) => output::NOTHING.to_owned(),
        Some(outcome) if call.diagnostic.is_empty() => outcome.to_string(),
        Some(outcome) => format!("{outcome}: {}", output::visible(call.diagnostic.trim_end())),
    }
}

/// A time in its largest unit, rounded down.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}min", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(state: AcceptedState, outcome: Option<Outcome>, diagnostic: &str) -> AcceptedStatus {
        AcceptedStatus {
            ticket: "000000000000feed0000000000000007".into(),
            application: "porch".into(),
            function: None,
            state,
            attempts: 3,
            accepted_ms: 1000,
            ended_ms: None,
            outcome,
            diagnostic: diagnostic.into(),
            payload_bytes: 4,
            answer_bytes: 0,
        }
    }

    #[test]
    fn a_call_is_listed_with_what_replays_it_and_why_it_was_not_done() {
        let waiting =
            AcceptedStatus { function: Some("lamp".into()), attempts: 0, ..call(AcceptedState::Waiting, None, "") };
        let dead = call(AcceptedState::Dead, Some(Outcome::Failed), "ValueError: \u{1b}[2Jno\n");
        let expected = "\
LOCATION                                        FUNCTION  STATE    ATTEMPTS  AGE  WHY
/porch/.calls/000000000000feed0000000000000007  lamp      waiting         0  59s  -
/porch/.calls/000000000000feed0000000000000007  -         dead            3  59s  failed: ValueError: \\u{1b}[2Jno
";
        assert_eq!(table(&[waiting, dead], Duration::from_secs(60)), expected);
        assert_eq!(why(&call(AcceptedState::Done, Some(Outcome::Done), "")), "-");
        assert_eq!(why(&call(AcceptedState::Dead, Some(Outcome::DeadlinePassed), "")), "deadline passed");
    }

    #[test]
    fn a_list_for_programs_has_the_location_beside_all_else() {
        let json = serde_json::to_value(Listed::of(call(AcceptedState::UnderWay, None, ""))).unwrap();
        assert_eq!(json["location"], "/porch/.calls/000000000000feed0000000000000007");
        assert_eq!((&json["state"], &json["attempts"]), (&"under-way".into(), &3.into()));
    }

    #[test]
    fn ages_have_one_unit() {
        let shown = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(
            [0, 59, 60, 3599, 3600, 86_399, 86_400, 900_000].map(shown),
            ["0s", "59s", "1min", "59min", "1h", "23h", "1d", "10d"]
        );
    }
}
