//! One end of a DTLS association (RFC 6347): the library's state machine, fed with what the other end sent. The secure door has one for
//! each client, the CoAP client one for its server.
//!
//! It waits for nothing and sends nothing. What the library does with strangers' bytes is not believed to end well always: a panic in it
//! ends one association.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use dimpl::{Config, Dtls, Output, SecurityError};

/// Room for what the library puts out; grown when it asks for more.
const OUTPUT_BYTES: usize = 2048;

/// Why an association is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The other end says so, by this alert (RFC 5246, section 7.2.2).
    #[error("the other end sent alert {0}")]
    Alert(u8),
    /// The other end does not answer the handshake.
    #[error("no answer in the handshake")]
    Silence,
    /// For another reason: the library's, or one that we have.
    #[error("{0}")]
    Because(String),
}

impl Broken {
    pub(crate) fn because(why: impl Into<String>) -> Self {
        Self::Because(why.into())
    }
}

impl From<dimpl::Error> for Broken {
    #[allow(clippy::wildcard_enum_match_arm, reason = "whatever else the library may find is told in its words")]
    fn from(error: dimpl::Error) -> Self {
        match error {
            dimpl::Error::SecurityError(SecurityError::FatalAlert { description }) => Self::Alert(description),
            dimpl::Error::Timeout(_) => Self::Silence,
            error => Self::Because(error.to_string()),
        }
    }
}

/// What came out of an association.
#[derive(Debug, Default)]
pub(crate) struct Yield {
    /// Datagrams for the other end.
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// What the other end said, proven to be its own.
    pub(crate) messages: Vec<Vec<u8>>,
    /// The handshake is over.
    pub(crate) connected: bool,
    /// The other end has said that it says no more.
    pub(crate) closed: bool,
    /// When the association has to be looked after.
    pub(crate) due: Option<Instant>,
}

/// See the module.
pub(crate) struct Machine {
    dtls: Box<Dtls>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("dtls", &self.dtls).finish_non_exhaustive()
    }
}

impl Machine {
    /// A server's end, which waits for the client's first message.
    pub(crate) fn server(config: Arc<Config>, now: Instant) -> Self {
        Self { dtls: Box::new(Dtls::new_12_psk(config, now)) }
    }

    /// A client's end; what it yields begins a handshake.
    pub(crate) fn client(config: Arc<Config>, now: Instant) -> Result<(Self, Yield), Broken> {
        let mut machine = Self::server(config, now);
        machine.run(|dtls| {
            dtls.set_active(true);
            dtls.handle_timeout(now)
        })?;
        let begun = machine.drain()?;
        Ok((machine, begun))
    }

    /// Takes in a datagram; [`drain`](Self::drain) says what came of it.
    pub(crate) fn show(&mut self, datagram: &[u8], now: Instant) -> Result<(), Broken> {
        self.run(|dtls| {
            dtls.handle_timeout(now)?;
            dtls.handle_packet(datagram)
        })
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<Yield, Broken> {
        self.run(|dtls| dtls.handle_timeout(now))?;
        self.drain()
    }

    /// Protects a message of ours: a datagram.
    pub(crate) fn seal(&mut self, message: &[u8]) -> Result<Yield, Broken> {
        self.run(|dtls| dtls.send_application_data(message).map(|_| ()))?;
        self.drain()
    }

    /// Says that we say no more.
    pub(crate) fn close(&mut self) -> Result<Yield, Broken> {
        self.run(Dtls::close)?;
        self.drain()
    }

    /// What the library has to give.
    pub(crate) fn drain(&mut self) -> Result<Yield, Broken> {
        let mut drained = Yield::default();
        self.run(|dtls| {
            let mut buffer = vec![0; OUTPUT_BYTES];
            loop {
                match dtls.poll_output(&mut buffer) {
                    Output::Packet(datagram) => drained.datagrams.push(datagram.to_vec()),
                    Output::ApplicationData(message) => drained.messages.push(message.to_vec()),
                    Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                    Output::Connected => drained.connected = true,
                    Output::CloseNotify => drained.closed = true,
                    Output::Timeout(due) => {
                        drained.due = Some(due);
                        return Ok(());
                    }
                    // Certificates and keys for media, which nobody asked for.
                    Output::PeerCert(_) | Output::KeyingMaterial(..) | _ => {}
                }
            }
        })?;
        Ok(drained)
    }

    fn run(&mut self, run: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>) -> Result<(), Broken> {
        let dtls = &mut self.dtls;
        match catch_unwind(AssertUnwindSafe(|| run(dtls))) {
            Ok(done) => Ok(done?),
            Err(_) => Err(Broken::because("the DTLS library panicked")),
        }
    }
}
