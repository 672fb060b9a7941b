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
/// Outputs taken of the library in one go. What it has in store is bounded far below: ten datagrams to be sent, and of those that came
/// as many as it is told to keep, of eight records each.
const OUTPUTS_MAX: usize = 1024;

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
        let mut drained = Ok(Yield::default());
        self.run(|dtls| {
            drained = gather(|buffer| dtls.poll_output(buffer));
            Ok(())
        })?;
        drained
    }

    fn run(&mut self, run: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>) -> Result<(), Broken> {
        let dtls = &mut self.dtls;
        match catch_unwind(AssertUnwindSafe(|| run(dtls))) {
            Ok(done) => Ok(done?),
            Err(_) => Err(Broken::because("the DTLS library panicked")),
        }
    }
}

/// Polls until the library says when to come back. One that never does is broken, not waited for.
fn gather(mut poll: impl for<'a> FnMut(&'a mut [u8]) -> Output<'a>) -> Result<Yield, Broken> {
    let mut gathered = Yield::default();
    let mut buffer = vec![0; OUTPUT_BYTES];
    for _ in 0..OUTPUTS_MAX {
        match poll(&mut buffer) {
            Output::Packet(datagram) => gathered.datagrams.push(datagram.to_vec()),
            Output::ApplicationData(message) => gathered.messages.push(message.to_vec()),
            Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
            Output::Connected => gathered.connected = true,
            Output::CloseNotify => gathered.closed = true,
            Output::Timeout(due) => {
                gathered.due = Some(due);
                return Ok(gathered);
            }
            // Certificates and keys for media, which nobody asked for.
            Output::PeerCert(_) | Output::KeyingMaterial(..) | _ => {}
        }
    }
    Err(Broken::because("the DTLS library comes to no end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_comes_to_no_end_is_broken() {
        let mut polled = 0;
        let endless = gather(|buffer| {
            polled += 1;
            match polled % 3 {
                0 => Output::Connected,
                1 => Output::BufferTooSmall { needed: buffer.len() },
                _ => Output::Packet(buffer),
            }
        });
        assert!(matches!(endless, Err(Broken::Because(why)) if why.contains("no end")));
        assert_eq!(polled, OUTPUTS_MAX);
    }

    #[test]
    fn all_that_a_library_gives_is_taken_in_its_order() {
        let due = Instant::now();
        let mut given = 0;
        let gathered = gather(|buffer| {
            given += 1;
            match given {
                1 => Output::BufferTooSmall { needed: 2 * buffer.len() },
                2..=9 => {
                    assert_eq!(buffer.len(), 2 * OUTPUT_BYTES);
                    buffer[0] = given;
                    Output::Packet(&buffer[..1])
                }
                10 => Output::Connected,
                11 => Output::ApplicationData(b"said"),
                _ => Output::Timeout(due),
            }
        });
        let gathered = gathered.unwrap();
        assert_eq!(gathered.datagrams.concat(), [2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((gathered.messages, gathered.connected), (vec![b"said".to_vec()], true));
        assert_eq!((gathered.closed, gathered.due), (false, Some(due)));
    }
}
