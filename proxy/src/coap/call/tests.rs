use std::future;
use std::sync::Arc;

use coap_lite::{CoapOption, MessageType, Packet, RequestType};
use sandbar_runtime::outputs::Outputs;
use sandbar_runtime::{AcceptedCall, AnswerProperties, CallId, Origin};

use super::*;
use crate::coap::message::{Received, read};
use crate::service::ServedApplication;

/// Serves `/app`, `/app/f` and `/app/private`, by refusing. The last may not be observed. `/closed` lets nobody in from where we are. In both,
/// a call of `f` was accepted that has not ended, and one that has.
#[derive(Clone)]
struct Host;

impl Service for Host {
    fn find(&self, _: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>> {
        match (application, function) {
            ("app", None | Some("f" | "private")) => Ok(()),
            ("closed", _) => Err(Box::new(Answer::refused(Outcome::NotAllowed, "not from there"))),
            _ => Err(Box::new(Answer::refused(Outcome::NotFound, "not here"))),
        }
    }

    fn observable(&self, _: &str, function: Option<&str>) -> bool {
        function != Some("private")
    }

    fn call(&self, _: Request) -> impl Future<Output = Answer> + Send {
        future::ready(Answer::refused(Outcome::Failed, "not a real host"))
    }

    fn accepted(&self, application: &str, ticket: Ticket) -> Option<AcceptedCall> {
        let known = matches!(application, "app" | "closed") && [WAITING, ENDED].contains(&ticket);
        known.then(|| AcceptedCall { function: Some("f".to_owned()), ended: ticket == ENDED })
    }

    fn payload_bytes_max(&self) -> usize {
        1024
    }

    fn outputs(&self) -> Arc<Outputs> {
        Arc::default()
    }

    fn applications(&self, _: Origin) -> Vec<ServedApplication> {
        Vec::new()
    }
}

const WAITING: Ticket = Ticket { call: CallId(1), secret: 5 };
const ENDED: Ticket = Ticket { call: CallId(2), secret: 5 };
const UNKNOWN: Ticket = Ticket { call: CallId(2), secret: 6 };

fn asked(method: RequestType, options: &[(CoapOption, &[u8])]) -> Result<Inquiry, Refusal> {
    let mut packet = Packet::new();
    packet.header.set_type(MessageType::Confirmable);
    packet.header.code = coap_lite::MessageClass::Request(method);
    for (option, value) in options {
        packet.add_option(*option, value.to_vec());
    }
    let datagram = packet.to_bytes().unwrap();
    let Received::Request(message) = read(&datagram, 64) else {
        panic!("no request");
    };
    inquire(&Host, &CoapConfig::default(), &message, &Visitor::Stranger([127, 0, 0, 1].into()))
}

fn location(application: &str, ticket: Ticket) -> Vec<(CoapOption, Vec<u8>)> {
    let location = ticket.location(application);
    location.split('/').skip(1).map(|segment| (CoapOption::UriPath, segment.as_bytes().to_vec())).collect()
}

fn borrowed(options: &[(CoapOption, Vec<u8>)]) -> Vec<(CoapOption, &[u8])> {
    options.iter().map(|(option, value)| (*option, value.as_slice())).collect()
}

fn path<'a>(segments: &[&'a str]) -> Vec<(CoapOption, &'a [u8])> {
    segments.iter().map(|segment| (CoapOption::UriPath, segment.as_bytes())).collect()
}

fn refusal(method: RequestType, options: &[(CoapOption, &[u8])]) -> ResponseType {
    asked(method, options).unwrap_err().response.code
}

#[test]
fn the_methods_that_call_are_told_apart() {
    use RequestType::{Delete, Fetch, Get, IPatch, Patch, Post, Put};
    let methods = [Get, Post, Put, Delete, Fetch, Patch, IPatch];
    for (asked_for, method) in methods.into_iter().zip(Method::ALL) {
        for segments in [&["app"][..], &["app", "f"]] {
            assert_eq!(asked(asked_for, &path(segments)).unwrap().method, method);
        }
    }
    for method in [Post, Delete, Fetch] {
        let code = refusal(method, &path(&[".well-known", "core"]));
        assert_eq!(code, ResponseType::MethodNotAllowed);
    }
}

#[test]
fn a_request_to_observe_what_may_not_be_observed_is_a_call() {
    for (function, is_call) in [("f", false), ("private", true)] {
        for number in [&[][..], &[1]] {
            let options = [path(&["app", function]), vec![(CoapOption::Observe, number)]].concat();
            for method in [RequestType::Get, RequestType::Fetch] {
                let inquiry = asked(method, &options).unwrap();
                assert_eq!(inquiry.asked(b"").is_none(), is_call, "{function} {number:?}");
                assert!(matches!(inquiry.work(Bytes::new()), Work::Call(_)));
            }
        }
    }
}

/// What a location is answered with, if it is refused.
fn told(method: RequestType, application: &str, ticket: Ticket) -> Option<ResponseType> {
    let inquiry = asked(method, &borrowed(&location(application, ticket)));
    inquiry.err().map(|refusal| refusal.response.code)
}

#[test]
fn a_location_leads_to_its_call() {
    use RequestType::{Delete, Fetch, Get, IPatch, Patch, Post, Put};
    for ticket in [WAITING, ENDED] {
        let mut options = location("app", ticket);
        // To observe it, or a query, makes no difference to who asks.
        options.push((CoapOption::UriQuery, b"async".to_vec()));
        let inquiry = asked(Get, &borrowed(&options)).unwrap();
        assert_eq!(inquiry.target, Target::Accepted { application: "app".to_owned(), ticket });
        let work = inquiry.work(Bytes::new());
        assert!(matches!(&work, Work::Ask { application, ticket: asked } if application == "app" && *asked == ticket));
        for method in [Post, Put, Delete, Fetch, Patch, IPatch] {
            assert_eq!(told(method, "app", ticket), Some(ResponseType::MethodNotAllowed));
        }
    }
    assert_eq!(told(Get, "app", UNKNOWN), Some(ResponseType::NotFound));
    assert_eq!(told(Get, "nobody", WAITING), Some(ResponseType::NotFound));
}

#[test]
fn a_call_is_observed_until_it_has_ended() {
    for (ticket, observed) in [(WAITING, true), (ENDED, false)] {
        for (number, expected) in [(&[][..], Asked::ToObserve as fn(Watched) -> Asked), (&[1], Asked::NoMore)] {
            let mut options = location("app", ticket);
            options.push((CoapOption::Observe, number.to_vec()));
            let inquiry = asked(RequestType::Get, &borrowed(&options)).unwrap();
            let watched = Watched { application: "app".to_owned(), subject: Subject::Call(ticket) };
            assert_eq!(inquiry.asked(b""), observed.then(|| expected(watched)));
            assert!(inquiry.asked(b"x").is_none(), "it asks for something of its own");
        }
    }
}

#[test]
fn nothing_is_told_of_a_call_to_whom_its_function_is_closed() {
    for ticket in [WAITING, ENDED, UNKNOWN] {
        assert_eq!(told(RequestType::Get, "closed", ticket), Some(ResponseType::Forbidden));
    }
    let text = |grants: &str| format!("[identities.x]\nkey = \"0123456789abcdef\"\ngrants = [{grants}]\n");
    let code = |grants: &str, application: &str, ticket| {
        let keys = crate::keys::Keys::parse(&text(grants)).unwrap();
        let known = Visitor::Known(Arc::clone(keys.get(b"x").unwrap()));
        has_ended(&Host, &known, application, ticket).map_err(|answer| answer.outcome)
    };
    for granted in ["\"app/f\"", "\"app\"", "\"*\""] {
        assert_eq!(code(granted, "app", WAITING), Ok(false));
        assert_eq!(code(granted, "app", ENDED), Ok(true));
        assert_eq!(code(granted, "app", UNKNOWN), Err(Outcome::NotFound));
    }
    assert_eq!(code("\"app/private\"", "app", WAITING), Err(Outcome::NotAllowed), "the call is not of that function");
    assert_eq!(code("\"app/private\"", "app", UNKNOWN), Err(Outcome::NotFound));
    for ticket in [WAITING, UNKNOWN] {
        assert_eq!(code("\"other\", \"other/f\"", "app", ticket), Err(Outcome::NotAllowed));
    }
    assert_eq!(code("", "nobody", WAITING), Err(Outcome::NotAllowed), "whether it is there is not told");
}

#[test]
fn a_part_of_the_query_asks_for_a_call_to_be_accepted() {
    for (query, mode, seen) in [
        (&["async"][..], Mode::Asynchronous, ""),
        (&["a=1", "async", "b"], Mode::Asynchronous, "a=1&b"),
        (&["async", "async"], Mode::Asynchronous, ""),
        (&["async="], Mode::Synchronous, "async="),
        (&["async=1", "Async", "asynchronous"], Mode::Synchronous, "async=1&Async&asynchronous"),
        (&[], Mode::Synchronous, ""),
    ] {
        for method in [RequestType::Get, RequestType::Post, RequestType::Fetch] {
            let mut options = path(&["app", "f", "rest"]);
            options.extend(query.iter().map(|part| (CoapOption::UriQuery, part.as_bytes())));
            let work = asked(method, &options).unwrap().work(Bytes::from_static(b"x"));
            let Work::Call(request) = work else { panic!("{work:?}") };
            assert_eq!((request.mode, request.properties.query.as_str()), (mode, seen));
        }
    }
    let mut options = path(&[".well-known", "core"]);
    options.push((CoapOption::UriQuery, b"async"));
    let filters = vec!["async".to_owned()];
    assert_eq!(asked(RequestType::Get, &options).unwrap().target, Target::Discovery { filters });
}

#[test]
fn paths_that_lead_nowhere_are_not_found() {
    let nowhere: &[&[&str]] = &[
        &["app", ".calls"],
        &["app", ".calls", ""],
        &["app", ".calls", "0000000000000001"],
        &["app", ".calls", "0000000000000001000000000000000A"],
        &["app", ".calls", "00000000000000010000000000000005", ""],
        &["app", ".calls", "00000000000000010000000000000005", "x"],
        &[".calls", "00000000000000010000000000000005"],
        &[],
        &[""],
        &["nobody"],
        &["app", "g"],
        &["app", ""],
        &["app", ".."],
        &[".well-known"],
        &[".well-known", "core", "x"],
    ];
    for segments in nowhere {
        let code = refusal(RequestType::Get, &path(segments));
        assert_eq!(code, ResponseType::NotFound, "{segments:?}");
    }
}

#[test]
fn preconditions_and_formats_that_cannot_be_met_are_said() {
    let mut options = path(&["app"]);
    options.push((CoapOption::IfNoneMatch, b""));
    let code = refusal(RequestType::Put, &options);
    assert_eq!(code, ResponseType::PreconditionFailed);
    let mut options = path(&[".well-known", "core"]);
    options.push((CoapOption::Accept, &[50]));
    assert_eq!(refusal(RequestType::Get, &options), ResponseType::NotAcceptable);
    options.pop();
    options.push((CoapOption::Accept, &[40]));
    options.push((CoapOption::UriQuery, b"rt=x"));
    let filters = vec!["rt=x".to_owned()];
    let target = asked(RequestType::Get, &options).unwrap().target;
    assert_eq!(target, Target::Discovery { filters });
}

#[test]
fn the_function_is_told_what_was_asked_for() {
    let mut options = path(&["app", "f", "living room", "lamp/1"]);
    options.push((CoapOption::UriQuery, b"on=1"));
    options.push((CoapOption::UriQuery, b"by=a&b"));
    options.push((CoapOption::Accept, &[50]));
    let work = asked(RequestType::Put, &options).unwrap().work(Bytes::from_static(b"x"));
    let Work::Call(request) = work else { panic!("{work:?}") };
    assert_eq!((request.application.as_str(), request.function.as_deref()), ("app", Some("f")));
    let properties = RequestProperties {
        method: Method::Put,
        path: "living%20room/lamp%2F1".to_owned(),
        query: "on=1&by=a%26b".to_owned(),
        accept: Some(50),
    };
    assert_eq!(request.properties, properties);
}

#[test]
fn the_function_says_what_the_answer_is() {
    let config = CoapConfig::default();
    let said = AnswerProperties {
        code: Code::new(2, 1),
        max_age_s: Some(30),
        etag: Some(vec![1, 2]),
        location: Some("/app/f/7?x=1".to_owned()),
    };
    let response = respond(Answer { properties: said, ..done(None) }, Method::Post, None, &config);
    assert_eq!((response.code, response.max_age_s), (ResponseType::Created, Some(30)));
    assert_eq!(response.etag, Some(Box::from([1, 2])));
    assert_eq!(response.location.unwrap().path.len(), 3);
    let gone = AnswerProperties { code: Code::new(4, 4), ..AnswerProperties::default() };
    let response = respond(Answer { properties: gone, ..done(None) }, Method::Post, None, &config);
    assert_eq!((response.code, response.max_age_s), (ResponseType::NotFound, Some(0)));
    assert_eq!(respond(done(None), Method::Delete, None, &config).code, ResponseType::Deleted);
    for code in (0..=u8::MAX).filter_map(Code::from_byte) {
        assert!(response_type(code).is_some(), "{code}");
    }
}

#[test]
fn a_call_that_was_accepted_has_a_location_and_one_that_has_not_ended_says_so() {
    let config = CoapConfig::default();
    let said = AnswerProperties { location: Some(WAITING.location("app")), ..AnswerProperties::default() };
    let answer = Answer { properties: said, ..Answer::refused(Outcome::Accepted, "") };
    for (method, accept) in [(Method::Get, None), (Method::Post, Some(60)), (Method::Delete, None)] {
        let response = respond(answer.clone(), method, accept, &config);
        let path = [&b"app"[..], b".calls", b"00000000000000010000000000000005"].map(<[u8]>::to_vec).to_vec();
        let location = Some(Box::new(Location { path, query: Vec::new() }));
        assert_eq!(response, Response { location, ..Response::new(ResponseType::Created) });
    }
    let pending = Answer {
        payload: Bytes::from_static(br#"{"outcome":"accepted"}"#),
        content_format: Some(50),
        retry_after: Some(Duration::from_millis(1)),
        ..Answer::refused(Outcome::Accepted, "")
    };
    for accept in [None, Some(50)] {
        let response = respond(pending.clone(), Method::Get, accept, &config);
        assert_eq!((response.code, response.content_format), (ResponseType::Content, Some(50)));
        assert_eq!((response.max_age_s, &response.payload), (Some(1), &pending.payload));
        assert_eq!(response, not_ended(accept), "who observes is told the same");
    }
    let later = Answer { retry_after: Some(Duration::from_millis(2001)), ..pending.clone() };
    assert_eq!(respond(later, Method::Get, None, &config).max_age_s, Some(3));
    // It has no answer yet whose format there could be none of; and he is sent none that he does not take.
    let other = respond(pending, Method::Get, Some(60), &config);
    assert_eq!(other, Response { max_age_s: Some(1), ..Response::new(ResponseType::Content) });
    assert_eq!(other, not_ended(Some(60)));
}

#[test]
fn content_that_the_peer_has_is_not_sent_again() {
    let etag = |tag: &[u8]| -> Box<[u8]> { tag.into() };
    let content = Response {
        etag: Some(etag(b"now")),
        max_age_s: Some(9),
        payload: "x".into(),
        ..Response::new(ResponseType::Content)
    };
    let held = [etag(b"before"), etag(b"now")];
    let valid = Response { payload: Bytes::new(), code: ResponseType::Valid, ..content.clone() };
    assert_eq!(validate(content.clone(), &held), valid);
    assert_eq!(validate(content.clone(), &held[..1]), content);
    let untagged = Response { etag: None, ..content.clone() };
    assert_eq!(validate(untagged.clone(), &held), untagged);
    let changed = Response { code: ResponseType::Changed, ..content };
    assert_eq!(validate(changed.clone(), &held), changed, "what was changed was not asked for");
}

fn done(format: Option<u16>) -> Answer {
    Answer {
        call: Some(CallId(7)),
        payload: Bytes::from_static(b"out"),
        content_format: format,
        ..Answer::refused(Outcome::Done, "")
    }
}

#[test]
fn what_is_done_is_for_no_cache() {
    let config = CoapConfig::default();
    let read = respond(done(Some(50)), Method::Get, None, &config);
    assert_eq!((read.code, read.max_age_s), (ResponseType::Content, Some(0)));
    let written = respond(done(Some(50)), Method::Post, Some(50), &config);
    assert_eq!((written.code, written.max_age_s), (ResponseType::Changed, None));
    assert_eq!((written.content_format, written.payload), (Some(50), "out".into()));
}

#[test]
fn another_format_than_the_accepted_one_is_not_acceptable() {
    let config = CoapConfig::default();
    let other = respond(done(Some(60)), Method::Post, Some(50), &config);
    assert_eq!(other.code, ResponseType::NotAcceptable);
    let unknown = respond(done(None), Method::Post, Some(50), &config);
    assert_eq!(unknown.code, ResponseType::Changed);
}

#[test]
fn errors_say_why_and_for_how_long() {
    let config = CoapConfig::default();
    let failed = Answer::refused(Outcome::Failed, "line one\nline two");
    let failed = respond(failed, Method::Get, None, &config);
    assert_eq!(failed.max_age_s, Some(0));
    assert_eq!(failed.payload, "line one line two");
    assert_eq!(failed.content_format, None);

    let overloaded =
        Answer { retry_after: Some(Duration::from_millis(2300)), ..Answer::refused(Outcome::Overloaded, "full") };
    let overloaded = respond(overloaded, Method::Get, None, &config);
    assert_eq!(overloaded.code, ResponseType::ServiceUnavailable);
    assert_eq!(overloaded.max_age_s, Some(3));

    let large = Answer { payload_bytes_max: Some(1000), ..Answer::refused(Outcome::TooLarge, "large") };
    let large = respond(large, Method::Get, None, &config);
    assert_eq!(large.code, ResponseType::RequestEntityTooLarge);
    assert_eq!(large.size1, Some(1000));

    let long = Answer::refused(Outcome::Failed, "x".repeat(5000));
    assert_eq!(respond(long, Method::Get, None, &config).payload.len(), 256);
}

#[test]
fn what_was_not_granted_is_refused_before_it_is_looked_for() {
    let text = "[identities.x]\nkey = \"0123456789abcdef\"\ngrants = [\"app/f\", \"gone\"]\n";
    let keys = crate::keys::Keys::parse(text).unwrap();
    let known = Visitor::Known(Arc::clone(keys.get(b"x").unwrap()));
    let code = |path: &[&str]| {
        let mut packet = Packet::new();
        packet.header.code = coap_lite::MessageClass::Request(RequestType::Post);
        for segment in path {
            packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
        }
        let Received::Request(message) = read(&packet.to_bytes().unwrap(), 64) else { panic!("no request") };
        inquire(&Host, &CoapConfig::default(), &message, &known).map(|_| ()).map_err(|refusal| refusal.response.code)
    };
    assert_eq!(code(&["app", "f"]), Ok(()));
    assert_eq!(code(&["app"]), Err(ResponseType::Forbidden));
    assert_eq!(code(&["app", "nothing"]), Err(ResponseType::Forbidden));
    assert_eq!(code(&["nothing"]), Err(ResponseType::Forbidden));
    assert_eq!(code(&["gone"]), Err(ResponseType::NotFound));
}
