use std::future;
use std::sync::Arc;

use coap_lite::{CoapOption, MessageType, Packet, RequestType};
use sandbar_runtime::outputs::Outputs;
use sandbar_runtime::{AnswerProperties, CallId, Origin};

use super::*;
use crate::coap::message::{Received, read};
use crate::service::ServedApplication;

/// Serves `/app`, `/app/f` and `/app/private`, by refusing. The last may not be observed.
#[derive(Clone)]
struct Host;

impl Service for Host {
    fn find(&self, _: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>> {
        match (application, function) {
            ("app", None | Some("f" | "private")) => Ok(()),
            _ => Err(Box::new(Answer::refused(Outcome::NotFound, "not here"))),
        }
    }

    fn observable(&self, _: &str, function: Option<&str>) -> bool {
        function != Some("private")
    }

    fn call(&self, _: Request) -> impl Future<Output = Answer> + Send {
        future::ready(Answer::refused(Outcome::Failed, "not a real host"))
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

#[test]
fn paths_that_lead_nowhere_are_not_found() {
    let nowhere: &[&[&str]] = &[
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
