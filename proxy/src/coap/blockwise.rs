//! The block-wise layer: payloads larger than a datagram, cut into blocks of up to 1,024 bytes.
//!
//! ```text
//!   request ─┬─ Block2 number > 0 ─▶ downloads: the next block of an answer that was kept; nothing runs
//!            ├─ Block1 ─▶ uploads ─┬─ Next: 2.31, more blocks to come
//!            │                     └─ Whole: the payload, for a call
//!            └─ neither ─▶ the payload as it is, for a call
//!   answer ─▶ downloads: as it is, or its first block, the rest kept
//! ```
//!
//! What belongs together is found by [`Key`]. Both directions keep their bytes in [`store::Store`], under limits
//! overall and per peer.
//!
//! Reference: RFC 7959; RFC 9175 for Request-Tag.

pub(super) mod download;
mod store;
pub(super) mod upload;

use super::datagram::Endpoint;

/// What the blocks of one transfer have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) peer: Endpoint,
    /// Method and options, from [`super::option::cache_key`].
    pub(super) request: Box<[u8]>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A key of peer `port` for request `name`.
    pub(in crate::coap) fn key(port: u16, name: &str) -> Key {
        Key {
            peer: Endpoint { remote: std::net::SocketAddr::from(([127, 0, 0, 1], port)), local: None, session: None },
            request: name.as_bytes().into(),
        }
    }
}
