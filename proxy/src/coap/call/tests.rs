use std::future;

use coap_lite::MessageType;
use sandbar_runtime::{CallId, Origin};

use super::*;
use crate::coap::message::{Received, read};
use crate::service::ServedApplication;

/// Serves `/app` and `/app/f`, by refusing.
#[derive(Clone)]
struct Host;

impl Service for Host {
    fn find(&self, _: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>> {
        match (application, function) {
            ("app", None | Some("f")) => Ok(()),
            _ => Err(Box::new(Answer::refused(Outcome::NotFound, "not here"))),
        }
    }

    fn call(&self, _: Request) -> impl Future<Output = Answer> + Send {
        future::ready(Answer::refused(Outcome::Failed, "not a real host"))
    }

    fn payload_bytes_max(&self) -> usize {
        1024
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
    for (method, reads) in [(Get, true), (Fetch, true), (Post, false), (Put, false)] {
        for segments in [&["app"][..], &["app", "f"]] {
            assert_eq!(asked(method, &path(segments)).unwrap().reads, reads);
        }
    }
    for method in [Delete, Patch, IPatch] {
        let code = refusal(method, &path(&["app"]));
        assert_eq!(code, ResponseType::MethodNotAllowed);
    }
    let code = refusal(Post, &path(&[".well-known", "core"]));
    assert_eq!(code, ResponseType::MethodNotAllowed);
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
        &["app", "f", "g"],
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
    let read = respond(done(Some(50)), true, None, &config);
    assert_eq!((read.code, read.max_age_s), (ResponseType::Content, Some(0)));
    let written = respond(done(Some(50)), false, Some(50), &config);
    assert_eq!((written.code, written.max_age_s), (ResponseType::Changed, None));
    assert_eq!((written.content_format, written.payload), (Some(50), "out".into()));
}

#[test]
fn another_format_than_the_accepted_one_is_not_acceptable() {
    let config = CoapConfig::default();
    let other = respond(done(Some(60)), false, Some(50), &config);
    assert_eq!(other.code, ResponseType::NotAcceptable);
    let unknown = respond(done(None), false, Some(50), &config);
    assert_eq!(unknown.code, ResponseType::Changed);
}

#[test]
fn errors_say_why_and_for_how_long() {
    let config = CoapConfig::default();
    let failed = Answer::refused(Outcome::Failed, "line one\nline two");
    let failed = respond(failed, true, None, &config);
    assert_eq!(failed.max_age_s, Some(0));
    assert_eq!(failed.payload, "line one line two");
    assert_eq!(failed.content_format, None);

    let overloaded =
        Answer { retry_after: Some(Duration::from_millis(2300)), ..Answer::refused(Outcome::Overloaded, "full") };
    let overloaded = respond(overloaded, true, None, &config);
    assert_eq!(overloaded.code, ResponseType::ServiceUnavailable);
    assert_eq!(overloaded.max_age_s, Some(3));

    let large = Answer { payload_bytes_max: Some(1000), ..Answer::refused(Outcome::TooLarge, "large") };
    let large = respond(large, true, None, &config);
    assert_eq!(large.code, ResponseType::RequestEntityTooLarge);
    assert_eq!(large.size1, Some(1000));

    let long = Answer::refused(Outcome::Failed, "x".repeat(5000));
    assert_eq!(respond(long, true, None, &config).payload.len(), 256);
}

#[test]
fn what_was_not_granted_is_refused_before_it_is_looked_for() {
    let text = "[identities.x]\nkey = \"0123456789abcdef\"\ngrants = [\"app/f\", \"gone\"]\n";
    let keys = crate::keys::Keys::parse(text).unwrap();
    let known = Visitor::Known(std::sync::Arc::clone(keys.get(b"x").unwrap()));
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
