//! What a hostile process can do to the memory itself: not shrink it, which would end the agent by SIGBUS; and make holes, which
//! read as zeros.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use sandbar_bus::layout::PAGE_BYTES;
use sandbar_bus::{Actor, Destination, Envelope, Payload, Verdict};

use crate::GEOMETRY;
use crate::application::{Application, F, deaf, request};
use crate::chart::Chart;
use crate::mapping::{Mapping, punch, seal};
use crate::process::{End, Process};

/// One answer with a payload of the largest size, of ones, on its way out.
fn with_an_answer() -> Application {
    let application = Application::new(GEOMETRY, 0, &deaf());
    let len = GEOMETRY.payload_bytes_max;
    let mut draft = application.bus.draft(Actor::instance(0), Destination::Out, len).unwrap();
    draft.write(&vec![1; len]);
    let done = Envelope { verdict: Some(Verdict::Done), ..request(1, F) };
    draft.send(Destination::Out, &done).unwrap();
    application
}

#[test]
fn a_process_of_the_sandbox_can_neither_resize_nor_seal_the_segment() {
    let application = with_an_answer();
    let mut hostile = Process::fork(|| {
        let segment = &application.segment;
        let name = format!("/proc/self/fd/{}", segment.as_raw_fd());
        let again = OpenOptions::new().read(true).write(true).open(&name).unwrap();
        let len = segment.metadata().unwrap().len();
        for file in [segment, &again] {
            for to in [0, 1, PAGE_BYTES as u64, len - 1, len + 1, 2 * len] {
                assert!(file.set_len(to).is_err(), "it was made {to} bytes long");
            }
            assert!(!seal(file, libc::F_SEAL_WRITE), "sealed against writes");
            assert!(!seal(file, libc::F_SEAL_FUTURE_WRITE), "sealed against mappings to come");
        }
        assert!(OpenOptions::new().write(true).truncate(true).open(&name).is_err(), "it was truncated");
    });
    assert_eq!(hostile.wait(), End::Exit(0));
    let answer = application.agent.take().unwrap().unwrap();
    assert_eq!(answer.payload, vec![1; GEOMETRY.payload_bytes_max]);
}

#[test]
fn where_a_hole_is_made_the_agent_reads_zeros() {
    let payloads = Chart::of(GEOMETRY).payloads;
    for by_descriptor in [false, true] {
        for from in [payloads, 0] {
            let application = with_an_answer();
            let len = application.bus.layout().len;
            let mut hostile = Process::fork(|| {
                let made = match by_descriptor {
                    true => punch(&application.segment, from, len - from),
                    false => Mapping::of(&application.segment).remove(from, len - from),
                };
                assert!(made, "{}", std::io::Error::last_os_error());
            });
            assert_eq!(hostile.wait(), End::Exit(0));
            let taken = application.agent.take().unwrap().map(|received| received.payload);
            // Without the control part there is no answer any more; with it, there is one of zeros.
            let expected = (from == payloads).then(|| vec![0; GEOMETRY.payload_bytes_max]);
            assert!(taken == expected, "by descriptor: {by_descriptor}, from {from}");
            // What is all zeros is a segment that was just made.
            assert_eq!(application.agent.post(b"again", &request(2, F)), Ok(()));
        }
    }
}

#[test]
fn holes_made_again_and_again_do_not_end_the_agent() {
    let application = Application::new(GEOMETRY, 0, &deaf());
    let len = application.bus.layout().len;
    let mut hostile = Process::fork(|| {
        let mapping = Mapping::of(&application.segment);
        for from in (0..len).step_by(PAGE_BYTES).cycle() {
            assert!(mapping.remove(from, (len - from).min(16 * PAGE_BYTES)));
            assert!(punch(&application.segment, 0, len));
        }
    });
    let payload = vec![1; GEOMETRY.payload_bytes_max];
    let (mut posted, mut taken, mut rounds) = (0, 0, 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        posted += u64::from(application.agent.post(&payload, &request(rounds, F)).is_ok());
        if let Some(event) = application.bus.take(Actor::instance(0), Destination::Function(F)) {
            let _sent = event.forward(Payload::Unchanged, Destination::Out, &request(rounds, F));
        }
        taken += u64::from(application.agent.take().is_ok_and(|received| received.is_some()));
        rounds += 1;
    }
    assert_eq!(hostile.kill(), End::Signal(libc::SIGKILL), "the hostile process ended by itself");
    let _told = writeln!(std::io::stdout(), "hostile: {rounds} rounds beside holes, {posted} posted, {taken} taken");
    assert!(rounds > 0 && posted > 0);
}
