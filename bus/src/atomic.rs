//! The seam under the algorithms: atomics of the standard library or, in a model, of loom, which runs every interleaving that the
//! memory model allows. Queue, pool, waiters and bell take all they touch by reference, so that the heap, a model and a memory
//! map run the same code.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
