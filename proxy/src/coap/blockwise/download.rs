//! Answers that go out in blocks (Block2).
//!
//! A function runs once; its answer is kept, and every block but the first comes from there. An ETag tells the client
//! when blocks belong to different answers.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use bytes::Bytes;
use coap_lite::ResponseType;

use super::Key;
use super::store::{Store, Yield};
use crate::coap::block::Block;
use crate::coap::call::size_option;
use crate::coap::config::TransferLimits;
use crate::coap::datagram::Endpoint;
use crate::coap::response::Response;

/// All downloads of a door.
#[derive(Debug)]
pub(in crate::coap) struct Downloads {
    /// Whole answers, with their ETag.
    store: Store<Response>,
}

/// Makes ETags: equal for equal payloads while the door is open, not to be foreseen from outside.
#[derive(Clone, Debug, Default)]
pub(in crate::coap) struct Tagger(RandomState);

impl Tagger {
    /// Tags a response that will have to be cut; `asked` is the request's Block2 option. Reads all of the payload: not
    /// to be called under a lock.
    pub(in crate::coap) fn tag(&self, response: &mut Response, asked: Option<Block>) {
        if is_cut(response, asked) && response.etag.is_none() {
            response.etag = Some(self.hash(&response.payload));
        }
    }

    /// A tag for a payload; likewise.
    pub(in crate::coap) fn hash(&self, payload: &[u8]) -> Box<[u8]> {
        Box::from(self.0.hash_one(payload).to_be_bytes())
    }
}

/// The first block of an answer.
fn first_block(asked: Option<Block>) -> Block {
    let exponent = asked.map_or(Block::EXPONENT_MAX, |block| block.exponent);
    Block { number: 0, more: false, exponent }
}

/// Whether an answer goes out in blocks. Errors do not, as their text is short, unless a function has made it long.
pub(in crate::coap) fn is_cut(answer: &Response, asked: Option<Block>) -> bool {
    let room = if answer.class() == 2 { first_block(asked).size() } else { first_block(None).size() };
    answer.payload.len() > room
}

impl Downloads {
    pub(in crate::coap) fn new(limits: TransferLimits) -> Self {
        Self { store: Store::new(limits) }
    }

    /// Gives an answer as it is, or its first block, and then keeps it. `asked` is the request's Block2 option, its
    /// number 0.
    pub(in crate::coap) fn begin(
        &mut self,
        key: &Key,
        mut answer: Response,
        asked: Option<Block>,
        now: Instant,
    ) -> Response {
        // Whatever was kept under this key answered an earlier request.
        self.store.remove(key);
        let first = first_block(asked);
        if !is_cut(&answer, asked) {
            answer.block2 = asked.filter(|_| answer.class() == 2).map(|_| first);
            return answer;
        }
        let length = answer.payload.len();
        if length.div_ceil(first.size()) > Block::NUMBER_MAX as usize + 1 {
            let text = "the answer is too large for blocks of this size";
            return Response::error(ResponseType::InternalServerError, text);
        }
        let head = cut(&answer, first);
        match self.store.insert(key, answer, length, Yield::Oldest, now) {
            Ok(()) => head,
            Err(_) => {
                Response::error(ResponseType::InternalServerError, "the answer is too large to be kept for its blocks")
            }
        }
    }

    /// Gives a later block of an answer that was kept.
    pub(in crate::coap) fn go_on(&mut self, key: &Key, block: Block, now: Instant) -> Response {
        let Some(answer) = self.store.get_mut(key, now) else {
            let text = "the answer is no longer here: ask again from block 0";
            return Response::error(ResponseType::RequestEntityIncomplete, text);
        };
        if block.offset() >= answer.payload.len() {
            let text = "the answer ends before this block";
            return Response::error(ResponseType::BadRequest, text);
        }
        cut(answer, block)
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

/// One block of an answer. `block` begins within it.
fn cut(answer: &Response, block: Block) -> Response {
    let length = answer.payload.len();
    let start = block.offset().min(length);
    let end = (start + block.size()).min(length);
    Response {
        payload: Bytes::copy_from_slice(&answer.payload[start..end]),
        block2: Some(Block { more: end < length, ..block }),
        size2: (block.number == 0).then(|| size_option(length)),
        ..answer.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::key;
    use super::*;

    fn answer(length: usize) -> Response {
        let mut answer = Response {
            content_format: Some(42),
            payload: (0..=255_u8).cycle().take(length).collect(),
            ..Response::new(ResponseType::Changed)
        };
        Tagger::default().tag(&mut answer, Some(asked(0, 0)));
        answer
    }

    fn asked(number: u32, exponent: u8) -> Block {
        Block { number, more: false, exponent }
    }

    fn downloads() -> Downloads {
        Downloads::new(TransferLimits::default())
    }

    #[test]
    fn what_fits_goes_out_as_it_is() {
        let (mut downloads, now) = (downloads(), Instant::now());
        for length in [0, 16, 1024] {
            let whole = downloads.begin(&key(1, "a"), answer(length), None, now);
            assert_eq!(whole.payload.len(), length);
            assert_eq!((whole.block2, whole.size2), (None, None));
        }
        let asked_for = downloads.begin(&key(1, "a"), answer(60), Some(asked(0, 2)), now);
        assert_eq!(asked_for.block2, Some(asked(0, 2)));
        assert_eq!(downloads.next_deadline(), None);
    }

    #[test]
    fn what_does_not_fit_goes_out_in_blocks_of_the_size_asked_for() {
        for (asked_for, exponent) in [(None, 6), (Some(asked(0, 2)), 2), (Some(asked(0, 0)), 0)] {
            let (mut downloads, now, key) = (downloads(), Instant::now(), key(1, "a"));
            let whole = answer(2500);
            let mut block = downloads.begin(&key, whole.clone(), asked_for, now);
            let mut payload = Vec::new();
            for number in 0.. {
                let place = block.block2.unwrap();
                assert_eq!((place.number, place.exponent), (number, exponent));
                assert_eq!(block.etag, whole.etag);
                assert_eq!(block.size2, (number == 0).then_some(2500));
                assert_eq!((block.code, block.content_format), (whole.code, Some(42)));
                payload.extend_from_slice(&block.payload);
                if !place.more {
                    break;
                }
                block = downloads.go_on(&key, asked(number + 1, exponent), now);
            }
            assert_eq!(payload, whole.payload);
        }
    }

    #[test]
    fn blocks_may_be_asked_for_again_smaller_and_out_of_order() {
        let (mut downloads, now, key) = (downloads(), Instant::now(), key(1, "a"));
        let whole = answer(3000);
        downloads.begin(&key, whole.clone(), None, now);
        let last = downloads.go_on(&key, asked(2, 6), now);
        assert_eq!(last.payload, whole.payload[2048..]);
        assert!(!last.block2.unwrap().more);
        let small = downloads.go_on(&key, asked(4, 4), now);
        assert_eq!(small.payload, whole.payload[1024..1280]);
        let beyond = downloads.go_on(&key, asked(3, 6), now);
        assert_eq!(beyond.code, ResponseType::BadRequest);
    }

    #[test]
    fn what_is_not_kept_is_incomplete() {
        let (mut downloads, start, key) = (downloads(), Instant::now(), key(1, "a"));
        let lost = downloads.go_on(&key, asked(1, 6), start);
        assert_eq!(lost.code, ResponseType::RequestEntityIncomplete);
        downloads.begin(&key, answer(3000), None, start);
        downloads.expire(start + Duration::from_secs(60));
        let expired = downloads.go_on(&key, asked(1, 6), start);
        assert_eq!(expired.code, ResponseType::RequestEntityIncomplete);
        downloads.begin(&key, answer(3000), None, start);
        downloads.begin(&key, answer(10), None, start);
        let replaced = downloads.go_on(&key, asked(1, 6), start);
        assert_eq!(replaced.code, ResponseType::RequestEntityIncomplete);
    }

    #[test]
    fn answers_beyond_all_limits_become_errors() {
        let (mut downloads, now, key) = (downloads(), Instant::now(), key(1, "a"));
        let numbers = downloads.begin(&key, answer((16 << 20) + 1), Some(asked(0, 0)), now);
        assert_eq!(numbers.code, ResponseType::InternalServerError);
        let just = downloads.begin(&key, answer(16 << 20), Some(asked(0, 0)), now);
        assert_eq!(just.code, ResponseType::Changed);
        let last = downloads.go_on(&key, asked(Block::NUMBER_MAX, 0), now);
        assert_eq!(last.payload.len(), 16);
        let room = downloads.begin(&key, answer(50 << 20), None, now);
        assert_eq!(room.code, ResponseType::InternalServerError);
    }

    #[test]
    fn equal_payloads_have_equal_tags() {
        let tagger = Tagger::default();
        let tag = |byte: u8| {
            let mut answer = answer(0);
            answer.payload = vec![byte; 2000].into();
            tagger.tag(&mut answer, None);
            answer.etag.unwrap()
        };
        assert_eq!(tag(1), tag(1));
        assert_ne!(tag(1), tag(2));
    }
}
