//! Request payloads that come in blocks (Block1).
//!
//! Blocks are taken strictly in order, so that what is put together is what was sent:
//!
//! | block | is |
//! |---|---|
//! | number 0 | the beginning; what was there under its key is dropped |
//! | where the payload ends so far | the next one |
//! | the one taken last, once more, with the same bytes | taken note of again |
//! | any other, or of a payload not known | refused (4.08): the client has to begin again |

use std::time::Instant;

use bytes::Bytes;
use coap_lite::ResponseType;

use super::Key;
use super::store::{Full, Store, Yield};
use crate::coap::block::Block;
use crate::coap::call::too_large;
use crate::coap::config::TransferLimits;
use crate::coap::datagram::Endpoint;
use crate::coap::response::Response;

/// All uploads of a door.
#[derive(Debug)]
pub(in crate::coap) struct Uploads {
    store: Store<Upload>,
    payload_bytes_max: usize,
}

/// A payload as far as it is there.
#[derive(Debug)]
struct Upload {
    payload: Vec<u8>,
    /// Where the block taken last begins.
    last_offset: usize,
}

/// What a block leads to.
#[derive(Debug, PartialEq)]
pub(in crate::coap) enum Progress {
    /// The next block may come.
    Next,
    /// The payload is whole.
    Whole(Bytes),
}

/// Why a block is not taken.
#[derive(Debug, PartialEq)]
pub(in crate::coap) enum Refused {
    /// The response says why.
    Because(Box<Response>),
    /// No room for the payload now; the upload has been dropped.
    NoRoom,
}

impl From<Response> for Refused {
    fn from(response: Response) -> Self {
        Self::Because(Box::new(response))
    }
}

impl Uploads {
    pub(in crate::coap) fn new(limits: TransferLimits, payload_bytes_max: usize) -> Self {
        Self { store: Store::new(limits), payload_bytes_max }
    }

    /// How large the payload is that this block, the last of its upload, would make whole.
    pub(in crate::coap) fn whole_bytes(&self, key: &Key, block: &Block, bytes: &[u8]) -> usize {
        let before = if block.number == 0 { 0 } else { self.store.peek(key).map_or(0, |upload| upload.payload.len()) };
        before + bytes.len()
    }

    /// Takes a block.
    pub(in crate::coap) fn take(
        &mut self,
        key: &Key,
        block: Block,
        size1: Option<u32>,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Progress, Refused> {
        let end = block.offset() + bytes.len();
        let announced = size1.map_or(0, |size| size as usize);
        if end.max(announced) > self.payload_bytes_max {
            self.store.remove(key);
            return Err(too_large(self.payload_bytes_max).into());
        }
        let fits = if block.more { bytes.len() == block.size() } else { bytes.len() <= block.size() };
        if !fits {
            let text = "the block has another size than its option says";
            return Err(Response::error(ResponseType::BadRequest, text).into());
        }
        match (block.number, block.more) {
            (0, false) => {
                self.store.remove(key);
                Ok(Progress::Whole(Bytes::copy_from_slice(bytes)))
            }
            (0, true) => self.begin(key, bytes, now),
            (_, more) => self.go_on(key, block.offset(), more, bytes, now),
        }
    }

    fn begin(&mut self, key: &Key, bytes: &[u8], now: Instant) -> Result<Progress, Refused> {
        let upload = Upload { payload: bytes.to_vec(), last_offset: 0 };
        let held = upload.payload.capacity();
        self.store.insert(key, upload, held, Yield::Stale, now).map_err(|Full| Refused::NoRoom)?;
        Ok(Progress::Next)
    }

    fn go_on(&mut self, key: &Key, offset: usize, more: bool, bytes: &[u8], now: Instant) -> Result<Progress, Refused> {
        let Some(upload) = self.store.get_mut(key, now) else {
            return Err(incomplete("the blocks before this one are not here").into());
        };
        let repeated = offset == upload.last_offset && upload.payload.get(offset..) == Some(bytes);
        if repeated && more {
            return Ok(Progress::Next);
        }
        if offset != upload.payload.len() {
            return Err(incomplete("blocks have to come in order").into());
        }
        let grown_by = upload.make_room(bytes.len(), self.payload_bytes_max);
        upload.last_offset = offset;
        upload.payload.extend_from_slice(bytes);
        if !more {
            let upload = self.store.remove(key);
            return Ok(Progress::Whole(upload.map_or_else(Bytes::new, |upload| upload.payload.into())));
        }
        if self.store.grow(key, grown_by, now).is_err() {
            self.store.remove(key);
            return Err(Refused::NoRoom);
        }
        Ok(Progress::Next)
    }

    pub(in crate::coap) fn forget(&mut self, peer: &Endpoint) {
        self.store.forget(peer);
    }

    #[cfg(any(test, feature = "fuzz"))]
    pub(in crate::coap) fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    pub(in crate::coap) fn expire(&mut self, now: Instant) {
        self.store.expire(now);
    }

    pub(in crate::coap) fn next_deadline(&self) -> Option<Instant> {
        self.store.next_deadline()
    }

    pub(in crate::coap) fn dropped(&self) -> u64 {
        self.store.dropped()
    }
}

impl Upload {
    /// Makes room for `more` bytes, and gives by how much the memory grew: by doubling, but not beyond what a payload
    /// may have.
    fn make_room(&mut self, more: usize, payload_bytes_max: usize) -> usize {
        let before = self.payload.capacity();
        let needed = self.payload.len() + more;
        if needed > before {
            let wanted = needed.max((before * 2).min(payload_bytes_max));
            self.payload.reserve_exact(wanted - self.payload.len());
        }
        self.payload.capacity() - before
    }
}

/// 4.08: the client has to begin again.
fn incomplete(text: &str) -> Response {
    Response::error(ResponseType::RequestEntityIncomplete, text)
}

#[cfg(test)]
#[path = "upload/tests.rs"]
mod tests;
