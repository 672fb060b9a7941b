//! Accepted calls: how they are asked for, and what their locations answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbar_proxy::http::HttpConfig;
use sandbar_proxy::{ServedApplication, Service};
use sandbar_runtime::outputs::Outputs;
use sandbar_runtime::{AcceptedCall, Answer, AnswerProperties, CallId, Mode, Origin, Outcome, Request, Ticket};

use crate::client::{Connection, Door, Response};
use crate::echo::Echo;

/// Accepts calls and makes them when it is told to.
#[derive(Clone, Default)]
struct Accepting {
    echo: Echo,
    calls: Arc<Mutex<HashMap<Ticket, Call>>>,
    /// Whether nobody may call any more.
    closed: Arc<AtomicBool>,
}

struct Call {
    request: Request,
    answer: Option<Answer>,
}

impl Accepting {
    /// Makes all calls that were accepted.
    async fn make_all(&self) {
        let tickets: Vec<Ticket> = self.calls.lock().unwrap().keys().copied().collect();
        for ticket in tickets {
            let request = self.calls.lock().unwrap()[&ticket].request.clone();
            let mut answer = self.echo.call(Request { mode: Mode::Synchronous, ..request }).await;
            answer.properties.etag.get_or_insert(vec![0xAB]);
            self.calls.lock().unwrap().get_mut(&ticket).unwrap().answer = Some(answer);
        }
    }

    fn payloads(&self) -> Vec<Vec<u8>> {
        self.calls.lock().unwrap().values().map(|call| call.request.payload.to_vec()).collect()
    }
}

impl Service for Accepting {
    fn find(&self, origin: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>> {
        assert_eq!(origin, Origin::Http(IpAddr::from([127, 0, 0, 1])));
        if self.closed.load(Ordering::SeqCst) && application == "test" {
            return Err(Box::new(Answer::refused(Outcome::NotAllowed, "not by this way")));
        }
        self.echo.find(origin, application, function)
    }

    fn observable(&self, application: &str, function: Option<&str>) -> bool {
        self.echo.observable(application, function)
    }

    async fn call(&self, request: Request) -> Answer {
        if request.mode == Mode::Synchronous {
            return self.echo.call(request).await;
        }
        if request.payload == "full" {
            return Answer {
                retry_after: Some(Duration::from_secs(9)),
                ..Answer::refused(Outcome::Overloaded, "too many wait")
            };
        }
        let mut calls = self.calls.lock().unwrap();
        let ticket = Ticket { call: CallId(calls.len() as u64), secret: 7 };
        let location = Some(ticket.location(&request.application));
        calls.insert(ticket, Call { request, answer: None });
        let properties = AnswerProperties { location, ..AnswerProperties::default() };
        Answer { call: Some(ticket.call), properties, ..Answer::refused(Outcome::Accepted, "") }
    }

    fn accepted(&self, application: &str, ticket: Ticket) -> Option<AcceptedCall> {
        let calls = self.calls.lock().unwrap();
        let call = calls.get(&ticket).filter(|call| call.request.application == application)?;
        Some(AcceptedCall { function: call.request.function.clone(), ended: call.answer.is_some() })
    }

    async fn accepted_answer(&self, _: &str, ticket: Ticket) -> Answer {
        let ended = self.calls.lock().unwrap()[&ticket].answer.clone();
        ended.unwrap_or_else(|| Answer {
            call: Some(ticket.call),
            payload: r#"{"outcome":"accepted"}"#.into(),
            content_format: Some(50),
            retry_after: Some(Duration::from_secs(1)),
            ..Answer::refused(Outcome::Accepted, "")
        })
    }

    fn payload_bytes_max(&self) -> usize {
        self.echo.payload_bytes_max()
    }

    fn outputs(&self) -> Arc<Outputs> {
        self.echo.outputs()
    }

    fn applications(&self, origin: Origin) -> Vec<ServedApplication> {
        self.echo.applications(origin)
    }
}

const PREFER: &str = "Prefer: wait=5, Respond-Async\r\n";

fn open(config: HttpConfig) -> (Door, Accepting) {
    let service = Accepting::default();
    (Door::open_to(service.clone(), service.echo.clone(), config), service)
}

/// Has a call accepted; gives its location.
async fn accept(connection: &mut Connection, path: &str, payload: &[u8]) -> String {
    let accepted = connection.ask("POST", path, PREFER, payload).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    accepted.header("location").unwrap().to_owned()
}

fn is_empty(response: &Response) -> bool {
    response.body.is_empty()
}

#[tokio::test]
async fn a_call_that_is_not_waited_for_is_accepted_and_not_made() {
    let (door, service) = open(HttpConfig::default());
    let mut connection = door.connect().await;
    let accepted = connection.ask("PUT", "/test/echo?x=1", PREFER, b"a").await;
    assert_eq!((accepted.status, is_empty(&accepted)), (202, true));
    assert_eq!(accepted.header("location"), Some("/test/.calls/00000000000000000000000000000007"));
    assert_eq!(accepted.header("preference-applied"), Some("respond-async"));
    assert_eq!(accepted.header("sandbar-outcome"), Some("accepted"));
    assert_eq!(accepted.header("sandbar-call"), Some("0000000000000000"));
    assert_eq!((accepted.header("retry-after"), accepted.header("content-type")), (None, None));

    let as_tinyfaas = connection.ask("POST", "/test", "X-tinyFaaS-Async: true\r\n", b"a").await;
    assert_eq!((as_tinyfaas.status, as_tinyfaas.header("preference-applied")), (202, None));
    assert!(as_tinyfaas.header("location").is_some());
    for headers in ["Prefer: wait=5\r\n", "X-tinyFaaS-Async:\r\n"] {
        let answered = connection.ask("POST", "/test", headers, b"b").await;
        assert_eq!((answered.status, answered.text()), (200, "b"));
        assert_eq!(answered.header("preference-applied"), None);
    }
    assert_eq!((door.echo.runs(), service.payloads()), (2, vec![b"a".to_vec(); 2]));
    door.close().await;
}

#[tokio::test]
async fn what_cannot_be_accepted_is_refused_as_any_call() {
    let (door, service) = open(HttpConfig::default());
    let mut connection = door.connect().await;
    let full = connection.ask("POST", "/test", PREFER, b"full").await;
    assert_eq!((full.status, full.header("retry-after"), full.header("preference-applied")), (503, Some("9"), None));
    assert_eq!(connection.ask("POST", "/test/nothing", PREFER, b"").await.status, 404);
    // No function can have this name.
    assert_eq!(connection.ask("POST", "/test/.calls", PREFER, b"").await.status, 405);
    service.closed.store(true, Ordering::SeqCst);
    assert_eq!(connection.ask("POST", "/test", PREFER, b"").await.status, 403);
    assert!(service.payloads().is_empty());
    door.close().await;
}

#[tokio::test]
async fn a_location_answers_that_the_call_has_not_ended_and_then_what_the_function_does() {
    let (door, service) = open(HttpConfig::default());
    let mut connection = door.connect().await;
    let (echo, fail) =
        (accept(&mut connection, "/test", b"21.5").await, accept(&mut connection, "/test/fail", b"").await);
    // Whoever asks in this way asks after a call, and for none.
    for (method, headers) in [("GET", ""), ("GET", PREFER), ("HEAD", "")] {
        let waiting = connection.ask(method, &echo, headers, b"").await;
        assert_eq!((waiting.status, waiting.header("retry-after")), (202, Some("1")));
        assert_eq!(waiting.header("content-type"), Some("application/json"));
        assert_eq!((waiting.header("location"), waiting.header("preference-applied")), (None, None));
        assert_eq!(waiting.header("content-length"), Some("22"));
        assert_eq!(waiting.text(), if method == "HEAD" { "" } else { r#"{"outcome":"accepted"}"# });
    }
    service.make_all().await;
    for (method, body) in [("GET", "21.5"), ("GET", "21.5"), ("HEAD", "")] {
        let done = connection.ask(method, &echo, "", b"").await;
        assert_eq!((done.status, done.text(), done.header("content-length")), (200, body, Some("4")));
        assert_eq!((done.header("etag"), done.header("retry-after")), (Some("\"ab\""), None));
        assert_eq!(done.header("sandbar-outcome"), Some("done"));
    }
    let failed = connection.ask("GET", &fail, "", b"").await;
    assert_eq!((failed.status, failed.text()), (500, "ValueError: it broke\n"));
    assert_eq!(door.echo.runs(), 2);
    door.close().await;
}

#[tokio::test]
async fn a_location_takes_no_other_methods() {
    let (door, service) = open(HttpConfig::default());
    let mut connection = door.connect().await;
    let location = accept(&mut connection, "/test", b"x").await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let refused = connection.ask(method, &location, PREFER, b"x").await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    // And a function none of a location's.
    let refused = connection.ask("HEAD", "/test", "", b"").await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, POST, PUT, PATCH, DELETE")));
    assert_eq!((door.echo.runs(), service.payloads().len()), (0, 1));
    door.close().await;
}

#[tokio::test]
async fn what_is_no_call_is_not_found_and_who_may_not_call_is_told_nothing() {
    let (door, service) = open(HttpConfig::default());
    let mut connection = door.connect().await;
    let location = accept(&mut connection, "/test/echo", b"x").await;
    let ticket = location.rsplit('/').next().unwrap();
    let unknown = "/test/.calls/00000000000000000000000000000008".to_owned();
    let others = [
        unknown.clone(),
        "/test/.calls/feed".to_owned(),
        "/test/.calls".to_owned(),
        format!("/test/.calls/{ticket}/more"),
        format!("/test/.calls/{}", ticket.replace('7', "F")),
        format!("/other/.calls/{ticket}"),
    ];
    for path in &others {
        let response = connection.ask("GET", path, "", b"").await;
        assert_eq!((response.status, response.header("sandbar-outcome")), (404, Some("not-found")), "{path}");
    }
    service.closed.store(true, Ordering::SeqCst);
    let texts = [&location, &unknown].map(|path| path.to_owned());
    let mut told = Vec::new();
    for path in texts {
        let response = connection.ask("GET", &path, "", b"").await;
        assert_eq!(response.status, 403);
        told.push(response.text().to_owned());
    }
    assert_eq!(told[0], told[1], "that there is such a call is not to be seen");
    door.close().await;
}

#[tokio::test]
async fn a_function_that_is_there_no_more_is_not_asked_after() {
    let (door, _) = open(HttpConfig::default());
    let mut connection = door.connect().await;
    let location = accept(&mut connection, "/test/echo", b"x").await;
    assert_eq!(connection.ask("GET", &location, "", b"").await.status, 202);
    door.echo.remove();
    assert_eq!(connection.ask("GET", &location, "", b"").await.status, 404);
    door.close().await;
}

#[tokio::test]
async fn who_asks_after_calls_is_admitted_as_who_makes_them() {
    let (door, _) = open(HttpConfig { calls_in_flight_per_peer_max: 1, ..HttpConfig::default() });
    let mut connection = door.connect().await;
    let location = accept(&mut connection, "/test", b"x").await;
    let mut slow = door.connect().await;
    slow.send_request("POST", "/test/sleep", "", b"60000").await;
    door.runs(1).await;
    let refused = connection.ask("GET", &location, "", b"").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    drop(slow);
    door.ask_until(202, "GET", &location, b"").await;
    door.close().await;
}
