//! Who may call an application from outside the host: by which door, and from where.

use std::net::IpAddr;

pub use ipnet::IpNet;

use super::document::{At, PlainAccess, PlainDoorway};
use super::problem::Problems;

/// The most networks that one door's entry lists: each is looked at for each call.
const NETWORKS_MAX: usize = 64;

/// How an application can be reached at the doors where callers are not known. Those of coaps are, and what they may call
/// is for the host's key file to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Over plain CoAP.
    pub coap: Doorway,
    /// Over HTTP.
    pub http: Doorway,
}

/// Who may come in by one door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Doorway {
    /// Whoever reaches it.
    #[default]
    Open,
    /// Nobody.
    Shut,
    /// Who comes from one of these networks.
    Networks(Vec<IpNet>),
}

impl Doorway {
    /// Whether it is open to this address.
    #[must_use]
    pub fn admits(&self, from: IpAddr) -> bool {
        match self {
            Self::Open => true,
            Self::Shut => false,
            Self::Networks(networks) => within(networks, from),
        }
    }
}

/// Whether an address is in one of the networks. An IPv4 address that came in over IPv6 is one of IPv4.
#[must_use]
pub fn within(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Reads a network, or a single address as the network of that one.
///
/// # Errors
/// What is wrong with the text.
pub fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let shown = text.escape_debug();
    let network = network.map_err(|_| format!("`{shown}` is not a network such as 192.168.1.0/24 or fd00::/8"))?;
    if network.addr() != network.network() {
        return Err(format!("`{shown}` has bits beyond its prefix; the network is {}", network.trunc()));
    }
    Ok(network)
}

/// Checks the table `[access]`.
pub(super) fn access(plain: &PlainAccess, problems: &mut Problems<'_>) -> Access {
    Access {
        coap: doorway(plain.coap.as_ref(), "coap", "coaps", problems),
        http: doorway(plain.http.as_ref(), "http", "none", problems),
    }
}

fn doorway(written: Option<&At<PlainDoorway>>, field: &str, shut: &str, problems: &mut Problems<'_>) -> Doorway {
    let Some(written) = written else { return Doorway::Open };
    let entries = match &written.value {
        PlainDoorway::Word(word) if word == "open" => return Doorway::Open,
        PlainDoorway::Word(word) if word == shut => return Doorway::Shut,
        PlainDoorway::Word(word) => {
            let shown = word.escape_debug();
            let why = format_args!(
                "{field} = \"{shown}\" is neither \"open\" nor \"{shut}\"; a list of networks is one such as [\"192.168.1.0/24\"]"
            );
            problems.at(&written.span, why);
            return Doorway::Shut;
        }
        PlainDoorway::Networks(entries) => entries,
    };
    if entries.is_empty() || entries.len() > NETWORKS_MAX {
        problems.at(&written.span, format_args!("`{field}` lists 1 to {NETWORKS_MAX} networks, or is \"{shut}\""));
    }
    let networks = entries.iter().filter_map(|entry| {
        network(&entry.value).map_err(|why| problems.at(&entry.span, format_args!("in `{field}`, {why}"))).ok()
    });
    Doorway::Networks(networks.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Application, FILE_NAME};

    fn manifest(access: &str) -> Result<Access, String> {
        let text = format!("name = \"a\"\n[access]\n{access}\n[functions.f]\nruntime = \"python3\"\ncode = \"f.py\"\n");
        Application::parse(&text, FILE_NAME).map(|application| application.access).map_err(|error| error.to_string())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn doors_are_open_shut_or_open_to_networks() {
        assert_eq!(manifest("").unwrap(), Access::default());
        let access = manifest("coap = \"coaps\"\nhttp = \"open\"").unwrap();
        assert_eq!(access, Access { coap: Doorway::Shut, http: Doorway::Open });
        let access = manifest("coap = [\"192.168.1.0/24\", \"fd00::/8\", \"10.0.0.7\"]\nhttp = \"none\"").unwrap();
        for inside in ["192.168.1.255", "::ffff:192.168.1.3", "fd12::1", "10.0.0.7"] {
            assert!(access.coap.admits(address(inside)), "{inside}");
        }
        for outside in ["192.168.2.1", "10.0.0.8", "2001:db8::1", "127.0.0.1", "::ffff:192.168.2.1"] {
            assert!(!access.coap.admits(address(outside)), "{outside}");
        }
        assert!(!access.http.admits(address("127.0.0.1")));
    }

    #[test]
    fn what_is_no_doorway_is_refused() {
        for (wrong, part) in [
            ("coap = \"closed\"", "neither \"open\" nor \"coaps\""),
            ("http = \"coaps\"", "neither \"open\" nor \"none\""),
            ("coap = []", "1 to 64 networks"),
            ("coap = [\"192.168.1.1/24\"]", "the network is 192.168.1.0/24"),
            ("coap = [\"nowhere\"]", "not a network"),
            ("coap = [7]", "must be"),
            ("coap = 7", "must be"),
            ("coaps = \"open\"", "unknown field `coaps`"),
        ] {
            let error = manifest(wrong).unwrap_err();
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }
}
