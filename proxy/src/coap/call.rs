//! The call layer: from a request's path and method to what is to be done, and from an [`Answer`] to a response.

use std::time::Duration;

use bytes::Bytes;
use coap_lite::{CoapOption, Packet, RequestType, ResponseType};
use sandbar_runtime::{Answer, Outcome, Request};

use super::config::CoapConfig;
use super::discovery;
use super::message::Message;
use super::option::{self, RequestOptions};
use super::response::{Refusal, Response};
use super::visitor::Visitor;
use crate::content_format::LINK_FORMAT;
use crate::outcome::{codes, diagnostic_line};
use crate::service::Service;

/// A request that may be served, as far as can be told without looking at any state.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) target: Target,
    pub(super) options: RequestOptions,
    /// Whether the method reads (GET, FETCH) or changes something (POST, PUT).
    pub(super) reads: bool,
    /// Who asks.
    pub(super) visitor: Visitor,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A function, the application's entry function if none is named.
    Function { application: String, function: Option<String> },
    /// The list of what is served, filtered.
    Discovery { filters: Vec<String> },
}

/// What is to be done for a request whose payload is complete.
#[derive(Debug)]
pub(super) enum Work {
    Call(Request),
    Discover { filters: Vec<String>, visitor: Visitor },
}

/// Decides everything about a request that needs no state: nothing has run, nothing is kept.
pub(super) fn inquire<S: Service>(
    service: &S,
    config: &CoapConfig,
    message: &Message,
    visitor: &Visitor,
) -> Result<Inquiry, Refusal> {
    let options = option::read(&message.packet)?;
    let Some(target) = resolve(&options.path, &message.packet) else {
        return Err(Response::error(ResponseType::NotFound, "no such path").into());
    };
    let reads = match &target {
        Target::Discovery { .. } if message.method == u8_of(RequestType::Get) => true,
        Target::Function { .. } if message.method == u8_of(RequestType::Get) => true,
        Target::Function { .. } if message.method == u8_of(RequestType::Fetch) => true,
        Target::Function { .. } if message.method == u8_of(RequestType::Post) => false,
        Target::Function { .. } if message.method == u8_of(RequestType::Put) => false,
        Target::Discovery { .. } | Target::Function { .. } => {
            let text = "this method does nothing here";
            return Err(Response::error(ResponseType::MethodNotAllowed, text).into());
        }
    };
    match &target {
        Target::Function { application, function } => {
            let function = function.as_deref();
            // Before it is looked for: who may not call it is not told whether it is there.
            let found = if visitor.may_call(application, function) {
                service.find(visitor.origin(), application, function)
            } else {
                Err(Box::new(Answer::refused(Outcome::NotAllowed, "your key was not granted this call")))
            };
            found.map_err(|answer| respond(*answer, reads, options.accept, config))?;
        }
        Target::Discovery { .. } => {
            if options.accept.is_some_and(|format| format != LINK_FORMAT) {
                return Err(not_acceptable().into());
            }
        }
    }
    if options.precondition_fails {
        let text = "a function has no representation to match";
        return Err(Response::error(ResponseType::PreconditionFailed, text).into());
    }
    Ok(Inquiry { target, options, reads, visitor: visitor.clone() })
}

fn u8_of(method: RequestType) -> u8 {
    coap_lite::MessageClass::Request(method).into()
}

fn resolve(path: &[String], packet: &Packet) -> Option<Target> {
    match path {
        [first, second] if [first.as_str(), second.as_str()] == discovery::PATH => {
            let queries = packet.get_option(CoapOption::UriQuery);
            Some(Target::Discovery {
                filters: queries
                    .into_iter()
                    .flatten()
                    .map(|query| String::from_utf8_lossy(query).into_owned())
                    .collect(),
            })
        }
        [application] => Some(Target::Function { application: application.clone(), function: None }),
        [application, function] => {
            Some(Target::Function { application: application.clone(), function: Some(function.clone()) })
        }
        _ => None,
    }
}

impl Target {
    /// What is to be done once the payload is there.
    pub(super) fn work(self, payload: Bytes, content_format: Option<u16>, visitor: Visitor) -> Work {
        match self {
            Self::Discovery { filters } => Work::Discover { filters, visitor },
            Self::Function { application, function } => {
                let origin = visitor.origin();
                Work::Call(Request {
                    application,
                    function,
                    payload,
                    content_format,
                    timeout: None,
                    trace: false,
                    origin,
                })
            }
        }
    }
}

impl Work {
    /// Does it.
    pub(super) async fn run<S: Service>(self, service: &S) -> Answer {
        match self {
            Self::Call(request) => service.call(request).await,
            Self::Discover { filters, visitor } => Answer {
                payload: discovery::links(&service.applications(visitor.origin()), &filters, &visitor).into(),
                content_format: Some(LINK_FORMAT),
                ..Answer::refused(Outcome::Done, "")
            },
        }
    }
}

/// The response to an answer, whole: not yet cut into blocks.
pub(super) fn respond(answer: Answer, reads: bool, accept: Option<u16>, config: &CoapConfig) -> Response {
    let row = codes(answer.outcome);
    let code = if reads { row.coap_read } else { row.coap_write };
    match answer.outcome {
        Outcome::Done => {
            let other = |format| accept.is_some_and(|accept| accept != format);
            if answer.content_format.is_some_and(other) {
                return not_acceptable();
            }
            Response {
                content_format: answer.content_format,
                // Each call runs its function; no cache may answer in its place.
                max_age_s: reads.then_some(0),
                payload: answer.payload,
                ..Response::new(code)
            }
        }
        Outcome::Accepted => Response::new(code),
        Outcome::Overloaded => overloaded(answer.retry_after, &answer.diagnostic, config),
        Outcome::TooLarge => Response {
            size1: answer.payload_bytes_max.map(size_option),
            ..Response::error(code, diagnostic(&answer.diagnostic, config))
        },
        Outcome::BadRequest | Outcome::NotAllowed | Outcome::NotFound | Outcome::Failed | Outcome::DeadlinePassed => {
            Response::error(code, diagnostic(&answer.diagnostic, config))
        }
    }
}

/// 4.13, saying how large a payload may be.
pub(super) fn too_large(payload_bytes_max: usize) -> Response {
    Response {
        size1: Some(size_option(payload_bytes_max)),
        ..Response::error(codes(Outcome::TooLarge).coap_write, format!("a payload may have {payload_bytes_max} bytes"))
    }
}

/// 5.03, saying when to try again: at least a second, for 0 would say "at once".
pub(super) fn overloaded(retry_after: Option<Duration>, text: &str, config: &CoapConfig) -> Response {
    let wait = retry_after.unwrap_or(config.retry_after);
    let whole_s = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    Response {
        max_age_s: Some(whole_s.max(1)),
        ..Response::error(codes(Outcome::Overloaded).coap_write, diagnostic(text, config))
    }
}

fn not_acceptable() -> Response {
    let text = "the answer has another content format";
    Response::error(ResponseType::NotAcceptable, text)
}

fn diagnostic(text: &str, config: &CoapConfig) -> String {
    diagnostic_line(text, config.diagnostic_bytes_max)
}

/// A size as the options Size1 and Size2 hold it: four bytes.
pub(super) fn size_option(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "call/tests.rs"]
mod tests;
