//! What is traced: what is there before, what the process does, and what others do while it stands still.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sandbar_bus::clock::now_ns;
use sandbar_bus::{Actor, Address, Destination, Envelope, Payload, Taken, Verdict};

use crate::sweeps;
use crate::trace::{Path, Traced};
use crate::world::{CALL, CAPACITY, Company, F, FRESH, G, GEOMETRY, INNER, OTHER, SUBJECT, World, request};

/// Ways that are noted before it is said that there is no one way. Processes do the same in the same state, so that two will do.
const PATHS_MAX: usize = 10;

/// What the traced process is, which says what is done when it is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its slot is swept.
    Instance,
    /// A slot that it reserved without a process is given back.
    Worker,
    /// Another sweep is run. It has a sweep to do itself.
    Sweeper,
    /// A sweep is run.
    Supervisor,
    /// Its sandboxes end with it: it is stopped here, never killed.
    Agent,
}

/// What others do while the traced process stands still.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Others {
    /// They send so many messages through each queue, and serve all there is.
    Traffic(usize),
    /// They send so many to the first function, and serve nothing.
    Send(usize),
    /// They reserve a slot.
    Reserve,
    /// The supervisor dismisses the process, and a call comes.
    Dismiss,
}

type Before = Box<dyn Fn(&Arc<World>) -> Option<Company> + Send + Sync>;

/// See the module.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) before: Before,
    /// What the process does; it calls what it is given once it is prepared.
    pub(crate) traced: fn(&World, &dyn Fn()),
    /// Brings it what it sleeps for; false if that lies there already.
    pub(crate) wakes: fn(&World) -> bool,
    pub(crate) others: Others,
    /// Whether many others trace the same way, after other states.
    pub(crate) is_one_of_many: bool,
}

impl Scenario {
    pub(crate) fn new(name: &'static str, traced: fn(&World, &dyn Fn())) -> Self {
        let before = Box::new(|_: &Arc<World>| None);
        let others = Others::Traffic(CAPACITY);
        Self { name, role: Role::Instance, before, traced, wakes: wakes_with_a_call, others, is_one_of_many: false }
    }

    pub(crate) fn before(self, before: impl Fn(&Arc<World>) -> Option<Company> + Send + Sync + 'static) -> Self {
        Self { before: Box::new(before), ..self }
    }

    fn posted(self, calls: &'static [(usize, usize)]) -> Self {
        self.before(move |world| {
            for (function, count) in calls {
                for _ in 0..*count {
                    world.post_another(*function).unwrap();
                }
            }
            None
        })
    }

    /// A new world for it, and its process at the first stop.
    pub(crate) fn begin(&self) -> (Arc<World>, Option<Company>, Traced) {
        let world = World::new();
        let company = (self.before)(&world);
        let traced = Traced::begin(|begin| (self.traced)(&world, begin));
        (world, company, traced)
    }

    /// The way of its process, on which two have been seen. Calls `after` as [`Traced::note`] does.
    pub(crate) fn path(&self, mut after: impl FnMut(usize, &World)) -> Path {
        let mut paths: Vec<Path> = Vec::new();
        while paths.len() < PATHS_MAX {
            let (world, _company, traced) = self.begin();
            let path = traced.note(&|| (self.wakes)(&world), |k| after(k, &world));
            if paths.contains(&path) {
                return path;
            }
            paths.push(path);
        }
        panic!("{}: of {PATHS_MAX} processes no two go the same way", self.name)
    }

    /// Others act, and all they do succeeds.
    pub(crate) fn others_act(&self, world: &World, alone: bool) {
        match self.others {
            Others::Traffic(count) => world.traffic(count, alone),
            Others::Send(count) => {
                for _ in 0..count {
                    assert!(world.post_call(), "room for others");
                }
            }
            Others::Reserve => {
                let (slot, _) = world.bus.reserve_slot(0).expect("a slot for others");
                world.bus.slots()[slot].release();
            }
            Others::Dismiss => {
                world.dismissed.store(world.bus.dismiss(0, SUBJECT), Ordering::Relaxed);
                assert!(world.post_call(), "room for a call");
            }
        }
    }
}

fn wakes_with_a_call(world: &World) -> bool {
    world.bus.waiting(0) == 0 && world.post_call()
}

/// Or, where it was dismissed, for nothing: with all who were chosen before somebody died, and may have been rung for or not.
fn wakes_with_a_call_or_for_nothing(world: &World) -> bool {
    if world.dismissed.load(Ordering::Relaxed) {
        world.bus.sweep(FRESH, Verdict::Crashed, "killed");
        return true;
    }
    wakes_with_a_call(world)
}

fn wakes_with_a_reply(world: &World) -> bool {
    !world.serve_all(OTHER, 1).is_empty()
}

pub(crate) fn send_a_call(world: &World, begin: &dyn Fn()) {
    let slot = &world.bus.slots()[SUBJECT];
    slot.ready();
    slot.serve(now_ns(), u64::MAX);
    begin();
    let Some(mut draft) = world.bus.draft(Actor::instance(SUBJECT), F, 4) else { return };
    draft.write(b"sent");
    drop(draft.send(F, &request(CALL, 0)));
}

/// As an instance: from its beginning to its end.
fn serve_one(world: &World, begin: &dyn Fn(), answer: fn(&World, Taken<'_>)) {
    begin();
    if let Some(taken) = world.bus.wait_for_call(SUBJECT, 0) {
        world.bus.slots()[SUBJECT].serve(now_ns(), u64::MAX);
        answer(world, taken);
    }
    world.bus.slots()[SUBJECT].finish();
}

/// Hands its output over in another message, as an answer or, if there is another `function`, to that.
fn hand_over(world: &World, taken: Taken<'_>, next: Option<usize>) {
    let was = taken.envelope();
    let verdict = if next.is_none() { Some(Verdict::Done) } else { None };
    let to = next.map_or_else(|| world.bus.way_back(was.reply_to), |next| Some(Destination::Function(next)));
    let mut draft = world.bus.draft(Actor::instance(SUBJECT), to.unwrap(), 6).unwrap();
    draft.write(b"traced");
    let envelope = Envelope { verdict, function: next.unwrap_or(0), ..was };
    assert!(taken.answer_with(draft, to.unwrap(), &envelope).is_ok());
}

/// Hands a part of the event on, in its own message.
fn forward(world: &World, taken: Taken<'_>, next: Option<usize>) {
    let was = taken.envelope();
    let part = taken.part(&taken.bytes()[2..]).unwrap();
    let verdict = if next.is_none() { Some(Verdict::Done) } else { None };
    let envelope = Envelope { verdict, function: next.unwrap_or(0), ..was };
    let to = next.map_or(Destination::Out, Destination::Function);
    if let Err(taken) = taken.forward(Payload::Part(part), to, &envelope) {
        world.bus.answer_error(taken, Verdict::Overloaded, "full");
    }
}

/// Serves a call and makes one of its own meanwhile.
fn call_another(world: &World, begin: &dyn Fn()) {
    let actor = Actor::instance(SUBJECT);
    let taken = world.bus.take(actor, F).unwrap();
    let slot = &world.bus.slots()[SUBJECT];
    slot.ready();
    slot.serve(now_ns(), u64::MAX);
    begin();
    let generation = world.generation(SUBJECT);
    let mut draft = world.bus.draft(actor, G, 5).unwrap();
    draft.write(b"inner");
    let envelope = Envelope { reply_to: Address::Instance { slot: SUBJECT, generation }, ..request(INNER, 1) };
    assert!(draft.send(G, &envelope).is_ok());
    let reply = world.bus.wait_for_reply(SUBJECT, generation, now_ns() + 60_000_000_000).expect("a reply");
    assert!(reply.bytes() == b"reply" || reply.bytes() == b"g:inner");
    drop(reply);
    hand_over(world, taken, None);
    slot.finish();
}

pub(crate) fn call_before(world: &Arc<World>) -> Option<Company> {
    assert!(world.post(CALL, 0, Address::Caller));
    None
}

fn call_of_company_before(world: &Arc<World>) -> Option<Company> {
    let company = world.waits_for_reply();
    let generation = world.generation(crate::world::COMPANY);
    assert!(world.post(CALL, 0, Address::Instance { slot: crate::world::COMPANY, generation }));
    Some(company)
}

/// All scenarios but the sweeps.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = sends();
    all.push(sweeps::send_behind_a_lagging_tail());
    all.extend(serves());
    all.extend(waits());
    all.extend(others());
    all
}

pub(crate) fn sends() -> Vec<Scenario> {
    let send = |name| Scenario::new(name, send_a_call);
    vec![
        send("send, empty queue"),
        send("send, an instance waits").before(|world| Some(world.waits_for_call())),
        send("send, full queue").posted(&[(0, CAPACITY)]),
        send("send, one message free").posted(&[(1, 4), (0, 3)]),
        send("send, no message free").posted(&[(1, 4), (0, 4)]),
        Scenario {
            role: Role::Agent,
            ..Scenario::new("the agent posts", |world, begin| {
                begin();
                world.post_unheard(CALL);
            })
        },
    ]
}

pub(crate) fn serves() -> Vec<Scenario> {
    let serve = |name, traced| Scenario::new(name, traced).before(call_before);
    vec![
        serve("serve, answer", |world, begin| serve_one(world, begin, |w, taken| hand_over(w, taken, None))),
        serve("serve, hand over to the next", |world, begin| {
            serve_one(world, begin, |world, taken| hand_over(world, taken, Some(1)));
        }),
        serve("serve, reply to one that waits", |w, begin| serve_one(w, begin, |w, taken| hand_over(w, taken, None)))
            .before(call_of_company_before),
        serve("serve, answer in place", |world, begin| serve_one(world, begin, |w, taken| forward(w, taken, None))),
        serve("serve, forward in place", |w, begin| serve_one(w, begin, |w, taken| forward(w, taken, Some(1)))),
        serve("serve, forward to a full queue", |w, begin| serve_one(w, begin, |w, taken| forward(w, taken, Some(1))))
            .before(|world| {
                (0..CAPACITY).for_each(|_| assert!(world.post_another(1).is_some()));
                call_before(world)
            }),
        serve("serve, error in place", |world, begin| {
            serve_one(world, begin, |w, taken| w.bus.answer_error(taken, Verdict::Failed, "traced"));
        }),
    ]
}

fn waits() -> Vec<Scenario> {
    let wait = |name| Scenario::new(name, |world, begin| serve_one(world, begin, |w, taken| hand_over(w, taken, None)));
    let call = |name| Scenario { wakes: wakes_with_a_reply, ..Scenario::new(name, call_another) };
    vec![
        Scenario { others: Others::Send(1), ..wait("wait for a call") },
        Scenario { others: Others::Send(2), ..wait("wait for a call beside another") }
            .before(|world| Some(world.waits_for_call())),
        Scenario {
            others: Others::Dismiss,
            wakes: wakes_with_a_call_or_for_nothing,
            ..wait("wait for a call, and be dismissed")
        },
        call("call another, reply at once").before(|world| {
            let slot = &world.bus.slots()[SUBJECT];
            slot.serve(now_ns(), u64::MAX);
            world.reply(INNER, SUBJECT, world.generation(SUBJECT));
            call_before(world)
        }),
        call("call another, sleep for the reply").before(call_before),
    ]
}

fn others() -> Vec<Scenario> {
    let reserve = Scenario::new("reserve a slot", |world, begin| {
        begin();
        let _reserved = world.bus.reserve_slot(1);
    });
    let give_back = Scenario::new("give memory back", |world, begin| {
        begin();
        world.bus.give_memory_back();
    });
    vec![
        Scenario { role: Role::Worker, others: Others::Reserve, ..reserve }.before(|world| {
            world.bus.slots()[SUBJECT].release();
            world.bus.slots()[FRESH].release();
            None
        }),
        Scenario { role: Role::Supervisor, others: Others::Traffic(1), ..give_back }.before(|world| {
            let all = || world.bus.draft(Actor::instance(OTHER), Destination::Out, 0);
            let drafts: Vec<_> = std::iter::from_fn(all).collect();
            assert!(drafts.len() > GEOMETRY.messages() / 2);
            None
        }),
    ]
}
