//! What both halves of the management service send each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use sandbar_runtime::{Answer, AnswerProperties, CallId, Code, Hop, LogLine, Outcome};
use serde::{Deserialize, Serialize};

use crate::keys;

/// What `/v1/host` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostStatus {
    /// The host agent's version.
    pub version: String,
    /// The host agent's process id.
    pub pid: u32,
    /// Milliseconds since the management service opened.
    pub uptime_ms: u64,
    /// The front doors that are open, without this service.
    pub doors: Vec<Door>,
}

/// One open front door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where; with the port that was given, where the configuration left it to the system.
    pub address: SocketAddr,
    /// What it has counted since it was opened, by name; empty for a door that does not count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    /// What callers may take of it, by name: numbers of things, bytes, and times in milliseconds, of which the name says which. Names
    /// are those of the fields of `CoapConfig`, `DtlsConfig` and `HttpConfig`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, u64>,
}

/// The protocols calls come in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// CoAP over UDP (RFC 7252).
    Coap,
    /// CoAP over DTLS over UDP.
    Coaps,
    /// HTTP/1.1 over TCP.
    Http,
}

/// What a request that was not served answers, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What could not be done.
    pub error: String,
    /// Why, from the nearest cause to the last.
    pub causes: Vec<String>,
}

impl ErrorBody {
    /// The whole chain of an error, as text.
    pub(super) fn of(error: &dyn std::error::Error) -> Self {
        let chain = std::iter::successors(error.source(), |&cause| cause.source());
        Self { error: error.to_string(), causes: chain.map(ToString::to_string).collect() }
    }
}

/// The body of a deployment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeployRequest {
    /// The application's folder or archive on the host, absolute: the agent's working directory is not the caller's.
    pub(super) source: PathBuf,
}

/// The query of a call.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallQuery {
    /// The function; the application's entry if none is named.
    pub(super) function: Option<String>,
    /// Whether the answer is to list its hops.
    #[serde(default)]
    pub(super) trace: bool,
    /// How long the caller waits, in milliseconds.
    pub(super) timeout_ms: Option<u64>,
    /// The payload's format (CoAP Content-Formats registry).
    pub(super) content_format: Option<u16>,
    /// Whether the answer is wanted only once the call is accepted, and not once it was made.
    #[serde(default)]
    pub(super) asynchronous: bool,
}

/// The query of a list of accepted calls.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptedQuery {
    /// Only those of this application.
    pub(super) application: Option<String>,
}

/// The query of a log.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    /// Only this function's lines.
    pub(super) function: Option<String>,
    /// Whether to go on with lines as they come.
    #[serde(default)]
    pub(super) follow: bool,
}

/// One line of a log, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// When the agent read it; RFC 3339, in UTC, to the microsecond.
    #[serde(with = "rfc3339")]
    pub time: SystemTime,
    /// The function that wrote it; empty for the sandbox itself.
    pub function: String,
    /// The text, without its line end. Functions write what they like: control characters included.
    pub text: String,
}

impl From<LogLine> for LogRecord {
    fn from(line: LogLine) -> Self {
        Self { time: line.time, function: line.function, text: line.text }
    }
}

mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_micros(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text).map_err(de::Error::custom)
    }
}

/// Everything of an [`Answer`] but its payload, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHead {
    /// The call's id in 16 hexadecimal digits, as functions see it; absent if it never became a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// How the call ended.
    pub outcome: Outcome,
    /// The payload's format (CoAP Content-Formats registry), if the function said one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_format: Option<u16>,
    /// The answer's code in CoAP, such as "2.01", if the function said one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// For how many seconds the answer may be given to others, if the function said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u32>,
    /// What names this state of what was asked for, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// With outcome "accepted": where the call's answer is to be found. Else where what was made is, if the function said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Why the outcome is not "done"; empty if it is.
    pub diagnostic: String,
    /// With outcome "overloaded": milliseconds until the same call may succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// With outcome "too-large": the largest payload that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes_max: Option<usize>,
    /// The path of the call, if it was asked for.
    pub hops: Vec<Hop>,
}

impl AnswerHead {
    /// The head of this answer.
    #[must_use]
    pub fn of(answer: &Answer) -> Self {
        Self {
            call: answer.call.map(|id| id.to_string()),
            outcome: answer.outcome,
            content_format: answer.content_format,
            code: answer.properties.code.map(|code| code.to_string()),
            max_age_s: answer.properties.max_age_s,
            etag: answer.properties.etag.as_ref().map(|etag| format!("{:x}", Bytes::copy_from_slice(etag))),
            location: answer.properties.location.clone(),
            diagnostic: answer.diagnostic.clone(),
            retry_after_ms: answer.retry_after.map(millis),
            payload_bytes_max: answer.payload_bytes_max,
            hops: answer.hops.clone(),
        }
    }

    /// The answer this is the head of; `None` if the call id, the code or the `ETag` is none.
    fn with_payload(self, payload: Bytes) -> Option<Answer> {
        let call = match self.call {
            Some(digits) => Some(CallId(u64::from_str_radix(&digits, 16).ok()?)),
            None => None,
        };
        let code = match self.code {
            Some(text) => Some(Code::from_text(&text)?),
            None => None,
        };
        let etag = match self.etag {
            Some(digits) => Some(keys::from_hex(&digits)?),
            None => None,
        };
        Some(Answer {
            call,
            outcome: self.outcome,
            payload,
            content_format: self.content_format,
            properties: AnswerProperties { code, max_age_s: self.max_age_s, etag, location: self.location },
            diagnostic: self.diagnostic,
            retry_after: self.retry_after_ms.map(Duration::from_millis),
            payload_bytes_max: self.payload_bytes_max,
            hops: self.hops,
        })
    }
}

/// A duration in whole milliseconds, as many as fit.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An answer on the wire: its head in one line, then its payload to the end of the body.
pub(super) fn encode_answer(answer: &Answer) -> serde_json::Result<Bytes> {
    let head = serde_json::to_vec(&AnswerHead::of(answer))?;
    let mut body = BytesMut::with_capacity(head.len() + 1 + answer.payload.len());
    body.put_slice(&head);
    body.put_u8(b'\n');
    body.put_slice(&answer.payload);
    Ok(body.freeze())
}

/// Undoes [`encode_answer`]; `None` if this is not an answer.
pub(super) fn decode_answer(mut body: Bytes) -> Option<Answer> {
    // JSON escapes line ends in strings, so the first one ends the head.
    let end = body.iter().position(|byte| *byte == b'\n')?;
    let payload = body.split_off(end + 1);
    let head: AnswerHead = serde_json::from_slice(&body).ok()?;
    head.with_payload(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        Answer {
            call: Some(CallId(0xfeed)),
            outcome: Outcome::Failed,
            payload: Bytes::from_static(b"a\nb\0\xff"),
            content_format: Some(110),
            properties: AnswerProperties {
                code: Code::new(2, 1),
                max_age_s: Some(0),
                etag: Some(vec![0, 0xAB, 0xFF]),
                location: Some("/porch/.calls/ä".into()),
            },
            diagnostic: "two\nlines, \u{1b}[31m and µ".into(),
            retry_after: Some(Duration::from_millis(1500)),
            payload_bytes_max: Some(9),
            hops: vec![Hop { function: "average".into(), pid: 7, sent_ns: 1, taken_ns: 2, done_ns: u64::MAX }],
        }
    }

    #[test]
    fn an_answer_comes_back_as_it_was_sent() {
        let sent = answer();
        let body = encode_answer(&sent).unwrap();
        let got = decode_answer(body).unwrap();
        assert_eq!(AnswerHead::of(&got), AnswerHead::of(&sent));
        assert_eq!(got.payload, sent.payload);
        assert_eq!(got.call, sent.call);
        assert_eq!(got.properties, sent.properties);
    }

    #[test]
    fn an_empty_answer_has_a_head_alone() {
        let body = encode_answer(&Answer::refused(Outcome::NotFound, "no such application")).unwrap();
        let got = decode_answer(body).unwrap();
        assert_eq!(got.outcome, Outcome::NotFound);
        assert!(got.payload.is_empty() && got.call.is_none());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for body in
            [&b""[..], b"{}", b"{}\n", b"payload\n", br#"{"call":"x","outcome":"done","diagnostic":"","hops":[]}"#]
        {
            assert!(decode_answer(Bytes::copy_from_slice(body)).is_none(), "{body:?}");
        }
        for wrong in [r#""call":"x""#, r#""code":"2.99""#, r#""etag":"abc""#, r#""etag":"0x""#] {
            let head = format!("{{{wrong},\"outcome\":\"done\",\"diagnostic\":\"\",\"hops\":[]}}\n");
            assert!(decode_answer(head.into()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_log_record_is_one_line_whatever_was_logged() {
        let record = LogRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000),
            function: "average".into(),
            text: "a\r\nb".into(),
        };
        let line = serde_json::to_string(&record).unwrap();
        assert!(!line.contains('\n'));
        assert!(line.contains("1970-01-01T00:00:01.500000Z"), "{line}");
        assert_eq!(serde_json::from_str::<LogRecord>(&line).unwrap(), record);
    }
}
