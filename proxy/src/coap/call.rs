//! The call layer: from a request's path and method to what is to be done, and from an [`Answer`] to a response.

use std::time::Duration;

use bytes::Bytes;
use coap_lite::{MessageClass, ResponseType};
use sandbar_runtime::outputs::{Subject, Watched};
use sandbar_runtime::{ACCEPTED_CALLS, Answer, Code, Method, Mode, Outcome, Request, RequestProperties, Ticket};

use super::config::CoapConfig;
use super::discovery;
use super::message::Message;
use super::option::{self, Observe, RequestOptions, Unwanted};
use super::response::{Refusal, Response};
use super::visitor::Visitor;
use crate::content_format::LINK_FORMAT;
use crate::outcome::{codes, diagnostic_line};
use crate::service::Service;
use crate::uri::{self, Location};

/// The part of a query that asks for a call to be accepted and made later. The function does not see it.
pub const ASYNC_QUERY: &str = "async";

/// A request that may be served, as far as can be told without looking at any state.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) target: Target,
    pub(super) options: RequestOptions,
    pub(super) method: Method,
    /// Who asks.
    pub(super) visitor: Visitor,
    /// Whether what the path leads to can be observed; looked at only if that is asked for. An accepted call can be until it has ended.
    pub(super) observable: bool,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A function, the application's entry function if none is named, and what follows it in the path.
    Function { application: String, function: Option<String>, rest: Vec<String> },
    /// An accepted call.
    Accepted { application: String, ticket: Ticket },
    /// The list of what is served, filtered.
    Discovery { filters: Vec<String> },
}

/// What is asked for of a function's outputs, or of an accepted call's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To be told of each.
    ToObserve(Watched),
    /// To be told no more.
    NoMore(Watched),
}

/// What is to be done for a request whose payload is complete.
#[derive(Debug)]
pub(super) enum Work {
    Call(Box<Request>),
    /// To look for the answer to an accepted call.
    Ask {
        application: String,
        ticket: Ticket,
    },
    Discover {
        filters: Vec<String>,
        visitor: Visitor,
    },
}

/// Decides everything about a request that needs no state: nothing has run, nothing is kept.
pub(super) fn inquire<S: Service>(
    service: &S,
    config: &CoapConfig,
    message: &Message,
    visitor: &Visitor,
) -> Result<Inquiry, Refusal> {
    let options = option::read(&message.packet)?;
    let Some(target) = resolve(&options) else {
        return Err(Response::error(ResponseType::NotFound, "no such path").into());
    };
    let method = Method::from_code(message.method)
        .filter(|method| matches!(target, Target::Function { .. }) || *method == Method::Get)
        .ok_or_else(|| Response::error(ResponseType::MethodNotAllowed, "this method does nothing here"))?;
    let mut observable = false;
    let refused = |answer: Box<Answer>| respond(*answer, method, options.accept, config);
    match &target {
        Target::Function { application, function, .. } => {
            allowed(service, visitor, application, function.as_deref()).map_err(refused)?;
            observable = options.observe.is_some() && service.observable(application, function.as_deref());
        }
        Target::Accepted { application, ticket } => {
            let ended = has_ended(service, visitor, application, *ticket).map_err(refused)?;
            observable = options.observe.is_some() && !ended;
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
    Ok(Inquiry { target, options, method, visitor: visitor.clone(), observable })
}

/// Whether somebody may call a function that is there.
pub(super) fn allowed<S: Service>(
    service: &S,
    visitor: &Visitor,
    application: &str,
    function: Option<&str>,
) -> Result<(), Box<Answer>> {
    // Before it is looked for: who may not call it is not told whether it is there.
    if visitor.may_call(application, function) {
        service.find(visitor.origin(), application, function)
    } else {
        Err(not_granted())
    }
}

/// Whether an accepted call has ended, for somebody who may call its function. Nobody else is told anything of it, nor whether
/// there is one in an application of which he may be told nothing.
pub(super) fn has_ended<S: Service>(
    service: &S,
    visitor: &Visitor,
    application: &str,
    ticket: Ticket,
) -> Result<bool, Box<Answer>> {
    if let Some(call) = service.accepted(application, ticket) {
        return allowed(service, visitor, application, call.function.as_deref()).map(|()| call.ended);
    }
    if !visitor.may_know(application) {
        return Err(not_granted());
    }
    service.find(visitor.origin(), application, None)?;
    Err(Box::new(Answer::refused(Outcome::NotFound, "no such call is known")))
}

fn not_granted() -> Box<Answer> {
    Box::new(Answer::refused(Outcome::NotAllowed, "your key was not granted this call"))
}

fn resolve(options: &RequestOptions) -> Option<Target> {
    match options.path.as_slice() {
        [first, second] if [first.as_str(), second.as_str()] == discovery::PATH => {
            Some(Target::Discovery { filters: options.query.clone() })
        }
        [application, calls, rest @ ..] if calls == ACCEPTED_CALLS => {
            let [ticket] = rest else { return None };
            ticket.parse().ok().map(|ticket| Target::Accepted { application: application.clone(), ticket })
        }
        [application] => Some(Target::Function { application: application.clone(), function: None, rest: Vec::new() }),
        [application, function, rest @ ..] => Some(Target::Function {
            application: application.clone(),
            function: Some(function.clone()),
            rest: rest.to_vec(),
        }),
        [] => None,
    }
}

impl Inquiry {
    /// Whether this is about observing, and no call. Observed is what a function gives out, so only the function itself is: a request with more
    /// of a path, a query or a payload asks for an answer of its own, and is a call whose Observe option is ignored (RFC 7641, section 4.1).
    /// So is one that does not want to hear the answers, and one to a function that its manifest does not let be observed: what others get
    /// is not told, and a call is what a request without the option is. Of an accepted call the same holds; one that has ended is
    /// asked for its answer.
    pub(super) fn asked(&self, payload: &[u8]) -> Option<Asked> {
        let observe = self.options.observe?;
        let (application, subject, is_whole_path) = match &self.target {
            Target::Function { application, function, rest } => (application, function.clone().into(), rest.is_empty()),
            Target::Accepted { application, ticket } => (application, Subject::Call(*ticket), true),
            Target::Discovery { .. } => return None,
        };
        let reads = matches!(self.method, Method::Get | Method::Fetch);
        let plain = is_whole_path && self.options.query.is_empty() && payload.is_empty();
        let heard = self.options.unwanted == Unwanted::default() && self.options.block1.is_none();
        let watched = Watched { application: application.clone(), subject };
        (self.observable && reads && plain && heard).then_some(match observe {
            Observe::Register => Asked::ToObserve(watched),
            Observe::Deregister => Asked::NoMore(watched),
        })
    }

    /// What is to be done once the payload is there.
    pub(super) fn work(self, payload: Bytes) -> Work {
        match self.target {
            Target::Discovery { filters } => Work::Discover { filters, visitor: self.visitor },
            Target::Accepted { application, ticket } => Work::Ask { application, ticket },
            Target::Function { application, function, rest } => {
                let mut query = self.options.query;
                let mode = take_mode(&mut query);
                Work::Call(Box::new(Request {
                    application,
                    function,
                    payload,
                    content_format: self.options.content_format,
                    properties: RequestProperties {
                        method: self.method,
                        path: uri::path(&rest),
                        query: uri::query(&query),
                        accept: self.options.accept,
                    },
                    timeout: None,
                    trace: false,
                    mode,
                    origin: self.visitor.origin(),
                }))
            }
        }
    }
}

/// Whether the caller waits, by his query; what says so is taken out.
fn take_mode(query: &mut Vec<String>) -> Mode {
    let parts = query.len();
    query.retain(|part| part != ASYNC_QUERY);
    if query.len() < parts { Mode::Asynchronous } else { Mode::Synchronous }
}

impl Work {
    /// Does it.
    pub(super) async fn run<S: Service>(self, service: &S) -> Answer {
        match self {
            Self::Call(request) => service.call(*request).await,
            Self::Ask { application, ticket } => service.accepted_answer(&application, ticket).await,
            Self::Discover { filters, visitor } => discover(service, &visitor, &filters),
        }
    }
}

/// What there is to call for this visitor, as far as it passes the filters.
pub(super) fn discover<S: Service>(service: &S, visitor: &Visitor, filters: &[String]) -> Answer {
    Answer {
        payload: discovery::links(&service.applications(visitor.origin()), filters, visitor).into(),
        content_format: Some(LINK_FORMAT),
        ..Answer::refused(Outcome::Done, "")
    }
}

/// The response to an answer, whole: not yet cut into blocks.
pub(super) fn respond(answer: Answer, method: Method, accept: Option<u16>, config: &CoapConfig) -> Response {
    let row = codes(answer.outcome);
    let reads = matches!(method, Method::Get | Method::Fetch);
    let code = if reads { row.coap_read } else { row.coap_write };
    match answer.outcome {
        Outcome::Done => {
            let other = |format| accept.is_some_and(|accept| accept != format);
            if answer.content_format.is_some_and(other) {
                return not_acceptable();
            }
            let usual = if method == Method::Delete { ResponseType::Deleted } else { code };
            let said = answer.properties;
            let code = said.code.and_then(response_type).unwrap_or(usual);
            Response {
                content_format: answer.content_format,
                // Each call runs its function; no cache may answer in its place, unless the function says so.
                max_age_s: said.max_age_s.or((reads || said.code.is_some()).then_some(0)),
                etag: said.etag.map(Vec::into_boxed_slice),
                location: said.location.as_deref().and_then(Location::read).map(Box::new),
                payload: answer.payload,
                ..Response::new(code)
            }
        }
        Outcome::Accepted => accepted(answer, code, accept),
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

/// 2.01 with the location of a call that was accepted, or 2.05 with what is to be seen there while it has not ended. That is never 4.06:
/// a format is asked for of the answer, and whether it has that is said with the answer. As nobody may be sent another format than
/// the one he accepts (RFC 7252, section 5.10.4), he is then sent none: content that is empty, and stale in a second.
fn accepted(answer: Answer, code: ResponseType, accept: Option<u16>) -> Response {
    if let Some(location) = answer.properties.location {
        return Response { location: Location::read(&location).map(Box::new), ..Response::new(code) };
    }
    let other = answer.content_format.is_some_and(|format| accept.is_some_and(|accept| accept != format));
    let (content_format, payload) = if other { (None, Bytes::new()) } else { (answer.content_format, answer.payload) };
    let max_age_s = Some(whole_seconds(answer.retry_after.unwrap_or_default()));
    Response { content_format, payload, max_age_s, ..Response::new(ResponseType::Content) }
}

/// What is to be seen of a call that has not ended, in the host's words: for who observes it, as the host is not asked then.
pub(super) fn not_ended(accept: Option<u16>) -> Response {
    accepted(Answer::not_ended(), codes(Outcome::Accepted).coap_read, accept)
}

/// 2.03 in place of content that the peer has already, by its ETag (RFC 7252, section 5.10.6.2). Saves its way, not its making.
pub(super) fn validate(response: Response, held: &[Box<[u8]>]) -> Response {
    let same = response.etag.as_ref().is_some_and(|etag| held.contains(etag));
    if response.code != ResponseType::Content || !same {
        return response;
    }
    let Response { etag, max_age_s, .. } = response;
    Response { etag, max_age_s, ..Response::new(ResponseType::Valid) }
}

/// A code that a function has given, as the codec knows it.
fn response_type(code: Code) -> Option<ResponseType> {
    match MessageClass::from(code.byte()) {
        MessageClass::Response(known) => Some(known),
        MessageClass::Empty | MessageClass::Request(_) | MessageClass::Reserved(_) => None,
    }
}

/// 4.13, saying how large a payload may be.
pub(super) fn too_large(payload_bytes_max: usize) -> Response {
    Response {
        size1: Some(size_option(payload_bytes_max)),
        ..Response::error(codes(Outcome::TooLarge).coap_write, format!("a payload may have {payload_bytes_max} bytes"))
    }
}

/// 5.03, saying when to try again.
pub(super) fn overloaded(retry_after: Option<Duration>, text: &str, config: &CoapConfig) -> Response {
    Response {
        max_age_s: Some(whole_seconds(retry_after.unwrap_or(config.retry_after))),
        ..Response::error(codes(Outcome::Overloaded).coap_write, diagnostic(text, config))
    }
}

/// As Max-Age says when to ask again: 1 at least, for 0 would say "at once".
fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
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
