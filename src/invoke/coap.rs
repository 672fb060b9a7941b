//! A call as a device makes it: over CoAP or coaps, to any host.

use std::time::Duration;

use sandbar_proxy::client::{Client, Method, Request, Response};
use sandbar_runtime::{Answer, Outcome};

use crate::failure::Failure;
use crate::identity::IdentityArguments;
use crate::url::CoapUrl;

/// How long an answer is waited for, unless it is said.
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls, and waits for the whole answer.
pub(super) async fn call(
    url: &CoapUrl,
    identity: &IdentityArguments,
    payload: &[u8],
    content_format: Option<u16>,
    timeout: Option<Duration>,
) -> Result<Answer, Failure> {
    let credentials = identity.for_target(url.secure)?;
    let what = || format!("the address of {}", url.url.authority);
    let to = url.url.address().map_err(|source| Failure::Input { what: what(), source })?;
    let patience = timeout.unwrap_or(PATIENCE);
    let mut client = match credentials {
        Some(credentials) => Client::connect_secure(to, credentials, patience).await?,
        None => Client::connect(to, patience).await?,
    };
    let request = Request { method: Method::Post, path: &url.url.path, payload, content_format };
    Ok(answer(client.request(&request).await?))
}

/// A response as the answer that it stands for.
fn answer(response: Response) -> Answer {
    let outcome = response.outcome();
    if outcome == Outcome::Done {
        let Response { payload, content_format, .. } = response;
        return Answer { payload: payload.into(), content_format, ..Answer::refused(outcome, "") };
    }
    let (class, detail) = response.code;
    let said = String::from_utf8_lossy(&response.payload);
    let diagnostic = format!("{class}.{detail:02} {said}").trim_end().to_owned();
    let retry_after = response.max_age.filter(|_| outcome == Outcome::Overloaded);
    Answer { retry_after, payload_bytes_max: response.size1, ..Answer::refused(outcome, diagnostic) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(code: (u8, u8), payload: &[u8]) -> Response {
        Response { code, payload: payload.to_vec(), content_format: Some(0), max_age: None, size1: None }
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
}
