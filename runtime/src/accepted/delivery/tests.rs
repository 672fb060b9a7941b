use std::task::Poll;

use super::*;
use crate::accepted::AcceptedLimits;
use crate::call::{Mode, Request, Ticket};
use crate::host::HostConfig;

async fn accepted(limits: AcceptedLimits) -> (tempfile::TempDir, Arc<Accepted>, Arc<HostBus>) {
    let directory = tempfile::tempdir().unwrap();
    let bus = Arc::new(HostBus::new(&HostConfig::new(directory.path()), 1 << 16));
    let path = directory.path().join("calls.db");
    let accepted = Accepted::open(path, limits, Arc::clone(&bus.outputs)).await.unwrap();
    (directory, accepted, bus)
}

fn answer(outcome: Outcome) -> Answer {
    Answer::refused(outcome, "so it is")
}

#[tokio::test]
async fn failures_are_tried_again_after_longer_and_longer_pauses_and_then_given_up() {
    let limits = AcceptedLimits { attempts_max: 4, pause: Duration::from_secs(2), ..AcceptedLimits::default() };
    let (_directory, accepted, _) = accepted(limits).await;
    let verdict = |outcome, attempts| accepted.verdict(&answer(outcome), false, attempts);
    for (attempts, pause_s) in [(1, 2), (2, 8), (3, 32)] {
        for outcome in [Outcome::Failed, Outcome::DeadlinePassed] {
            assert_eq!(verdict(outcome, attempts), Verdict::Again(Duration::from_secs(pause_s), true));
        }
    }
    for attempts in [4, 5] {
        assert_eq!(verdict(Outcome::Failed, attempts), Verdict::Ended);
    }
    for outcome in [Outcome::Done, Outcome::NotFound, Outcome::TooLarge, Outcome::NotAllowed, Outcome::BadRequest] {
        assert_eq!(verdict(outcome, 1), Verdict::Ended);
    }
}

#[tokio::test]
async fn what_was_never_begun_counts_as_no_attempt() {
    let (_directory, accepted, _) = accepted(AcceptedLimits::default()).await;
    let overloaded = Answer { retry_after: Some(Duration::from_secs(9)), ..answer(Outcome::Overloaded) };
    assert_eq!(accepted.verdict(&overloaded, false, 99), Verdict::Again(Duration::from_secs(9), false));
    let at_once = Answer { retry_after: Some(Duration::ZERO), ..answer(Outcome::Overloaded) };
    assert_eq!(accepted.verdict(&at_once, false, 1), Verdict::Again(OVERLOADED_PAUSE_MIN, false));
    assert_eq!(accepted.verdict(&answer(Outcome::NotFound), true, 99), Verdict::Again(ABSENT_PAUSE, false));
}

#[tokio::test]
async fn pauses_do_not_grow_beyond_bounds() {
    let limits = AcceptedLimits { attempts_max: u32::MAX, ..AcceptedLimits::default() };
    let (_directory, accepted, _) = accepted(limits).await;
    for attempts in [20, u32::MAX - 1] {
        assert_eq!(accepted.verdict(&answer(Outcome::Failed), false, attempts), Verdict::Again(PAUSE_MAX, true));
    }
}

/// Puts a call there whose application is not.
async fn put(accepted: &Accepted) -> Ticket {
    let ticket = Ticket { call: CallId(7), secret: 8 };
    let request = Request { application: "porch".to_owned(), mode: Mode::Asynchronous, ..Request::default() };
    accepted.index().reserve("porch", 0).unwrap();
    accepted.store.run(move |database| record::insert(database, ticket, &request, 1)).await.unwrap();
    accepted.index().enter(ticket, "porch", None, 0, Instant::now());
    ticket
}

#[tokio::test]
async fn a_call_whose_task_ends_early_waits_again_and_keeps_no_place() {
    let (_directory, accepted, bus) = accepted(AcceptedLimits::default()).await;
    let ticket = put(&accepted).await;
    let call = accepted.index().begin(Instant::now())[0];
    assert!(accepted.index().is_under_way(call));
    let mut make = Box::pin(Arc::clone(&accepted).make(bus, call));
    // Polled once, it waits for its request. A time-out, even of zero, may let it be polled again, and come to its end.
    assert!(std::future::poll_fn(|context| Poll::Ready(make.as_mut().poll(context))).await.is_pending());
    drop(make);
    assert!(!accepted.index().is_under_way(call));
    assert_eq!(accepted.index().attempt(call), Some(1));
    assert!(!accepted.find("porch", ticket).unwrap().ended);
}

/// As when an application could not be started with the host: its calls are not given up, and stop no others.
#[tokio::test]
async fn calls_of_an_application_that_is_not_there_wait_for_it() {
    let (directory, accepted, bus) = accepted(AcceptedLimits::default()).await;
    let ticket = put(&accepted).await;
    accepted.deliver(&bus);
    let told = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let listed = accepted.list(None).await.unwrap();
            if listed[0].outcome.is_some() {
                return listed;
            }
            tokio::task::yield_now().await;
        }
    });
    let listed = told.await.expect("an attempt is written down");
    assert_eq!((listed[0].outcome, listed[0].attempts), (Some(Outcome::NotFound), 0));
    assert!(!accepted.find("porch", ticket).unwrap().ended);
    accepted.stop().await;
    // The next agent has it.
    let again =
        Accepted::open(directory.path().join("calls.db"), AcceptedLimits::default(), Arc::default()).await.unwrap();
    assert!(again.find("porch", ticket).is_some());
    again.stop().await;
}
