//! The CoAP door's limits, as options of `sandbar serve`.

use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Args, ValueEnum};
use sandbar_proxy::coap::{CoapConfig, CoapVerify, GroupConfig, GroupInterface, TransferLimits};
use sandbar_runtime::manifest::quantity;

/// Limits of each CoAP door. `CoapConfig` says what each of them is for, and a test that these are its defaults.
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
    /// Answer discovery that is sent to the group of all CoAP hosts, on this interface (a name, an address, or all); may be given several times
    ///
    /// 224.0.1.187, ff02::fd and ff05::fd (RFC 7252, section 8), at the port of each plain door that is on such an interface and of its kind
    /// of address. Without a value it is all that are up and can carry groups, loopback excepted. Only GET of /.well-known/core,
    /// non-confirmable, is answered, and only if there is something to tell. Interfaces are looked at once, at the start.
    #[arg(long, value_name = "INTERFACE", num_args = 0..=1, default_missing_value = "all")]
    coap_group: Vec<GroupInterface>,
    /// The longest wait before an answer to a group's request; each takes a random part of it, lest all hosts answer at once
    #[arg(long, value_name = "TIME", value_parser = leisure, default_value = "5s")]
    coap_leisure: Duration,
    /// Answers to groups' requests that wait at one time; more requests are dropped
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "64")]
    coap_group_pending: u32,
    /// Those among them that go to one address
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "4")]
    coap_group_pending_per_address: u32,
    /// Peers that a door remembers requests of; more are refused as overloaded
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "100000")]
    coap_peers_max: u32,
    /// Memory for requests that are remembered, so that none runs twice; beyond it they are refused
    ///
    /// Each is remembered for 247 s. The default holds 2,000 calls/s with small answers.
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "128MiB")]
    coap_memory: usize,
    /// What one peer may take of it
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "32MiB")]
    coap_memory_per_peer: usize,
    /// Requests that are remembered; as many as the memory holds unless given
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one())]
    coap_exchanges_max: Option<u32>,
    /// Requests of one peer that are remembered; it has no more than 65,536 message ids
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "65536")]
    coap_exchanges_per_peer: u32,
    /// Calls of one peer under way, and answers it has yet to acknowledge
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "128")]
    coap_calls_per_peer: u32,
    /// Calls of one peer in a second, on average; 0: as many as it makes
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    coap_rate_per_peer: u32,
    /// Calls that a peer may make at once beyond its rate
    #[arg(long, value_name = "NUMBER", default_value = "32")]
    coap_rate_burst: u32,
    /// Answers of all peers that are sent again until they are acknowledged; with more, an answer is sent once
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "16384")]
    coap_unacknowledged_max: u32,
    /// Memory for payloads of calls under way; never less than --payload-max
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "256MiB")]
    coap_payload_memory: usize,
    /// Payloads, and answers, in blocks that are on their way at one time
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "4096")]
    coap_transfers_max: u32,
    /// Those among them that one peer may have
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one(), default_value = "64")]
    coap_transfers_per_peer: u32,
    /// Memory for payloads, and again for answers, in blocks; never less than --payload-max
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "128MiB")]
    coap_transfer_memory: usize,
    /// What one peer may take of it; never less than --payload-max
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "48MiB")]
    coap_transfer_memory_per_peer: usize,
    /// Forget a payload or an answer of which no block was sent or asked for in this time
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "60s")]
    coap_transfer_idle: Duration,
    /// What the socket holds that has not been looked at yet; datagrams beyond it are lost
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "4MiB")]
    coap_receive_buffer: usize,
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
    /// Whether groups are to be listened to.
    pub(crate) fn has_groups(&self) -> bool {
        !self.coap_group.is_empty()
    }

    /// The limits that were asked for, with the door's own for the rest.
    pub(crate) fn config(&self) -> CoapConfig {
        let usual = CoapConfig::default();
        let transfers = |usual: TransferLimits| TransferLimits {
            transfers_max: self.coap_transfers_max as usize,
            transfers_per_peer_max: self.coap_transfers_per_peer as usize,
            bytes_max: self.coap_transfer_memory,
            bytes_per_peer_max: self.coap_transfer_memory_per_peer,
            idle_max: self.coap_transfer_idle,
            ..usual
        };
        CoapConfig {
            verify: match self.coap_verify {
                Verify::Never => CoapVerify::Never,
                Verify::Public => CoapVerify::Public,
                Verify::Always => CoapVerify::Always,
            },
            receive_buffer_bytes: self.coap_receive_buffer,
            peers_max: self.coap_peers_max as usize,
            verified_max: self.coap_peers_max as usize,
            exchange_bytes_max: self.coap_memory,
            exchange_bytes_per_peer_max: self.coap_memory_per_peer,
            exchanges_max: self.exchanges_max(usual.exchanges_max),
            exchanges_per_peer_max: self.coap_exchanges_per_peer as usize,
            calls_in_flight_per_peer_max: self.coap_calls_per_peer as usize,
            rate_per_peer: self.coap_rate_per_peer,
            rate_burst: self.coap_rate_burst,
            confirmations_max: self.coap_unacknowledged_max as usize,
            payload_bytes_in_flight_max: self.coap_payload_memory,
            observers_max: self.coap_observers as usize,
            observers_per_peer_max: self.coap_observers_per_peer as usize,
            uploads: transfers(usual.uploads),
            downloads: transfers(usual.downloads),
            groups: GroupConfig {
                interfaces: self.coap_group.clone(),
                leisure: self.coap_leisure,
                pending_max: self.coap_group_pending as usize,
                pending_per_address_max: self.coap_group_pending_per_address as usize,
            },
            ..usual
        }
    }

    fn exchanges_max(&self, usual: usize) -> usize {
        // Each takes some of the memory, which is the limit that counts unless another is asked for.
        let held = usual.max(self.coap_memory / EXCHANGE_BYTES_MIN);
        self.coap_exchanges_max.map_or(held, |asked| asked as usize)
    }
}

/// No exchange takes less.
const EXCHANGE_BYTES_MIN: usize = 128;
/// Nobody who asks a group waits for longer.
const LEISURE_MAX: Duration = Duration::from_secs(600);

/// A number of things, some of which there have to be.
pub(super) fn at_least_one() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// A time that is not nought.
pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    let time = quantity::time(text)?;
    if time.is_zero() { Err("it has to be some time".to_owned()) } else { Ok(time) }
}

fn leisure(text: &str) -> Result<Duration, String> {
    let time = quantity::time(text)?;
    if time > LEISURE_MAX { Err("nobody waits for more than 10min".to_owned()) } else { Ok(time) }
}

/// A size that this machine can address.
pub(super) fn memory(text: &str) -> Result<usize, String> {
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

    fn refused(typed: &str) -> String {
        Typed::try_parse_from(typed.split(' ')).map(|_| ()).unwrap_err().to_string()
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
        assert_eq!(config.exchanges_max, (1 << 30) / EXCHANGE_BYTES_MIN);
    }

    #[test]
    fn each_limit_reaches_a_place_of_its_own() {
        let config = config(
            "serve --coap-memory 10B --coap-memory-per-peer 11B --coap-exchanges-max 12 --coap-exchanges-per-peer 13 \
             --coap-peers-max 14 --coap-rate-burst 15 --coap-unacknowledged-max 16 --coap-payload-memory 17B \
             --coap-transfers-max 18 --coap-transfers-per-peer 19 --coap-transfer-memory 20B \
             --coap-transfer-memory-per-peer 21B --coap-transfer-idle 22s --coap-receive-buffer 23B --coap-leisure 24s \
             --coap-group-pending 25 --coap-group-pending-per-address 26",
        );
        assert_eq!((config.exchange_bytes_max, config.exchange_bytes_per_peer_max), (10, 11));
        assert_eq!((config.exchanges_max, config.exchanges_per_peer_max, config.peers_max), (12, 13, 14));
        assert_eq!((config.rate_burst, config.confirmations_max), (15, 16));
        assert_eq!((config.payload_bytes_in_flight_max, config.receive_buffer_bytes), (17, 23));
        for transfers in [config.uploads, config.downloads] {
            assert_eq!((transfers.transfers_max, transfers.transfers_per_peer_max), (18, 19));
            assert_eq!((transfers.bytes_max, transfers.bytes_per_peer_max), (20, 21));
            assert_eq!(transfers.idle_max, Duration::from_secs(22));
        }
        assert_eq!(config.groups.leisure, Duration::from_secs(24));
        assert_eq!((config.groups.pending_max, config.groups.pending_per_address_max), (25, 26));
    }

    #[test]
    fn groups_are_asked_for_with_or_without_an_interface() {
        let interfaces = |typed| config(typed).groups.interfaces;
        assert_eq!(interfaces("serve"), []);
        assert_eq!(interfaces("serve --coap-group --coap-peers-max 1"), [GroupInterface::All]);
        let named = GroupInterface::Named("eth0".to_owned());
        let at = GroupInterface::At([10, 0, 0, 1].into());
        assert_eq!(interfaces("serve --coap-group eth0 --coap-group 10.0.0.1"), [named, at]);
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for (typed, why) in [
            ("--coap-peers-max 0", "1.."),
            ("--coap-transfers-per-peer 0", "1.."),
            ("--coap-transfer-idle 0s", "some time"),
            ("--coap-leisure 11min", "10min"),
            ("--coap-leisure 5", "no unit"),
            ("--coap-group eth/0", "an interface's name"),
            ("--coap-memory lots", "digit"),
        ] {
            let told = refused(&format!("serve {typed}"));
            assert!(told.contains(why), "{typed}: {told}");
        }
    }

    #[test]
    fn limits_of_observing_reach_the_door() {
        let config = config("serve --coap-observers 0 --coap-observers-per-peer 3");
        assert_eq!((config.observers_max, config.observers_per_peer_max), (0, 3));
    }
}
