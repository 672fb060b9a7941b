//! What a handler is told of its call, and what it can do besides answering.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use sandbar_bus::{AnswerProperties, Code, Method, RequestProperties};

use crate::callee::CallError;
use crate::instance::{Instance, Served, log};

/// A handler's view of its call.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) served: &'a Served,
    pub(crate) application: String,
    request: RequestProperties,
    pub(crate) answer_format: Cell<Option<u16>>,
    pub(crate) answer: RefCell<AnswerProperties>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(instance: &'a Instance, served: &'a Served) -> Self {
        let application = instance.application();
        let (request, answer) = (served.properties(), RefCell::default());
        Self { instance, served, application, request, answer_format: Cell::new(None), answer }
    }

    /// The call's id: the same in all functions it passes through.
    #[must_use]
    pub fn call_id(&self) -> u64 {
        self.served.call_id()
    }

    /// The application's name.
    #[must_use]
    pub fn application(&self) -> &str {
        &self.application
    }

    /// The function's name.
    #[must_use]
    pub fn function(&self) -> &str {
        &self.instance.function().name
    }

    /// How long the handler may still run before it is killed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.served.remaining()
    }

    /// The event's format, a number of the CoAP Content-Formats registry, if the sender said one.
    #[must_use]
    pub fn content_format(&self) -> Option<u16> {
        self.served.content_format()
    }

    /// What the caller asked to be done. As all that is said of the request, it is the same in all functions of a chain.
    #[must_use]
    pub fn method(&self) -> Method {
        self.request.method
    }

    /// What the caller's path says after the function: segments with slashes between, percent-encoded as in a URI.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.request.path
    }

    /// The caller's query: parts with `&` between, percent-encoded.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.request.query
    }

    /// The format that the caller wants the answer in (CoAP Content-Formats registry), if it said one.
    #[must_use]
    pub fn accept(&self) -> Option<u16> {
        self.request.accept
    }

    /// Says what format the output is in.
    pub fn set_content_format(&self, content_format: u16) {
        self.answer_format.set(Some(content_format));
    }

    /// Answers with this code in place of the usual one. HTTP callers get the status that stands for it. This and what follows counts in the
    /// function whose output is the answer.
    pub fn set_code(&self, code: Code) {
        self.answer.borrow_mut().code = Some(code);
    }

    /// Says for how many seconds others may be given the answer.
    pub fn set_max_age(&self, seconds: u32) {
        self.answer.borrow_mut().max_age_s = Some(seconds);
    }

    /// Names the state that the answer shows: 1 to 8 bytes. Others are passed over.
    pub fn set_etag(&self, etag: &[u8]) {
        self.answer.borrow_mut().etag = (1..=8).contains(&etag.len()).then(|| etag.to_vec());
    }

    /// Says where to find what was made: path and query, percent-encoded.
    pub fn set_location(&self, location: &str) {
        self.answer.borrow_mut().location = Some(location.to_owned());
    }

    /// Writes a line to the application's log.
    pub fn log(&self, text: impl fmt::Display) {
        log(&text);
    }

    /// Calls another function and waits for its answer (or that of the chain that begins with it): one of the application by
    /// its name, one of another application by its path, such as `/gallery/thumbnail`, if the manifests of both allow it.
    ///
    /// # Errors
    /// When there is no such function, it is overloaded, or it did not end with an answer.
    pub fn call(&self, function: &str, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        let (answer, _format) = self.instance.call(self.served, function, payload, None)?;
        Ok(answer)
    }

    /// Sends to another function and does not wait for it; names are as for [`call`](Self::call). What becomes of it is in the
    /// log.
    ///
    /// # Errors
    /// When there is no such function, or it is overloaded.
    pub fn send(&self, function: &str, payload: &[u8]) -> Result<(), CallError> {
        self.instance.send(self.served, function, payload, None)
    }
}
