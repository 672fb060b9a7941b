//! The limits of handshakes and sessions, as options of `sandbar serve`.

use std::time::Duration;

use clap::Args;
use sandbar_proxy::coap::DtlsConfig;

use super::coap::{at_least_one, some_time};

/// Limits of each coaps door, beside those that it has in common with CoAP doors. `DtlsConfig` says what each of them is for, and a test
/// that these are its defaults.
#[derive(Debug, Args)]
#[command(next_help_heading = "coaps doors")]
pub(crate) struct CoapsArguments {
    /// Sessions at one time, of 8 KiB each; with more, one that was quiet gives way, and if none was, no handshake is begun
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "4096")]
    coaps_sessions_max: u32,
    /// Sessions of one identity; with more, its least recently used one is closed
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "64")]
    coaps_sessions_per_identity: u32,
    /// Close a session in which nothing came for this time
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "1h")]
    coaps_session_idle: Duration,
    /// Close a session after this time, however much it is used; its client makes a new handshake, and observes anew
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "24h")]
    coaps_session_life: Duration,
    /// Let a session give way when there is no room for a new one, if nothing came in it for this time
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "60s")]
    coaps_session_yields: Duration,
    /// Handshakes under way at one time; with more, one of the address that has most gives way
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "512")]
    coaps_handshakes_max: u32,
    /// Handshakes under way with one address, whatever its ports; more are refused
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "32")]
    coaps_handshakes_per_address: u32,
    /// Give up a handshake that takes longer than this
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "15s")]
    coaps_handshake_time: Duration,
    /// Let a handshake give way when there is no room for a new one, if it has taken this time
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "3s")]
    coaps_handshake_yields: Duration,
    /// Send a message of a handshake again if it was not answered in this time; twice as late each time
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "1s")]
    coaps_retransmit: Duration,
}

impl CoapsArguments {
    /// The limits that were asked for.
    pub(crate) fn config(&self) -> DtlsConfig {
        DtlsConfig {
            handshakes_max: self.coaps_handshakes_max as usize,
            handshakes_per_address_max: self.coaps_handshakes_per_address as usize,
            handshake_time_max: self.coaps_handshake_time,
            handshake_yields_after: self.coaps_handshake_yields,
            retransmit_after: self.coaps_retransmit,
            sessions_max: self.coaps_sessions_max as usize,
            sessions_per_identity_max: self.coaps_sessions_per_identity as usize,
            session_idle_max: self.coaps_session_idle,
            session_life_max: self.coaps_session_life,
            session_yields_after: self.coaps_session_yields,
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
        coaps: CoapsArguments,
    }

    #[test]
    fn a_bare_door_has_its_own_limits() {
        let bare = Typed::parse_from(["serve"]).coaps.config();
        assert_eq!(format!("{bare:?}"), format!("{:?}", DtlsConfig::default()));
    }

    #[test]
    fn each_limit_reaches_a_place_of_its_own() {
        let typed = "serve --coaps-sessions-max 10 --coaps-sessions-per-identity 11 --coaps-session-idle 12s \
                     --coaps-session-yields 13s --coaps-handshakes-max 14 --coaps-handshakes-per-address 15 \
                     --coaps-handshake-time 16s --coaps-handshake-yields 17s --coaps-retransmit 18s \
                     --coaps-session-life 19s";
        let config = Typed::parse_from(typed.split(' ')).coaps.config();
        let asked = DtlsConfig {
            sessions_max: 10,
            sessions_per_identity_max: 11,
            session_idle_max: Duration::from_secs(12),
            session_life_max: Duration::from_secs(19),
            session_yields_after: Duration::from_secs(13),
            handshakes_max: 14,
            handshakes_per_address_max: 15,
            handshake_time_max: Duration::from_secs(16),
            handshake_yields_after: Duration::from_secs(17),
            retransmit_after: Duration::from_secs(18),
        };
        assert_eq!(format!("{config:?}"), format!("{asked:?}"));
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for typed in [
            "--coaps-sessions-max=0",
            "--coaps-session-idle=0s",
            "--coaps-session-life=0s",
            "--coaps-handshake-time=15",
        ] {
            assert!(Typed::try_parse_from(["serve", typed]).is_err(), "{typed}");
        }
    }
}
