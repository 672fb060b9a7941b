//! Anything that anybody may send, in any order, with time passing between: layer by layer, and all of them together.
//!
//! Each function here takes any bytes, makes of them what its layer is given, and panics if the layer does what it may not. They are called with
//! what is drawn at random and with kept inputs by the tests beside this, and by the fuzzer in `fuzz/`, for which this is built with the
//! feature `fuzz`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is not as it should be is found by a panic")]

mod run;

use std::collections::LinkedList;
use std::time::{Duration, Instant};

use coap_lite::{CoapOption, ResponseType};

use self::run::Run;
use super::block::Block;
use super::blockwise::Key;
use super::blockwise::download::Downloads;
use super::blockwise::upload::{Progress, Uploads};
use super::config::TransferLimits;
use super::datagram::Endpoint;
use super::message::{Message, Received, read};
use super::option;
use super::response::Response;
use super::verify::CoapVerify;

/// As [`super::CoapConfig::options_max`] is by default.
const OPTIONS_MAX: usize = 64;
const PAYLOAD_BYTES_MAX: usize = 4096;
const VERIFY: [CoapVerify; 2] = [CoapVerify::Never, CoapVerify::Always];
const TIMES_MS: [u64; 6] = [1, 100, 250, 3000, 61_000, 150_000];
const FUNCTIONS: [Option<&str>; 2] = [None, Some("f")];
const FORMATS: [Option<u16>; 2] = [None, Some(50)];
const ANSWER_BYTES: [usize; 6] = [0, 10, 1024, 1025, 3000, 7000];

/// Tries any bytes.
pub type Tried = fn(&[u8]);

/// What there is to try, by name.
pub const LAYERS: [(&str, Tried); 4] =
    [("codec", codec), ("options", options), ("blocks", blocks), ("exchanges", exchanges)];

/// A datagram is read or refused as RFC 7252, sections 3 and 4, has it; what is read says the same when it is written again.
pub fn codec(datagram: &[u8]) {
    let kind = datagram.first().map(|first| first >> 4);
    let confirmable = kind == Some(0b0100) && datagram.len() >= 4;
    match read(datagram, OPTIONS_MAX) {
        Received::Request(message) => {
            assert_eq!(message.confirmable, confirmable);
            let Message { token, packet, .. } = again(&message);
            assert_eq!((token, packet), (message.token, message.packet));
        }
        Received::Ping(id) | Received::Malformed(id, _) => {
            assert!(confirmable, "only who waits for it is sent a Reset");
            assert_eq!(id.to_be_bytes(), datagram[2..4]);
        }
        Received::Ignored(error) => assert!(!confirmable, "{error}: whoever waits is told"),
        Received::Acknowledgement(_) => assert_eq!(kind, Some(0b0110)),
        Received::Reset(_) => assert_eq!(kind, Some(0b0111)),
    }
}

/// A request, written and read.
fn again(message: &Message) -> Message {
    let bytes = message.packet.to_bytes_unlimited().unwrap();
    let again = read(&bytes, OPTIONS_MAX);
    let Received::Request(again) = again else { panic!("{message:?} became {again:?}") };
    again
}

/// Options are understood or refused, none is dropped on the way; `bytes` is a method, and what follows a header.
pub fn options(bytes: &[u8]) {
    let (method, rest) = bytes.split_first().map_or((1, bytes), |(method, rest)| (1 + method % 7, rest));
    let datagram = [&[0x40, method, 0, 1], rest].concat();
    let Received::Request(Message { mut packet, .. }) = read(&datagram, OPTIONS_MAX) else { return };
    let values = |number| packet.get_option(number).map_or(0, LinkedList::len);
    match option::read(&packet) {
        Ok(read) => {
            assert_eq!(read.path.len(), values(CoapOption::UriPath));
            assert_eq!(read.query.len(), values(CoapOption::UriQuery));
            assert!(read.held.iter().all(|tag| (1..=8).contains(&tag.len())));
        }
        Err(refusal) => {
            assert!(refusal.response.class() >= 4 && !refusal.response.payload.is_empty());
            assert!(!refusal.silent_if_not_confirmable || refusal.response.code == ResponseType::BadOption);
        }
    }
    let key = option::cache_key(method, &packet);
    for option in [CoapOption::Block1, CoapOption::Block2, CoapOption::ETag] {
        packet.add_option(option, vec![0x16]);
    }
    assert_eq!(key, option::cache_key(method, &packet), "blocks of one transfer have one key");
}

/// Bytes as instructions take them; behind the end there are zeros.
struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The bytes of a payload from one place to another: each says where it is.
fn payload(from: usize, to: usize) -> Vec<u8> {
    (from..to).map(|at| (at ^ at >> 8).to_le_bytes()[0]).collect()
}

/// Blocks in any order: a payload that is put together has every byte in its place, and so has each block of one that is cut.
pub fn blocks(bytes: &[u8]) {
    let mut tape = Tape(bytes);
    let limits = TransferLimits { transfers_max: 2, bytes_max: 6000, ..TransferLimits::default() };
    let mut uploads = Uploads::new(limits.clone(), PAYLOAD_BYTES_MAX);
    let mut downloads = Downloads::new(limits);
    let mut lengths = [0; 3];
    let now = Instant::now();
    while !tape.0.is_empty() {
        let which = tape.byte() % 3;
        let peer = Endpoint { remote: ([10, 0, 0, which], 1).into(), local: None, session: None };
        let key = Key { peer, request: Box::from([which]) };
        let kind = tape.byte();
        let Ok(block) = Block::decode(tape.take(3)) else { continue };
        assert_eq!(Block::decode(&block.encode()), Ok(block));
        let length = &mut lengths[usize::from(which)];
        match kind % 3 {
            0 => {
                let part = if block.more { block.size() } else { usize::from(kind) };
                let sent = payload(block.offset(), block.offset() + part);
                if let Ok(Progress::Whole(whole)) = uploads.take(&key, block, None, &sent, now) {
                    assert_eq!(whole, payload(0, block.offset() + part));
                }
            }
            1 => {
                *length = usize::from(kind) * 16;
                let answer = Response { payload: payload(0, *length).into(), ..Response::new(ResponseType::Content) };
                let first = downloads.begin(&key, answer, Some(Block { number: 0, ..block }), now);
                assert!(first.class() != 2 || first.payload == payload(0, block.size().min(*length)));
            }
            _ => {
                let part = downloads.go_on(&key, block, now);
                let end = (block.offset() + block.size()).min(*length);
                assert!(part.class() != 2 || part.payload == payload(block.offset(), end));
                assert!(part.class() != 2 || part.block2.unwrap().more == (end < *length));
            }
        }
    }
    let later = now + Duration::from_secs(3600);
    uploads.expire(later);
    downloads.expire(later);
    assert!(uploads.is_empty() && downloads.is_empty());
}

/// A program of datagrams, steps of time, ends of calls, those accepted among them, and outputs, for a whole door: nothing runs twice, and
/// nothing is left.
pub fn exchanges(bytes: &[u8]) {
    let mut tape = Tape(bytes);
    let mut run = Run::new(tape.one_of(&VERIFY), &std::sync::Arc::default());
    while !tape.0.is_empty() {
        match tape.byte() % 12 {
            0 => run.pass(Duration::from_millis(tape.one_of(&TIMES_MS))),
            1 => {
                let which = tape.byte().into();
                run.end_call(which, tape.one_of(&ANSWER_BYTES));
            }
            7 => {
                let which = tape.byte().into();
                run.accepted_goes_on(which, tape.one_of(&ANSWER_BYTES), tape.one_of(&FORMATS));
            }
            9 => run.publish(tape.one_of(&FUNCTIONS), tape.one_of(&ANSWER_BYTES), tape.one_of(&FORMATS)),
            10 => run.reconsider(tape.one_of(&FUNCTIONS)),
            11 => run.reply_to_last(tape.byte() % 2 == 0),
            does => {
                let port = 1 + u16::from(tape.byte() % 4);
                let length = tape.number() % 1500;
                let bytes = tape.take(length);
                if does == 8 { run.by_group(port, bytes) } else { run.datagram(port, bytes) }
            }
        }
    }
    run.end();
}

#[cfg(test)]
mod tests;
