use super::*;

fn limits() -> AcceptedLimits {
    AcceptedLimits {
        waiting_max: 4,
        waiting_bytes_max: 100,
        waiting_of_all_max: 6,
        waiting_bytes_of_all_max: 150,
        under_way_max: 2,
        under_way_of_all_max: 3,
        keep: Duration::from_secs(10),
        keep_dead: Duration::from_secs(20),
        kept_max: 2,
        kept_bytes_max: 50,
        ..AcceptedLimits::default()
    }
}

fn ticket(call: u64) -> Ticket {
    Ticket { call: CallId(call), secret: call * 7 }
}

fn enter(index: &mut Index, application: &str, call: u64, bytes: usize, now: Instant) {
    index.reserve(application, bytes).unwrap();
    index.enter(ticket(call), application, None, bytes, now);
}

fn begin(index: &mut Index, now: Instant) -> Vec<u64> {
    let mut begun: Vec<u64> = index.begin(now).into_iter().map(|call| call.0).collect();
    begun.sort_unstable();
    begun
}

#[test]
fn no_more_calls_are_under_way_than_may_be() {
    let (mut index, now) = (Index::new(limits()), Instant::now());
    for call in 1..=4 {
        enter(&mut index, "porch", call, 1, now);
    }
    assert_eq!(begin(&mut index, now), [1, 2]);
    assert_eq!(index.next_begin(), None);
    for call in 5..=6 {
        enter(&mut index, "den", call, 1, now);
    }
    assert_eq!(begin(&mut index, now), [5]);
    assert!(begin(&mut index, now).is_empty());
    index.end(CallId(1), 1, Some(0), 0);
    index.end(CallId(5), 1, Some(0), 0);
    assert_eq!(index.next_begin(), Some(now));
    assert_eq!(begin(&mut index, now), [3, 6]);
}

#[test]
fn applications_take_turns() {
    let limits = AcceptedLimits { under_way_of_all_max: 1, ..limits() };
    let (mut index, now) = (Index::new(limits), Instant::now());
    for (first, application) in [(1, "porch"), (11, "den"), (21, "attic")] {
        for call in first..first + 2 {
            enter(&mut index, application, call, 1, now);
        }
    }
    let mut begun = Vec::new();
    while let [call] = begin(&mut index, now)[..] {
        index.end(CallId(call), 1, Some(0), 0);
        begun.push(call);
    }
    let (first, second) = begun.split_at_mut(3);
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!((&*first, &*second), (&[1, 11, 21][..], &[2, 12, 22][..]));
}

#[test]
fn what_is_more_than_may_wait_is_refused_and_room_comes_back() {
    let (mut index, now) = (Index::new(limits()), Instant::now());
    for call in 1..=4 {
        enter(&mut index, "porch", call, 10, now);
    }
    assert_eq!(index.reserve("porch", 1), Err(NoRoom::Calls(4)));
    assert_eq!(index.reserve("den", 101), Err(NoRoom::Bytes));
    enter(&mut index, "den", 5, 100, now);
    assert_eq!(index.reserve("attic", 11), Err(NoRoom::OfAll));
    index.reserve("attic", 10).unwrap();
    assert_eq!(index.reserve("shed", 0), Err(NoRoom::OfAll));
    index.release("attic", 10);
    begin(&mut index, now);
    index.end(CallId(5), 1, Some(3), 0);
    index.reserve("shed", 100).unwrap();
    index.release("shed", 100);
    for call in 1..=5 {
        assert!(index.forget(CallId(call)).is_some());
    }
    assert!(index.is_empty(), "{index:?}");
}

#[test]
fn a_call_is_made_again_after_its_pause() {
    let (mut index, now) = (Index::new(limits()), Instant::now());
    enter(&mut index, "porch", 1, 1, now);
    assert_eq!(begin(&mut index, now), [1]);
    assert_eq!(index.attempt(CallId(1)), Some(1));
    let later = now + Duration::from_secs(3);
    index.again(CallId(1), 1, later);
    assert_eq!(index.next_begin(), Some(later));
    assert!(begin(&mut index, now).is_empty());
    assert_eq!(begin(&mut index, later), [1]);
    assert_eq!(index.attempt(CallId(1)), Some(2));
}

#[test]
fn one_that_was_given_up_can_be_replayed() {
    let (mut index, now) = (Index::new(limits()), Instant::now());
    enter(&mut index, "porch", 1, 30, now);
    begin(&mut index, now);
    index.end(CallId(1), 3, None, 0);
    let state = |index: &Index| index.find("porch", ticket(1)).unwrap().1;
    assert_eq!(state(&index), AcceptedState::Dead);
    index.reserve("porch", index.bytes(CallId(1))).unwrap();
    index.replay(CallId(1), now);
    assert_eq!(state(&index), AcceptedState::Waiting);
    assert_eq!((begin(&mut index, now), index.attempt(CallId(1))), (vec![1], Some(1)));
    index.forget(CallId(1));
    assert!(index.is_empty(), "{index:?}");
}

#[test]
fn only_who_has_the_ticket_finds_a_call() {
    let (mut index, now) = (Index::new(limits()), Instant::now());
    index.reserve("porch", 0).unwrap();
    index.enter(ticket(1), "porch", Some("average"), 0, now);
    let found = index.find("porch", ticket(1)).unwrap();
    assert_eq!(found.0, AcceptedCall { function: Some("average".to_owned()), ended: false });
    assert!(index.find("den", ticket(1)).is_none());
    assert!(index.find("porch", Ticket { secret: 8, ..ticket(1) }).is_none());
    assert!(index.find("porch", ticket(2)).is_none());
}

#[test]
fn what_has_ended_is_kept_for_its_time_and_the_newest_of_too_many() {
    let (mut index, now) = (Index::new(limits()), Instant::now());
    let ended = |index: &mut Index, call: u64, answer_bytes: Option<usize>, at_s: u64| {
        enter(index, "porch", call, 0, now);
        begin(index, now);
        index.end(CallId(call), 1, answer_bytes, at_s * 1000);
    };
    let expired = |index: &mut Index, at_s: u64| -> Vec<u64> {
        index.expire(at_s * 1000).into_iter().map(|forgotten| forgotten.ticket.call.0).collect()
    };
    ended(&mut index, 1, Some(20), 0);
    ended(&mut index, 2, None, 0);
    assert!(index.keeps());
    assert!(expired(&mut index, 9).is_empty());
    assert_eq!(expired(&mut index, 10), [1]);
    assert!(expired(&mut index, 19).is_empty());
    assert_eq!(expired(&mut index, 20), [2]);
    assert!(!index.keeps());
    // Too many, and too many bytes: the oldest go, and one alone may be larger than all may be.
    for call in 3..=5 {
        ended(&mut index, call, Some(1), 30);
    }
    assert_eq!(expired(&mut index, 30), [3]);
    ended(&mut index, 6, Some(60), 31);
    assert_eq!(expired(&mut index, 31), [4, 5]);
    assert!(index.find("porch", ticket(6)).is_some());
    // A clock that was set back keeps them for longer, and does no harm.
    assert!(expired(&mut index, 0).is_empty());
}

#[test]
fn what_an_earlier_agent_left_is_taken_up() {
    let (mut index, now) = (Index::new(limits()), Instant::now());
    let entry = |call: u64, ended| Entry {
        ticket: ticket(call),
        application: "porch".to_owned(),
        function: None,
        attempts: 1,
        ended,
        bytes: 5,
    };
    // More than may wait now, where the limits were changed: none is lost.
    let mut entries: Vec<Entry> = (1..=6).rev().map(|call| entry(call, None)).collect();
    entries.extend([entry(7, Some((5000, false))), entry(8, Some((5000, true)))]);
    index.load(entries, now);
    assert_eq!(index.reserve("porch", 0), Err(NoRoom::Calls(4)));
    // The first accepted first, though its id be the largest.
    assert_eq!(begin(&mut index, now + Duration::from_secs(1)), [5, 6]);
    assert_eq!(index.attempt(CallId(6)), Some(2));
    let state = |call| index.find("porch", ticket(call)).unwrap().1;
    assert_eq!([state(7), state(8)], [AcceptedState::Done, AcceptedState::Dead]);
    let forgotten = index.forget_application("porch");
    assert_eq!(forgotten.len(), 8);
    assert!(index.is_empty(), "{index:?}");
}

/// Whatever happens in whatever order, nothing is counted that is not there.
#[test]
fn counts_follow_the_calls_through_any_program() {
    use proptest::prelude::*;

    let step = (0_u8..8, 0_u64..12, 0_usize..40);
    proptest!(|(program in prop::collection::vec(step, 0..120))| {
        let (mut index, start) = (Index::new(limits()), Instant::now());
        let mut now_ms = 0;
        for (what, call, bytes) in program {
            let application = ["porch", "den", "attic"][usize::try_from(call % 3).unwrap()];
            let now = start + Duration::from_millis(now_ms);
            let state = index.find(application, ticket(call)).map(|(_, state)| state);
            match (what, state) {
                (0 | 1, None) if index.reserve(application, bytes).is_ok() => {
                    index.enter(ticket(call), application, None, bytes, now);
                }
                (2, _) => now_ms += 1500,
                (3, _) => drop(index.begin(now)),
                (4, Some(AcceptedState::UnderWay)) => index.end(CallId(call), 1, Some(bytes), now_ms),
                (5, Some(AcceptedState::UnderWay)) if bytes > 20 => index.end(CallId(call), 3, None, now_ms),
                (5, Some(AcceptedState::UnderWay)) => index.again(CallId(call), 1, now + Duration::from_secs(1)),
                (6, Some(AcceptedState::Dead)) if index.reserve(application, index.bytes(CallId(call))).is_ok() => {
                    index.replay(CallId(call), now);
                }
                (6, Some(AcceptedState::Waiting | AcceptedState::Done)) => drop(index.forget(CallId(call))),
                (7, _) => drop(index.expire(now_ms)),
                _ => {}
            }
            prop_assert!(index.under_way <= 3 && index.unended.calls <= 6 && index.unended.bytes <= 150);
        }
        for application in ["porch", "den", "attic"] {
            index.forget_application(application);
        }
        prop_assert!(index.is_empty(), "{:?}", index);
    });
}
