"""Probes that go for the network, and for what is left of the kernel's surface."""

import errno
import os
import socket
import subprocess

import probing
from probing import REFUSED, read_from

UNREACHABLE = REFUSED | {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EADDRNOTAVAIL}


def connect(family, kind, address):
    with socket.socket(family, kind) as connection:
        connection.settimeout(0.5)
        connection.connect(address)
        return connection.getpeername()


def network(tried, context):
    ports = [int(tried.words["coap"]), int(tried.words["http"]), 22, 53, 80, 4222, 5683]
    for address in ["127.0.0.1", "127.0.0.53", "10.0.0.1", "169.254.169.254", "172.17.0.1", "192.0.2.1", "255.255.255.255"]:
        for port in ports:
            tried.refused(f"{address}:{port}", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, (address, port)), UNREACHABLE)
    for address in ["::1", "fe80::1%lo", "2001:db8::1", "ff02::1"]:
        tried.refused(f"[{address}]", lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, (address, 80)), UNREACHABLE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for address in ["192.0.2.1", "224.0.0.187", "255.255.255.255"]:
            tried.refused(f"a datagram to {address}", lambda: datagrams.sendto(b"x", (address, 5683)), UNREACHABLE)
        tried.refused("bind to an interface", lambda: datagrams.setsockopt(socket.SOL_SOCKET, 25, b"eth0\0"), REFUSED | {errno.ENODEV})
        tried.refused("a mark", lambda: datagrams.setsockopt(socket.SOL_SOCKET, 36, 1))
        tried.refused("buffers by force", lambda: datagrams.setsockopt(socket.SOL_SOCKET, 33, 1 << 30))
    for port in [1, 53, 80, 443]:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            tried.refused(f"bind port {port}", lambda: listener.bind(("0.0.0.0", port)))
    tried.refused("list of interfaces", lambda: socket.if_nameindex())
    devices = [line.split(":")[0].strip() for line in open("/proc/self/net/dev").readlines()[2:]]
    tried.check(f"interfaces {devices}", devices == ["lo"])


def host_sockets(tried, context):
    for name in ["/run/dbus/system_bus_socket", "/run/systemd/notify", "/run/docker.sock", "/run/containerd/containerd.sock",
                 tried.words["socket"], "\0/tmp/.X11-unix/X0", "\0sandbar", "\0/com/ubuntu/upstart", "\0udev"]:
        for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]:
            tried.refused(repr(name), lambda: connect(socket.AF_UNIX, kind, name), UNREACHABLE)


def control_groups(tried, context):
    groups = read_from("/proc/self/cgroup").decode()
    lines = [line.split(":", 2)[2] for line in groups.splitlines() if line.count(":") >= 2]
    tried.check(f"its control groups are told as {lines}", all(line.strip() in ("/", "") for line in lines))
    for path in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids.max", "/cgroup", "/run/cgroup"]:
        for flags in [os.O_RDONLY, os.O_WRONLY]:
            tried.refused(path, lambda: os.open(path, flags))


def programs_in_memory(tried, context):
    """A program of its own making runs, as whatever is executed does: with no more rights."""
    memory = os.memfd_create("program", 0)
    with open("/bin/sh", "rb") as shell:
        os.write(memory, shell.read())
    path = f"/proc/self/fd/{memory}"
    script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; cat /etc/shadow; echo x > /usr/x; mount -t tmpfs x /tmp"
    ran = subprocess.run([path, "-c", script], pass_fds=[memory], capture_output=True, text=True, timeout=4)
    said = ran.stdout.split()
    tried.check(f"it said {said}", said in (["CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"], []))
    tried.refused("write to /proc/self/mem of the C library", lambda: os.open("/proc/1/mem", os.O_RDWR))


PROBES = dict(globals())


def handle(event, context):
    return probing.run(event, context, PROBES)
