use std::error::Error;

use axum::body::Body;
use axum::extract::RawQuery;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use sandbar_runtime::{AcceptedState, CallId, Outcome};
use tokio::net::UnixListener;

use super::super::protocol::encode_answer;
use super::*;

#[test]
fn a_query_holds_what_was_given_and_nothing_else() {
    let mut query = Query::new("/p".into());
    query.add("absent", None::<&str>);
    query.add("function", Some("a&b=c/ü"));
    query.add("timeout_ms", Some(5));
    assert_eq!(query.path, "/p?function=a%26b%3Dc%2F%C3%BC&timeout_ms=5");
    assert!(query.path.parse::<hyper::Uri>().is_ok());
}

#[test]
fn causes_keep_their_order() {
    let chain = RemoteCause::chain(vec!["near".into(), "far".into()]).unwrap();
    assert_eq!(chain.to_string(), "near");
    assert_eq!(chain.source().unwrap().to_string(), "far");
    assert!(chain.source().unwrap().source().is_none());
    assert_eq!(RemoteCause::chain(Vec::new()), None);
}

#[tokio::test]
async fn nobody_at_the_socket_is_told_apart() {
    let error = Client::new("/nonexistent/sandbar.sock").host().await.unwrap_err();
    assert!(matches!(error, ClientError::NobodyListens { .. }));
    assert!(error.to_string().contains("sandbar serve"), "{error}");
}

/// A client of a service that answers as `router` says, at a socket named for the test.
async fn client_of(test: &str, router: Router) -> Client {
    let path = std::env::temp_dir().join(format!("sandbar-client-{test}-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let client = Client::new(&path);
    tokio::spawn(async move {
        axum::serve(listener, router).await.unwrap();
    });
    client
}

fn forget(client: &Client) {
    std::fs::remove_file(&client.socket).unwrap();
}

#[tokio::test]
async fn a_refusal_keeps_its_status_and_its_causes() {
    let refusal = ErrorBody { error: "cannot deploy".into(), causes: vec!["line 3".into(), "unknown field".into()] };
    let router =
        Router::new().route("/v1/applications", post(async || (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal))));
    let client = client_of("refusal", router).await;
    let error = client.deploy(Path::new("/app")).await.unwrap_err();
    forget(&client);
    assert!(matches!(error, ClientError::Refused { status, .. } if status == 422));
    assert_eq!(error.to_string(), "cannot deploy");
    let cause = error.source().unwrap();
    assert_eq!(cause.to_string(), "line 3");
    assert_eq!(cause.source().unwrap().to_string(), "unknown field");
}

#[tokio::test]
async fn a_call_brings_its_answer_back() {
    let answer = async |payload: Bytes| {
        let mut answer = Answer::refused(Outcome::Done, "");
        answer.payload = payload;
        encode_answer(&answer).unwrap()
    };
    let router = Router::new().route("/v1/applications/{name}/calls", post(answer));
    let client = client_of("call", router).await;
    let request =
        Request { application: "thermostat".into(), payload: Bytes::from_static(b"21.5\n\xff"), ..Request::default() };
    let answer = client.call(request).await.unwrap();
    forget(&client);
    assert_eq!(answer.outcome, Outcome::Done);
    assert_eq!(answer.payload, &b"21.5\n\xff"[..]);
}

#[tokio::test]
async fn an_accepted_call_brings_its_location_back() {
    let accept = async |RawQuery(query): RawQuery| {
        let mut answer = Answer::refused(Outcome::Accepted, "");
        answer.properties.location = query;
        encode_answer(&answer).unwrap()
    };
    let router = Router::new().route("/v1/applications/{name}/calls", post(accept));
    let client = client_of("accept", router).await;
    let request = Request { application: "thermostat".into(), mode: Mode::Asynchronous, ..Request::default() };
    let answer = client.call(request).await.unwrap();
    forget(&client);
    assert_eq!(answer.outcome, Outcome::Accepted);
    assert_eq!(answer.properties.location.as_deref(), Some("asynchronous=true"));
}

#[tokio::test]
async fn each_request_about_an_accepted_call_has_its_path_and_method() {
    let status = AcceptedStatus {
        ticket: "t".into(),
        application: "ä/b".into(),
        function: None,
        state: AcceptedState::Dead,
        attempts: 3,
        accepted_ms: 1,
        ended_ms: Some(2),
        outcome: Some(Outcome::Failed),
        diagnostic: "it broke".into(),
        payload_bytes: 5,
        answer_bytes: 0,
    };
    let listed = status.clone();
    let list = async move |RawQuery(query): RawQuery| {
        assert!(query.is_none_or(|query| query == "application=%C3%A4%2Fb"));
        Json([listed])
    };
    let answer = async || encode_answer(&Answer::refused(Outcome::Failed, "it broke")).unwrap();
    let busy = ErrorBody { error: "under way".into(), causes: Vec::new() };
    let refuse = async move || (StatusCode::CONFLICT, Json(busy));
    let call = "/v1/applications/%C3%A4%2Fb/calls/000000000000feed0000000000000007";
    let router = Router::new()
        .route("/v1/calls", get(list))
        .route(call, get(answer).delete(refuse))
        .route(&format!("{call}/replay"), post(async || StatusCode::NO_CONTENT));
    let client = client_of("accepted", router).await;
    let ticket = Ticket { call: CallId(0xfeed), secret: 7 };
    for application in [None, Some("ä/b")] {
        assert_eq!(client.accepted_calls(application).await.unwrap(), std::slice::from_ref(&status));
    }
    let answer = client.accepted_answer("ä/b", ticket).await.unwrap();
    assert_eq!((answer.outcome, answer.diagnostic.as_str()), (Outcome::Failed, "it broke"));
    client.replay("ä/b", ticket).await.unwrap();
    let refused = client.forget("ä/b", ticket).await.unwrap_err();
    forget(&client);
    assert!(matches!(refused, ClientError::Refused { status, .. } if status == 409), "{refused}");
}

fn log_of(chunks: &'static [&'static str]) -> Router {
    let body = move || {
        let chunks = chunks.iter().map(|chunk| Ok::<_, io::Error>(Bytes::from_static(chunk.as_bytes())));
        Body::from_stream(stream::iter(chunks))
    };
    Router::new().route("/v1/applications/{name}/logs", get(async move || body()))
}

#[tokio::test]
async fn lines_of_a_log_are_whole_however_they_arrive() {
    const CHUNKS: [&str; 3] = [
        "{\"time\":\"1970-01-01T00:00:01Z\",\"fun",
        "ction\":\"f\",\"text\":\"one\"}\n{\"time\":\"1970-01-01T00:00:01Z\",\"function\":\"\",",
        "\"text\":\"two\"}\n",
    ];
    let client = client_of("log", log_of(&CHUNKS)).await;
    let mut records = client.logs("thermostat", None, false).await.unwrap();
    assert_eq!(records.next().await.unwrap().unwrap().text, "one");
    assert_eq!(records.next().await.unwrap().unwrap().text, "two");
    assert!(records.next().await.unwrap().is_none());
    forget(&client);
}

#[tokio::test]
async fn a_log_that_ends_within_a_line_is_an_error() {
    let client = client_of("cut", log_of(&["{\"time\":\"1970-01"])).await;
    let mut records = client.logs("thermostat", None, false).await.unwrap();
    let ended = records.next().await;
    forget(&client);
    assert!(matches!(ended, Err(ClientError::Unreadable { .. })));
}

#[tokio::test]
async fn an_answer_of_another_service_is_an_error() {
    let router = Router::new().route("/v1/host", get(async || "It works!"));
    let client = client_of("other", router).await;
    let error = client.host().await.unwrap_err();
    forget(&client);
    assert!(matches!(error, ClientError::Unreadable { .. }));
}
