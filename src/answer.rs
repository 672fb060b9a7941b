//! The answer to a call, as it is printed: its bytes, or all of it as JSON.

use std::io::{self, IsTerminal};

use sandbar_proxy::management::AnswerHead;
use sandbar_runtime::{Answer, Outcome};
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// Prints an answer: of a call that was done its bytes as they are, of one that was accepted its location, or everything as JSON.
pub(crate) fn print(answer: &Answer, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(&WholeAnswer::of(answer));
    }
    match (answer.outcome, &answer.properties.location) {
        (Outcome::Done, _) => {
            output::write(&answer.payload)?;
            let unfinished = io::stdout().is_terminal() && !answer.payload.ends_with(b"\n");
            if unfinished { output::line("") } else { Ok(()) }
        }
        (Outcome::Accepted, Some(location)) => output::line(&output::visible(location)),
        _ => Ok(()),
    }
}

/// The failure that an answer is, if it is one.
pub(crate) fn judge(answer: Answer) -> Result<(), Failure> {
    if Exit::from(answer.outcome) == Exit::Done {
        return Ok(());
    }
    Err(Failure::Call { outcome: answer.outcome, diagnostic: answer.diagnostic, retry_after: answer.retry_after })
}

/// An answer as one JSON object.
#[derive(Serialize)]
struct WholeAnswer<'a> {
    #[serde(flatten)]
    head: AnswerHead,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

impl<'a> WholeAnswer<'a> {
    fn of(answer: &'a Answer) -> Self {
        let text = std::str::from_utf8(&answer.payload).ok();
        Self {
            head: AnswerHead::of(answer),
            payload: text,
            payload_hex: text.is_none().then(|| format!("{:x}", answer.payload)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_payload_that_is_no_text_is_given_in_hexadecimal() {
        let mut answer = Answer::refused(Outcome::Done, "");
        answer.payload = Bytes::from_static(b"\xff\x00");
        let json = serde_json::to_value(WholeAnswer::of(&answer)).unwrap();
        assert_eq!(json["payload_hex"], "ff00");
        assert_eq!(json["outcome"], "done");
        assert!(json.get("payload").is_none());
        answer.payload = Bytes::from_static("µ".as_bytes());
        let json = serde_json::to_value(WholeAnswer::of(&answer)).unwrap();
        assert_eq!(json["payload"], "µ");
    }

    #[test]
    fn only_what_was_done_or_accepted_is_no_failure() {
        assert!(judge(Answer::refused(Outcome::Done, "")).is_ok());
        assert!(judge(Answer::refused(Outcome::Accepted, "")).is_ok());
        let failed = judge(Answer::refused(Outcome::Failed, "it broke")).unwrap_err();
        assert_eq!((failed.to_string().as_str(), failed.exit()), ("failed: it broke", Exit::FunctionFailed));
    }
}
