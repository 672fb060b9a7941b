//! Addresses of servers, as they are typed.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use sandbar_proxy::client::{Method, PreparedRequest, Request};

use crate::secure::COAPS_PORT;

const COAP_PORT: u16 = 5683;

/// Where a server is, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// `HOST:PORT`, an IPv6 address in brackets.
    pub(crate) authority: String,
    /// With the slash in front, and the query; percent-encoded as it was given.
    pub(crate) path: String,
}

impl Url {
    /// Reads what follows the scheme.
    pub(crate) fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let (host, path) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, "/"),
        };
        if host.is_empty() || path.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
            return Err("an address is SCHEME://HOST[:PORT]/PATH, without spaces".to_owned());
        }
        if path.contains('#') {
            return Err("a fragment (what follows #) is never sent: leave it out, or write %23".to_owned());
        }
        // The last colon is a port's, unless it is within an IPv6 address.
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let authority = if has_port { host.to_owned() } else { format!("{host}:{default_port}") };
        Ok(Self { authority, path: path.to_owned() })
    }

    /// The first address of the host.
    ///
    /// # Errors
    /// When it has none.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address");
        self.authority.to_socket_addrs()?.next().ok_or_else(none)
    }
}

/// What is called as a device would: `coap://HOST[:PORT]/PATH`, or `coaps://` with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoapUrl {
    pub(crate) secure: bool,
    pub(crate) url: Url,
}

impl CoapUrl {
    /// Reads an address of CoAP; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, String>> {
        let (secure, rest) = match (text.strip_prefix("coap://"), text.strip_prefix("coaps://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return None,
        };
        let url = Url::parse(rest, if secure { COAPS_PORT } else { COAP_PORT });
        Some(url.and_then(|url| Self { secure, url }.checked()))
    }

    /// Over HTTP a path goes as it is, and is the server's to judge; here it must be options.
    fn checked(self) -> Result<Self, String> {
        let request = Request { method: Method::Post, path: &self.url.path, payload: &[], content_format: None };
        PreparedRequest::new(&request).map(|_| self).map_err(|error| error.to_string())
    }
}

impl fmt::Display for CoapUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "coaps" } else { "coap" };
        write!(f, "{scheme}://{}{}", self.url.authority, self.url.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_coap_has_a_port_and_a_path_that_can_be_options() {
        let shown = |text| CoapUrl::parse(text).map(|parsed| parsed.map(|url| url.to_string()));
        assert_eq!(shown("coap://127.0.0.1/a/f"), Some(Ok("coap://127.0.0.1:5683/a/f".to_owned())));
        assert_eq!(shown("coaps://[::1]/a"), Some(Ok("coaps://[::1]:5684/a".to_owned())));
        assert_eq!(shown("coaps://h:7/%c3%A4?q=%26"), Some(Ok("coaps://h:7/%c3%A4?q=%26".to_owned())));
        for wrong in ["coap:///a", "coaps://h/%", "coap://h/#", "coaps://", "coap://h/a b"] {
            assert!(matches!(shown(wrong), Some(Err(_))), "{wrong:?}");
        }
        for other in ["http://h/", "COAP://h/", "a/b", ""] {
            assert_eq!(shown(other), None, "{other:?}");
        }
    }
}
