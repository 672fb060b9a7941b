//! Every limit and time of the CoAP door, with its default.

mod limits;

use std::time::Duration;

use sandbar_runtime::manifest::access::IpNet;

use super::group::GroupInterface;
use super::verify::CoapVerify;
pub use limits::Limit;

/// Mebibytes in bytes, to keep the defaults readable.
const MIB: usize = 1024 * 1024;

/// How a CoAP door is set up.
#[derive(Clone, Debug)]
pub struct CoapConfig {
    /// The socket's receive buffer, in bytes. The usual system default of 208 KiB loses datagrams when some
    /// hundred clients send at once, and each loss costs its client a retransmission time-out of two seconds.
    pub receive_buffer_bytes: usize,
    /// The networks from which datagrams are looked at, all others are dropped; `None`: from everywhere.
    pub networks: Option<Vec<IpNet>>,
    /// Options in one message; one with more is rejected before anything is allocated for them.
    pub options_max: usize,
    /// Text of an error answer, in bytes: it has to fit a datagram beside the options.
    pub diagnostic_bytes_max: usize,
    /// What a refused caller is told to wait before it tries again; whole seconds go out.
    pub retry_after: Duration,

    /// Calls running for this door at one time.
    pub calls_in_flight_max: usize,
    /// Calls running for one peer, and answers to it that it has yet to acknowledge.
    pub calls_in_flight_per_peer_max: usize,
    /// Calls of one peer in a second, on average; 0: as many as it makes.
    pub rate_per_peer: u32,
    /// Calls that a peer which was quiet may make at once beyond its rate.
    pub rate_burst: u32,
    /// Request payloads held for running calls, in bytes.
    pub payload_bytes_in_flight_max: usize,

    /// Who has to show that its address is its own before anything runs for it.
    pub verify: CoapVerify,
    /// How long an address that was shown is known.
    pub verified_lifetime: Duration,
    /// Addresses known; with more, the first are asked again.
    pub verified_max: usize,

    /// Peers with any state here. A peer is a remote address and port, as seen from one local address.
    pub peers_max: usize,
    /// Exchanges remembered, of all peers. Running ones are among them and are never given up.
    pub exchanges_max: usize,
    /// Exchanges remembered of one peer. There are 65,536 message ids.
    pub exchanges_per_peer_max: usize,
    /// Memory of remembered exchanges and their answers, of all peers, in bytes. The default holds
    /// 2,000 calls/s with answers of 64 bytes for as long as they have to be remembered.
    pub exchange_bytes_max: usize,
    /// Memory of remembered exchanges and their answers, of one peer, in bytes.
    pub exchange_bytes_per_peer_max: usize,
    /// How long a confirmable request is remembered (EXCHANGE_LIFETIME of RFC 7252, section 4.8.2).
    pub confirmable_lifetime: Duration,
    /// How long a non-confirmable request is remembered (NON_LIFETIME).
    pub non_confirmable_lifetime: Duration,

    /// When a confirmable request is acknowledged whose call has not ended. Clients repeat it after two seconds.
    pub acknowledge_after: Duration,
    /// The shortest wait for the acknowledgement of an answer of ours (ACK_TIMEOUT).
    pub acknowledgement_timeout: Duration,
    /// How much longer than that the first wait may be, as a factor; drawn at random (ACK_RANDOM_FACTOR).
    pub acknowledgement_random_factor: f64,
    /// How often an unacknowledged answer is sent again, each time after twice the wait (MAX_RETRANSMIT).
    pub retransmissions_max: u32,
    /// Answers of all peers waiting for acknowledgement; with more, an answer goes out once, non-confirmable.
    pub confirmations_max: usize,

    /// Payloads on their way in, block by block.
    pub uploads: TransferLimits,
    /// Answers on their way out, block by block.
    pub downloads: TransferLimits,

    /// Groups that are listened to; a secure door has none.
    pub groups: GroupConfig,
    /// Observations of all peers (RFC 7641). A request for one more is answered, and not observed.
    pub observers_max: usize,
    /// Observations of one peer.
    pub observers_per_peer_max: usize,
    /// Newest outputs of functions that are observed, of all in bytes. One for which there is no room is told to nobody.
    pub observed_bytes_max: usize,
    /// Every so many notifications to a peer, one has to be acknowledged.
    pub observe_confirm_every: u32,
    /// A peer that has not been heard of for this long has to acknowledge the next.
    pub observe_confirm_after: Duration,
    /// A peer that has not been heard of for this long is sent the state again, to be acknowledged (RFC 7641, section 4.5: a day at most).
    pub observe_idle_max: Duration,
    /// The least time between two notifications to a peer, where a round trip is shorter.
    pub observe_interval_min: Duration,

    /// How long a full send buffer may hold a datagram up before it is dropped as if lost on the way.
    pub send_wait: Duration,
    /// How long running calls may take to end once the door is told to stop.
    pub drain: Duration,
}

/// Which groups a door listens to, and what requests that come by them may take.
///
/// At most `pending_max` answers leave in a time of `leisure`, half of it on average: with the defaults 26 a second, and two of them to
/// one address.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Where the group of all CoAP hosts is listened to; none: nowhere.
    pub interfaces: Vec<GroupInterface>,
    /// The longest wait for an answer; each waits for a random part of it, lest all hosts answer at once (DEFAULT_LEISURE).
    pub leisure: Duration,
    /// Requests whose answers wait, of all peers; more are dropped.
    pub pending_max: usize,
    /// Requests of one IP address among them, whatever its ports.
    pub pending_per_address_max: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self { interfaces: Vec::new(), leisure: Duration::from_secs(5), pending_max: 64, pending_per_address_max: 4 }
    }
}

/// What block-wise transfers of one direction may take.
#[derive(Clone, Debug)]
pub struct TransferLimits {
    /// Transfers of all peers.
    pub transfers_max: usize,
    /// Transfers of one peer.
    pub transfers_per_peer_max: usize,
    /// Payload bytes held for all peers.
    pub bytes_max: usize,
    /// Payload bytes held for one peer; has to hold one payload of the largest size.
    pub bytes_per_peer_max: usize,
    /// A transfer without a block for this long has been abandoned.
    pub idle_max: Duration,
    /// A transfer without a block for this long gives way to a new one when there is no room otherwise. Longer
    /// than a client takes to repeat a block that was lost.
    pub yields_after: Duration,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            transfers_max: 4096,
            transfers_per_peer_max: 64,
            bytes_max: 128 * MIB,
            bytes_per_peer_max: 48 * MIB,
            idle_max: Duration::from_secs(60),
            yields_after: Duration::from_secs(5),
        }
    }
}

impl Default for CoapConfig {
    fn default() -> Self {
        Self {
            receive_buffer_bytes: 4 * MIB,
            networks: None,
            options_max: 64,
            diagnostic_bytes_max: 256,
            retry_after: Duration::from_secs(1),
            calls_in_flight_max: 1024,
            calls_in_flight_per_peer_max: 128,
            rate_per_peer: 0,
            rate_burst: 32,
            payload_bytes_in_flight_max: 256 * MIB,
            verify: CoapVerify::Never,
            verified_lifetime: Duration::from_secs(3600),
            verified_max: 100_000,
            peers_max: 100_000,
            exchanges_max: 1_000_000,
            exchanges_per_peer_max: 65_536,
            exchange_bytes_max: 128 * MIB,
            exchange_bytes_per_peer_max: 32 * MIB,
            confirmable_lifetime: Duration::from_secs(247),
            non_confirmable_lifetime: Duration::from_secs(145),
            acknowledge_after: Duration::from_millis(200),
            acknowledgement_timeout: Duration::from_secs(2),
            acknowledgement_random_factor: 1.5,
            retransmissions_max: 4,
            confirmations_max: 16_384,
            uploads: TransferLimits::default(),
            downloads: TransferLimits::default(),
            groups: GroupConfig::default(),
            observers_max: 10_000,
            observers_per_peer_max: 32,
            observed_bytes_max: 64 * MIB,
            observe_confirm_every: 16,
            observe_confirm_after: Duration::from_secs(300),
            observe_idle_max: Duration::from_secs(24 * 3600),
            observe_interval_min: Duration::from_millis(10),
            send_wait: Duration::from_millis(100),
            drain: Duration::from_secs(2),
        }
    }
}
