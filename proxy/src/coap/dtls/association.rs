//! One association with a client: the server's end, and how the crate is brought to begin one for a client that we have verified.
//!
//! The crate keeps a cookie secret in each of its servers, and would have us make one for whoever sends a first message.
//! We make one only for a client whose address is verified, by a cookie of our own, and then have to make the crate
//! believe that it gave that cookie: its server is shown the message twice. First numbered 0, as the client sent it before
//! it had a cookie: the crate answers by asking for one, which goes nowhere. Then as it came, numbered 1: the crate
//! compares its cookie with the one it makes again, by asking its HMAC for it, and that is told by us which it is
//! ([`CookieTeller`]). The crate takes this HMAC by another name for all other purposes, so that nothing else is touched.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dimpl::crypto::{HmacProvider, rust_crypto};
use dimpl::{Config, CryptoError, HashAlgorithm, PskResolver};

use super::config::DtlsConfig;
use super::hello::{self, COOKIE_BYTES, Hello};
use crate::dtls::{Broken, Machine, Yield};
use crate::keys::{Identity, Keys};

/// Datagrams kept of a handshake whose parts come out of order. A client's flight has three records.
const DATAGRAMS_KEPT_MAX: usize = 8;

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

/// One association.
#[derive(Debug)]
pub(super) struct Association {
    machine: Machine,
    /// What is added to the numbers of its unprotected records, which the crate counts from the first.
    renumber: u64,
}

impl Association {
    /// Begins one with a client whose first message, the only one in `datagram`, has a cookie that is good.
    pub(super) fn begin(
        terms: &Terms,
        hello: &Hello<'_>,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(Self, Yield), Broken> {
        let cookie = *hello.cookie.first_chunk().ok_or_else(|| Broken::because("no cookie"))?;
        // The crate's own first record went with the request for a cookie, and ours had the number of the message that it
        // answered; what follows goes on from the number of this one.
        let renumber = hello.sequence.saturating_sub(1);
        let mut association = Self { machine: Machine::server(Arc::clone(&terms.config), now), renumber };
        let unlike = cookie.map(|byte| !byte);
        association.told(unlike, &hello::numbered_zero(datagram), now)?;
        association.drain()?;
        association.told(cookie, datagram, now)?;
        let begun = association.drain()?;
        if begun.datagrams.is_empty() {
            return Err(Broken::because("the first message was not taken"));
        }
        Ok((association, begun))
    }

    /// Shows the crate a client's first message while it is told what its cookie is.
    fn told(&mut self, cookie: [u8; COOKIE_BYTES], datagram: &[u8], now: Instant) -> Result<(), Broken> {
        COOKIE.set(Some(cookie));
        let shown = self.machine.show(datagram, now);
        COOKIE.set(None);
        shown
    }

    /// Takes in a datagram. Gives the identity that the client claims too, if it did so now; it has proven it when it is connected.
    pub(super) fn receive(
        &mut self,
        terms: &Terms,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(Yield, Option<Arc<Identity>>), Broken> {
        terms.resolver.take();
        self.machine.show(datagram, now)?;
        let claimed = terms.resolver.take();
        Ok((self.drain()?, claimed))
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) -> Result<Yield, Broken> {
        self.machine.tick(now).map(|yielded| self.renumbered(yielded))
    }

    /// Protects a message of ours: a datagram.
    pub(super) fn seal(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, Broken> {
        self.machine.seal(message).map(|yielded| self.renumbered(yielded).datagrams)
    }

    /// A number for an unprotected record that is this far ahead of the first.
    pub(super) fn sequence_ahead(&self, by: u64) -> u64 {
        self.renumber + by
    }

    /// Says that we say no more.
    pub(super) fn close(&mut self) -> Vec<Vec<u8>> {
        self.machine.close().map(|yielded| self.renumbered(yielded).datagrams).unwrap_or_default()
    }

    fn drain(&mut self) -> Result<Yield, Broken> {
        self.machine.drain().map(|yielded| self.renumbered(yielded))
    }

    fn renumbered(&self, mut yielded: Yield) -> Yield {
        if self.renumber > 0 {
            yielded.datagrams.iter_mut().for_each(|datagram| hello::renumber(datagram, self.renumber));
        }
        yielded
    }
}
