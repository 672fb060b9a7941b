//! The limits of accepted calls, as options of `sandbar serve`.

use std::time::Duration;

use clap::Args;
use sandbar_runtime::AcceptedLimits;

use super::coap::{at_least_one, memory, some_time};

/// What is kept of accepted calls. `AcceptedLimits` says what each of them is for, and a test that these are its defaults.
#[derive(Debug, Args)]
#[command(next_help_heading = "Accepted calls")]
pub(crate) struct AcceptedArguments {
    /// Accepted calls of an application that have not ended; more are refused as overloaded; 0: none is accepted
    ///
    /// Of all applications together there are ten times as many by default, and never fewer than this.
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    accepted_max: u32,
    /// Bytes of their payloads, on disk, of an application; never less than --payload-max
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "64MiB")]
    accepted_bytes_max: usize,
    /// How often an accepted call is made that fails or is not answered in time, before it is dead
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "3")]
    accepted_attempts: u32,
    /// How long the answer to an accepted call is kept
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "1h")]
    accepted_keep: Duration,
    /// How long a dead call is kept, with its payload, to be replayed
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "168h")]
    accepted_keep_dead: Duration,
}

impl AcceptedArguments {
    /// The limits that were asked for, with the agent's own for the rest.
    pub(super) fn config(&self, payload_bytes_max: usize) -> AcceptedLimits {
        let usual = AcceptedLimits::default();
        let (waiting_max, waiting_bytes_max) =
            (self.accepted_max as usize, self.accepted_bytes_max.max(payload_bytes_max));
        AcceptedLimits {
            waiting_max,
            waiting_bytes_max,
            // One application may use what it was given.
            waiting_of_all_max: usual.waiting_of_all_max.max(waiting_max),
            waiting_bytes_of_all_max: usual.waiting_bytes_of_all_max.max(waiting_bytes_max),
            attempts_max: self.accepted_attempts,
            keep: self.accepted_keep,
            keep_dead: self.accepted_keep_dead,
            ..usual
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        accepted: AcceptedArguments,
    }

    fn config(typed: &str, payload_bytes_max: usize) -> AcceptedLimits {
        Typed::parse_from(typed.split(' ')).accepted.config(payload_bytes_max)
    }

    #[test]
    fn a_bare_host_has_the_agents_own_limits() {
        let usual = AcceptedLimits::default();
        assert_eq!(format!("{:?}", config("serve", 16 << 20)), format!("{usual:?}"));
    }

    #[test]
    fn each_limit_reaches_a_place_of_its_own() {
        let limits = config(
            "serve --accepted-max 10 --accepted-bytes-max 11B --accepted-attempts 12 --accepted-keep 13s --accepted-keep-dead 14s",
            5,
        );
        assert_eq!((limits.waiting_max, limits.waiting_bytes_max, limits.attempts_max), (10, 11, 12));
        assert_eq!((limits.keep, limits.keep_dead), (Duration::from_secs(13), Duration::from_secs(14)));
        let usual = AcceptedLimits::default();
        assert_eq!(limits.waiting_of_all_max, usual.waiting_of_all_max);
    }

    #[test]
    fn one_application_can_have_what_it_was_given_and_one_payload_always_fits() {
        let limits = config("serve --accepted-max 50000 --accepted-bytes-max 1GiB", 16 << 20);
        assert_eq!((limits.waiting_of_all_max, limits.waiting_bytes_of_all_max), (50_000, 1 << 30));
        assert_eq!(config("serve --accepted-bytes-max 1B", 9).waiting_bytes_max, 9);
        assert_eq!(config("serve --accepted-max 0", 9).waiting_max, 0);
    }
}
