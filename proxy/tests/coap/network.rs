//! A network of a test's own, with an interface that carries groups.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

/// What there is in it, beside loopback: `v0` with these addresses, and none that the kernel makes: such a one would come to be usable
/// in the midst of a test.
pub(crate) const V4: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
pub(crate) const LINK_V6: &str = "fe80::9";
pub(crate) const SITE_V6: &str = "fd00:9::1";

const PATIENCE: Duration = Duration::from_secs(10);
const SET_UP: &str = "
    ip link set lo up
    ip link add v0 type veth peer name v1
    ip link set v0 addrgenmode none
    ip link set v0 up
    ip link set v1 up
    ip addr add 10.9.0.1/24 dev v0
    ip addr add 10.9.0.2/24 dev v0
    ip addr add fe80::9/64 dev v0 nodad
    ip addr add fd00:9::1/64 dev v0 nodad
    ip route add 224.0.0.0/4 dev v0";

/// Runs a test in a network namespace that ends with it. Skipped, and said so, where there can be none.
pub(crate) fn in_its_own<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    // A thread has a namespace of its own, and so have what it starts and the sockets that it makes.
    let alone = std::thread::spawn(move || {
        if let Err(why) = set_up() {
            assert!(std::env::var_os("SANDBAR_TESTS_MUST_RUN").is_none(), "{why}");
            eprintln!("SKIPPED: {why}");
            return;
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panicked) = alone.join() {
        std::panic::resume_unwind(panicked);
    }
}

fn set_up() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("no network namespace: {errno}"))?;
    for line in SET_UP.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        let output = command.args(words).output().map_err(|error| format!("{line}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    carries()
}

/// Waits until the interface says that it is up, which a kernel that is busy finds out later; until then what is sent to groups is lost.
fn carries() -> Result<(), String> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let output =
            Command::new("ip").args(["-o", "link", "show", "v0"]).output().map_err(|error| error.to_string())?;
        if String::from_utf8_lossy(&output.stdout).contains(" state UP ") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err("v0 did not come up".to_owned())
}
