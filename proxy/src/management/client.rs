//! The command's half: typed requests to a running host agent.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sandbar_runtime::{AcceptedStatus, Answer, ApplicationStatus, Deployed, Mode, Request, Ticket};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::protocol::{DeployRequest, ErrorBody, HostStatus, LogRecord, decode_answer, millis};

/// The longest line of a log that is taken; the agent cuts its lines far shorter.
const LOG_LINE_BYTES_MAX: usize = 16 << 20;

/// Why a request to the host agent did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error(
        "no host agent at {}: start one with `sandbar serve`, or name its socket with --socket",
        socket.display()
    )]
    NobodyListens {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is a socket, but not for us.
    #[error("cannot reach the host agent at {}", socket.display())]
    Unreachable {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection ended before the answer did.
    #[error("the host agent hung up; it has been stopped, or this user may not use its socket")]
    HungUp(#[source] hyper::Error),
    /// The request cannot be put in JSON.
    #[error("cannot send this")]
    Unsendable(#[source] serde_json::Error),
    /// The request is no HTTP.
    #[error("cannot send this")]
    Malformed(#[source] hyper::http::Error),
    /// The agent said what is wrong.
    #[error("{what}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// What could not be done.
        what: String,
        /// Why, in the agent's words.
        source: Option<Box<RemoteCause>>,
    },
    /// The answer makes no sense: the command and the agent are of different versions.
    #[error("the host agent's answer makes no sense (status {status}); is it of another version?")]
    Unreadable {
        /// The answer's status.
        status: StatusCode,
    },
}

/// A link in the agent's chain of causes.
#[derive(Debug, PartialEq, Eq)]
pub struct RemoteCause {
    what: String,
    source: Option<Box<RemoteCause>>,
}

impl fmt::Display for RemoteCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for RemoteCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}

impl RemoteCause {
    fn chain(causes: Vec<String>) -> Option<Box<Self>> {
        let links = causes.into_iter().rev();
        links.fold(None, |source, what| Some(Box::new(Self { what, source })))
    }
}

/// Speaks to the host agent at one socket; each request is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent whose management socket is at `socket`. Nothing is opened yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// What the agent is and where its doors are.
    ///
    /// # Errors
    /// See [`ClientError`], for this and all other requests.
    pub async fn host(&self) -> Result<HostStatus, ClientError> {
        self.json(Method::GET, "/v1/host", Bytes::new()).await
    }

    /// All applications on the host.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn applications(&self) -> Result<Vec<ApplicationStatus>, ClientError> {
        self.json(Method::GET, "/v1/applications", Bytes::new()).await
    }

    /// Deploys the application in `source`, the absolute path of a folder or an archive; returns when it answers calls.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what is wrong with the application.
    pub async fn deploy(&self, source: &Path) -> Result<Deployed, ClientError> {
        let request = DeployRequest { source: source.to_owned() };
        let body = serde_json::to_vec(&request).map_err(ClientError::Unsendable)?;
        self.json(Method::POST, "/v1/applications", body.into()).await
    }

    /// Removes an application with all that belongs to it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with status 404 if there is none of this name.
    pub async fn remove(&self, application: &str) -> Result<(), ClientError> {
        let path = format!("/v1/applications/{}", encoded(application));
        self.send(Method::DELETE, &path, Bytes::new()).await.map(drop)
    }

    /// Puts an application to rest now; returns when it is.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with status 404 if there is none of this name, and 409 if it serves calls.
    pub async fn rest(&self, application: &str) -> Result<(), ClientError> {
        let path = format!("/v1/applications/{}/rest", encoded(application));
        self.send(Method::POST, &path, Bytes::new()).await.map(drop)
    }

    /// Makes a call and waits for its answer, which comes by the call's deadline; or has it accepted, if its mode is asynchronous: the
    /// answer then has the location among its properties.
    ///
    /// # Errors
    /// Only if there is no answer: a call that ends badly is an answer.
    pub async fn call(&self, request: Request) -> Result<Answer, ClientError> {
        let mut query = Query::new(format!("/v1/applications/{}/calls", encoded(&request.application)));
        query.add("function", request.function.as_deref());
        query.add("timeout_ms", request.timeout.map(millis));
        query.add("content_format", request.content_format);
        query.add("trace", request.trace.then_some(true));
        query.add("asynchronous", (request.mode == Mode::Asynchronous).then_some(true));
        answer_in(self.send(Method::POST, &query.path, request.payload).await?).await
    }

    /// Accepted calls that are known, the oldest first: of an application, or all.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn accepted_calls(&self, application: Option<&str>) -> Result<Vec<AcceptedStatus>, ClientError> {
        let mut query = Query::new("/v1/calls".to_owned());
        query.add("application", application);
        self.json(Method::GET, &query.path, Bytes::new()).await
    }

    /// The answer to an accepted call, with outcome [`Accepted`](sandbar_runtime::Outcome::Accepted) while the call has not ended.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with status 404 if no such call is known (any more).
    pub async fn accepted_answer(&self, application: &str, ticket: Ticket) -> Result<Answer, ClientError> {
        answer_in(self.send(Method::GET, &accepted(application, ticket), Bytes::new()).await?).await
    }

    /// Has a call made again that was given up.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with status 404 if no such call is known, 409 if it was not given up, and 503 if there are too many to be
    /// made.
    pub async fn replay(&self, application: &str, ticket: Ticket) -> Result<(), ClientError> {
        let path = format!("{}/replay", accepted(application, ticket));
        self.send(Method::POST, &path, Bytes::new()).await.map(drop)
    }

    /// Forgets a call that has ended, or takes one back that has not begun.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with status 404 if no such call is known, and 409 if it is under way.
    pub async fn forget(&self, application: &str, ticket: Ticket) -> Result<(), ClientError> {
        self.send(Method::DELETE, &accepted(application, ticket), Bytes::new()).await.map(drop)
    }

    /// Reads an application's log: what is stored and, with `follow`, what comes until the application is removed.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with status 404 if there is no such application or function.
    pub async fn logs(
        &self,
        application: &str,
        function: Option<&str>,
        follow: bool,
    ) -> Result<LogRecords, ClientError> {
        let mut query = Query::new(format!("/v1/applications/{}/logs", encoded(application)));
        query.add("function", function);
        query.add("follow", follow.then_some(true));
        let response = self.send(Method::GET, &query.path, Bytes::new()).await?;
        Ok(LogRecords { status: response.status(), body: response.into_body(), buffer: BytesMut::new() })
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        serde_json::from_slice(&collected(response).await?).map_err(|_| ClientError::Unreadable { status })
    }

    /// Sends one request; an answer that is not a success is an error.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| self.not_connected(source))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::HungUp)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "management connection");
            }
        });
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "sandbar")
            .body(Full::new(body))
            .map_err(ClientError::Malformed)?;
        let response = sender.send_request(request).await.map_err(ClientError::HungUp)?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    fn not_connected(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        let nobody = matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
        if nobody { ClientError::NobodyListens { socket, source } } else { ClientError::Unreachable { socket, source } }
    }
}

async fn collected(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(ClientError::HungUp)?.to_bytes())
}

async fn refusal(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let body = match collected(response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(problem) => ClientError::Refused { status, what: problem.error, source: RemoteCause::chain(problem.causes) },
        Err(_) => ClientError::Unreadable { status },
    }
}

async fn answer_in(response: Response<Incoming>) -> Result<Answer, ClientError> {
    let status = response.status();
    decode_answer(collected(response).await?).ok_or(ClientError::Unreadable { status })
}

/// Where the service has an accepted call.
fn accepted(application: &str, ticket: Ticket) -> String {
    format!("/v1/applications/{}/calls/{ticket}", encoded(application))
}

fn encoded(name: &str) -> impl fmt::Display {
    utf8_percent_encode(name, NON_ALPHANUMERIC)
}

/// A path that grows its query.
struct Query {
    path: String,
    separator: char,
}

impl Query {
    fn new(path: String) -> Self {
        Self { path, separator: '?' }
    }

    fn add(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.path.push(self.separator);
            self.path.push_str(name);
            self.path.push('=');
            self.path.extend(utf8_percent_encode(&value.to_string(), NON_ALPHANUMERIC));
            self.separator = '&';
        }
    }
}

/// The lines of a log as they arrive.
#[derive(Debug)]
pub struct LogRecords {
    status: StatusCode,
    body: Incoming,
    /// What has arrived of the next lines.
    buffer: BytesMut,
}

impl LogRecords {
    /// The next line; `None` at the log's end.
    ///
    /// # Errors
    /// If the agent ends in the middle of a line, or sends what is no log.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + end + 1);
                return self.record(&line).map(Some);
            }
            searched = self.buffer.len();
            if searched > LOG_LINE_BYTES_MAX {
                return Err(self.unreadable());
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(self.unreadable()),
                Some(frame) => {
                    let frame = frame.map_err(ClientError::HungUp)?;
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                }
            }
        }
    }

    fn record(&self, line: &[u8]) -> Result<LogRecord, ClientError> {
        serde_json::from_slice(line).map_err(|_| self.unreadable())
    }

    fn unreadable(&self) -> ClientError {
        ClientError::Unreadable { status: self.status }
    }
}

#[cfg(test)]
mod tests;
