//! What a handler is told of its call, and what it can do besides answering.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use crate::instance::{CallError, Instance, Served, log};

/// A handler's view of its call.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) served: &'a Served,
    pub(crate) application: String,
    pub(crate) answer_format: Cell<Option<u16>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(instance: &'a Instance, served: &'a Served) -> Self {
        let application = instance.application();
        Self { instance, served, application, answer_format: Cell::new(None) }
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

    /// Says what format the output is in.
    pub fn set_content_format(&self, content_format: u16) {
        self.answer_format.set(Some(content_format));
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
