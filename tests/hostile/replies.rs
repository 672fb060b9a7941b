//! Probes that answer too often, too much, or with what is no answer; and lines that are to pass for another's.

use std::time::Duration;

use crate::battery::{Group, call_within, deploy, event, over, run_group};
use crate::probe::{Probe, Told, python, shell};
use crate::support::host::Host;

const PROBES: &[Probe] = &[
    python("answer-twice").told(Told::Answer("first")),
    python("answer-and-fail").told(Told::Answer("first")),
    python("answer-in-both").told(Told::Answer("both")).times(10),
    python("answer-after-the-end").told(Told::Answer("first")),
    python("answer-too-large").failed("larger than the limit"),
    python("answer-wrong-memory").failed("killed by signal 11"),
    python("answer-no-bytes").failed("TypeError"),
    python("answer-odd-format").told(Told::Any),
    python("error-without-text").failed("python: OnPurpose"),
    python("error-that-cannot-be-told").told(Told::Any),
    python("call-itself").within_ms(1500).told(Told::Any),
    python("fake-logs").told(Told::Answer("logged")),
    shell("shell-late-output").told(Told::Answer("in time")),
    shell("shell-no-output").told(Told::Answer("")),
    shell("shell-bytes").told(Told::Answer("\u{fffd}")),
    shell("shell-closed-output").told(Told::Answer("")),
];

#[test]
fn a_call_has_one_answer_and_it_is_its_own() {
    run_group(&Group { name: "replies", probes: PROBES });
}

/// What could move a terminal's cursor, or end a line early.
fn steers(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
}

#[test]
fn nothing_that_a_function_says_steers_a_terminal_or_passes_for_anothers() {
    let Some(host) = Host::start_alone() else { return };
    let group = Group { name: "replies", probes: PROBES };
    deploy(&host, &group);
    let mut wrong = Vec::new();
    for name in ["error-with-escapes", "fake-logs", "error-as-lines"] {
        let payload = event(&host, &python(name));
        let called = call_within(&host, group.name, "python", payload.as_bytes(), Duration::from_secs(3));
        let over_http = host.http("POST", "/replies/python", None, payload.as_bytes());
        let invoked = host.sandbar(&["invoke", "replies/python", &payload]);
        for (where_to, text) in
            [("the answer", called.diagnostic), ("HTTP", over_http.text()), ("the command", invoked.stderr.clone())]
        {
            if steers(&text) || text.trim_end().lines().count() > 1 {
                wrong.push(format!("{name}: {where_to} says {text:?}"));
            }
        }
    }
    host.logged("replies/python", "the last line");
    for arguments in [&["logs", "replies"][..], &["logs", "replies", "--json"], &["list"]] {
        let said = host.sandbar(arguments).well().text();
        if steers(&said) {
            wrong.push(format!("sandbar {arguments:?} steers the terminal"));
        }
        if said.lines().any(|line| line.contains("forged") && !line.contains("python")) {
            wrong.push(format!("sandbar {arguments:?} shows a line as another's: {said}"));
        }
    }
    let of_echo = host.sandbar(&["logs", "replies/echo"]).well().text();
    if of_echo.contains("forged") {
        wrong.push(format!("the log of echo has {of_echo:?}"));
    }
    if steers(&host.agent_log()) || host.agent_log().contains("forged") {
        wrong.push(format!("the agent's own log has {:?}", host.agent_log()));
    }
    over(3, wrong.len().min(3));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
