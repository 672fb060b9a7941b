//! A lane: what carries one call at a time to the target. Over HTTP it is a connection, over CoAP a socket, to the server a peer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use sandbar_proxy::client::PreparedRequest;
use sandbar_proxy::management::Client;
use sandbar_runtime::{Outcome, Request};

use super::coap::{CoapLane, Server};
use super::http::HttpLane;
use super::tally::End;

/// See the module.
#[derive(Debug)]
pub(crate) enum Lane {
    Coap(CoapLane),
    Http(HttpLane),
    /// With how long a call is waited for.
    Application(Rc<(Client, Request)>, Duration),
}

/// Where calls go to, and with what.
#[derive(Debug)]
pub(crate) enum Route {
    Coap { server: Rc<Server>, request: Rc<PreparedRequest> },
    Http { to: SocketAddr, request: Rc<[u8]> },
    Application(Rc<(Client, Request)>),
}

/// The lanes of a load, all to one target.
#[derive(Debug)]
pub(crate) struct Lanes {
    route: Route,
    timeout: Duration,
    /// As many are made and then used in turn; `None`: as many as calls are under way at once.
    fixed: Option<usize>,
    made: usize,
    idle: VecDeque<Lane>,
}

impl Lanes {
    pub(crate) fn new(route: Route, timeout: Duration, fixed: Option<usize>) -> Self {
        Self { route, timeout, fixed, made: 0, idle: VecDeque::new() }
    }

    /// How many there are by now.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// A lane for the next call; `None` while each that there may be has one.
    pub(crate) fn take(&mut self) -> Option<Lane> {
        match self.fixed {
            // The last one used first, so that few connections do what few can.
            None => Some(self.idle.pop_back().unwrap_or_else(|| self.make())),
            Some(fixed) if self.made < fixed => Some(self.make()),
            Some(_) => self.idle.pop_front(),
        }
    }

    /// Takes back one whose call has ended.
    pub(crate) fn put(&mut self, lane: Lane) {
        self.idle.push_back(lane);
    }

    /// Another lane. It opens what it needs with its first call.
    fn make(&mut self) -> Lane {
        self.made += 1;
        let timeout = self.timeout;
        match &self.route {
            Route::Coap { server, request } => {
                Lane::Coap(CoapLane::new(Rc::clone(server), Rc::clone(request), timeout))
            }
            Route::Http { to, request } => Lane::Http(HttpLane::new(*to, Rc::clone(request), timeout)),
            Route::Application(call) => Lane::Application(Rc::clone(call), timeout),
        }
    }
}

impl Lane {
    /// Makes one call.
    pub(crate) async fn call(&mut self) -> End {
        match self {
            Self::Coap(lane) => lane.call().await,
            Self::Http(lane) => lane.call().await,
            Self::Application(it, timeout) => tokio::time::timeout(*timeout, call(it)).await.unwrap_or(End::Lost),
        }
    }
}

async fn call((client, request): &(Client, Request)) -> End {
    let request = Request { payload: Bytes::clone(&request.payload), ..request.clone() };
    match client.call(request).await {
        Ok(answer) if answer.outcome == Outcome::Done => End::Done,
        Ok(answer) if answer.outcome == Outcome::Overloaded => End::Refused,
        Ok(answer) => End::Error(answer.outcome.to_string()),
        Err(error) => End::Error(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(fixed: Option<usize>) -> Lanes {
        let to = "127.0.0.1:1".parse().unwrap();
        Lanes::new(Route::Http { to, request: Rc::from(&b"x"[..]) }, Duration::from_secs(1), fixed)
    }

    #[test]
    fn as_few_lanes_as_will_do_are_made() {
        let mut lanes = lanes(None);
        for _ in 0..3 {
            let (a, b) = (lanes.take().unwrap(), lanes.take().unwrap());
            lanes.put(a);
            lanes.put(b);
        }
        assert_eq!(lanes.made(), 2);
    }

    #[test]
    fn a_fixed_number_is_made_and_no_more_can_be_had() {
        let mut lanes = lanes(Some(2));
        let first = lanes.take().unwrap();
        lanes.put(first);
        let taken = [lanes.take(), lanes.take()];
        assert!(taken.iter().all(Option::is_some) && lanes.take().is_none());
        assert_eq!(lanes.made(), 2, "though one was free: the load is spread");
    }
}
