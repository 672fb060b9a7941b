//! What is remembered of peers, as compact as a million exchanges ask for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::coap::datagram::Endpoint;
use crate::coap::message::Token;

/// What one remembered exchange takes beside its answer, in bytes: its place in its peer's map and in the queue
/// of what expires, both with the room they keep for growth, and what the allocator adds. Measured.
pub(super) const EXCHANGE_BYTES: usize = 144;
/// What a peer takes beside its exchanges, in bytes.
pub(super) const PEER_BYTES: usize = 256;

/// Where one exchange is kept. The serial number tells it from a later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::coap) struct ExchangeId {
    pub(super) peer: u32,
    pub(super) message_id: u16,
    pub(super) serial: u32,
}

/// One peer with something to remember.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) endpoint: Endpoint,
    /// Id of our next message of our own: an answer that is no acknowledgement.
    pub(super) next_message_id: u16,
    /// Exchanges by the message id the peer chose.
    pub(super) exchanges: HashMap<u16, Exchange>,
    /// Answers of ours it has yet to acknowledge.
    pub(super) confirmations: Vec<Confirmation>,
    /// Running calls.
    pub(super) calls: usize,
    /// Whether it is remembered for more than that.
    pub(super) pinned: bool,
    /// When its rate has made up for the calls it made: in the past if it may make as many at once as ever.
    pub(super) paid_at: Option<Instant>,
    /// Memory of all of this, in bytes.
    pub(super) bytes: usize,
}

impl Peer {
    /// Takes an exchange out, and gives memory back once most of the places are empty.
    pub(super) fn forget(&mut self, message_id: u16) {
        self.exchanges.remove(&message_id);
        let (left, places) = (self.exchanges.len(), self.exchanges.capacity());
        // Of one that observes, nothing else may be remembered for days.
        if (places >= PLACES_SHRUNK_MIN && left < places / 8) || (left == 0 && self.pinned) {
            self.exchanges.shrink_to(left * 2);
        }
    }

    pub(super) fn draw_message_id(&mut self) -> u16 {
        let id = self.next_message_id;
        self.next_message_id = id.wrapping_add(1);
        id
    }
}

/// A map of fewer places than this is not worth shrinking.
const PLACES_SHRUNK_MIN: usize = 64;

/// A request of the peer's and how far its answer is.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) serial: u32,
    pub(super) token: Token,
    pub(super) confirmable: bool,
    pub(super) state: State,
}

/// ```text
///              acknowledge_after passed                   finish
///   Running ───────────────────────────▶ Acknowledged ───────────▶ Concluded
///      │ finish
///      ├─ confirmable, with an answer ───▶ Answered
///      └─ else ──────────────────────────▶ Concluded
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// The call runs; nothing has been sent.
    Running(Running),
    /// The call runs; the request has been acknowledged.
    Acknowledged(Running),
    /// The answer went out with the acknowledgement; a repeated request gets it again.
    Answered(Arc<[u8]>),
    /// All was said otherwise; a repeated confirmable request is acknowledged, another ignored.
    Concluded,
}

impl State {
    pub(super) fn running(&self) -> Option<Running> {
        match self {
            Self::Running(running) | Self::Acknowledged(running) => Some(*running),
            Self::Answered(_) | Self::Concluded => None,
        }
    }

    /// Memory beside [`EXCHANGE_BYTES`]. A running call has room reserved for its answer.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Running(_) | Self::Acknowledged(_) => super::ANSWER_BYTES_MAX,
            Self::Answered(datagram) => datagram.len(),
            Self::Concluded => 0,
        }
    }
}

/// What a running call holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    /// Bytes of its request payload.
    pub(super) payload_bytes: usize,
}

/// An answer sent as a confirmable message of ours.
#[derive(Debug)]
pub(super) struct Confirmation {
    pub(super) message_id: u16,
    pub(super) datagram: Arc<[u8]>,
    pub(super) retransmissions: u32,
    pub(super) wait: Duration,
    /// When it is sent again.
    pub(super) due: Instant,
}

/// All peers: found by endpoint, then kept by a number that is short enough to be held a million times.
#[derive(Debug, Default)]
pub(super) struct Peers {
    numbers: HashMap<Endpoint, u32>,
    slots: Vec<Option<Peer>>,
    free: Vec<u32>,
}

impl Peers {
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn number(&self, endpoint: &Endpoint) -> Option<u32> {
        self.numbers.get(endpoint).copied()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Peer> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Peer> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn insert(&mut self, endpoint: Endpoint, next_message_id: u16) -> u32 {
        let peer = Peer {
            endpoint,
            next_message_id,
            exchanges: HashMap::new(),
            confirmations: Vec::new(),
            calls: 0,
            pinned: false,
            paid_at: None,
            bytes: PEER_BYTES,
        };
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // Callers keep to `peers_max`; there is no memory for 2^32 peers.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.slots.get_mut(number as usize) {
            *slot = Some(peer);
            self.numbers.insert(endpoint, number);
        }
        number
    }

    /// Forgets a peer of whom nothing is left to remember. Tells whether it did.
    pub(super) fn release(&mut self, number: u32) -> bool {
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return false;
        };
        let idle = slot.take_if(|peer| !peer.pinned && peer.exchanges.is_empty() && peer.confirmations.is_empty());
        if let Some(peer) = &idle {
            self.numbers.remove(&peer.endpoint);
            self.free.push(number);
        }
        if self.numbers.is_empty() {
            *self = Self::default();
        }
        idle.is_some()
    }
}
