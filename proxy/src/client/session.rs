//! The client's side of coaps (RFC 7252, section 9.1.3; DTLS 1.2 with pre-shared keys: RFC 4279): from messages to datagrams and back.
//!
//! ```text
//!   begun ── datagrams to and fro, flights again when they are due ──▶ open ── close, or an alert ──▶ ended
//! ```
//!
//! A session is lost without a word when the server is restarted: requests then have no answer, and a new client is needed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use dimpl::crypto::Dtls12CipherSuite;
use dimpl::{Config, PskResolver};

use crate::dtls::{Broken, Machine, Yield};
use crate::keys::Identity;

/// Alerts by which a server says what is wrong (RFC 5246, section 7.2; RFC 4279, section 2).
const BAD_RECORD_MAC: u8 = 20;
const HANDSHAKE_FAILURE: u8 = 40;
const ACCESS_DENIED: u8 = 49;
const DECRYPT_ERROR: u8 = 51;
const INSUFFICIENT_SECURITY: u8 = 71;
const UNKNOWN_PSK_IDENTITY: u8 = 115;

/// Why there is no session with a server, or none any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The server does not accept who we are. Most do not say more, so that nobody learns which identities there are.
    #[error("it has no identity {identity:?}, or another key for it")]
    Refused {
        /// Who we said we are.
        identity: String,
    },
    /// The server says that it does not know who we are.
    #[error("it has no identity {identity:?}")]
    UnknownIdentity {
        /// Who we said we are.
        identity: String,
    },
    /// The server has begun the handshake and then says nothing any more. Some do so when the key is another, as what it protects is then
    /// nobody's (RFC 6347, section 4.1.2.7).
    #[error("it did not finish the handshake, as one does that has another key for identity {identity:?}")]
    Unfinished {
        /// Who we said we are.
        identity: String,
    },
    /// The server takes no pre-shared keys, or not with what we have.
    #[error("it does not offer TLS_PSK_WITH_AES_128_CCM_8 with the extended master secret")]
    NothingInCommon,
    /// The server has ended the session.
    #[error("it ended the session")]
    Ended,
    /// What the server sent makes no sense, or the library has another reason.
    #[error("{0}")]
    Broken(String),
}

/// Who a client is, and the key by which it proves that: for as many clients as there are.
pub struct Credentials {
    identity: String,
    config: Arc<Config>,
}

struct Secret(Box<[u8]>);

impl PskResolver for Secret {
    fn resolve(&self, _hint: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.to_vec())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those of an identity.
    ///
    /// # Errors
    /// When the DTLS library does not take them.
    pub fn new(identity: &Identity) -> Result<Self, SessionError> {
        let secret = Arc::new(Secret(identity.key().into()));
        let config = Config::builder()
            .with_psk_client(identity.name().as_bytes().to_vec(), secret)
            .dtls12_cipher_suites(&[Dtls12CipherSuite::PSK_AES128_CCM_8])
            .build();
        let config = config.map_err(|error| SessionError::Broken(error.to_string()))?;
        Ok(Self { identity: identity.name().to_owned(), config: Arc::new(config) })
    }

    fn told(&self, broken: Broken, open: bool) -> SessionError {
        let identity = self.identity.clone();
        match broken {
            Broken::Alert(UNKNOWN_PSK_IDENTITY) => SessionError::UnknownIdentity { identity },
            Broken::Alert(HANDSHAKE_FAILURE | INSUFFICIENT_SECURITY) if !open => SessionError::NothingInCommon,
            Broken::Alert(BAD_RECORD_MAC | DECRYPT_ERROR | ACCESS_DENIED) if !open => {
                SessionError::Refused { identity }
            }
            Broken::Alert(_) | Broken::Silence | Broken::Because(_) => SessionError::Broken(broken.to_string()),
        }
    }
}

/// One session, from its first datagram on.
#[derive(Debug)]
pub(super) struct Session {
    credentials: Arc<Credentials>,
    machine: Machine,
    open: bool,
    ended: bool,
    /// Datagrams of the server's. A request for a cookie is the first; the next is of one that has begun a handshake.
    heard: usize,
    messages: VecDeque<Vec<u8>>,
    due: Option<Instant>,
}

impl Session {
    /// Begins a handshake; gives its first datagrams too.
    pub(super) fn begin(credentials: &Arc<Credentials>, now: Instant) -> Result<(Self, Vec<Vec<u8>>), SessionError> {
        let credentials = Arc::clone(credentials);
        let begun = Machine::client(Arc::clone(&credentials.config), now);
        let (machine, begun) = begun.map_err(|broken| credentials.told(broken, false))?;
        let (open, ended, heard, messages) = (false, false, 0, VecDeque::new());
        let mut session = Self { credentials, machine, open, ended, heard, messages, due: None };
        let datagrams = session.keep(begun);
        Ok((session, datagrams))
    }

    /// Whether the handshake is complete, and the session not over.
    pub(super) fn is_open(&self) -> bool {
        self.open && !self.ended
    }

    /// Whether the server has said that it says no more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// When the handshake has to be looked after.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes in a datagram; gives those that answer it.
    pub(super) fn receive(&mut self, datagram: &[u8], now: Instant) -> Result<Vec<Vec<u8>>, SessionError> {
        self.heard = self.heard.saturating_add(1);
        let drained = self.machine.show(datagram, now).and_then(|()| self.machine.drain());
        self.unless_broken(drained)
    }

    /// Does what is due; `None` if the server has not answered in all the time that a handshake may take.
    pub(super) fn tick(&mut self, now: Instant) -> Result<Option<Vec<Vec<u8>>>, SessionError> {
        match self.machine.tick(now) {
            Err(Broken::Silence) => Ok(None),
            ticked => self.unless_broken(ticked).map(Some),
        }
    }

    /// Why there is no session, when the time for the handshake is over; `None` if nobody answered it.
    pub(super) fn unfinished(&self) -> Option<SessionError> {
        let identity = self.credentials.identity.clone();
        (self.heard > 1).then_some(SessionError::Unfinished { identity })
    }

    /// What the server said next.
    pub(super) fn next_message(&mut self) -> Option<Vec<u8>> {
        self.messages.pop_front()
    }

    /// What came before is of no interest.
    pub(super) fn forget_messages(&mut self) {
        self.messages.clear();
    }

    /// Protects a message.
    pub(super) fn seal(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, SessionError> {
        let sealed = self.machine.seal(message);
        self.unless_broken(sealed)
    }

    /// Says that we say no more.
    pub(super) fn close(&mut self) -> Vec<Vec<u8>> {
        self.ended = true;
        self.machine.close().map(|yielded| yielded.datagrams).unwrap_or_default()
    }

    fn unless_broken(&mut self, yielded: Result<Yield, Broken>) -> Result<Vec<Vec<u8>>, SessionError> {
        match yielded {
            Ok(yielded) => Ok(self.keep(yielded)),
            Err(broken) => {
                self.ended = true;
                Err(self.credentials.told(broken, self.open))
            }
        }
    }

    fn keep(&mut self, yielded: Yield) -> Vec<Vec<u8>> {
        self.open |= yielded.connected;
        self.ended |= yielded.closed;
        self.due = yielded.due;
        self.messages.extend(yielded.messages);
        yielded.datagrams
    }
}
