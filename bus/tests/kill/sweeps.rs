//! The sweep, after the states in which a process may have died.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sandbar_bus::clock::now_ns;
use sandbar_bus::{Actor, Verdict};

use crate::scenario::{Role, Scenario, call_before, send_a_call, sends, serves};
use crate::trace::{Path, Traced};
use crate::world::{F, FRESH, INNER, OTHER, SUBJECT, World, request};

/// The call whose sender was killed before.
const LAGGING: u64 = 3;
/// The sweeps; after a late one of the states that a process may leave, or after `every` one.
pub(crate) fn all(every: bool) -> Vec<Scenario> {
    let mut all = sweeps_of_mail();
    for (name, died, eighth) in [
        ("sweep after a send, an instance waits", sends().swap_remove(1), 6),
        ("sweep after an answer", serves().swap_remove(0), 6),
        ("sweep after handing over to the next", serves().swap_remove(1), 5),
        ("sweep after a reply to one that waits", serves().swap_remove(2), 7),
        ("sweep after forwarding in place", serves().swap_remove(4), 7),
    ] {
        all.extend(sweeps_after(name, died, (!every).then_some(eighth)));
    }
    all
}

fn sweep(world: &World, begin: &dyn Fn()) {
    begin();
    world.bus.sweep(SUBJECT, Verdict::Crashed, "killed");
}

/// The sweep of an instance that left mail.
fn sweeps_of_mail() -> Vec<Scenario> {
    let sweep_of = |name| Scenario { role: Role::Sweeper, ..Scenario::new(name, sweep) };
    let leave_mail = |world: &World| {
        let slot = &world.bus.slots()[SUBJECT];
        slot.ready();
        slot.serve(now_ns(), u64::MAX);
        world.reply(INNER, SUBJECT, world.generation(SUBJECT));
    };
    vec![
        sweep_of("sweep of one with mail").before(move |world| {
            leave_mail(world);
            call_before(world);
            std::mem::forget(world.bus.take(Actor::instance(SUBJECT), F));
            None
        }),
        sweep_of("sweep of one that was done, with mail").before(move |world| {
            leave_mail(world);
            world.bus.slots()[SUBJECT].finish();
            None
        }),
    ]
}

/// The state of the segment, payloads aside.
fn state_of(world: &World) -> Vec<u8> {
    let file = std::fs::File::from(world.fd.try_clone().unwrap());
    let mut state = vec![0; world.bus.layout().len.min(5 * 4096)];
    file.read_exact_at(&mut state, 0).unwrap();
    state
}

/// The way of a scenario's process, and the steps that changed the segment.
fn states_of(scenario: &Scenario) -> (Path, Vec<usize>) {
    let (mut states, mut last) = (Vec::new(), Vec::new());
    let path = scenario.path(|k, world| {
        let state = state_of(world);
        if k == 0 {
            states.clear();
        }
        if k == 0 || state != last {
            states.push(k);
            last = state;
        }
    });
    (path, states)
}

/// Sweeps after a process that was killed in each of the states of the segment that it passed through, or in the one that
/// is so many eighths on its way.
fn sweeps_after(name: &'static str, died: Scenario, eighth: Option<usize>) -> Vec<Scenario> {
    let died = Arc::new(died);
    let (path, states) = states_of(&died);
    let chosen = match eighth {
        Some(eighth) => vec![states[states.len() * eighth / 8]],
        None => states,
    };
    let path = Arc::new(path);
    chosen.into_iter().map(|k| sweep_after(name, Arc::clone(&died), Arc::clone(&path), k)).collect()
}

fn sweep_after(name: &'static str, died: Arc<Scenario>, path: Arc<Path>, k: usize) -> Scenario {
    let sweep = Scenario { role: Role::Sweeper, is_one_of_many: true, ..Scenario::new(name, sweep) };
    sweep.before(move |world| {
        let company = (died.before)(world);
        leave_dead(world, &died, &path, k);
        company
    })
}

/// Leaves behind what a process leaves that is killed after `k` steps.
fn leave_dead(world: &World, died: &Scenario, path: &Path, k: usize) {
    let mut traced = Traced::begin(|begin| (died.traced)(world, begin));
    let reached = traced.reach(path, k, false, &|| (died.wakes)(world));
    traced.kill();
    // Where it went another way it died in a state just as good.
    drop(reached);
}

/// A send behind one whose sender was killed between its commit and the move of the tail.
pub(crate) fn send_behind_a_lagging_tail() -> Scenario {
    let pusher = Scenario::new("", |world, begin| {
        begin();
        let mut draft = world.bus.draft(Actor::instance(OTHER), F, 4).unwrap();
        draft.write(b"sent");
        drop(draft.send(F, &request(LAGGING, 0)));
    });
    let (path, states) = states_of(&pusher);
    let committed = |k: &usize| {
        let world = World::new();
        leave_dead(&world, &pusher, &path, *k);
        world.bus.take(Actor::instance(FRESH), F).is_some()
    };
    let commit = states.into_iter().find(committed).expect("a commit");
    Scenario::new("send, lagging tail", send_a_call).before(move |world| {
        leave_dead(world, &pusher, &path, commit);
        world.accepted.lock().unwrap().push(LAGGING);
        None
    })
}
