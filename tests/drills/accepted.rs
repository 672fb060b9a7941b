//! Kills of the agent at random moments while calls come in that nobody waits for.
//!
//! After each kill the next agent makes what the one before it had accepted and not made to the end. Of all that was accepted nothing is
//! lost, each call is answered under its own id, what was answered once stays as it is, and no more are repeated than were under way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::random::Random;
use crate::support::accepted::{self, RESPOND_ASYNC, Told, id_of};
use crate::support::host::Host;
use crate::support::process;
use crate::support::{PATIENCE, bundle, program, until_within};
use crate::{census, is_soak, seed, turn};

const KILLS_SHORT: usize = 40;
const KILLS_SOAK: usize = 400;
/// Callers beside each other, and the most that one has accepted between two kills.
const CALLERS: usize = 3;
const CALLS_MAX: usize = 12;
/// Moments lie this long after the callers have begun, at most; and after the start of an agent that is killed while it starts.
const DELAY_MAX: Duration = Duration::from_millis(250);
/// Every so many kills one hits an agent that starts.
const STARTING_EVERY: usize = 8;
/// As many kills may lie between a call's acceptance and its end: what is older has to be made before the next.
const KILLS_LIVED_THROUGH_MAX: usize = 3;
/// Of ended calls as many are looked at again; no fewer are kept.
const ENDED_MAX: usize = 500;
const LOOKED_AT_AGAIN: usize = 5;
/// An application's calls under way at one time.
const UNDER_WAY_MAX: usize = 8;

const MANIFEST: &str =
    "name = \"den\"\n[functions.note]\nruntime = \"executable\"\ncode = \"note.sh\"\ntimeout = \"20s\"\n";
const NOTE: &str = "#!/bin/sh\necho \"made $SANDBAR_CALL\" >&2\nsleep 0.03\nprintf '%s ' \"$SANDBAR_CALL\"\nexec cat\n";

/// A call that was accepted.
#[derive(Debug)]
struct Call {
    location: String,
    payload: String,
    /// Kills until then.
    kills: usize,
}

#[derive(Debug)]
struct Drill {
    host: Host,
    random: Random,
    kills: usize,
    /// Calls that callers have begun, whether they were accepted or not.
    begun: AtomicUsize,
    accepted: usize,
    /// Those that may not have ended, the oldest first.
    open: Vec<Call>,
    /// Those that have, the oldest first, and what was told of them.
    ended: Vec<(String, Told)>,
}

#[test]
fn whenever_the_agent_is_killed_what_it_accepted_is_made() {
    let _turn = turn();
    let Some(host) = Host::start() else { return };
    let folder = host.folder().join("den");
    bundle::write(&folder, &[("sandbar.toml", MANIFEST), ("note.sh", NOTE)]);
    host.deploy(&folder);
    let (random, begun) = (Random::new(seed()), AtomicUsize::new(0));
    let mut drill = Drill { host, random, kills: 0, begun, accepted: 0, open: Vec::new(), ended: Vec::new() };
    let (kills, began) = (if is_soak() { KILLS_SOAK } else { KILLS_SHORT }, Instant::now());
    while drill.kills < kills {
        drill.kill_while_calls_are_accepted();
        if drill.kills.is_multiple_of(STARTING_EVERY) {
            drill.kill_while_starting();
        }
        drill.host.serve();
        let due = drill.open.iter().filter(|call| call.kills + KILLS_LIVED_THROUGH_MAX <= drill.kills).count();
        drill.see_to_the_end(due);
        drill.look_again();
    }
    drill.see_to_the_end(drill.open.len());
    println!("{} kills, {} calls accepted, in {:.1?}", drill.kills, drill.accepted, began.elapsed());
    drill.assert_all_is_accounted_for();
    drill.finish();
}

impl Drill {
    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.random.below(u64::try_from(DELAY_MAX.as_micros()).unwrap()))
    }

    fn kill_while_calls_are_accepted(&mut self) {
        let delay = self.delay();
        let (door, kills) = (self.host.http, self.kills);
        let (host, begun) = (&mut self.host, &self.begun);
        let accepted: Vec<Call> = std::thread::scope(|scope| {
            let callers: Vec<_> =
                (0..CALLERS).map(|_| scope.spawn(|| accept_until_killed(door, kills, begun))).collect();
            std::thread::sleep(delay);
            kill(host);
            callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
        });
        self.accepted += accepted.len();
        self.open.extend(accepted);
        self.kills += 1;
    }

    /// While it reads what there is, say, or makes the first of it.
    fn kill_while_starting(&mut self) {
        let delay = self.delay();
        let null = || std::process::Stdio::null();
        let mut starting = self.host.serve_command().stdout(null()).stderr(null()).spawn().unwrap();
        std::thread::sleep(delay);
        let descendants = process::descendants(starting.id());
        starting.kill().unwrap();
        assert!(program::wait(&mut starting, PATIENCE).is_some());
        census::assert_dead(&self.host, &descendants);
        self.kills += 1;
    }

    /// The oldest of those that may not have ended come to their end, and are answered as they should be.
    fn see_to_the_end(&mut self, calls: usize) {
        for Call { location, payload, kills } in self.open.drain(..calls) {
            let what = format!("the call at {location}, accepted after {kills} kills of {}, ends", self.kills);
            let told = until_within(PATIENCE, &what, || {
                let told = self.host.told(&location);
                (told.status != 202).then_some(told)
            });
            assert_eq!((told.status, &told.body), (200, &format!("{} {payload}", id_of(&location))), "{location}");
            self.ended.push((location, told));
        }
        self.ended.drain(..self.ended.len().saturating_sub(ENDED_MAX));
    }

    fn look_again(&mut self) {
        for _ in 0..LOOKED_AT_AGAIN.min(self.ended.len()) {
            let (location, told) = &self.ended[usize::try_from(self.random.below(self.ended.len() as u64)).unwrap()];
            assert_eq!(&self.host.told(location), told, "an answer stays what it is");
        }
    }

    /// All that is stored has been done, and little more than was told to be accepted; no more was repeated than was under way.
    fn assert_all_is_accounted_for(&self) {
        until_within(PATIENCE, "all is done that was stored", || {
            let listed = self.host.accepted(&[]);
            listed.iter().all(|call| call["state"] == "done").then_some(())
        });
        // Of those that were begun and not accepted, some were stored: their callers were not answered any more.
        let stored_max = self.begun.load(Ordering::Relaxed);
        let times = self.host.times_made("den");
        let again: usize = times.values().map(|times| times - 1).sum();
        println!("{} made of {stored_max} begun, {again} times one again", times.len());
        assert!(times.len() <= stored_max, "{} calls were made, {stored_max} begun", times.len());
        assert!(again <= self.kills * UNDER_WAY_MAX, "{again} times a call was repeated: {times:?}");
    }

    /// Stops the host, of which nothing is left but the state.
    fn finish(self) {
        let mut host = self.host;
        let descendants = process::descendants(host.agent().pid);
        assert_eq!(host.end(Signal::SIGTERM), Some(0), "{}", host.agent_log());
        host.assert_nothing_is_left(&descendants);
        let expected = ["applications", "calls.db", "host", "images", "inside", "lock", "logs", "root"];
        assert_eq!(census::names(&host.state()), expected.map(str::to_owned).into_iter().collect::<BTreeSet<_>>());
        census::assert_no_orphans();
    }
}

/// Kills the agent, and sees that its sandboxes die with it.
fn kill(host: &mut Host) {
    let descendants = process::descendants(host.agent().pid);
    assert_eq!(host.end(Signal::SIGKILL), None);
    census::assert_dead(host, &descendants);
}

/// Has one call after another accepted, until nobody answers.
fn accept_until_killed(door: SocketAddr, kills: usize, begun: &AtomicUsize) -> Vec<Call> {
    let mut calls = Vec::new();
    while calls.len() < CALLS_MAX {
        let payload = begun.fetch_add(1, Ordering::Relaxed).to_string();
        match accepted::ask(door, "/den", RESPOND_ASYNC, payload.as_bytes()) {
            Ok(response) => {
                assert_eq!(response.status, 202, "{}", response.text());
                let location = response.header("location").unwrap().to_owned();
                calls.push(Call { location, payload, kills });
            }
            Err(_) => break,
        }
    }
    calls
}
