//! Cookies: what an address has to send back before anything is kept for it.
//!
//! A cookie is a hash, under a secret of ours, of the address and of what the client offers. It is checked by making it
//! again, so that nothing is remembered of whom it was given to. The secret is replaced now and then, and its predecessor
//! still counts for as long.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dimpl::crypto::rust_crypto;

use super::hello::{COOKIE_BYTES, Hello};
use crate::coap::datagram::{Endpoint, LocalAddress};

/// How long a secret makes new cookies. A cookie is good for at least this time, and at most twice this.
const SECRET_AGE_MAX: Duration = Duration::from_secs(60);

type Secret = [u8; 32];

/// The secrets in use.
pub(super) struct Cookies {
    current: Secret,
    previous: Secret,
    since: Instant,
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

/// There is no randomness to be had, or no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

impl Cookies {
    pub(super) fn new(now: Instant) -> Result<Self, Unavailable> {
        Ok(Self { current: secret()?, previous: secret()?, since: now })
    }

    /// The cookie for this client.
    pub(super) fn make(
        &mut self,
        client: &Endpoint,
        hello: &Hello<'_>,
        now: Instant,
    ) -> Result<[u8; COOKIE_BYTES], Unavailable> {
        self.renew(now)?;
        hash(&self.current, client, hello)
    }

    /// Whether the cookie in this message is one that its sender was given, not long ago.
    pub(super) fn verify(&mut self, client: &Endpoint, hello: &Hello<'_>, now: Instant) -> Result<bool, Unavailable> {
        self.renew(now)?;
        if hello.cookie.len() != COOKIE_BYTES {
            return Ok(false);
        }
        let (current, previous) = (hash(&self.current, client, hello)?, hash(&self.previous, client, hello)?);
        Ok(same(&current, hello.cookie) | same(&previous, hello.cookie))
    }

    fn renew(&mut self, now: Instant) -> Result<(), Unavailable> {
        let age = now.saturating_duration_since(self.since);
        if age >= SECRET_AGE_MAX {
            let before = std::mem::replace(&mut self.current, secret()?);
            // Nobody came for so long that the last one's cookies are too old as well.
            self.previous = if age < SECRET_AGE_MAX * 2 { before } else { secret()? };
            self.since = now;
        }
        Ok(())
    }
}

fn secret() -> Result<Secret, Unavailable> {
    let mut secret = Secret::default();
    getrandom::fill(&mut secret).map_err(|_| Unavailable)?;
    Ok(secret)
}

fn hash(secret: &Secret, client: &Endpoint, hello: &Hello<'_>) -> Result<[u8; COOKIE_BYTES], Unavailable> {
    let mut hashed = Vec::with_capacity(256);
    match client.remote.ip() {
        IpAddr::V4(address) => hashed.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => hashed.extend_from_slice(&address.octets()),
    }
    hashed.extend_from_slice(&client.remote.port().to_be_bytes());
    match client.local {
        None => {}
        Some(LocalAddress::V4(address)) => hashed.extend_from_slice(&address.octets()),
        Some(LocalAddress::V6(address, interface)) => {
            hashed.extend_from_slice(&address.octets());
            hashed.extend_from_slice(&interface.to_be_bytes());
        }
    }
    for part in hello.parameters {
        hashed.extend_from_slice(&part.len().to_be_bytes());
        hashed.extend_from_slice(part);
    }
    rust_crypto::default_provider().hmac_provider.hmac_sha256(secret, &hashed).map_err(|_| Unavailable)
}

/// Compares in a time that does not tell where the first difference is.
fn same(a: &[u8; COOKIE_BYTES], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}
