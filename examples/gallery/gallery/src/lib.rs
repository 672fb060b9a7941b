//! What the example gallery does with a picture. The functions themselves, with their events and
//! answers, are in `main.rs`; nothing here knows that it runs in a sandbox.
//!
//! Pictures come from outside: whatever is wrong with one is an error, never a panic, and no picture
//! makes more memory be taken than [`picture`] allows.

pub mod metadata;
pub mod picture;
pub mod scene;
pub mod thumbnail;
