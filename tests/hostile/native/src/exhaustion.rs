//! Taking all there is of something.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::tried::{Attacks, Errno, Tried, call, exit, fork, stay};

pub(crate) const ATTACKS: Attacks = &[
    ("threads", threads),
    ("forks-of-the-supervisor", forks_of_the_supervisor),
    ("memory-files", memory_files),
    ("page-tables", page_tables),
    ("mappings", mappings),
    ("recursion", |_| recurse(1)),
    ("pipes", pipes),
    ("unix-sockets", unix_sockets),
    ("tcp-buffers", tcp_buffers),
    ("udp-buffers", udp_buffers),
    ("descriptors", descriptors),
    ("timers", timers),
    ("timer-storm", timer_storm),
    ("queued-signals", queued_signals),
    ("locked-memory", locked_memory),
    ("spin", spin),
    ("zombies", zombies),
];

const CHUNK: [u8; 64 << 10] = [1; 64 << 10];

fn threads(tried: &mut Tried<'_>) {
    let mut count = 0;
    while count < 10_000 {
        let thread = std::thread::Builder::new().stack_size(16 << 10).spawn(|| stay());
        if thread.is_err() {
            break;
        }
        count += 1;
    }
    tried.check(format_args!("{count} threads in a sandbox of 64 processes"), count < 64);
}

/// Forks siblings, which are the supervisor's children, and so do they.
fn forks_of_the_supervisor(_tried: &mut Tried<'_>) {
    let flags = (libc::CLONE_PARENT | libc::SIGCHLD).cast_unsigned() as usize;
    loop {
        // One that is forked forks on; the others would fill the processor, not the table of processes.
        let _forked = call(libc::SYS_clone, &[flags]);
    }
}

fn memory_files(_tried: &mut Tried<'_>) {
    loop {
        let fd = call(libc::SYS_memfd_create, &[c"bomb".as_ptr() as usize, 0]).unwrap_or(-1);
        let Ok(fd) = usize::try_from(fd) else { stay() };
        for _ in 0..1024 {
            if call(libc::SYS_write, &[fd, CHUNK.as_ptr() as usize, CHUNK.len()]).is_err() {
                break;
            }
        }
    }
}

fn map(bytes: usize) -> Result<usize, Errno> {
    let protection = (libc::PROT_READ | libc::PROT_WRITE).cast_unsigned() as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE).cast_unsigned() as usize;
    call(libc::SYS_mmap, &[0, bytes, protection, flags, usize::MAX, 0]).map(|at| usize::try_from(at).unwrap_or(0))
}

/// One page in each table of pages: what the tables take counts too.
fn page_tables(_tried: &mut Tried<'_>) {
    const TERABYTE: usize = 1 << 40;
    let start = map(TERABYTE).unwrap_or(0);
    if start == 0 {
        return;
    }
    for at in (start..start + TERABYTE).step_by(2 << 20) {
        // SAFETY: the address lies in the mapping that was just made.
        unsafe { std::ptr::without_provenance_mut::<u8>(at).write_volatile(1) };
    }
}

fn mappings(tried: &mut Tried<'_>) {
    const PAGE: usize = 4096;
    let start = map(200_000 * PAGE).unwrap_or(0);
    let mut count = 0;
    while count < 100_000 && call(libc::SYS_mprotect, &[start + 2 * count * PAGE, PAGE, 0]).is_ok() {
        count += 1;
    }
    tried.check(format_args!("{count} mappings"), count < 66_000);
}

#[allow(unconditional_recursion, reason = "that is the attack")]
fn recurse(depth: u64) {
    let frame = std::hint::black_box([depth; 64]);
    recurse(frame[0] + 1);
    std::hint::black_box(frame);
}

fn pipes(tried: &mut Tried<'_>) {
    let mut count = 0;
    loop {
        let mut ends = [0_i32; 2];
        let at = ends.as_mut_ptr() as usize;
        if call(libc::SYS_pipe2, &[at, libc::O_NONBLOCK.cast_unsigned() as usize]).is_err() {
            break;
        }
        count += 1;
        let fd = usize::try_from(ends[1]).unwrap_or(0);
        let _grown = call(libc::SYS_fcntl, &[fd, libc::F_SETPIPE_SZ.cast_unsigned() as usize, 1 << 20]);
        while call(libc::SYS_write, &[fd, CHUNK.as_ptr() as usize, CHUNK.len()]).is_ok() {}
    }
    tried.check(format_args!("{count} pipes"), count < 512);
}

fn unix_sockets(tried: &mut Tried<'_>) {
    let mut held = Vec::new();
    while let Ok((left, right)) = UnixDatagram::pair() {
        let _quick = left.set_nonblocking(true);
        while left.send(&CHUNK[..32 << 10]).is_ok() {}
        held.push((left, right));
    }
    tried.check(format_args!("{} pairs", held.len()), held.len() < 512);
}

fn tcp_buffers(tried: &mut Tried<'_>) {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { return tried.check("there is no loopback", true) };
    let Ok(address) = listener.local_addr() else { return };
    let mut held = Vec::new();
    while let Ok(mut stream) = TcpStream::connect(address) {
        let Ok((peer, _)) = listener.accept() else { break };
        let _quick = stream.set_nonblocking(true);
        for _ in 0..200 {
            while stream.write(&CHUNK).is_ok() {}
            std::thread::sleep(Duration::from_micros(50));
        }
        held.push((stream, peer));
    }
    tried.check(format_args!("{} connections", held.len()), held.len() < 512);
    std::thread::sleep(Duration::from_millis(200));
}

fn udp_buffers(tried: &mut Tried<'_>) {
    let mut held = Vec::new();
    while let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
        let most = [i32::MAX];
        let level = libc::SOL_SOCKET.cast_unsigned() as usize;
        let fd = usize::try_from(socket.as_raw_fd()).unwrap_or(0);
        let option = libc::SO_RCVBUF.cast_unsigned() as usize;
        let _grown = call(libc::SYS_setsockopt, &[fd, level, option, most.as_ptr() as usize, 4]);
        if let Ok(address) = socket.local_addr() {
            let _quick = socket.set_nonblocking(true);
            for _ in 0..400 {
                let _sent = socket.send_to(&CHUNK[..1400], address);
            }
        }
        held.push(socket);
    }
    tried.check(format_args!("{} sockets", held.len()), held.len() < 1024);
    std::thread::sleep(Duration::from_millis(200));
}

fn descriptors(tried: &mut Tried<'_>) {
    let mut count = 0;
    while count < 100_000 && call(libc::SYS_eventfd2, &[0, 0]).is_ok() {
        count += 1;
    }
    tried.check(format_args!("{count} descriptors"), count < 1024);
    let over = call(libc::SYS_dup2, &[0, 5_000]);
    tried.check(format_args!("a descriptor far beyond: {over:?}"), over.is_err());
}

fn timers(tried: &mut Tried<'_>) {
    let mut count = 0_usize;
    loop {
        let id = 0_i32;
        let clock = libc::CLOCK_MONOTONIC.cast_unsigned() as usize;
        if count > 1 << 20 || call(libc::SYS_timer_create, &[clock, 0, std::ptr::from_ref(&id) as usize]).is_err() {
            break;
        }
        count += 1;
    }
    tried.check(format_args!("{count} timers"), count < 1 << 20);
}

/// Timers that fire as often as the kernel lets them, into a signal that is ignored and one that is blocked.
fn timer_storm(_tried: &mut Tried<'_>) {
    // SAFETY: the disposition runs no code.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_IGN) };
    for _ in 0..64 {
        let id = 0_i32;
        if call(libc::SYS_timer_create, &[1, 0, std::ptr::from_ref(&id) as usize]).is_ok() {
            let every = [0_u64, 1, 0, 1];
            let id = usize::try_from(id).unwrap_or(0);
            let _set = call(libc::SYS_timer_settime, &[id, 0, every.as_ptr() as usize, 0]);
        }
    }
    stay()
}

fn queued_signals(tried: &mut Tried<'_>) {
    let blocked = u64::MAX;
    let set = std::ptr::from_ref(&blocked) as usize;
    let _blocked = call(libc::SYS_rt_sigprocmask, &[0, set, 0, 8]);
    let own = call(libc::SYS_getpid, &[]).map_or(0, |pid| usize::try_from(pid).unwrap_or(0));
    // What sigqueue(3) sends.
    let mut info = [0_i32; 32];
    info[2] = -1;
    let mut count = 0_usize;
    while count < 1 << 20 && call(libc::SYS_rt_sigqueueinfo, &[own, 40, info.as_ptr() as usize]).is_ok() {
        count += 1;
    }
    tried.check(format_args!("{count} signals queued"), count < 1 << 20);
}

fn locked_memory(tried: &mut Tried<'_>) {
    let bytes = 4 << 20;
    let start = map(bytes).unwrap_or(0);
    let locked = call(libc::SYS_mlock, &[start, bytes]);
    tried.check(format_args!("4 MiB locked: {locked:?}"), locked.is_err());
    let all = call(libc::SYS_mlockall, &[3]);
    tried.check(format_args!("all locked: {all:?}"), all.is_err());
}

fn spin(_tried: &mut Tried<'_>) {
    for _ in 0..12 {
        if fork() == 0 {
            break;
        }
    }
    loop {
        std::hint::spin_loop();
    }
}

/// Children that die at once, and whose parent does not look; then ones whose parent is the supervisor.
fn zombies(tried: &mut Tried<'_>) {
    let mut count = 0;
    for round in 0..400 {
        let sibling = if round % 2 == 0 { libc::CLONE_PARENT } else { 0 };
        let flags = (sibling | libc::SIGCHLD).cast_unsigned() as usize;
        match call(libc::SYS_clone, &[flags]) {
            Ok(0) => exit(0),
            Ok(_) => count += 1,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    tried.check("no process could be made", count > 0);
    // Nothing to read: it only must not hang.
    let _nothing = std::io::stdin().read(&mut [0]);
}
