//! From an HTTP request to a call, and from its answer to an HTTP response.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use sandbar_runtime::{ACCEPTED_CALLS, Answer, AnswerProperties, CallId, Method, Origin, Outcome, RequestProperties};

use super::Shared;
use super::accepted::{self, Asked};
use super::admission::{NoRoom, Place};
use super::body::{self, AnswerBody, BodyError};
use super::config::HttpConfig;
use crate::content_format;
use crate::outcome::{codes, diagnostic_line, status_of};
use crate::service::Service;

/// The call's id, where there was a call.
const CALL: HeaderName = HeaderName::from_static("sandbar-call");
/// The outcome's name.
const OUTCOME: HeaderName = HeaderName::from_static("sandbar-outcome");
/// The methods that call a function, as the `Allow` header lists them.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");

/// Serves one request.
pub(super) async fn serve<S: Service>(
    shared: &Shared<S>,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    match take(shared, peer, request).await {
        Ok(Taken { answer, place, asked }) => {
            let outcome = answer.outcome;
            let mut response = respond(answer, Some(place), &shared.config);
            asked.mark(outcome, &mut response);
            response
        }
        Err(Refusal::Answer(answer)) => respond(*answer, None, &shared.config),
        Err(Refusal::Method(allowed)) => {
            let text = "this method does nothing here";
            let mut response = line(StatusCode::METHOD_NOT_ALLOWED, text, &shared.config);
            response.headers_mut().insert(header::ALLOW, allowed);
            response
        }
        Err(Refusal::TooSlow) => {
            let text = BodyError::TooSlow.to_string();
            closing(line(StatusCode::REQUEST_TIMEOUT, &text, &shared.config))
        }
        Err(Refusal::Body(answer)) => closing(respond(*answer, None, &shared.config)),
    }
}

/// A request that was taken, and its answer.
pub(super) struct Taken {
    pub(super) answer: Answer,
    pub(super) place: Place,
    /// What it asked for, if it was a call.
    pub(super) asked: Asked,
}

/// Why a request is answered before anything runs.
pub(super) enum Refusal {
    /// As this answer says.
    Answer(Box<Answer>),
    /// As this answer says, and the rest of the body is not read.
    Body(Box<Answer>),
    /// Only these methods do something there.
    Method(HeaderValue),
    /// The body did not arrive in time.
    TooSlow,
}

impl From<Box<Answer>> for Refusal {
    fn from(answer: Box<Answer>) -> Self {
        Self::Answer(answer)
    }
}

async fn take<S: Service>(shared: &Shared<S>, peer: IpAddr, request: Request<Incoming>) -> Result<Taken, Refusal> {
    let target = target(request.uri().path())?;
    match target.ticket() {
        Some(ticket) => accepted::answer(shared, peer, request.method(), &target.application, ticket).await,
        None => call(shared, peer, target, request).await,
    }
}

async fn call<S: Service>(
    shared: &Shared<S>,
    peer: IpAddr,
    target: Target,
    request: Request<Incoming>,
) -> Result<Taken, Refusal> {
    let Target { application, function, rest } = target;
    let method = method(request.method()).ok_or(Refusal::Method(METHODS))?;
    let origin = Origin::Http(peer);
    shared.service.find(origin, &application, function.as_deref())?;
    let mut place = admit(shared, peer)?;
    let asked = Asked::of(request.headers());
    let content_format = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(content_format::number);
    let properties = RequestProperties {
        method,
        path: rest,
        query: request.uri().query().unwrap_or_default().to_owned(),
        accept: request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).and_then(accepted),
    };
    let payload_bytes_max = shared.service.payload_bytes_max();
    let payload = body::read(request.into_body(), &mut place, payload_bytes_max, shared.config.body_time_max)
        .await
        .map_err(|error| not_taken(error, &shared.config))?;
    let answer = shared
        .service
        .call(sandbar_runtime::Request {
            application,
            function,
            payload,
            content_format,
            properties,
            timeout: None,
            trace: false,
            mode: asked.mode(),
            origin,
        })
        .await;
    place.release_body();
    Ok(Taken { answer, place, asked })
}

/// Takes a place for what a client asks for.
pub(super) fn admit<S>(shared: &Shared<S>, peer: IpAddr) -> Result<Place, Refusal> {
    shared.admission.admit(peer).map_err(|no_room| overloaded(no_room, &shared.config).into())
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    application: String,
    function: Option<String>,
    /// What follows the function, percent-encoded as it came.
    rest: String,
}

impl Target {
    /// What is in the place of the ticket, if this leads to an accepted call.
    fn ticket(&self) -> Option<&str> {
        (self.function.as_deref() == Some(ACCEPTED_CALLS)).then_some(self.rest.as_str())
    }
}

/// `/APPLICATION`, `/APPLICATION/FUNCTION` or `/APPLICATION/FUNCTION/…`.
fn target(path: &str) -> Result<Target, Box<Answer>> {
    let decoded = |segment: &str| {
        let name = percent_decode_str(segment).decode_utf8();
        name.map(Cow::into_owned).map_err(|_| Box::new(Answer::refused(Outcome::BadRequest, "the path is not UTF-8")))
    };
    let mut segments = path.strip_prefix('/').unwrap_or(path).splitn(3, '/');
    let application = decoded(segments.next().unwrap_or_default())?;
    let function = segments.next().map(decoded).transpose()?;
    Ok(Target { application, function, rest: segments.next().unwrap_or_default().to_owned() })
}

/// The methods that functions know; FETCH and iPATCH are CoAP's alone.
fn method(method: &hyper::Method) -> Option<Method> {
    Method::from_name(method.as_str()).filter(|method| !matches!(method, Method::Fetch | Method::Ipatch))
}

/// The format that an `Accept` header asks for first, of those that have a number. Where any will do, none is asked for.
fn accepted(accept: &str) -> Option<u16> {
    if accept.contains("*/*") {
        return None;
    }
    accept.split(',').find_map(|one| content_format::number(one.split(';').next().unwrap_or_default()))
}

fn overloaded(no_room: NoRoom, config: &HttpConfig) -> Box<Answer> {
    Box::new(Answer {
        retry_after: Some(config.retry_after),
        ..Answer::refused(Outcome::Overloaded, no_room.to_string())
    })
}

fn not_taken(error: BodyError, config: &HttpConfig) -> Refusal {
    let text = error.to_string();
    let answer = match error {
        BodyError::TooSlow => return Refusal::TooSlow,
        BodyError::NoRoom(no_room) => overloaded(no_room, config),
        BodyError::Broken(_) => Box::new(Answer::refused(Outcome::BadRequest, text)),
        BodyError::TooLarge(bytes_max) => {
            Box::new(Answer { payload_bytes_max: Some(bytes_max), ..Answer::refused(Outcome::TooLarge, text) })
        }
    };
    Refusal::Body(answer)
}

fn respond(answer: Answer, place: Option<Place>, config: &HttpConfig) -> Response<AnswerBody> {
    let row = codes(answer.outcome);
    let mut response = match answer.outcome {
        Outcome::Done => {
            let status = answer.properties.code.map_or(row.http, status_of);
            // What has not changed is not sent again.
            let payload = if status == StatusCode::NOT_MODIFIED { Bytes::new() } else { answer.payload };
            represent(status, payload, answer.content_format, &answer.properties, place)
        }
        Outcome::Accepted => represent(row.http, answer.payload, answer.content_format, &answer.properties, place),
        Outcome::BadRequest
        | Outcome::NotAllowed
        | Outcome::NotFound
        | Outcome::TooLarge
        | Outcome::Failed
        | Outcome::Overloaded
        | Outcome::DeadlinePassed => line(row.http, &answer.diagnostic, config),
    };
    let headers = response.headers_mut();
    headers.insert(OUTCOME, HeaderValue::from_static(row.name));
    if let Some(value) = answer.call.and_then(call_header) {
        headers.insert(CALL, value);
    }
    let wait = match answer.outcome {
        Outcome::Overloaded => Some(answer.retry_after.unwrap_or(config.retry_after)),
        // It is said of a call that is asked after, and not of one that has just been accepted.
        Outcome::Accepted => answer.retry_after,
        Outcome::Done
        | Outcome::BadRequest
        | Outcome::NotAllowed
        | Outcome::NotFound
        | Outcome::TooLarge
        | Outcome::Failed
        | Outcome::DeadlinePassed => None,
    };
    if let Some(wait) = wait {
        let whole_s = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        headers.insert(header::RETRY_AFTER, whole_s.max(1).into());
    }
    response
}

/// A response that has what is said beside it in its headers.
fn represent(
    status: StatusCode,
    payload: Bytes,
    format: Option<u16>,
    said: &AnswerProperties,
    place: Option<Place>,
) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::new(payload, place));
    *response.status_mut() = status;
    describe(response.headers_mut(), said);
    set_type(response.headers_mut(), format.and_then(content_format::media_type));
    response
}

/// What a function has said of its answer.
fn describe(headers: &mut HeaderMap, said: &AnswerProperties) {
    let max_age = said.max_age_s.map(|seconds| (header::CACHE_CONTROL, format!("max-age={seconds}")));
    let etag = said.etag.as_ref().map(|etag| {
        let mut quoted = String::from("\"");
        for byte in etag {
            // Writing to a string does not fail.
            let _written = write!(quoted, "{byte:02x}");
        }
        quoted.push('"');
        (header::ETAG, quoted)
    });
    let location = said.location.clone().map(|location| (header::LOCATION, location));
    for (name, value) in [max_age, etag, location].into_iter().flatten() {
        // A location that is no header value is none.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

fn call_header(call: CallId) -> Option<HeaderValue> {
    HeaderValue::try_from(call.to_string()).ok()
}

fn set_type(headers: &mut HeaderMap, media_type: Option<&'static str>) {
    if let Some(media_type) = media_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
}

/// A response of one line of text.
fn line(status: StatusCode, text: &str, config: &HttpConfig) -> Response<AnswerBody> {
    let mut text = diagnostic_line(text, config.diagnostic_bytes_max);
    text.push('\n');
    let mut response = Response::new(AnswerBody::new(text.into(), None));
    *response.status_mut() = status;
    let media_type = content_format::media_type(content_format::TEXT);
    set_type(response.headers_mut(), media_type);
    response
}

/// The connection ends with this response: what is left of the request's body is not read.
fn closing(mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// A whole response as bytes, for a connection that is turned away before any request is read.
pub(super) fn turned_away(config: &HttpConfig) -> Vec<u8> {
    let response = closing(respond(
        Answer {
            retry_after: Some(config.retry_after),
            ..Answer::refused(Outcome::Overloaded, "too many connections")
        },
        None,
        config,
    ));
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let length = response.body().size_hint().lower();
    bytes.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
    bytes.extend_from_slice(response.body().as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use sandbar_runtime::Code;

    use super::*;

    #[test]
    fn paths_name_an_application_and_maybe_a_function_and_what_is_for_it() {
        let named = |path| {
            let target = target(path).map_err(|answer| answer.outcome)?;
            Ok((target.application, target.function.unwrap_or_default(), target.rest))
        };
        let three = |application: &str, function: &str, rest: &str| {
            Ok::<_, Outcome>((application.to_owned(), function.to_owned(), rest.to_owned()))
        };
        assert_eq!(named("/a"), three("a", "", ""));
        assert_eq!(named("/a/b"), three("a", "b", ""));
        assert_eq!(named("/a%20b"), three("a b", "", ""));
        assert_eq!(named("/.."), three("..", "", ""));
        assert_eq!(named("/a/b/c%2Fd//e"), three("a", "b", "c%2Fd//e"));
        assert_eq!(named("/%ff"), Err(Outcome::BadRequest));
    }

    #[test]
    fn the_first_format_with_a_number_is_asked_for() {
        assert_eq!(accepted("application/json"), Some(50));
        assert_eq!(accepted("text/html, application/cbor;q=0.9"), Some(60));
        assert_eq!(accepted("application/json, */*"), None);
        assert_eq!(accepted("text/html"), None);
    }

    #[test]
    fn what_a_function_says_of_its_answer_is_in_the_headers() {
        let said = AnswerProperties {
            code: Code::new(2, 1),
            max_age_s: Some(30),
            etag: Some(vec![0xAB, 1]),
            location: Some("/lamps/1".to_owned()),
        };
        let answer = Answer { properties: said, ..Answer::refused(Outcome::Done, "") };
        let response = respond(answer, None, &HttpConfig::default());
        assert_eq!(response.status(), StatusCode::CREATED);
        for (name, value) in [("cache-control", "max-age=30"), ("etag", "\"ab01\""), ("location", "/lamps/1")] {
            assert_eq!(response.headers()[name], value);
        }
        let properties = AnswerProperties { location: Some("a\nb".to_owned()), ..AnswerProperties::default() };
        let answer = Answer { properties, ..Answer::refused(Outcome::Done, "") };
        assert!(!respond(answer, None, &HttpConfig::default()).headers().contains_key("location"));
    }

    #[test]
    fn a_connection_turned_away_gets_a_whole_response() {
        let text = String::from_utf8(turned_away(&HttpConfig::default())).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(text.contains("retry-after: 1\r\n"));
        assert!(text.contains("connection: close\r\n"));
        assert!(text.ends_with("content-length: 21\r\n\r\ntoo many connections\n"));
    }
}
