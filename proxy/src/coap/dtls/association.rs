//! One association with a client: the crate's state machine, fed with what the client sent.
//!
//! The crate keeps a cookie secret in each of its servers, and would have us make one for whoever sends a first message.
//! We make one only for a client whose address is verified, by a cookie of our own, and then have to make the crate
//! believe that it gave that cookie: its server is shown the message twice. First numbered 0, as the client sent it before
//! it had a cookie: the crate answers by asking for one, which goes nowhere. Then as it came, numbered 1: the crate
//! compares its cookie with the one it makes again, by asking its HMAC for it, and that is told by us which it is
//! ([`CookieTeller`]). The crate takes this HMAC by another name for all other purposes, so that nothing else is touched.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dimpl::crypto::{HmacProvider, rust_crypto};
use dimpl::{Config, CryptoError, Dtls, HashAlgorithm, Output, PskResolver};

use super::config::DtlsConfig;
use super::hello::{self, COOKIE_BYTES, Hello};
use crate::keys::{Identity, Keys};

/// Datagrams kept of a handshake whose parts come out of order. A client's flight has three records.
const DATAGRAMS_KEPT_MAX: usize = 8;
/// Room for what the crate puts out; grown when it asks for more.
const OUTPUT_BYTES: usize = 2048;

thread_local! {
    /// What the crate is told to be the cookie, while it is shown a client's first message.
    static COOKIE: Cell<Option<[u8; COOKIE_BYTES]>> = const { Cell::new(None) };
}

/// The HMAC that the crate's servers have. It asks `hmac_sha256` for cookies, and `hmac` for all else.
#[derive(Debug)]
struct CookieTeller;

static COOKIE_TELLER: CookieTeller = CookieTeller;

impl HmacProvider for CookieTeller {
    fn hmac_sha256(&self, key: &[u8], data: &[u8]) -> Result<[u8; 32], CryptoError> {
        match COOKIE.get() {
            Some(cookie) => Ok(cookie),
            None => rust_crypto::default_provider().hmac_provider.hmac_sha256(key, data),
        }
    }

    fn hmac(&self, hash: HashAlgorithm, key: &[u8], data: &[u8], out: &mut [u8]) -> Result<usize, CryptoError> {
        rust_crypto::default_provider().hmac_provider.hmac(hash, key, data, out)
    }
}

/// Finds the key of an identity for the crate, and notes whose it was: the crate does not tell.
pub(super) struct Resolver {
    keys: Mutex<Arc<Keys>>,
    resolved: Mutex<Option<Arc<Identity>>>,
}

impl Resolver {
    pub(super) fn new(keys: Arc<Keys>) -> Self {
        Self { keys: Mutex::new(keys), resolved: Mutex::new(None) }
    }

    pub(super) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, keys: Arc<Keys>) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The identity that was resolved since this was asked last.
    fn take(&self) -> Option<Arc<Identity>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl PskResolver for Resolver {
    fn resolve(&self, identity: &[u8]) -> Option<Vec<u8>> {
        let identity = self.keys().get(identity).map(Arc::clone)?;
        let key = identity.key().to_vec();
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        Some(key)
    }
}

/// What all associations have in common.
pub(super) struct Terms {
    config: Arc<Config>,
    pub(super) resolver: Arc<Resolver>,
}

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms").finish_non_exhaustive()
    }
}

impl Terms {
    pub(super) fn new(limits: &DtlsConfig, keys: Arc<Keys>) -> Result<Self, dimpl::Error> {
        let resolver = Arc::new(Resolver::new(keys));
        let mut provider = rust_crypto::default_provider();
        provider.hmac_provider = &COOKIE_TELLER;
        let config = Config::builder()
            .with_crypto_provider(provider)
            .with_psk_server(None, Arc::clone(&resolver) as Arc<dyn PskResolver>)
            .dtls12_cipher_suites(&[dimpl::crypto::Dtls12CipherSuite::PSK_AES128_CCM_8])
            .max_queue_rx(DATAGRAMS_KEPT_MAX)
            .flight_start_rto(limits.retransmit_after.max(Duration::from_millis(1)))
            .handshake_timeout(limits.handshake_time_max.max(Duration::from_millis(1)))
            .build()?;
        Ok(Self { config: Arc::new(config), resolver })
    }
}

/// The association is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) String);

/// What came out of an association.
#[derive(Debug, Default)]
pub(super) struct Yield {
    /// Datagrams for the client.
    pub(super) datagrams: Vec<Vec<u8>>,
    /// What the client said, proven to be its own.
    pub(super) messages: Vec<Vec<u8>>,
    /// The handshake is over.
    pub(super) connected: bool,
    /// The client has said that it says no more.
    pub(super) closed: bool,
    /// The identity that the client claims, if it did so now; it has proven it when it is connected.
    pub(super) claimed: Option<Arc<Identity>>,
    /// When the association has to be looked after.
    pub(super) due: Option<Instant>,
}

/// One association.
pub(super) struct Association {
    dtls: Box<Dtls>,
    /// What is added to the numbers of its unprotected records, which the crate counts from the first.
    renumber: u64,
}

impl std::fmt::Debug for Association {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Association").field("dtls", &self.dtls).finish_non_exhaustive()
    }
}

impl Association {
    /// Begins one with a client whose first message, the only one in `datagram`, has a cookie that is good.
    pub(super) fn begin(
        terms: &Terms,
        hello: &Hello<'_>,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(Self, Yield), Broken> {
        let cookie = *hello.cookie.first_chunk().ok_or_else(|| Broken("no cookie".to_owned()))?;
        // The crate's own first record went with the request for a cookie, and ours had the number of the message that it
        // answered; what follows goes on from the number of this one.
        let renumber = hello.sequence.saturating_sub(1);
        let dtls = Box::new(Dtls::new_12_psk(Arc::clone(&terms.config), now));
        let mut association = Self { dtls, renumber };
        let unlike = cookie.map(|byte| !byte);
        association.told(unlike, |dtls| {
            dtls.handle_timeout(now)?;
            dtls.handle_packet(&hello::numbered_zero(datagram))
        })?;
        association.drain()?;
        association.told(cookie, |dtls| dtls.handle_packet(datagram))?;
        let begun = association.drain()?;
        if begun.datagrams.is_empty() {
            return Err(Broken("the first message was not taken".to_owned()));
        }
        Ok((association, begun))
    }

    fn told(
        &mut self,
        cookie: [u8; COOKIE_BYTES],
        show: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>,
    ) -> Result<(), Broken> {
        COOKIE.set(Some(cookie));
        let shown = self.guarded(show);
        COOKIE.set(None);
        shown
    }

    /// Takes in a datagram.
    pub(super) fn receive(&mut self, terms: &Terms, datagram: &[u8], now: Instant) -> Result<Yield, Broken> {
        terms.resolver.take();
        self.guarded(|dtls| {
            dtls.handle_timeout(now)?;
            dtls.handle_packet(datagram)
        })?;
        let claimed = terms.resolver.take();
        Ok(Yield { claimed, ..self.drain()? })
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) -> Result<Yield, Broken> {
        self.guarded(|dtls| dtls.handle_timeout(now))?;
        self.drain()
    }

    /// Protects a message of ours: a datagram.
    pub(super) fn seal(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, Broken> {
        self.guarded(|dtls| dtls.send_application_data(message).map(|_| ()))?;
        Ok(self.drain()?.datagrams)
    }

    /// A number for an unprotected record that is this far ahead of the first.
    pub(super) fn sequence_ahead(&self, by: u64) -> u64 {
        self.renumber + by
    }

    /// Says that we say no more.
    pub(super) fn close(&mut self) -> Vec<Vec<u8>> {
        let closed = self.guarded(Dtls::close);
        closed.and_then(|()| self.drain()).map(|drained| drained.datagrams).unwrap_or_default()
    }

    /// What the crate has to give.
    fn drain(&mut self) -> Result<Yield, Broken> {
        let renumber = self.renumber;
        let mut drained = Yield::default();
        self.guarded(|dtls| {
            let mut buffer = vec![0; OUTPUT_BYTES];
            loop {
                match dtls.poll_output(&mut buffer) {
                    Output::Packet(datagram) => {
                        let mut datagram = datagram.to_vec();
                        if renumber > 0 {
                            hello::renumber(&mut datagram, renumber);
                        }
                        drained.datagrams.push(datagram);
                    }
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

    /// Runs the crate. It reads what strangers sent: a mistake in it is to end an association, not the door.
    fn guarded(&mut self, run: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>) -> Result<(), Broken> {
        let dtls = &mut self.dtls;
        match catch_unwind(AssertUnwindSafe(|| run(dtls))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Broken(error.to_string())),
            Err(_) => Err(Broken("the DTLS library panicked".to_owned())),
        }
    }
}
