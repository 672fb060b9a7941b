//! The application bus: how functions of one application hand messages to each other through shared memory.
//!
//! # The algorithm, in a page
//!
//! A [segment] holds a fixed number of *messages*, each with a payload buffer, and a fixed number of *queues*: one
//! for each function, one out to the host agent, one mailbox for each instance.
//!
//! ```text
//!   sender                                        taker
//!   ──────                                        ─────
//!   draft:  CAS state  Free → Draft(me)
//!   write payload and header
//!           state := Sending(me, queue)
//!   push:   CAS cell   empty → (index, generation)   ← accepted from here on
//!           help the tail along                   front: read the cell at the head
//!   fence                                         take:  CAS state  Sending → Serving(me)   ← taken from here on
//!   choose a waiter, wake it                      clear: CAS cell   → empty; help the head along
//!                                                 read the payload where it lies
//! ```
//!
//! **One word decides who owns a message**: its state, in `message`. A queue only gives messages an order, and says which of them
//! are accepted. There are two commit points, each one compare-and-swap: the cell for the sender, the state for the taker.
//! Between any two instructions of anyone, each message is in exactly one state with exactly one owner, so that a process may
//! be killed anywhere: nothing it held is lost from sight, and the supervisor's [sweep] finds all of it by its
//! owner's name. Free messages are on no list that could break: a free message is one whose state says so.
//!
//! Waiting is by futex, on a word of the waiter's own. A waiter announces itself in its queue's set of waiters, then looks
//! again, then sleeps; a sender publishes, then looks for waiters, and wakes exactly one. A fence between the two steps of each
//! makes one see the other.
//!
//! # Provenance
//! The queue: a lap in each cell after D. Vyukov's bounded queue, single-step publication and helping after Tsigas and Zhang
//! (SPAA 2001). Ownership in one word per object, swept by owner after a crash: robust futexes and, in spirit, the
//! recoverable mutual exclusion literature. The application bus itself: SAND (Akkus et al., USENIX ATC 2018), whose local
//! bus was a process of its own.
//!
//! # What it does not do
//! It does not keep messages over the end of a sandbox, order messages of different senders, nor protect an application from
//! itself: its processes can scribble over the whole segment, and harm their own application only. The host agent checks all it
//! reads: see [`agent`].

pub mod agent;
mod atomic;
pub mod bell;
pub mod bus;
mod catalogue;
pub mod clock;
mod envelope;
pub mod futex;
pub mod layout;
mod message;
mod pool;
mod queue;
pub mod segment;
pub mod slot;
pub mod sweep;
pub mod trace;
mod waiters;
mod wake;

pub use agent::AgentSide;
pub use bus::{Bus, Destination, Draft, Taken};
pub use catalogue::{Catalogue, Function};
pub use envelope::{Address, Envelope, Verdict};
pub use layout::{Geometry, Layout};
pub use message::Actor;
pub use segment::Segment;
