//! The CoAP door's limits, as options of `sandbar serve`.

use clap::{Args, ValueEnum};
use sandbar_proxy::coap::{CoapConfig, CoapVerify, TransferLimits};
use sandbar_runtime::manifest::quantity;

/// Limits of each CoAP door.
#[derive(Debug, Args)]
#[command(next_help_heading = "CoAP doors")]
pub(crate) struct CoapArguments {
    /// Whose address has to be shown to be its own before anything runs for it (RFC 9175)
    ///
    /// Keeps others from having answers sent to somebody else. It takes a round trip more, and clients that know the Echo option:
    /// libcoap's do; aiocoap's and many small ones report 4.01 instead, so nobody is asked by default. A host that answers the
    /// Internet should say public.
    #[arg(long, value_name = "WHOSE", value_enum, default_value_t = Verify::Never)]
    coap_verify: Verify,
    /// Peers that a door remembers requests of; more are refused as overloaded
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), default_value = "100000")]
    coap_peers_max: u32,
    /// Memory for requests that are remembered, so that none runs twice; beyond it they are refused
    ///
    /// Each is remembered for 247 s. The default holds 2,000 calls/s with small answers.
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "128MiB")]
    coap_memory: usize,
    /// Calls of one peer under way, and answers it has yet to acknowledge
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), default_value = "128")]
    coap_calls_per_peer: u32,
    /// Calls of one peer in a second, on average; 0: as many as it makes
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    coap_rate_per_peer: u32,
    /// Calls that a peer may make at once beyond its rate
    #[arg(long, value_name = "NUMBER", default_value = "32")]
    coap_rate_burst: u32,
    /// Payloads, and answers, in blocks that are on their way at one time
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), default_value = "4096")]
    coap_transfers_max: u32,
    /// Observations of each door (RFC 7641); a request for one more is answered, and not observed
    ///
    /// Each keeps its peer remembered, so that this is to be less than --coap-peers-max.
    #[arg(long, value_name = "NUMBER", default_value = "10000")]
    coap_observers: u32,
    /// Observations of one peer
    #[arg(long, value_name = "NUMBER", default_value = "32")]
    coap_observers_per_peer: u32,
}

/// Whose address has to be shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verify {
    /// Nobody's
    Never,
    /// That of peers neither on this host nor in a private or link-local network
    Public,
    /// Everybody's
    Always,
}

impl CoapArguments {
    /// The limits that were asked for, with the door's own for the rest.
    pub(crate) fn config(&self) -> CoapConfig {
        let usual = CoapConfig::default();
        let transfers =
            |usual: TransferLimits| TransferLimits { transfers_max: self.coap_transfers_max as usize, ..usual };
        CoapConfig {
            verify: match self.coap_verify {
                Verify::Never => CoapVerify::Never,
                Verify::Public => CoapVerify::Public,
                Verify::Always => CoapVerify::Always,
            },
            peers_max: self.coap_peers_max as usize,
            verified_max: self.coap_peers_max as usize,
            exchange_bytes_max: self.coap_memory,
            calls_in_flight_per_peer_max: self.coap_calls_per_peer as usize,
            rate_per_peer: self.coap_rate_per_peer,
            rate_burst: self.coap_rate_burst,
            observers_max: self.coap_observers as usize,
            observers_per_peer_max: self.coap_observers_per_peer as usize,
            uploads: transfers(usual.uploads),
            downloads: transfers(usual.downloads),
            // Each takes some of the memory, which is the limit that counts.
            exchanges_max: usual.exchanges_max.max(self.coap_memory / EXCHANGE_BYTES_MIN),
            ..usual
        }
    }
}

/// No exchange takes less.
const EXCHANGE_BYTES_MIN: usize = 128;

fn memory(text: &str) -> Result<usize, String> {
    let bytes = quantity::size(text)?;
    usize::try_from(bytes).map_err(|_| "more than this machine can address".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        coap: CoapArguments,
    }

    fn config(typed: &str) -> CoapConfig {
        Typed::parse_from(typed.split(' ')).coap.config()
    }

    #[test]
    fn a_bare_door_has_its_own_limits() {
        let bare = CoapConfig { exchanges_max: 0, ..config("serve") };
        let usual = CoapConfig { exchanges_max: 0, ..CoapConfig::default() };
        assert_eq!(format!("{bare:?}"), format!("{usual:?}"));
    }

    #[test]
    fn limits_reach_the_door() {
        let config =
            config("serve --coap-verify public --coap-memory 1GiB --coap-rate-per-peer 5 --coap-calls-per-peer 7");
        assert_eq!(config.verify, CoapVerify::Public);
        assert_eq!(config.exchange_bytes_max, 1 << 30);
        assert_eq!((config.rate_per_peer, config.calls_in_flight_per_peer_max), (5, 7));
        let config = self::config("serve --coap-observers 0 --coap-observers-per-peer 3");
        assert_eq!((config.observers_max, config.observers_per_peer_max), (0, 3));
    }
}
