//! Whether a peer's address is its own (RFC 9175, section 2): who has not shown that is sent little.
//!
//! A datagram may carry another's address as its sender's. A server that answers a few bytes with a thousand is then a weapon against
//! that other. Where [`CoapVerify`] asks for it, a request that would be run or answered at length is refused (4.01) with an Echo option
//! whose value only a host that receives at that address can give back; the request with it runs, and the address is known for a while.
//!
//! A cookie is the time it was made and a hash of that and the address under a key of the door's: nothing is kept for those who were
//! asked. What is kept of those who answered is bounded: the first is forgotten for the next, and only asked again.
//!
//! Addresses are known without their ports, as most clients have a new port for each request.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::datagram::Endpoint;

/// How long a cookie may be given back: a client's retransmissions included.
const COOKIE_LIFETIME_S: u32 = 60;

/// The value of an Echo option of ours.
pub(super) type Cookie = [u8; 12];

/// Who has to show that its address is its own before anything runs for it.
///
/// It takes one more round trip, and a client that knows the Echo option: libcoap's do, aiocoap's and many small ones report 4.01
/// instead. So nobody has to, unless the door is open to networks where addresses can be made up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CoapVerify {
    /// Nobody.
    #[default]
    Never,
    /// Whoever is neither on this host nor in a private or link-local network.
    Public,
    /// Everybody.
    Always,
}

/// What is known of addresses.
#[derive(Debug)]
pub(super) struct Verifier {
    policy: CoapVerify,
    /// How long an address is known.
    lifetime: Duration,
    addresses_max: usize,
    key: RandomState,
    opened: Instant,
    known: HashMap<IpAddr, Instant>,
    /// The same by age: all are known for the same time.
    order: VecDeque<(Instant, IpAddr)>,
}

impl Verifier {
    pub(super) fn new(policy: CoapVerify, lifetime: Duration, addresses_max: usize, opened: Instant) -> Self {
        let (known, order) = (HashMap::new(), VecDeque::new());
        Self { policy, lifetime, addresses_max, key: RandomState::new(), opened, known, order }
    }

    /// Whether a peer need not show that its address is its own.
    pub(super) fn trusts(&mut self, peer: &Endpoint, now: Instant) -> bool {
        // A handshake has shown it before there was a session.
        if peer.session.is_some() {
            return true;
        }
        let address = peer.remote.ip().to_canonical();
        let asked = match self.policy {
            CoapVerify::Never => false,
            CoapVerify::Public => !is_near(address),
            CoapVerify::Always => true,
        };
        if !asked {
            return true;
        }
        self.forget(now);
        self.known.get(&address).is_some_and(|until| *until > now)
    }

    /// Looks at a cookie that came back, and knows the address from then on if it is good.
    pub(super) fn verify(&mut self, peer: &Endpoint, cookie: &[u8], now: Instant) -> bool {
        let Some((made, _)) = cookie.split_first_chunk::<4>() else {
            return false;
        };
        let made_s = u32::from_be_bytes(*made);
        let address = peer.remote.ip().to_canonical();
        let fresh = self.seconds(now).checked_sub(made_s).is_some_and(|age_s| age_s <= COOKIE_LIFETIME_S);
        if !fresh || cookie != self.made(address, made_s) {
            return false;
        }
        if self.known.len() >= self.addresses_max
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let until = now + self.lifetime;
        if self.known.insert(address, until).is_none() {
            self.order.push_back((until, address));
        }
        true
    }

    /// What a peer has to give back.
    pub(super) fn cookie(&self, peer: &Endpoint, now: Instant) -> Cookie {
        self.made(peer.remote.ip().to_canonical(), self.seconds(now))
    }

    fn made(&self, address: IpAddr, made_s: u32) -> Cookie {
        let hash = self.key.hash_one((address, made_s));
        let mut cookie = [0; 12];
        cookie[..4].copy_from_slice(&made_s.to_be_bytes());
        cookie[4..].copy_from_slice(&hash.to_be_bytes());
        cookie
    }

    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.opened).as_secs()).unwrap_or(u32::MAX)
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(until, address)) = self.order.front().filter(|(until, _)| *until <= now) {
            self.order.pop_front();
            match self.known.get(&address).copied() {
                // Shown again since.
                Some(later) if later > until => self.order.push_back((later, address)),
                _ => {
                    self.known.remove(&address);
                }
            }
        }
    }
}

/// On this host, or in a network whose addresses mean nothing outside.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Endpoint {
        Endpoint { remote: address.parse().unwrap(), local: None, session: None }
    }

    fn verifier(policy: CoapVerify, addresses_max: usize) -> (Verifier, Instant) {
        let now = Instant::now();
        (Verifier::new(policy, Duration::from_secs(600), addresses_max, now), now)
    }

    #[test]
    fn a_policy_says_who_is_asked() {
        for (policy, near, far) in
            [(CoapVerify::Never, true, true), (CoapVerify::Public, true, false), (CoapVerify::Always, false, false)]
        {
            let (mut verifier, now) = verifier(policy, 10);
            for address in
                ["127.0.0.1:1", "10.1.2.3:1", "192.168.0.9:1", "[::1]:1", "[fd00::1]:1", "[::ffff:10.0.0.1]:1"]
            {
                assert_eq!(verifier.trusts(&peer(address), now), near, "{policy:?} {address}");
            }
            for address in ["8.8.8.8:1", "[2001:db8::1]:1", "[::ffff:8.8.8.8]:1"] {
                assert_eq!(verifier.trusts(&peer(address), now), far, "{policy:?} {address}");
            }
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_its_time() {
        let (mut verifier, start) = verifier(CoapVerify::Always, 10);
        let cookie = verifier.cookie(&peer("8.8.8.8:1"), start);
        assert!(!verifier.verify(&peer("8.8.8.9:1"), &cookie, start));
        assert!(!verifier.verify(&peer("8.8.8.8:1"), &cookie[..11], start));
        let mut forged = cookie;
        forged[3] ^= 1;
        let later = start + Duration::from_secs(2);
        assert!(!verifier.verify(&peer("8.8.8.8:1"), &forged, later));
        assert!(!verifier.verify(&peer("8.8.8.8:1"), &cookie, start + Duration::from_secs(61)));
        assert!(!verifier.trusts(&peer("8.8.8.8:1"), later));
        assert!(verifier.verify(&peer("8.8.8.8:9"), &cookie, later), "another port of the same host");
        assert!(verifier.trusts(&peer("8.8.8.8:1"), later + Duration::from_secs(599)));
        assert!(!verifier.trusts(&peer("8.8.8.8:1"), later + Duration::from_secs(600)));
        assert!(verifier.known.is_empty() && verifier.order.is_empty());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let (mut verifier, now) = verifier(CoapVerify::Always, 3);
        for host in 1..=5 {
            let peer = peer(&format!("8.8.8.{host}:1"));
            let cookie = verifier.cookie(&peer, now);
            assert!(verifier.verify(&peer, &cookie, now));
            assert!(verifier.verify(&peer, &cookie, now + Duration::from_secs(1)), "shown again");
        }
        assert!((verifier.known.len(), verifier.order.len()) <= (3, 3));
        assert!(verifier.trusts(&peer("8.8.8.5:1"), now));
        assert!(!verifier.trusts(&peer("8.8.8.1:1"), now));
    }
}
