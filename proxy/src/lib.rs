//! The front doors of a host.
//!
//! A door takes requests of one protocol, refuses what cannot be served before anything runs, hands the rest to the
//! [`Service`] behind it and turns the answer back. All doors call the same paths, `/APPLICATION` and
//! `/APPLICATION/FUNCTION`, and share one table of outcomes.

#![forbid(unsafe_code)]

pub mod client;
pub mod coap;
mod content_format;
mod dtls;
pub mod http;
pub mod keys;
pub mod management;
mod outcome;
mod service;
mod uri;

pub use service::{ServedApplication, ServedFunction, Service};
