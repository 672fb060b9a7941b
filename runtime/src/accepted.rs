//! Accepted calls: asynchronous ones, stored before they are accepted, made when their application takes them, their answers kept for whoever
//! has the [`Ticket`].
//!
//! ```text
//!                 stored                     a place is free                            done
//!   door ─ accept ───────▶ waiting ─────────────────────────▶ under way ─┬─────────────────────────────▶ done
//!                             ▲                                           │ failed, as often as is tried,
//!                             │ failed: after a pause                     │ or it can never be made
//!                             ├───────────────────────────────────────────┴─────────────────────────────▶ dead
//!                             └───────────────────────────────── replay ─────────────────────────────────────┘
//! ```
//!
//! `index` is the state machine drawn here, in memory, without payloads; `store` holds the calls on disk; `delivery` makes them.
//!
//! Invariants:
//! 1. A call is accepted when the disk has it, not before; it ends when the disk has its answer, not before. What happens to the
//!    agent in between, the call is made at least once: again by the next agent, under the same id.
//! 2. Everything is bounded, by number and by bytes, each application for itself ([`AcceptedLimits`]): what is beyond is refused as overloaded
//!    before it is stored; of answers the oldest are forgotten.
//! 3. A host on which no call was ever accepted has no store, no thread for it and no file.
//! 4. They are calls like others: admitted by the host bus, counted with their application's, and refused by it as others are. One that
//!    is refused as overloaded waits, and that is no attempt.
//!
//! It keeps no order but this: of an application's calls the first that may be made is begun first. It knows nothing of deadlines
//! beyond the function's own time-out. Source: at-least-once delivery with the call's id as idempotency key, and dead letters, are what
//! message brokers do; ProFaaStinate (Schirmer et al., WoSC 2023) answers before it stores, and loses calls.

mod delivery;
mod index;
mod record;
mod store;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::call::{Answer, CallId, Outcome, Request, Ticket};
use crate::host_bus::{Caller, HostBus};
use crate::outputs::Outputs;
use index::Index;
pub use index::NoRoom;
use record::Entry;
use store::Store;
pub use store::StoreError;

/// What is kept of accepted calls. Numbers and bytes are those of one application, unless they say otherwise.
#[derive(Clone, Debug)]
pub struct AcceptedLimits {
    /// Calls that have not ended.
    pub waiting_max: usize,
    /// Bytes of their payloads.
    pub waiting_bytes_max: usize,
    /// Calls that have not ended, of all applications.
    pub waiting_of_all_max: usize,
    /// Bytes of their payloads, of all applications.
    pub waiting_bytes_of_all_max: usize,
    /// Calls under way at one time.
    pub under_way_max: usize,
    /// Calls under way at one time, of all applications.
    pub under_way_of_all_max: usize,
    /// How often a call is made that fails or is not answered in time, in all.
    pub attempts_max: u32,
    /// The pause before the second attempt; four times as long before each that follows.
    pub pause: Duration,
    /// How long the answer to a call is kept.
    pub keep: Duration,
    /// How long a call is kept that was given up, with its payload.
    pub keep_dead: Duration,
    /// Answers that are kept, and, for themselves, calls that were given up.
    pub kept_max: usize,
    /// Bytes of both, each for themselves. The newest is kept in any case.
    pub kept_bytes_max: usize,
}

impl Default for AcceptedLimits {
    fn default() -> Self {
        Self {
            waiting_max: 1000,
            waiting_bytes_max: 64 << 20,
            waiting_of_all_max: 10_000,
            waiting_bytes_of_all_max: 256 << 20,
            under_way_max: 8,
            under_way_of_all_max: 64,
            attempts_max: 3,
            pause: Duration::from_secs(1),
            keep: Duration::from_secs(3600),
            keep_dead: Duration::from_secs(7 * 24 * 3600),
            kept_max: 1000,
            kept_bytes_max: 32 << 20,
        }
    }
}

/// How far an accepted call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceptedState {
    /// It has yet to be made, or made again.
    Waiting,
    /// It is being made.
    UnderWay,
    /// It was answered; the answer is kept.
    Done,
    /// It was given up. It is kept with its payload, to be replayed.
    Dead,
}

/// What a door needs to know of an accepted call before it does anything about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedCall {
    /// The function that was called; `None`: the application's entry function. Who may not call it may not ask after the call.
    pub function: Option<String>,
    /// Whether it has ended.
    pub ended: bool,
}

/// One accepted call, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedStatus {
    /// The ticket.
    pub ticket: String,
    /// The application that is called.
    pub application: String,
    /// The function that is called; absent: the entry function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// How far it is.
    pub state: AcceptedState,
    /// Attempts that have ended.
    pub attempts: u32,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_ms: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// How the last attempt ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why that is not "done"; empty if it is, or if there was none.
    pub diagnostic: String,
    /// Bytes of the payload that is kept: of one that was done, none.
    pub payload_bytes: usize,
    /// Bytes of the answer.
    pub answer_bytes: usize,
}

/// Why something was not done with accepted calls.
#[derive(Debug, thiserror::Error)]
pub enum AcceptedError {
    /// There is no such call.
    #[error("no call {0} is known: calls that have ended are kept for a time only")]
    NoSuchCall(Ticket),
    /// It is being made.
    #[error("call {0} is under way: it can be forgotten when it has ended")]
    UnderWay(Ticket),
    /// It was not given up.
    #[error("call {0} was not given up: only such a call is made again")]
    NotDead(Ticket),
    /// There are as many calls waiting as may be.
    #[error("call {0} cannot be made again now: {1}")]
    NoRoom(Ticket, NoRoom),
    /// The disk.
    #[error("the store of accepted calls failed")]
    Store(#[source] StoreError),
}
