//! The application bus: how functions of one application hand messages to each other through shared memory.
//!
//! # The algorithm, in a page
//!
//! A [segment] holds a fixed number of *messages*, each with a payload buffer of one of four sizes, and a fixed number of
//! *queues*: one for each function, one out to the host agent, one mailbox for each instance. [`layout`] draws it.
//!
//! ```text
//!   sender                                              taker
//!   ──────                                              ─────
//!   claim:  CAS state  Free → Draft(me)                 listen, announce itself among the queue's waiters
//!   write the payload, once                             fence, look; nothing there: sleep
//!   send:   CAS state  Draft → Sending(me, queue)         ┊
//!           write the envelope                            ┊
//!   push:   CAS cell   empty → (index, generation) ━━ accepted from here on
//!           move the tail along                           ┊
//!   fence;  choose one waiter, ring its bell ─ ─ ─ ─ ─▶ front: read the cell at the head
//!                                                       take:  CAS state  Sending → Serving(me) ━━ taken from here on
//!                                                       clear: CAS cell   → empty; move the head along
//!                                                       read the payload where it lies
//! ```
//!
//! 1. **One word decides who owns a message**: its state (`message`). There are two commit points, each one compare-and-swap: the cell
//!    for the sender, the state for the taker. Between any two instructions of anyone, each message is in exactly one state
//!    with exactly one owner, so that a process may be killed anywhere and all it held is found by its name.
//! 2. **A queue gives messages an order, and says which of them are accepted** (`queue`). Nothing is claimed before it is
//!    published; head and tail are hints that anyone moves on. Who stops for ever stops nobody.
//! 3. **Free messages are on no list** that could break: a free message is one whose state says so (`pool`). Each function has
//!    some of its own, so that no flood takes them all, and nothing is counted that a kill could make wrong.
//! 4. **A result is tied to its request**: before a result is sent, the request names the message it is in, so that the sweep can tell a call
//!    that was answered from one that was cut off. Handing a message on unchanged ties nothing: there is only one.
//! 5. **Who waits is woken by one sender, and only who waits** (`bell`, `waiters`, `wake`). A waiter announces itself, then looks again; a
//!    sender publishes, then looks for waiters; a fence between the two steps of each makes one see the other.
//!    An instance that is not needed any more is *dismissed* while it waits: it takes nothing from then on, and so may be killed.
//! 6. **After a death the supervisor [sweeps](sweep)**: what the dead instance held becomes free or an error to the caller, and those it was about to
//!    wake are woken. A sweep may be cut off anywhere, too, and run again.
//! 7. **The host agent believes nothing** of what it reads here ([`agent`]).
//!
//! # How that is shown
//! `tests/kill` stops a process after every single instruction of each operation, kills it there, and sweeps; the sweep likewise. The
//! `model` modules run the algorithms under loom, the unit tests beside a `VecDeque` and under Miri; `tests/soak` sends millions of
//! messages between processes that are killed all the while; `tests/hostile` scribbles while the agent serves; `tests/waking`
//! counts who is woken.
//!
//! # Provenance
//! The queue: a lap in each cell after D. Vyukov's bounded queue, single-step publication and helping after Tsigas and Zhang
//! (SPAA 2001). Ownership in one word per object, swept by owner after a crash: robust futexes and, in spirit, the
//! recoverable mutual exclusion literature. Announce, fence, look again: Dekker's handshake, as event counts have it. The application bus
//! itself: SAND (Akkus et al., USENIX ATC 2018), whose local bus was a process of its own.
//!
//! # What it does not do
//! It does not keep messages over the end of a sandbox, order messages of different senders, nor protect an application from
//! itself: its processes can scribble over the whole segment, and harm their own application only. It does not reach into
//! another application: such a request goes out to the agent, like an answer.

pub mod agent;
mod atomic;
pub mod bell;
pub mod bus;
mod catalogue;
pub mod clock;
mod envelope;
pub mod futex;
mod hold;
pub mod layout;
mod message;
mod pool;
pub mod properties;
mod queue;
pub mod segment;
pub mod slot;
pub mod sweep;
pub mod trace;
mod waiters;
mod wake;

pub use agent::AgentSide;
pub use bus::{Bus, Destination};
pub use catalogue::{Catalogue, Function, Ready};
pub use envelope::{Address, Envelope, Verdict};
pub use hold::{Draft, Payload, Taken};
pub use layout::{Geometry, Layout};
pub use message::Actor;
pub use properties::{AnswerProperties, Code, Method, RequestProperties};
pub use segment::Segment;
