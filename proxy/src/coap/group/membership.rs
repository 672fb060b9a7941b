//! Sockets that listen to groups, one for each group and interface.
//!
//! A door that is bound to all addresses has the group's among them, and no second socket may be bound there unless both say
//! that they share. It does so for as long as these sockets are being bound: later, another process would take from it what is its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, InterfaceIndexOrAddress, SockRef, Socket, Type};

use super::interface::{Interface, choose, present};
use crate::coap::config::GroupConfig;
use crate::coap::datagram::{BindError, DatagramSocket};

/// All CoAP Nodes (RFC 7252, section 12.8).
const ALL_NODES_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 187);
/// The same of a link, and of a site.
const ALL_NODES_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfd), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfd)];

/// Listens to the groups of a door's address family, at the door's port, on the interfaces that are meant and from which it can answer.
pub(in crate::coap) fn listen(config: &GroupConfig, door: &DatagramSocket) -> Result<Vec<DatagramSocket>, BindError> {
    if config.interfaces.is_empty() {
        return Ok(Vec::new());
    }
    let address = door.local_addr();
    let failed = |step| move |source: io::Error| BindError::SetUp { address, step, source };
    let present = present().map_err(failed("looking at the network interfaces"))?;
    let chosen = choose(&config.interfaces, &present, address);
    let chosen = chosen.map_err(|missing| BindError::NoInterface { interface: missing.clone() })?;
    let shared = SockRef::from(door);
    door_hears_no_groups(&shared, address.ip()).map_err(failed("leaving groups to their own sockets"))?;
    shared.set_reuse_address(true).map_err(failed("sharing its address"))?;
    let listening = chosen.iter().flat_map(|interface| groups(address).map(|group| join(group, interface))).collect();
    shared.set_reuse_address(false).map_err(failed("sharing its address no longer"))?;
    listening
}

/// The groups for a door at this address, at its port.
fn groups(door: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let v4 = Some(ALL_NODES_V4).filter(|_| door.is_ipv4()).map(IpAddr::V4);
    let v6 = ALL_NODES_V6.into_iter().filter(move |_| door.is_ipv6()).map(IpAddr::V6);
    v4.into_iter().chain(v6).map(move |group| SocketAddr::new(group, door.port()))
}

/// Otherwise whatever is sent to a group that anybody on this host has joined would come to a door at all addresses.
fn door_hears_no_groups(door: &SockRef<'_>, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => door.set_multicast_all_v4(false),
        IpAddr::V6(_) => door.set_multicast_all_v6(false),
    }
}

fn join(group: SocketAddr, interface: &Interface) -> Result<DatagramSocket, BindError> {
    let joined = bound(group, interface).and_then(DatagramSocket::listening);
    joined.map_err(|source| BindError::Group { group: group.ip(), interface: interface.name.clone(), source })
}

/// A socket at which nothing arrives but what was sent to `group` and came by `interface`.
fn bound(group: SocketAddr, interface: &Interface) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM.nonblocking().cloexec(), None)?;
    // Others may listen to the group as well: each has a copy of what comes.
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    match group {
        SocketAddr::V4(v4) => {
            socket.bind(&group.into())?;
            socket.join_multicast_v4_n(v4.ip(), &InterfaceIndexOrAddress::Index(interface.index))?;
        }
        SocketAddr::V6(v6) => {
            socket.set_only_v6(true)?;
            socket.bind(&SocketAddrV6::new(*v6.ip(), v6.port(), 0, interface.index).into())?;
            socket.join_multicast_v6(v6.ip(), interface.index)?;
        }
    }
    Ok(socket)
}
