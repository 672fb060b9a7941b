//! Calls from one application into another, and what a sandbox that scribbles over its messages does to others.

use std::time::{Duration, Instant};

use sandbar_runtime::Outcome;

use crate::under_test::{Host, start, start_with};

const CALLER: &str = r#"
import json

def ask(event, context):
    path, _, text = event.decode().partition(" ")
    try:
        return context.call(path, text, content_format=0)
    except context.CallError as error:
        return f"{error.code}: {error}"

def tell(event, context):
    path, _, text = event.decode().partition(" ")
    context.send(path, text)
    return "told"

def shout(event, context):
    for _ in range(20):
        context.send("/called/slow", b"x")
    return "told"
"#;

const CALLED: &str = r#"
import time

def upper(event, context):
    return event.upper()

def slow(event, context):
    time.sleep(20)
    return b"late"

def fails(event, context):
    raise ValueError("not today")

def circle(event, context):
    return context.call("/caller/ask", b"/called/circle " + event)
"#;

fn function(name: &str, code: &str, timeout: &str) -> String {
    format!(
        "[functions.{name}]\nruntime = \"python3\"\ncode = \"{code}.py\"\nhandler = \"{name}\"\ntimeout = \"{timeout}\"\n"
    )
}

/// An application "caller" that may call all of "called", which names it among its callers, and "closed", which does not.
async fn both(host: &Host) {
    let calls = ["/called", "/called/slow", "/called/fails", "/called/circle", "/closed", "/none"];
    let calls = calls.map(|path| format!("\"{path}\"")).join(", ");
    let manifest = format!(
        "name = \"caller\"\nentry = \"ask\"\ncalls = [{calls}]\ncallers = [\"called\"]\n[limits]\ncalls = 12\n{}{}{}",
        function("ask", "code", "5s"),
        function("tell", "code", "30s"),
        function("shout", "code", "30s")
    );
    host.deploy("caller", &[("sandbar.toml", &manifest), ("code.py", CALLER)]).await;
    let functions = ["upper", "slow", "fails", "circle"].map(|name| function(name, "code", "30s")).join("");
    for (name, top) in [("called", "callers = [\"caller\"]\ncalls = [\"/caller/ask\"]"), ("closed", "")] {
        let manifest = format!("name = \"{name}\"\nentry = \"upper\"\n{top}\n{functions}");
        host.deploy(name, &[("sandbar.toml", &manifest), ("code.py", CALLED)]).await;
    }
}

async fn says(host: &Host, target: &str, event: &str) -> String {
    let answer = host.call(target, event.as_bytes()).await;
    assert_eq!(answer.outcome, Outcome::Done, "{event}: {}", answer.diagnostic);
    String::from_utf8(answer.payload.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_calls_another_application_where_both_manifests_allow_it() {
    let Some(host) = start("between").await else { return };
    both(&host).await;
    assert_eq!(says(&host, "caller", "/called hello").await, "HELLO");
    // What goes wrong is an error of the call, and says where.
    let failed = says(&host, "caller", "/called/fails x").await;
    assert!(failed.starts_with("2: fails: ValueError: not today"), "{failed}");
    let not_listed = says(&host, "caller", "/called/upper x").await;
    assert!(not_listed.starts_with("-6: ") && not_listed.contains("under `calls`"), "{not_listed}");
    let not_named = says(&host, "caller", "/closed x").await;
    assert!(not_named.starts_with("9: ") && not_named.contains("callers = [\"caller\"]"), "{not_named}");
    let missing = says(&host, "caller", "/none x").await;
    assert!(missing.starts_with("8: "), "{missing}");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_into_another_application_ends_with_the_callers_deadline() {
    let Some(host) = start("between-late").await else { return };
    both(&host).await;
    let began = Instant::now();
    let answer = host.call("caller", b"/called/slow x").await;
    // Less than the called function takes.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // Either the inner call is told first, or the deadline of the outer one ends it.
    let text = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(answer.outcome == Outcome::DeadlinePassed || text.starts_with("4: ") || text.starts_with("-5: "), "{text}");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_a_circle_of_applications_come_to_an_end() {
    let Some(host) = start("between-circle").await else { return };
    both(&host).await;
    let end = says(&host, "caller", "/called/circle x").await;
    assert!(end.contains("went round through applications") || end.contains("deadline"), "{end}");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_another_application_runs_on_its_own() {
    let Some(host) = start("between-send").await else { return };
    both(&host).await;
    assert_eq!(says(&host, "caller/tell", "/called hello").await, "told");
    assert_eq!(says(&host, "caller/tell", "/called/fails x").await, "told");
    host.log_says("caller", "/called (call ").await;
    host.log_says("caller", "failed: fails: ValueError: not today").await;
    host.end().await;
}

/// An application has no more calls to others under way than from outside, and these leave other applications alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_into_other_applications_is_refused_beyond_the_callers_own_limit() {
    let Some(host) = start_with("between-flood", |config| config.calls_assured = 4).await else { return };
    both(&host).await;
    assert_eq!(says(&host, "caller/shout", "").await, "told");
    host.log_says("caller", "overloaded: the application has 12 calls to others under way").await;
    assert_eq!(says(&host, "closed", "through").await, "THROUGH");
    let refused = says(&host, "caller", "/called/slow x").await;
    assert!(refused.starts_with("5: the application has 12 calls to others under way"), "{refused}");
    host.end().await;
}

/// A function writes all over its own application's segment: that application is made again, and answers again; the agent and
/// another application do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_scribbled_segment_ends_in_that_applications_restart() {
    let Some(host) = start("scribble").await else { return };
    both(&host).await;
    let code = r#"
import ctypes

def scribble(event, context):
    # What every instance holds anyway: the segment, inherited.
    for line in open("/proc/self/maps"):
        if "sandbar-bus" in line:
            start, end = (int(at, 16) for at in line.split()[0].split("-"))
            break
    length = min(end - start, 256 * 1024)
    ctypes.memset(start + 4096, 0xFF, length - 4096)
    return b"never"

def fine(event, context):
    return b"fine"
"#;
    let manifest = format!(
        "name = \"vandal\"\nentry = \"scribble\"\n{}{}",
        function("scribble", "code", "2s"),
        function("fine", "code", "2s")
    );
    host.deploy("vandal", &[("sandbar.toml", &manifest), ("code.py", code)]).await;
    assert_eq!(says(&host, "vandal/fine", "").await, "fine");
    let answer = host.call("vandal", b"").await;
    assert_ne!(answer.outcome, Outcome::Done, "{answer:?}");
    assert_eq!(says(&host, "called", "still here").await, "STILL HERE");
    let began = Instant::now();
    loop {
        let again = host.call("vandal/fine", b"").await;
        if again.outcome == Outcome::Done {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{}", again.diagnostic);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    host.log_says("vandal", "the sandbox was made again").await;
    assert_eq!(says(&host, "called", "still here").await, "STILL HERE");
    host.end().await;
}
