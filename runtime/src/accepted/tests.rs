use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::host::HostConfig;
use crate::{Code, Method, Mode, RequestProperties};

async fn host() -> (tempfile::TempDir, Arc<Accepted>, Arc<HostBus>) {
    let directory = tempfile::tempdir().unwrap();
    let bus = Arc::new(HostBus::new(&HostConfig::new(directory.path()), 1 << 16));
    let path = directory.path().join("calls.db");
    let accepted = Accepted::open(path, AcceptedLimits::default(), Arc::clone(&bus.outputs)).await.unwrap();
    (directory, accepted, bus)
}

fn request() -> Request {
    Request {
        application: "porch".to_owned(),
        function: Some("average".to_owned()),
        payload: Bytes::from_static(b"\0 21.5 \xff"),
        content_format: Some(60),
        properties: RequestProperties {
            method: Method::Put,
            path: "a/b".to_owned(),
            query: "x=1".to_owned(),
            accept: Some(50),
        },
        timeout: Some(Duration::from_millis(1500)),
        mode: Mode::Asynchronous,
        ..Request::default()
    }
}

/// Puts a call there as if its application had been deployed when it came.
async fn put(accepted: &Accepted, call: u64) -> Ticket {
    let ticket = Ticket { call: CallId(call), secret: u64::MAX - call };
    let request = request();
    let Request { application, payload, .. } = request.clone();
    accepted.index().reserve(&application, payload.len()).unwrap();
    accepted.store.run(move |database| record::insert(database, ticket, &request, 1)).await.unwrap();
    accepted.index().enter(ticket, "porch", Some("average"), payload.len(), Instant::now());
    ticket
}

async fn end(accepted: &Accepted, ticket: Ticket, attempts: u32, answer: Answer) {
    accepted.index().begin(Instant::now());
    let bytes = (answer.outcome == Outcome::Done).then(|| answer.payload.len());
    let row = answer.clone();
    accepted.store.run(move |database| record::end(database, ticket.call, attempts, &row, now_ms())).await.unwrap();
    accepted.index().end(ticket.call, attempts, bytes, now_ms());
}

#[tokio::test]
async fn a_request_is_read_as_it_was_stored() {
    let (_directory, accepted, _) = host().await;
    let ticket = put(&accepted, 1).await;
    let read = accepted.store.run(move |database| record::request(database, ticket.call)).await.unwrap().unwrap();
    let (read, sent) = (format!("{read:?}"), format!("{:?}", Request { mode: Mode::Synchronous, ..request() }));
    assert_eq!(read, sent);
}

#[tokio::test]
async fn an_answer_is_given_as_the_function_gave_it_and_has_a_name() {
    let (_directory, accepted, _) = host().await;
    let ticket = put(&accepted, 1).await;
    let pending = accepted.answer("porch", ticket).await;
    assert_eq!((pending.outcome, &pending.payload[..]), (Outcome::Accepted, &br#"{"outcome":"accepted"}"#[..]));
    let properties = AnswerProperties { code: Code::new(2, 1), max_age_s: Some(9), ..AnswerProperties::default() };
    let given = Answer {
        payload: Bytes::from_static(b"\xff22"),
        content_format: Some(60),
        properties: properties.clone(),
        ..Answer::refused(Outcome::Done, "")
    };
    end(&accepted, ticket, 1, given.clone()).await;
    let answer = accepted.answer("porch", ticket).await;
    assert_eq!((answer.outcome, answer.payload, answer.content_format), (Outcome::Done, given.payload, Some(60)));
    let etag = answer.properties.etag.clone().unwrap();
    assert_eq!(answer.properties, AnswerProperties { etag: Some(etag), ..properties });
    assert_eq!(accepted.answer("den", ticket).await.outcome, Outcome::NotFound);
    let guessed = Ticket { secret: 1, ..ticket };
    assert_eq!(accepted.answer("porch", guessed).await.outcome, Outcome::NotFound);
}

#[tokio::test]
async fn what_was_given_up_is_listed_replayed_and_forgotten() {
    let (_directory, accepted, _) = host().await;
    let ticket = put(&accepted, 1).await;
    assert!(matches!(accepted.replay("porch", ticket).await, Err(AcceptedError::NotDead(_))));
    end(&accepted, ticket, 3, Answer::refused(Outcome::Failed, "no sensor")).await;
    let answer = accepted.answer("porch", ticket).await;
    assert_eq!((answer.outcome, answer.diagnostic.as_str()), (Outcome::Failed, "no sensor"));
    let listed = &accepted.list(Some("porch")).await.unwrap()[0];
    assert_eq!((listed.state, listed.attempts, listed.outcome), (AcceptedState::Dead, 3, Some(Outcome::Failed)));
    assert_eq!((listed.payload_bytes, listed.diagnostic.as_str()), (request().payload.len(), "no sensor"));
    assert!(accepted.list(Some("den")).await.unwrap().is_empty());
    let (one, other) = tokio::join!(accepted.replay("porch", ticket), accepted.replay("porch", ticket));
    assert!(one.is_ok() && matches!(other, Err(AcceptedError::NotDead(_))), "{one:?} {other:?}");
    assert_eq!(accepted.list(None).await.unwrap()[0].state, AcceptedState::Waiting);
    accepted.index().begin(Instant::now());
    assert_eq!(accepted.list(None).await.unwrap()[0].state, AcceptedState::UnderWay);
    assert!(matches!(accepted.forget("porch", ticket).await, Err(AcceptedError::UnderWay(_))));
    end(&accepted, ticket, 1, Answer::refused(Outcome::Done, "")).await;
    accepted.forget("porch", ticket).await.unwrap();
    assert!(matches!(accepted.forget("porch", ticket).await, Err(AcceptedError::NoSuchCall(_))));
    assert!(accepted.list(None).await.unwrap().is_empty());
    assert!(accepted.index().is_empty());
}

#[tokio::test]
async fn an_application_that_is_not_there_has_no_call_accepted_and_no_file_made() {
    let (directory, accepted, bus) = host().await;
    let answer = accepted.accept(&bus, request()).await;
    assert_eq!(answer.outcome, Outcome::NotFound);
    assert!(accepted.list(None).await.unwrap().is_empty());
    accepted.expire().await;
    assert!(!directory.path().join("calls.db").exists());
}

/// It was removed while its call was being stored.
#[tokio::test]
async fn a_call_is_not_accepted_for_an_application_that_went_meanwhile() {
    let (_directory, accepted, bus) = host().await;
    accepted.index().reserve("porch", request().payload.len()).unwrap();
    let ticket = Ticket { call: CallId(1), secret: 2 };
    assert_eq!(accepted.store(&bus, ticket, request()).await.outcome, Outcome::NotFound);
    assert!(accepted.list(None).await.unwrap().is_empty());
    assert!(accepted.index().is_empty());
}

#[tokio::test]
async fn a_store_that_fails_accepts_nothing_and_keeps_no_room() {
    let (directory, accepted, bus) = host().await;
    std::fs::create_dir(directory.path().join("calls.db")).unwrap();
    accepted.index().reserve("porch", request().payload.len()).unwrap();
    let ticket = Ticket { call: CallId(1), secret: 2 };
    assert_eq!(accepted.store(&bus, ticket, request()).await.outcome, Outcome::Overloaded);
    assert!(accepted.index().is_empty());
}

#[tokio::test]
async fn the_next_agent_has_what_this_one_had() {
    let (directory, accepted, _) = host().await;
    let (waiting, done) = (put(&accepted, 1).await, put(&accepted, 2).await);
    end(&accepted, done, 1, Answer { payload: "22".into(), ..Answer::refused(Outcome::Done, "") }).await;
    accepted.stop().await;
    let path = directory.path().join("calls.db");
    let next = Accepted::open(path, AcceptedLimits::default(), Arc::default()).await.unwrap();
    assert!(!next.find("porch", waiting).unwrap().ended);
    assert_eq!(next.answer("porch", done).await.payload, "22");
    next.stop().await;
}
