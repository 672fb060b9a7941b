//! What an instance may call, and how that may fail.

use std::fmt;

use sandbar_bus::{Destination, Verdict};

use crate::instance::HOPS_MAX;

/// A function that can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    /// One of this application, by index.
    Here(usize),
    /// One of another application, by index in the manifest's list: the agent makes the call.
    Elsewhere(usize),
}

impl Callee {
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Here(index) | Self::Elsewhere(index) => index,
        }
    }

    pub(crate) fn destination(self) -> Destination {
        match self {
            Self::Here(index) => Destination::Function(index),
            Self::Elsewhere(_) => Destination::Out,
        }
    }
}

/// Why a call of another function, or a send to one, did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The application has no such function.
    NoSuchFunction(String),
    /// The application's manifest does not list this function of another application.
    NotListed(String),
    /// The payload is larger than the application's limit, in bytes.
    TooLarge(usize),
    /// The function's queue or the application's message buffers are full.
    Overloaded,
    /// The call went through too many functions: it likely goes round in circles.
    Loop,
    /// No answer came before this instance's own deadline.
    DeadlinePassed,
    /// The function, or one after it, ended otherwise than done.
    Ended(Verdict, String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchFunction(name) => write!(f, "the application has no function {name:?}"),
            Self::NotListed(path) => write!(f, "the application's manifest does not list {path:?} under `calls`"),
            Self::TooLarge(max) => write!(f, "the payload is larger than the application's limit of {max} bytes"),
            Self::Overloaded => f.write_str("the function is overloaded"),
            Self::Loop => write!(f, "the call has gone through {HOPS_MAX} functions"),
            Self::DeadlinePassed => f.write_str("no answer before the deadline"),
            Self::Ended(_, diagnostic) => f.write_str(diagnostic),
        }
    }
}

impl std::error::Error for CallError {}
