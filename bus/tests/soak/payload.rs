//! Payloads that say whose they are: every byte follows from the call, the stage and the length, so that a byte of another
//! call, an old byte or a missing one is seen.

use crate::random::Random;

/// Which message of a call it is; travels as the content format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// What the agent posted.
    Event = 0,
    /// What f made of it.
    Middle = 1,
    /// What g made of that.
    Output = 2,
    /// What f asks g in a call of its own.
    Question = 3,
    /// What g replies.
    Reply = 4,
}

impl Stage {
    pub(crate) fn from_format(format: Option<u16>) -> Option<Self> {
        [Self::Event, Self::Middle, Self::Output, Self::Question, Self::Reply]
            .into_iter()
            .find(|stage| format == Some(*stage as u16))
    }
}

fn first_word(call: u64, stage: Stage, len: usize) -> u64 {
    let mixed = call.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (stage as u64) << 59 ^ (len as u64) << 29;
    (mixed ^ mixed >> 31).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

fn word(first: u64, at: usize) -> u64 {
    first ^ (at as u64).wrapping_mul(0xA076_1D64_78BD_642F)
}

/// Writes the payload of this stage of a call.
pub(crate) fn write(to: &mut Vec<u8>, call: u64, stage: Stage, len: usize) {
    let first = first_word(call, stage, len);
    to.resize(len, 0);
    let mut words = to.chunks_exact_mut(8);
    let mut at = 0;
    for chunk in &mut words {
        chunk.copy_from_slice(&word(first, at).to_ne_bytes());
        at += 1;
    }
    let rest = words.into_remainder();
    let last = word(first, at).to_ne_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Whether it is that payload, to the last byte.
pub(crate) fn is_right(payload: &[u8], call: u64, stage: Stage) -> bool {
    let first = first_word(call, stage, payload.len());
    let words = payload.chunks_exact(8);
    let rest = words.remainder();
    let last = word(first, payload.len() / 8).to_ne_bytes();
    rest == &last[..rest.len()] && words.enumerate().all(|(at, chunk)| chunk == word(first, at).to_ne_bytes())
}

/// A length: mostly small, and now and then of each of the larger size classes.
pub(crate) fn len(random: &mut Random) -> usize {
    let below = match random.below(1 << 16) {
        0 => 1 << 20,
        1..16 => 256 << 10,
        16..256 => 16 << 10,
        256..4096 => 1 << 10,
        _ => 64,
    };
    usize::try_from(random.below(below + 1)).unwrap()
}
