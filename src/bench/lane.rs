//! A lane: what carries one call at a time to the target.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use sandbar_proxy::management::Client;
use sandbar_runtime::{Outcome, Request};

use super::coap::CoapLane;
use super::http::HttpLane;
use super::tally::End;

/// See the module.
#[derive(Debug)]
pub(crate) enum Lane {
    Coap(CoapLane),
    Http(HttpLane, Rc<[u8]>),
    Application(Rc<(Client, Request)>),
}

/// Makes lanes, all to one target.
#[derive(Debug)]
pub(crate) enum Lanes {
    Coap { to: SocketAddr, datagram: Vec<u8>, confirmable: bool },
    Http { to: SocketAddr, request: Rc<[u8]> },
    Application(Rc<(Client, Request)>),
}

impl Lanes {
    /// Another lane. It opens what it needs with its first call.
    pub(crate) fn make(&self) -> Lane {
        match self {
            Self::Coap { to, datagram, confirmable } => Lane::Coap(CoapLane::new(*to, datagram.clone(), *confirmable)),
            Self::Http { to, request } => Lane::Http(HttpLane::new(*to), Rc::clone(request)),
            Self::Application(call) => Lane::Application(Rc::clone(call)),
        }
    }
}

impl Lane {
    /// Makes one call.
    pub(crate) async fn call(&mut self) -> End {
        match self {
            Self::Coap(lane) => lane.call().await,
            Self::Http(lane, request) => lane.call(request).await,
            Self::Application(call) => {
                let (client, request) = &**call;
                let request = Request { payload: Bytes::clone(&request.payload), ..request.clone() };
                match client.call(request).await {
                    Ok(answer) if answer.outcome == Outcome::Done => End::Done,
                    Ok(answer) if answer.outcome == Outcome::Overloaded => End::Refused,
                    Ok(answer) => End::Error(answer.outcome.to_string()),
                    Err(error) => End::Error(error.to_string()),
                }
            }
        }
    }

    /// The call under way is not waited for any longer.
    pub(crate) fn abandon(&mut self) {
        match self {
            Self::Http(lane, _) => lane.reset(),
            Self::Coap(_) | Self::Application(_) => {}
        }
    }
}
