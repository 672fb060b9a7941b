//! The service's half: requests in, what the host agent did out.

mod accepted;

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::BodyExt;
use sandbar_runtime::{
    Answer, ApplicationStatus, Deployed, HostAgent, LogStream, LogsError, Mode, Origin, Outcome, RemoveError, Request,
    RestError,
};
use tokio::sync::watch;

use super::OpenDoor;
use super::protocol::{CallQuery, DeployRequest, ErrorBody, HostStatus, LogRecord, LogsQuery, encode_answer, millis};

/// Bytes of a request that is not a call: a path and its JSON.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What the routes share.
#[derive(Clone, Debug)]
pub(super) struct Management {
    pub(super) host: HostAgent,
    pub(super) doors: Vec<OpenDoor>,
    pub(super) started: Instant,
    /// Becomes true when the service is to end: followed logs end then, as nothing else would end them.
    pub(super) stopping: watch::Receiver<bool>,
}

pub(super) fn router(management: Management) -> Router {
    Router::new()
        .route("/v1/host", get(host))
        .route("/v1/applications", get(applications).post(deploy))
        .route("/v1/applications/{name}", delete(remove))
        .route("/v1/applications/{name}/rest", post(rest))
        .route("/v1/applications/{name}/logs", get(logs))
        .route("/v1/calls", get(accepted::list))
        .route("/v1/applications/{name}/calls/{ticket}", get(accepted::answer).delete(accepted::forget))
        .route("/v1/applications/{name}/calls/{ticket}/replay", post(accepted::replay))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .route("/v1/applications/{name}/calls", post(call))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such path"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .with_state(management)
}

/// A request that was not served, as its answer.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    body: ErrorBody,
}

impl Problem {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { error: error.into(), causes: Vec::new() } }
    }

    fn of(status: StatusCode, error: &dyn std::error::Error) -> Self {
        Self { status, body: ErrorBody::of(error) }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

async fn host(State(management): State<Management>) -> Json<HostStatus> {
    Json(HostStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: millis(management.started.elapsed()),
        doors: management.doors.iter().map(OpenDoor::told).collect(),
    })
}

async fn applications(State(management): State<Management>) -> Json<Vec<ApplicationStatus>> {
    Json(management.host.applications())
}

async fn deploy(
    State(management): State<Management>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Deployed>, Problem> {
    let request: DeployRequest =
        serde_json::from_slice(&body?).map_err(|error| Problem::of(StatusCode::BAD_REQUEST, &error))?;
    if !request.source.is_absolute() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the path of what is to be deployed is not absolute"));
    }
    let work = async move { management.host.deploy(&request.source).await };
    to_its_end(work).await?.map(Json).map_err(|error| Problem::of(StatusCode::UNPROCESSABLE_ENTITY, &error))
}

async fn remove(State(management): State<Management>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    let work = async move { management.host.remove(&name).await };
    to_its_end(work).await?.map(|()| StatusCode::NO_CONTENT).map_err(|error| {
        let status = match error {
            RemoveError::NoSuchApplication(_) => StatusCode::NOT_FOUND,
            RemoveError::Files(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::of(status, &error)
    })
}

async fn rest(State(management): State<Management>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    management.host.rest(&name).await.map(|()| StatusCode::NO_CONTENT).map_err(|error| {
        let status = match error {
            RestError::NoSuchApplication(_) => StatusCode::NOT_FOUND,
            RestError::Busy(_) => StatusCode::CONFLICT,
        };
        Problem::of(status, &error)
    })
}

/// Runs to the end what a caller who hangs up must not leave half done.
async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Problem> {
    tokio::spawn(work).await.map_err(|error| Problem::of(StatusCode::INTERNAL_SERVER_ERROR, &error))
}

async fn call(
    State(management): State<Management>,
    Path(application): Path<String>,
    query: Result<Query<CallQuery>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let payload_bytes_max = management.host.payload_bytes_max();
    let payload =
        read_payload(body, payload_bytes_max).await.map_err(|error| Problem::of(StatusCode::BAD_REQUEST, &error))?;
    let answer = match payload {
        Some(payload) => {
            let request = Request {
                application,
                function: query.function,
                payload,
                content_format: query.content_format,
                timeout: query.timeout_ms.map(Duration::from_millis),
                trace: query.trace,
                mode: if query.asynchronous { Mode::Asynchronous } else { Mode::Synchronous },
                origin: Origin::Known,
                ..Request::default()
            };
            management.host.call(request).await
        }
        None => too_large(payload_bytes_max),
    };
    told(&answer)
}

fn told(answer: &Answer) -> Result<Response, Problem> {
    let body = encode_answer(answer).map_err(|error| Problem::of(StatusCode::INTERNAL_SERVER_ERROR, &error))?;
    Ok(([(header::CONTENT_TYPE, "application/vnd.sandbar.answer")], body).into_response())
}

/// Reads a payload, `None` if it is longer than `bytes_max`. Such a one is read to its end as well, as the client looks
/// for an answer only then.
async fn read_payload(mut body: Body, bytes_max: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut payload = BytesMut::new();
    let mut length: usize = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        length = length.saturating_add(data.len());
        if length > bytes_max {
            payload = BytesMut::new();
        } else {
            payload.extend_from_slice(&data);
        }
    }
    Ok((length <= bytes_max).then(|| payload.freeze()))
}

fn too_large(payload_bytes_max: usize) -> Answer {
    Answer {
        payload_bytes_max: Some(payload_bytes_max),
        ..Answer::refused(Outcome::TooLarge, format!("this host takes payloads of up to {payload_bytes_max} bytes"))
    }
}

async fn logs(
    State(management): State<Management>,
    Path(application): Path<String>,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let lines = management.host.logs(&application, query.function.as_deref(), query.follow).map_err(|error| {
        let status = match error {
            LogsError::NoSuchApplication(_) | LogsError::NoSuchFunction { .. } => StatusCode::NOT_FOUND,
            LogsError::Files(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::of(status, &error)
    })?;
    let records = stream::unfold((lines, management.stopping), next_record);
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, Body::from_stream(records)).into_response())
}

/// The next line of a log as it is sent; `None` at its end, or when the service is to end.
async fn next_record(
    (mut lines, mut stopping): (LogStream, watch::Receiver<bool>),
) -> Option<(serde_json::Result<Bytes>, (LogStream, watch::Receiver<bool>))> {
    let line = tokio::select! {
        line = lines.next() => line?,
        _ = stopping.wait_for(|stop| *stop) => return None,
    };
    let record = serde_json::to_vec(&LogRecord::from(line)).map(|mut record| {
        record.push(b'\n');
        record.into()
    });
    Some((record, (lines, stopping)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_payload_is_taken_up_to_the_limit_and_read_beyond() {
        let kept = read_payload(Body::from("1234"), 4).await.unwrap();
        assert_eq!(kept.unwrap(), "1234");
        assert!(read_payload(Body::from("12345"), 4).await.unwrap().is_none());
        assert_eq!(read_payload(Body::empty(), 4).await.unwrap().unwrap(), "");
    }

    #[test]
    fn too_large_a_payload_is_told_the_limit() {
        let answer = too_large(9);
        assert_eq!(answer.outcome, Outcome::TooLarge);
        assert_eq!(answer.payload_bytes_max, Some(9));
    }
}
