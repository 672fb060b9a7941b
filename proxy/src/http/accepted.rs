//! Accepted calls over HTTP: how one is asked for, and what its location answers.
//!
//! A request says that it does not wait by `Prefer: respond-async` (RFC 7240, section 4.1), or as tinyFaaS has it, by
//! `X-tinyFaaS-Async` with any value. A `wait` beside the former is for servers that would rather answer: here the call is accepted at once.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response};
use sandbar_runtime::{Answer, Mode, Origin, Outcome, Ticket};

use super::Shared;
use super::body::AnswerBody;
use super::call::{Refusal, Taken, admit};
use crate::service::Service;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const TINYFAAS_ASYNC: HeaderName = HeaderName::from_static("x-tinyfaas-async");
const RESPOND_ASYNC: &str = "respond-async";
/// The methods that a location takes, as the `Allow` header lists them.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The function's answer.
    Answer,
    /// That the call is accepted, as one would say it to tinyFaaS.
    Acceptance,
    /// The same by preference, which the response has to say was heeded.
    AcceptanceByPreference,
}

impl Asked {
    /// What the headers of a request ask for.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let prefers = |value: &HeaderValue| value.to_str().is_ok_and(|text| preferences(text).any(is_respond_async));
        if headers.get_all(PREFER).iter().any(prefers) {
            return Self::AcceptanceByPreference;
        }
        let asked = headers.get(TINYFAAS_ASYNC).is_some_and(|value| !value.is_empty());
        if asked { Self::Acceptance } else { Self::Answer }
    }

    pub(super) fn mode(self) -> Mode {
        match self {
            Self::Answer => Mode::Synchronous,
            Self::Acceptance | Self::AcceptanceByPreference => Mode::Asynchronous,
        }
    }

    /// Says in the response to a call with this outcome whether a preference was heeded.
    pub(super) fn mark(self, outcome: Outcome, response: &mut Response<AnswerBody>) {
        if self == Self::AcceptanceByPreference && outcome == Outcome::Accepted {
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
        }
    }
}

/// The preferences of a `Prefer` header: what stands between commas, those within quotation marks left aside.
fn preferences(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character: char| {
        let literal = std::mem::take(&mut escaped);
        match character {
            '\\' if quoted && !literal => escaped = true,
            '"' if !literal => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
}

/// Whether a preference is to be answered once the call is accepted. It has no value, or an empty one, which is none (RFC 7240, section
/// 2), and may have parameters, which mean nothing here.
fn is_respond_async(preference: &str) -> bool {
    let said = preference.split(';').next().unwrap_or_default();
    let (name, value) = said.split_once('=').unwrap_or((said, ""));
    name.trim().eq_ignore_ascii_case(RESPOND_ASYNC) && matches!(value.trim(), "" | "\"\"")
}

/// The answer to an accepted call, for whoever may call its function. `ticket` is what follows [`ACCEPTED_CALLS`](sandbar_runtime::ACCEPTED_CALLS)
/// in the path.
pub(super) async fn answer<S: Service>(
    shared: &Shared<S>,
    peer: IpAddr,
    method: &Method,
    application: &str,
    ticket: &str,
) -> Result<Taken, Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refusal::Method(METHODS));
    }
    let service = &shared.service;
    let known = ticket.parse::<Ticket>().ok().and_then(|ticket| Some((ticket, service.accepted(application, ticket)?)));
    // First of all, as whoever may not call the function is not told whether there is a call of it.
    let function = known.as_ref().and_then(|(_, call)| call.function.as_deref());
    service.find(Origin::Http(peer), application, function)?;
    let (ticket, _) =
        known.ok_or_else(|| Box::new(Answer::refused(Outcome::NotFound, "no such call is known (any more)")))?;
    let place = admit(shared, peer)?;
    let answer = service.accepted_answer(application, ticket).await;
    Ok(Taken { answer, place, asked: Asked::Answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(lines: &[(&'static str, &'static str)]) -> Asked {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Asked::of(&headers)
    }

    #[test]
    fn a_preference_is_found_among_others() {
        for value in [
            "respond-async",
            "Respond-ASYNC",
            "wait=10, respond-async",
            "respond-async,wait=10",
            " handling=lenient ; x=1 ,\trespond-async ; y=\"2,3\"",
            "foo=\"a, \\\" b\", respond-async",
            "respond-async=\"\"",
            "respond-async = ",
        ] {
            assert_eq!(asked(&[("prefer", value)]), Asked::AcceptanceByPreference, "{value}");
        }
        assert_eq!(asked(&[("prefer", "wait=1"), ("prefer", "respond-async")]), Asked::AcceptanceByPreference);
    }

    #[test]
    fn what_only_looks_like_it_is_none() {
        for value in [
            "",
            "respond-asynchronously",
            "return=respond-async",
            "wait=10; respond-async",
            "foo=\"a, respond-async\"",
            "foo=\"a\\\", respond-async",
            "respond-async=no",
            "respond async",
        ] {
            assert_eq!(asked(&[("prefer", value)]), Asked::Answer, "{value}");
        }
    }

    #[test]
    fn tinyfaas_callers_say_it_with_any_value() {
        assert_eq!(asked(&[("x-tinyfaas-async", "true")]), Asked::Acceptance);
        assert_eq!(asked(&[("x-tinyfaas-async", "0")]), Asked::Acceptance);
        assert_eq!(asked(&[("x-tinyfaas-async", "")]), Asked::Answer);
        let both = asked(&[("x-tinyfaas-async", "1"), ("prefer", "respond-async")]);
        assert_eq!(both, Asked::AcceptanceByPreference, "which has to be said");
    }
}
