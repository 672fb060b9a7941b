//! A call as a device makes it: over CoAP or coaps, to any host.

use std::borrow::Cow;
use std::time::Duration;

use sandbar_proxy::client::{Client, Method, Request, Response};
use sandbar_proxy::coap::ASYNC_QUERY;
use sandbar_runtime::{Answer, AnswerProperties, Outcome};

use crate::calls::CallLocation;
use crate::failure::Failure;
use crate::identity::IdentityArguments;
use crate::url::CoapUrl;

/// How long an answer is waited for, unless it is said.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a call carries, and how it is made.
pub(super) struct Call<'a> {
    pub(super) payload: &'a [u8],
    pub(super) content_format: Option<u16>,
    pub(super) timeout: Option<Duration>,
    /// Whether it is to be accepted, and not waited for.
    pub(super) asynchronous: bool,
}

impl Call<'_> {
    /// Calls, and waits for the whole answer.
    pub(super) async fn make(&self, url: &CoapUrl, identity: &IdentityArguments) -> Result<Answer, Failure> {
        let credentials = identity.for_target(url.secure)?;
        let what = || format!("the address of {}", url.url.authority);
        let to = url.url.address().map_err(|source| Failure::Input { what: what(), source })?;
        let patience = self.timeout.unwrap_or(PATIENCE);
        let mut client = match credentials {
            Some(credentials) => Client::connect_secure(to, credentials, patience).await?,
            None => Client::connect(to, patience).await?,
        };
        let path = self.path(&url.url.path);
        let (payload, content_format) = (self.payload, self.content_format);
        let request = Request { method: Method::Post, path: &path, payload, content_format };
        Ok(answer(client.request(&request).await?))
    }

    /// The path and query that were given, and that the call is not waited for.
    fn path<'p>(&self, given: &'p str) -> Cow<'p, str> {
        let query = given.split_once('?').map(|(_, query)| query);
        let said = query.is_some_and(|query| query.split('&').any(|part| part == ASYNC_QUERY));
        if !self.asynchronous || said {
            return Cow::Borrowed(given);
        }
        let between = match query {
            None => "?",
            Some("") => "",
            Some(_) => "&",
        };
        Cow::Owned(format!("{given}{between}{ASYNC_QUERY}"))
    }
}

/// A response as the answer that it stands for.
fn answer(response: Response) -> Answer {
    let (class, detail) = response.code;
    let outcome = if is_accepted(&response) { Outcome::Accepted } else { response.outcome() };
    if matches!(outcome, Outcome::Done | Outcome::Accepted) {
        let Response { payload, content_format, location, .. } = response;
        let properties = AnswerProperties { location, ..AnswerProperties::default() };
        return Answer { payload: payload.into(), content_format, properties, ..Answer::refused(outcome, "") };
    }
    let said = String::from_utf8_lossy(&response.payload);
    let diagnostic = format!("{class}.{detail:02} {said}").trim_end().to_owned();
    let retry_after = response.max_age.filter(|_| outcome == Outcome::Overloaded);
    Answer { retry_after, payload_bytes_max: response.size1, ..Answer::refused(outcome, diagnostic) }
}

/// Whether a call was accepted: what was made then is not the function's, but a call that is to be made.
fn is_accepted(response: &Response) -> bool {
    let location = response.location.as_deref().map(str::parse::<CallLocation>);
    response.code == (2, 1) && matches!(location, Some(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(code: (u8, u8), payload: &[u8]) -> Response {
        let payload = payload.to_vec();
        Response { code, payload, content_format: Some(0), max_age: None, size1: None, location: None }
    }

    #[test]
    fn an_answer_has_a_payload_or_the_reason_why_it_has_none() {
        let done = answer(response((2, 4), b"21.5"));
        assert_eq!((done.outcome, &done.payload[..], done.content_format), (Outcome::Done, &b"21.5"[..], Some(0)));
        let refused = answer(response((4, 3), b"not granted"));
        assert_eq!((refused.outcome, refused.diagnostic.as_str()), (Outcome::NotAllowed, "4.03 not granted"));
        assert!(refused.payload.is_empty());
        assert_eq!(answer(response((4, 4), b"")).diagnostic, "4.04");
        let pause = Some(Duration::from_secs(7));
        assert_eq!(answer(Response { max_age: pause, ..response((5, 3), b"") }).retry_after, pause);
        assert_eq!(answer(Response { max_age: pause, ..response((5, 0), b"") }).retry_after, None);
    }

    #[test]
    fn a_call_that_is_to_be_made_is_told_from_what_a_function_has_made() {
        let made = |location: &str| answer(Response { location: Some(location.to_owned()), ..response((2, 1), b"") });
        let accepted = "/porch/.calls/000000000000feed0000000000000007";
        assert_eq!(made(accepted).outcome, Outcome::Accepted);
        assert_eq!(made(accepted).properties.location.as_deref(), Some(accepted));
        assert_eq!(made("/lamps/1").outcome, Outcome::Done);
        assert_eq!(made("/lamps/1").properties.location.as_deref(), Some("/lamps/1"));
        let changed = Response { location: Some(accepted.to_owned()), ..response((2, 4), b"") };
        assert_eq!(answer(changed).outcome, Outcome::Done);
    }

    #[test]
    fn a_query_says_once_that_the_call_is_not_waited_for() {
        let path = |asynchronous, given| {
            Call { payload: &[], content_format: None, timeout: None, asynchronous }.path(given).into_owned()
        };
        for (given, sent) in [
            ("/a", "/a?async"),
            ("/a?x=1", "/a?x=1&async"),
            ("/a?", "/a?async"),
            ("/a?x&async", "/a?x&async"),
            ("/a?async=1", "/a?async=1&async"),
        ] {
            assert_eq!(path(true, given), sent);
            assert_eq!(path(false, given), given);
        }
    }
}
