//! What is called: an address of a protocol, or an application of this host's.

use std::str::FromStr;

use crate::arguments::Target as ApplicationTarget;
use crate::url::{CoapUrl, Url};

const HTTP_PORT: u16 = 80;

/// What is called, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BenchTarget {
    /// `coap://HOST[:PORT]/PATH`, or `coaps://`
    Coap(CoapUrl),
    /// `http://HOST[:PORT]/PATH`, of any server
    Http(Url),
    /// `APP[/FUNCTION]`, over the management socket
    Application(ApplicationTarget),
}

impl FromStr for BenchTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(parsed) = CoapUrl::parse(text) {
            return parsed.map(Self::Coap);
        }
        if let Some(rest) = text.strip_prefix("http://") {
            return Url::parse(rest, HTTP_PORT).map(Self::Http);
        }
        if text.contains("://") {
            return Err("only coap://, coaps:// and http:// are spoken here".to_owned());
        }
        text.parse().map(Self::Application).map_err(|why: &str| why.to_owned())
    }
}

impl std::fmt::Display for BenchTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Coap(url) => url.fmt(f),
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
        assert_eq!(shown("coaps://127.0.0.1/a"), Ok("coaps://127.0.0.1:5684/a".to_owned()));
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
