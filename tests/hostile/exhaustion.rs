//! Probes that take all there is of something.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::battery::{Group, call_within, deploy, event, over, run_group};
use crate::probe::{Harm, Probe, Told, native, python, shell};
use crate::support::host::Host;

const PROBES: &[Probe] = &[
    python("fork-bomb").cut_off_after_ms(1200).harms(Harm::Starves),
    python("memory").failed("out of memory").harms(Harm::Starves),
    python("memory-of-children").within_ms(2500).told(Told::Any).harms(Harm::Starves),
    python("shared-memory").harms(Harm::Starves),
    python("inotify"),
    python("deep-recursion").failed("killed by signal"),
    python("log-flood").cut_off_after_ms(1200),
    python("long-log-line"),
    python("huge-answer").failed("larger than the limit"),
    python("huge-error").failed("OnPurpose"),
    python("descriptors-in-flight").harms(Harm::Starves),
    native("threads").harms(Harm::Starves),
    native("forks-of-the-supervisor").cut_off_after_ms(1200).harms(Harm::Starves),
    native("memory-files").failed("out of memory").harms(Harm::Exhausts),
    native("page-tables").failed("out of memory").harms(Harm::Starves),
    native("mappings"),
    native("recursion").failed("killed by signal"),
    native("pipes").told(Told::Any).harms(Harm::Starves),
    native("unix-sockets").told(Told::Any).harms(Harm::Starves),
    native("descriptors"),
    native("timers"),
    native("timer-storm").cut_off_after_ms(900),
    native("queued-signals"),
    native("locked-memory"),
    native("spin").cut_off_after_ms(1500),
    native("zombies").harms(Harm::Starves),
    shell("shell-fork-bomb").cut_off_after_ms(1200).harms(Harm::Starves),
    shell("shell-endless-output").failed("more than the limit"),
    shell("shell-endless-errors").cut_off_after_ms(1200),
    shell("shell-memory").within_ms(4000).told(Told::Any).harms(Harm::Starves),
];

#[test]
fn whoever_takes_all_there_is_takes_it_from_its_own_application() {
    run_group(&Group { name: "exhaustion", probes: PROBES });
}

/// Memory that sockets hold, of all protocols of IPv4, in bytes: the kernel counts it for the whole machine.
fn socket_bytes() -> u64 {
    let statistics = fs::read_to_string("/proc/net/sockstat").unwrap();
    let pages = statistics.lines().filter_map(|line| line.rsplit_once(" mem ")?.1.trim().parse::<u64>().ok());
    pages.sum::<u64>() * 4096
}

#[test]
fn buffers_of_sockets_are_memory_of_the_application() {
    /// The sandbox's whole memory, and what else may use sockets on this machine meanwhile.
    const BYTES_MORE: u64 = (128 + 32) << 20;
    let Some(host) = Host::start_alone() else { return };
    let group = Group { name: "exhaustion", probes: PROBES };
    deploy(&host, &group);
    let mut gave_way = Vec::new();
    for name in ["tcp-buffers", "udp-buffers"] {
        let probe = native(name).told(Told::Any);
        let (before, over) = (socket_bytes(), AtomicBool::new(false));
        let most = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(socket_bytes());
                    std::thread::sleep(Duration::from_millis(5));
                }
                most
            });
            let called = call_within(&host, group.name, "native", event(&host, &probe).as_bytes(), probe.timeout);
            over.store(true, Ordering::Relaxed);
            println!("{name}: {}: {} {}", called.outcome, called.diagnostic, called.text());
            watch.join().unwrap()
        });
        println!("{name}: {} MiB more", most.saturating_sub(before) >> 20);
        if most > before + BYTES_MORE {
            gave_way.push(format!("{name}: {most} bytes of sockets, before: {before}"));
        }
    }
    over(2, gave_way.len());
    assert!(gave_way.is_empty(), "{gave_way:#?}");
}
