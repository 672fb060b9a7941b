//! This host's network interfaces, and those among them on which a door listens to groups.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;

/// The longest name that the kernel gives an interface, in bytes (`IFNAMSIZ` less its end).
const NAME_BYTES_MAX: usize = 15;

/// Which interfaces are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupInterface {
    /// All that are up and can carry groups, but for loopback.
    All,
    /// The one of this name.
    Named(String),
    /// The one that has this address.
    At(IpAddr),
}

impl FromStr for GroupInterface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::At(address));
        }
        let is_name = (1..=NAME_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        let named = is_name.then(|| Self::Named(text.to_owned()));
        named.ok_or_else(|| "give an interface's name, such as eth0, an address that it has, or all".to_owned())
    }
}

impl fmt::Display for GroupInterface {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => to.write_str("all"),
            Self::Named(name) => to.write_str(name),
            Self::At(address) => address.fmt(to),
        }
    }
}

/// An interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    /// Whether [`GroupInterface::All`] includes it.
    suits: bool,
    addresses: Vec<IpAddr>,
}

/// The interfaces that are there now, by their numbers.
pub(super) fn present() -> io::Result<Vec<Interface>> {
    let mut found: BTreeMap<u32, Interface> = BTreeMap::new();
    for entry in getifaddrs()? {
        // A second address may have a label of its own: `eth0:1`.
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        // One that has gone meanwhile is none.
        let Ok(index) = if_nametoindex(name) else { continue };
        let usable = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
        let suits = entry.flags.contains(usable) && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let interface = found.entry(index);
        let interface =
            interface.or_insert_with(|| Interface { name: name.to_owned(), index, suits, addresses: Vec::new() });
        interface.addresses.extend(entry.address.as_ref().and_then(address));
    }
    Ok(found.into_values().collect())
}

fn address(storage: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Those of `present` that are meant and from which a door at `door` can answer; each once.
///
/// # Errors
/// What is meant and not there.
pub(super) fn choose<'a>(
    meant: &'a [GroupInterface],
    present: &'a [Interface],
    door: SocketAddr,
) -> Result<Vec<&'a Interface>, &'a GroupInterface> {
    for one in meant.iter().filter(|one| **one != GroupInterface::All) {
        if !present.iter().any(|interface| interface.is(one)) {
            return Err(one);
        }
    }
    let chosen = present.iter().filter(|interface| meant.iter().any(|one| interface.is(one)));
    Ok(chosen.filter(|interface| interface.reaches(door.ip())).collect())
}

impl Interface {
    fn is(&self, meant: &GroupInterface) -> bool {
        match meant {
            GroupInterface::All => self.suits,
            GroupInterface::Named(name) => self.name == *name,
            GroupInterface::At(address) => self.addresses.contains(address),
        }
    }

    /// Whether a socket that is bound to this address can answer on this interface.
    fn reaches(&self, door: IpAddr) -> bool {
        let alike = |own: &IpAddr| own.is_ipv4() == door.is_ipv4();
        self.addresses.iter().filter(|own| alike(own)).any(|own| door.is_unspecified() || *own == door)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, index: u32, suits: bool, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Interface { name: name.to_owned(), index, suits, addresses }
    }

    fn host() -> [Interface; 4] {
        [
            interface("lo", 1, false, &["127.0.0.1", "::1"]),
            interface("eth0", 2, true, &["192.168.1.5", "fe80::5"]),
            interface("eth1", 3, true, &["10.0.0.5"]),
            interface("off0", 4, false, &[]),
        ]
    }

    fn chosen(meant: &[&str], door: &str) -> Result<Vec<u32>, String> {
        let meant: Vec<GroupInterface> = meant.iter().map(|text| text.parse().unwrap()).collect();
        let host = host();
        let chosen = choose(&meant, &host, door.parse().unwrap()).map_err(ToString::to_string)?;
        Ok(chosen.iter().map(|interface| interface.index).collect())
    }

    #[test]
    fn interfaces_are_meant_by_name_by_address_or_all() {
        assert_eq!("eth0".parse(), Ok(GroupInterface::Named("eth0".to_owned())));
        assert_eq!("fe80::1".parse(), Ok(GroupInterface::At("fe80::1".parse().unwrap())));
        assert_eq!("all".parse(), Ok(GroupInterface::All));
        for wrong in ["", "an interface", "eth/0", "eth0:1", "a-name-that-is-too-long"] {
            assert!(wrong.parse::<GroupInterface>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_door_listens_where_it_can_answer() {
        let everywhere = "0.0.0.0:5683";
        assert_eq!(chosen(&["all"], everywhere), Ok(vec![2, 3]));
        assert_eq!(chosen(&["all"], "[::]:5683"), Ok(vec![2]), "the other has no such address");
        assert_eq!(chosen(&["all"], "10.0.0.5:5683"), Ok(vec![3]));
        assert_eq!(chosen(&["all"], "127.0.0.1:5683"), Ok(vec![]));
        assert_eq!(chosen(&["lo", "192.168.1.5", "eth0"], everywhere), Ok(vec![1, 2]), "each once");
        assert_eq!(chosen(&["off0"], everywhere), Ok(vec![]));
        assert_eq!(chosen(&["all", "eth9"], everywhere), Err("eth9".to_owned()));
        assert_eq!(chosen(&["10.0.0.6"], everywhere), Err("10.0.0.6".to_owned()));
        assert_eq!(chosen(&[], everywhere), Ok(vec![]));
    }

    #[test]
    fn this_host_has_its_loopback() {
        let present = present().unwrap();
        let loopback = present.iter().find(|interface| interface.name == "lo").unwrap();
        assert!(!loopback.suits && loopback.index > 0, "{loopback:?}");
    }
}
