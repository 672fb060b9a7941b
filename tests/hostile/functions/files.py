"""Probes that go for files."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import probing
from probing import REFUSED, read_from, write_to

SYSTEM = ["/", "/app", "/usr", "/usr/bin", "/usr/lib", "/usr/local/bin", "/etc", "/etc/ssl/certs", "/bin", "/lib", "/sbin",
          "/sandbar", "/dev", "/proc", "/var", "/run", "/home", "/root", "/opt", "/srv", "/mnt", "/boot"]
FILES = ["/app/probes.py", "/app/sandbar.toml", "/app/hostile", "/sandbar/worker.py", "/sandbar/libsandbar_function.so",
         "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/usr/bin/env", os.__file__]


def write_everywhere(tried, context):
    for directory in SYSTEM:
        path = os.path.join(directory, "was-here")
        tried.refused(f"write {path}", lambda: write_to(path))
        tried.refused(f"mkdir {path}", lambda: os.mkdir(path))
        tried.refused(f"symlink {path}", lambda: os.symlink("/tmp", path))
    for path in FILES:
        tried.refused(f"append to {path}", lambda: write_to(path, "a"))
        tried.refused(f"truncate {path}", lambda: os.truncate(path, 0))
        tried.refused(f"chmod {path}", lambda: os.chmod(path, 0o777))
        tried.refused(f"chown {path}", lambda: os.chown(path, os.getuid(), os.getgid()))
        tried.refused(f"unlink {path}", lambda: os.unlink(path))
        tried.refused(f"rename {path}", lambda: os.rename(path, path + ".old"))
        tried.refused(f"replace {path}", lambda: os.replace(own_file(), path), REFUSED | {errno.EXDEV})
        tried.refused(f"touch {path}", lambda: os.utime(path))


def own_file():
    with open("/tmp/own", "w") as file:
        file.write("mine")
    return "/tmp/own"


def read_secrets(tried, context):
    words = tried.words
    state = words["state"]
    paths = ["/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh", "/etc/machine-id", "/etc/resolv.conf", "/etc/environment",
             "/root/.ssh", "/root/.bashrc", "/home", "/var", "/var/lib/sandbar", "/var/log", "/run", "/run/sandbar.sock", "/sys", "/boot",
             "/lost+found", "/mnt", "/media", "/opt", "/srv", state, os.path.dirname(state), state + "/host", state + "/inside",
             words["socket"], words["other"], words["other"] + "/sandbar.toml", "/proc/1/root" + state]
    for path in paths:
        tried.refused(f"list {path}", lambda: os.listdir(path), REFUSED | {errno.ENOTDIR})
        tried.refused(f"stat {path}", lambda: os.stat(path))
        tried.refused(f"read {path}", lambda: read_from(path))
    # The interpreter may lie there, with nothing beside it.
    beside = set(os.listdir("/root") if os.path.exists("/root") else []) - set(sys.base_prefix.split("/"))
    tried.check(f"/root has {beside}", not beside)
    tried.check("/etc/passwd is the host's", b"root:x:0:0::/:" in read_from("/etc/passwd"))


def processes(tried, context):
    own = os.getpid()
    seen = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    tried.check(f"sees {seen - {own}}", seen <= {own})
    for pid in [pid for pid in range(1, 400) if pid != own] + [int(tried.words["agent"])]:
        for name in ["root", "cwd", "exe"]:
            tried.refused(f"follow {pid}/{name}", lambda: os.listdir(f"/proc/{pid}/{name}/"))
        for name in ["mem", "maps", "environ", "cmdline", "status", "auxv", "stack", "syscall"]:
            tried.refused(f"read {pid}/{name}", lambda: read_from(f"/proc/{pid}/{name}"))
        tried.refused(f"write {pid}/mem", lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR))
        for name in ["fd", "map_files", "task", "ns"]:
            tried.refused(f"list {pid}/{name}", lambda: os.listdir(f"/proc/{pid}/{name}"))
        tried.refused(f"lower {pid}/oom_score_adj", lambda: write_to(f"/proc/{pid}/oom_score_adj"))


def set_user_bit(tried, context):
    user = str(os.getuid())
    copy = "/tmp/whoami"
    shutil.copy(shutil.which("id"), copy)
    tried.refused("chown to root", lambda: os.chown(copy, 0, 0), REFUSED | {errno.EINVAL})
    tried.refused("chown to a worker", lambda: os.chown(copy, 1000, 1000), REFUSED | {errno.EINVAL})
    os.chmod(copy, 0o6755)
    ran = subprocess.run([copy, "-u"], capture_output=True, text=True, timeout=3)
    tried.check(f"a set-uid copy runs as {ran.stdout}{ran.stderr}", ran.stdout.strip() == user)
    shell = ["sh", "-c", "id -u; grep NoNewPrivs /proc/self/status"]
    said = subprocess.run(shell, capture_output=True, text=True, timeout=3).stdout.split()
    tried.check(f"a program runs as {said}", said == [user, "NoNewPrivs:", "1"])


def devices(tried, context):
    known = {"null", "zero", "full", "random", "urandom", "shm", "fd", "stdin", "stdout", "stderr"}
    there = set(os.listdir("/dev"))
    tried.check(f"/dev has {there - known}", there <= known)
    for name in ["mem", "kmem", "port", "kmsg", "sda", "vda", "nvme0n1", "loop0", "loop-control", "kvm", "fuse", "net/tun", "tty", "console",
                 "ptmx", "pts/0", "uinput", "vsock", "vhost-vsock", "mapper/control", "hwrng", "watchdog", "rtc", "cpu_dma_latency",
                 "userfaultfd"]:
        for flags in [os.O_RDONLY, os.O_RDWR]:
            tried.refused(f"open /dev/{name}", lambda: os.open(f"/dev/{name}", flags))
    for major, minor in [(1, 1), (1, 2), (1, 11), (8, 0), (10, 232), (254, 0), (259, 0), (5, 1)]:
        for kind in [stat.S_IFCHR, stat.S_IFBLK]:
            device = os.makedev(major, minor)
            tried.refused(f"mknod {major}:{minor}", lambda: os.mknod("/tmp/device", kind | 0o666, device))
    for name in ["random", "urandom"]:
        # RNDADDTOENTCNT, RNDCLEARPOOL, RNDRESEEDCRNG
        for request in [0x40045201, 0x5206, 0x5207]:
            with open(f"/dev/{name}", "rb") as file:
                tried.refused(f"steer {name}", lambda: fcntl.ioctl(file, request, b"\0" * 8), REFUSED | {errno.EINVAL, errno.ENOTTY})


def links(tried, context):
    for path in ["/etc/passwd", "/app/sandbar.toml", "/sandbar/worker.py", "/usr/bin/env", "/dev/null"]:
        tried.refused(f"hard link to {path}", lambda: os.link(path, "/tmp/hard"), REFUSED | {errno.EXDEV})
    for target in ["/etc/shadow", "/proc/1/root/etc/shadow", "/../../../../etc/shadow", "../" * 40 + "etc/shadow", tried.words["state"]]:
        link = "/tmp/link"
        os.symlink(target, link)
        tried.refused(f"a link to {target}", lambda: read_from(link))
        os.unlink(link)
    root = os.stat("/")
    for path in ["/..", "/../../..", "/tmp/../..", "/proc/self/root", "/proc/self/root/..", "/proc/self/cwd/../.."]:
        found = os.stat(path)
        tried.check(f"{path} is another root", (found.st_dev, found.st_ino) == (root.st_dev, root.st_ino))


def leaked_directories(tried, context):
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            kind = os.fstat(fd).st_mode
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        tried.check(f"descriptor {fd} is {target}", not stat.S_ISDIR(kind))
        climb = lambda: os.open("../../../../etc/shadow", os.O_RDONLY, dir_fd=fd)
        tried.refused(f"descriptor {fd} leads to a file", climb, REFUSED | {errno.ENOTDIR})
        on_host = stat.S_ISREG(kind) and not target.startswith("/memfd:")
        tried.check(f"descriptor {fd} is a file of the host, {target}", not on_host)
    at = os.open("/tmp", os.O_PATH)
    for _ in range(64):
        at = os.open("..", os.O_PATH, dir_fd=at)
    tried.check("the way up ends elsewhere", os.fstat(at).st_ino == os.stat("/").st_ino)
    tried.refused("chroot and climb", lambda: os.chroot("/tmp"))


def settings(tried, context):
    for name in ["sys", "sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/hostname", "sys/net/ipv4/ip_forward", "sys/vm/drop_caches",
                 "sysrq-trigger", "kcore", "kallsyms", "kmsg", "config.gz", "keys", "key-users", "modules", "iomem", "ioports", "interrupts",
                 "timer_list", "sched_debug", "latency_stats", "scsi/scsi", "bus/pci/devices", "acpi", "asound", "cmdline", "version",
                 "partitions", "diskstats", "swaps", "slabinfo", "vmallocinfo", "fs", "irq/0"]:
        for flags in [os.O_RDONLY, os.O_WRONLY]:
            tried.refused(f"open /proc/{name}", lambda: os.open(f"/proc/{name}", flags), REFUSED)


def own_process(tried, context):
    score = read_from("/proc/self/oom_score_adj").strip().decode()
    tried.check(f"oom_score_adj is {score}", score == "1000")
    for name, text in [("oom_score_adj", "-1000"), ("oom_score_adj", "0"), ("oom_score_adj", "999"), ("oom_adj", "-17"), ("uid_map", "0 0 1"),
                       ("gid_map", "0 0 1"), ("setgroups", "allow"), ("loginuid", "0"), ("attr/current", "unconfined"),
                       ("attr/exec", "unconfined"), ("projid_map", "0 0 1"), ("timens_offsets", "1 1 1"), ("sched", "0"), ("autogroup", "-20"),
                       ("coredump_filter", "0xff"), ("make-it-fail", "1"), ("clear_refs", "1"), ("timerslack_ns", "1")]:
        for task in ["self", "thread-self", "self/task/" + str(os.getpid())]:
            def act():
                with open(f"/proc/{task}/{name}", "w") as file:
                    file.write(text)
            tried.refused(f"write {text} to {task}/{name}", act, REFUSED | {errno.EINVAL})


def fill(tried, context):
    for place in ["/tmp", "/dev/shm"]:
        written, chunk = 0, b"x" * (1 << 20)
        try:
            for number in range(64):
                with open(f"{place}/full{number}", "wb", buffering=0) as file:
                    while written < 1 << 30:
                        written += file.write(chunk)
        except OSError as error:
            tried.check(f"{place}: {error}", error.errno in (errno.ENOSPC, errno.EFBIG))
        tried.check(f"{place} took {written} bytes of a sandbox of 128 MiB", written <= 32 << 20)


def fill_inodes(tried, context):
    for place in ["/tmp", "/dev/shm"]:
        count = 0
        try:
            while count < 200_000:
                os.close(os.open(f"{place}/{count}", os.O_CREAT | os.O_WRONLY))
                count += 1
        except OSError as error:
            tried.check(f"{place}: {error}", error.errno == errno.ENOSPC)
        tried.check(f"{place} took {count} files", count <= 16_384)


def deep_directories(tried, context):
    os.chdir("/tmp")
    depth = 0
    try:
        while depth < 100_000:
            os.mkdir("d")
            os.chdir("d")
            depth += 1
    except OSError as error:
        tried.check(f"ended with {error}", error.errno in (errno.ENOSPC, errno.ENAMETOOLONG))
    tried.check(f"{depth} directories deep", depth <= 16_384)
    tried.note = f"{depth} deep"


def leave_files(tried, context):
    """Files of all kinds, hidden as well as can be; whoever looks next must find none."""
    for place in ["/tmp", "/dev/shm"]:
        os.mkdir(place + "/closed")
        write_to(place + "/closed/secret")
        os.mkdir(place + "/open")
        os.chmod(place + "/open", 0o777)
        write_to(place + "/open/\n\x1b[31m")
        os.symlink("/etc", place + "/link")
        os.symlink("nowhere", place + "/-rf")
        os.link(place + "/closed/secret", place + "/again")
        write_to(place + "/.hidden")
        write_to(place + "/" + "n" * 255)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(place + "/socket")
        os.open(place + "/again", os.O_RDONLY)
        os.chmod(place + "/.hidden", 0)
        os.chmod(place + "/closed", 0)
        tried.count += 1


def race_the_cleaner(tried, context):
    """Children that go on making, moving and linking files while the call ends."""
    def churn():
        home = f"/tmp/churn-{os.getpid()}"
        step = 0
        while True:
            step += 1
            try:
                os.makedirs(f"{home}/a/b/c", exist_ok=True)
                write_to(f"{home}/a/b/c/{step % 20}")
                os.rename(f"{home}/a/b", f"{home}/{step % 7}")
                os.symlink("/dev/shm", f"{home}/{step % 7}/{step}")
                os.chmod(f"{home}/a", 0o000 if step % 2 else 0o777)
            except OSError:
                pass
    probing.leave(4, churn)
    time.sleep(0.2)
    tried.count += 4


def sparse(tried, context):
    # What would end the process is asked for as an error.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    tried.check(f"files may have {most} bytes", 0 < most <= 128 << 20)
    for size in [1 << 62, 1 << 40, 1 << 32]:
        with open("/tmp/sparse", "wb") as file:
            tried.refused(f"a file of {size} bytes", lambda: file.truncate(size), {errno.EFBIG, errno.EINVAL, errno.ENOSPC})
    memory = os.memfd_create("sparse")
    tried.refused("a sparse memfd", lambda: os.ftruncate(memory, 1 << 50), {errno.EFBIG, errno.EINVAL})


def extended_attributes(tried, context):
    path = own_file()
    for name in ["security.capability", "trusted.overlay.opaque", "system.posix_acl_access", "user.x", "security.selinux"]:
        tried.refused(f"set {name}", lambda: os.setxattr(path, name, b"x" * 24), REFUSED | {errno.EOPNOTSUPP, errno.EINVAL})


PROBES = dict(globals())


def handle(event, context):
    return probing.run(event, context, PROBES)
