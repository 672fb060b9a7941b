//! Who stands behind an endpoint, and what it may call.

use std::net::IpAddr;
use std::sync::Arc;

use sandbar_runtime::Origin;

use crate::keys::{Grant, Identity};

/// The sender of a request.
#[derive(Clone, Debug)]
pub(super) enum Visitor {
    /// Whoever sends from this address, in the clear: each application's manifest says whether it lets them in.
    Stranger(IpAddr),
    /// One that has proven to have its key: the host's key file says what it may call.
    Known(Arc<Identity>),
}

impl Visitor {
    /// How the host is told of it.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Stranger(address) => Origin::Coap(*address),
            Self::Known(_) => Origin::Known,
        }
    }

    /// Whether its own rights, if it has any, include this call.
    pub(super) fn may_call(&self, application: &str, function: Option<&str>) -> bool {
        match self {
            Self::Stranger(_) => true,
            Self::Known(identity) => identity.may_call(application, function),
        }
    }

    /// Whether its own rights, if it has any, include something of this application.
    pub(super) fn may_know(&self, application: &str) -> bool {
        let concerns = |grant: &Grant| match grant {
            Grant::Everything => true,
            Grant::Application(granted) | Grant::Function(granted, _) => granted.as_str() == application,
        };
        match self {
            Self::Stranger(_) => true,
            Self::Known(identity) => identity.grants().iter().any(concerns),
        }
    }
}
