//! A service without a host behind it: one application whose functions show what a door does with their answers. Calls that it accepts
//! are made when a test says so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sandbar_proxy::{ServedApplication, ServedFunction, Service};
use sandbar_runtime::outputs::{Output, Outputs};
use sandbar_runtime::{
    AcceptedCall, Answer, AnswerProperties, CallId, Code, Method, Mode, Origin, Outcome, Request, Ticket,
};

/// Functions of the application `test`; the entry function echoes, and so does `private`, which may not be observed.
pub(crate) const FUNCTIONS: [&str; 9] =
    ["echo", "sleep", "big", "fail", "panic", "overloaded", "make", "keep", "private"];

/// A call that was accepted, and its answer when it has ended.
type AcceptedEcho = (Request, Option<Answer>);

/// The service. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Echo {
    /// Calls begun.
    pub(crate) runs: Arc<AtomicU64>,
    /// Whether the application has been removed.
    removed: Arc<AtomicBool>,
    /// Whether it has been replaced by one of which nothing may be observed.
    sealed: Arc<AtomicBool>,
    /// Whether it has been replaced by one that lets nobody in.
    closed: Arc<AtomicBool>,
    outputs: Arc<Outputs>,
    /// Calls that were accepted and are not forgotten.
    accepted: Arc<Mutex<HashMap<Ticket, AcceptedEcho>>>,
    /// Whether a call ends as soon as somebody has been told that it has not.
    ends_when_looked_at: Arc<AtomicBool>,
    /// What `keep` was given last, and how often it was given something.
    kept: Arc<Mutex<(u64, Bytes)>>,
}

impl Echo {
    /// Calls begun so far.
    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    /// Removes the application.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::SeqCst);
        self.outputs.replaced("test");
    }

    /// Replaces the application by one of which nothing may be observed.
    pub(crate) fn seal(&self) {
        self.sealed.store(true, Ordering::SeqCst);
        self.outputs.replaced("test");
    }

    /// Replaces the application by one that lets nobody in.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.outputs.replaced("test");
    }

    /// Calls accepted so far that are not forgotten.
    pub(crate) fn accepted_calls(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    /// From now on a call ends as soon as somebody has been told that it has not.
    pub(crate) fn end_when_looked_at(&self) {
        self.ends_when_looked_at.store(true, Ordering::SeqCst);
    }

    /// Makes an accepted call.
    pub(crate) async fn make(&self, ticket: Ticket) {
        let (request, _) = self.accepted.lock().unwrap().get(&ticket).cloned().unwrap();
        let answer = self.call(Request { mode: Mode::Synchronous, ..request }).await;
        self.end(ticket, answer);
    }

    /// Ends an accepted call with this answer.
    fn end(&self, ticket: Ticket, answer: Answer) {
        self.accepted.lock().unwrap().get_mut(&ticket).unwrap().1 = Some(answer);
        self.outputs.ended("test", ticket);
    }

    /// Forgets an accepted call.
    pub(crate) fn forget(&self, ticket: Ticket) {
        self.accepted.lock().unwrap().remove(&ticket);
        self.outputs.ended("test", ticket);
    }

    /// Accepts a call.
    fn accept(&self, request: Request) -> Answer {
        let mut accepted = self.accepted.lock().unwrap();
        let ticket = Ticket { call: CallId(accepted.len() as u64 + 1), secret: 7 };
        accepted.insert(ticket, (request, None));
        let properties = AnswerProperties { location: Some(ticket.location("test")), ..AnswerProperties::default() };
        Answer { call: Some(ticket.call), properties, ..Answer::refused(Outcome::Accepted, "") }
    }

    /// Whether anybody observes.
    pub(crate) fn is_watched(&self) -> bool {
        self.outputs.is_watched()
    }

    /// The answer, which whoever observes is told of.
    fn given(&self, function: Option<&str>, answer: Answer) -> Answer {
        let Answer { payload, content_format, properties, .. } = answer.clone();
        let output = Output { payload, content_format, properties };
        self.outputs.publish("test", function.unwrap_or("echo"), function.is_none(), &output);
        answer
    }
}

/// The largest payload taken.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Service for Echo {
    fn find(&self, _: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>> {
        if application != "test" || self.removed.load(Ordering::SeqCst) {
            let text = "no such application";
            return Err(Box::new(Answer::refused(Outcome::NotFound, text)));
        }
        if self.closed.load(Ordering::SeqCst) {
            return Err(Box::new(Answer::refused(Outcome::NotAllowed, "nobody may call this any more")));
        }
        match function {
            Some(function) if !FUNCTIONS.contains(&function) => {
                Err(Box::new(Answer::refused(Outcome::NotFound, "no such function")))
            }
            _ => Ok(()),
        }
    }

    fn observable(&self, _: &str, function: Option<&str>) -> bool {
        function != Some("private") && !self.sealed.load(Ordering::SeqCst)
    }

    async fn call(&self, request: Request) -> Answer {
        if request.mode == Mode::Asynchronous {
            return self.accept(request);
        }
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        let number = || {
            let text = String::from_utf8_lossy(&request.payload);
            text.trim().parse::<u64>().unwrap_or(0)
        };
        let mut answer = Answer { call: Some(CallId(run)), ..Answer::refused(Outcome::Done, "") };
        match request.function.as_deref() {
            Some("sleep") => tokio::time::sleep(Duration::from_millis(number())).await,
            Some("big") => {
                let length = usize::try_from(number()).unwrap();
                answer.payload = pattern(length).into();
                return self.given(Some("big"), answer);
            }
            Some("fail") => {
                answer.outcome = Outcome::Failed;
                answer.diagnostic = "ValueError: it broke\n".to_owned();
                return answer;
            }
            Some("panic") => panic!("the service panics, as asked"),
            Some("overloaded") => {
                answer.outcome = Outcome::Overloaded;
                answer.retry_after = Some(Duration::from_secs(7));
                return answer;
            }
            Some("make") => {
                let at = &request.properties;
                let location = Some(format!("/{}?{}", at.path, at.query));
                answer.properties = AnswerProperties { code: Code::new(2, 1), location, ..AnswerProperties::default() };
            }
            Some("keep") => {
                let mut kept = self.kept.lock().unwrap();
                if request.properties.method != Method::Get {
                    *kept = (kept.0 + 1, request.payload);
                }
                answer.properties.etag = Some(kept.0.to_be_bytes().to_vec());
                answer.payload = kept.1.clone();
                return answer;
            }
            _ => {}
        }
        answer.payload = request.payload;
        answer.content_format = request.content_format;
        self.given(request.function.as_deref(), answer)
    }

    fn accepted(&self, application: &str, ticket: Ticket) -> Option<AcceptedCall> {
        let known = self.accepted.lock().unwrap().get(&ticket).cloned().filter(|_| application == "test");
        let (request, answer) = known?;
        if answer.is_none() && self.ends_when_looked_at.load(Ordering::SeqCst) {
            self.end(ticket, Answer { payload: "at once".into(), ..Answer::refused(Outcome::Done, "") });
        }
        Some(AcceptedCall { function: request.function, ended: answer.is_some() })
    }

    async fn accepted_answer(&self, application: &str, ticket: Ticket) -> Answer {
        let known = self.accepted.lock().unwrap().get(&ticket).cloned().filter(|_| application == "test");
        match known {
            None => Answer::refused(Outcome::NotFound, "no such call is known"),
            Some((_, Some(mut answer))) => {
                answer.properties.etag = Some(b"kept".to_vec());
                answer
            }
            Some((_, None)) => Answer {
                payload: Bytes::from_static(br#"{"outcome":"accepted"}"#),
                content_format: Some(50),
                retry_after: Some(Duration::from_secs(1)),
                ..Answer::refused(Outcome::Accepted, "")
            },
        }
    }

    fn outputs(&self) -> Arc<Outputs> {
        Arc::clone(&self.outputs)
    }

    fn payload_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX
    }

    fn applications(&self, _: Origin) -> Vec<ServedApplication> {
        let function =
            |name: &str| ServedFunction { name: name.to_owned(), observable: self.observable("test", Some(name)) };
        let functions = FUNCTIONS.map(function).to_vec();
        vec![ServedApplication { name: "test".to_owned(), observable: self.observable("test", None), functions }]
    }
}

/// Bytes that differ from block to block.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at ^ at >> 8 ^ at >> 16) & 0xff).unwrap()).collect()
}
