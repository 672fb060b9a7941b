//! What is called: an address of a protocol, or an application of this host's.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use sandbar_proxy::client::{Method, PreparedRequest, Request};

use crate::arguments::Target as ApplicationTarget;

const COAP_PORT: u16 = 5683;
const HTTP_PORT: u16 = 80;

/// What is called, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BenchTarget {
    /// `coap://HOST[:PORT]/PATH`
    Coap(Url),
    /// `http://HOST[:PORT]/PATH`, of any server
    Http(Url),
    /// `APP[/FUNCTION]`, over the management socket
    Application(ApplicationTarget),
}

/// Where a server is, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// `HOST:PORT`, an IPv6 address in brackets.
    pub(crate) authority: String,
    /// With the slash in front, and the query; percent-encoded as it was given.
    pub(crate) path: String,
}

impl Url {
    fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let (host, path) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, "/"),
        };
        if host.is_empty() || path.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
            return Err("give coap://HOST[:PORT]/APP[/FUNCTION], http://HOST[:PORT]/PATH or APP[/FUNCTION]".to_owned());
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

impl FromStr for BenchTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = text.strip_prefix("coap://") {
            let url = Url::parse(rest, COAP_PORT)?;
            // Over HTTP the path goes as it is, and is the server's to judge; here it must be options.
            let request = Request { method: Method::Post, path: &url.path, payload: &[], content_format: None };
            return PreparedRequest::new(&request).map(|_| Self::Coap(url)).map_err(|error| error.to_string());
        }
        if let Some(rest) = text.strip_prefix("http://") {
            return Url::parse(rest, HTTP_PORT).map(Self::Http);
        }
        if text.contains("://") {
            return Err("only coap:// and http:// are spoken here".to_owned());
        }
        text.parse().map(Self::Application).map_err(|why: &str| why.to_owned())
    }
}

impl std::fmt::Display for BenchTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Coap(url) => write!(f, "coap://{}{}", url.authority, url.path),
            Self::Http(url) => write!(f, "http://{}{}", url.authority, url.path),
            Self::Application(ApplicationTarget { application, function: None }) => f.write_str(application),
            Self::Application(ApplicationTarget { application, function: Some(function) }) => {
                write!(f, "{application}/{function}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_applications_are_told_apart() {
        let shown = |text: &str| text.parse::<BenchTarget>().map(|target| target.to_string());
        assert_eq!(shown("coap://127.0.0.1/a/f"), Ok("coap://127.0.0.1:5683/a/f".to_owned()));
        assert_eq!(shown("coap://[::1]/a"), Ok("coap://[::1]:5683/a".to_owned()));
        assert_eq!(shown("coap://[::1]:7/a"), Ok("coap://[::1]:7/a".to_owned()));
        assert_eq!(shown("http://localhost:8000"), Ok("http://localhost:8000/".to_owned()));
        assert_eq!(shown("http://h/a?b=c"), Ok("http://h:80/a?b=c".to_owned()));
        assert_eq!(shown("chain/first"), Ok("chain/first".to_owned()));
        assert_eq!(shown("coap://h/%c3%A4?q=%26"), Ok("coap://h:5683/%c3%A4?q=%26".to_owned()));
        assert_eq!(shown("http://h/%"), Ok("http://h:80/%".to_owned()));
        for wrong in
            ["https://h/", "coap:///a", "http://h/a b", "a/b/c", "", "coap://h/%", "http://h/a#b", "coap://h/#"]
        {
            assert!(shown(wrong).is_err(), "{wrong:?}");
        }
    }
}
