//! Applications that are refused: `check` and `deploy` say the line and the reason, and nothing is deployed.

use crate::support::bundle;
use crate::support::host::Host;

const MANIFEST: &str = r#"name = "porch"
entry = "first"

[limits]
memory = "64MiB"

[functions.first]
runtime = "python3"
code = "functions.py"
next = "second"

[functions.second]
runtime = "executable"
code = "second.sh"
"#;

/// A change of the manifest, and what is said of it.
const WRONG: [(&str, &str, &str); 12] = [
    ("next = \"second\"", "nxet = \"second\"", "sandbar.toml:10:1: unknown field `nxet`; did you mean `next`?"),
    ("memory", "memmory", "sandbar.toml:5:1: unknown field `memmory`; did you mean `memory`?"),
    ("\"64MiB\"", "64", "sandbar.toml:5:10: `memory` must be"),
    ("next = \"second\"", "timeout = 2", "sandbar.toml:10:11: `timeout` must be a string such as \"2s\""),
    ("code = \"second.sh\"", "code = \"missing.sh\"", "sandbar.toml:14:8: "),
    ("code = \"second.sh\"", "code = \"../second.sh\"", "sandbar.toml:14:8: "),
    (
        "code = \"second.sh\"",
        "code = \"second.sh\"\nnext = \"first\"",
        "`next` leads in a circle: first -> second -> first",
    ),
    ("next = \"second\"", "next = \"secnd\"", "sandbar.toml:10:8: next `secnd` is not a function"),
    ("name = \"porch\"", "name = \"The Porch\"", "sandbar.toml:1:8: "),
    ("[functions.first]", "[functions.First]", "sandbar.toml:7:"),
    ("entry = \"first\"", "entry = \"third\"", "sandbar.toml:2:9: entry `third` is not a function"),
    ("runtime = \"executable\"", "runtime = \"cobol\"", "sandbar.toml:13:11: unknown runtime `cobol`"),
];

#[test]
fn a_wrong_manifest_is_told_with_its_line_and_reason_and_nothing_is_deployed() {
    let Some(host) = Host::start() else { return };
    let folder = host.folder().join("porch");
    let path = folder.to_str().unwrap();
    let files =
        [("functions.py", "def handle(event, context):\n    return event\n"), ("second.sh", "#!/bin/sh\ncat\n")];
    bundle::write(&folder, &files);
    let mut texts: Vec<(String, &str)> = Vec::new();
    for (right, wrong, said) in WRONG {
        assert!(MANIFEST.contains(right), "{right}");
        texts.push((MANIFEST.replace(right, wrong), said));
    }
    texts.push((MANIFEST.replace("[limits]", "[limits"), "sandbar.toml:4:"));
    texts.push((String::new(), "name"));
    for (text, said) in texts {
        bundle::write(&folder, &[("sandbar.toml", &text)]);
        for command in ["check", "deploy"] {
            let refused = host.sandbar(&[command, path]);
            assert_eq!(refused.code, Some(1), "{command}: {}{}", refused.text(), refused.stderr);
            assert!(refused.stderr.contains(said), "{command} says not {said:?} but:\n{}", refused.stderr);
        }
        assert!(host.applications().is_empty(), "{text}");
    }
    bundle::write(&folder, &[("sandbar.toml", MANIFEST)]);
    let checked = host.sandbar(&["check", path]).well().text();
    assert!(checked.starts_with("porch: calls start at first\n"), "{checked}");
    host.deploy(&folder);
    assert_eq!(host.call("porch", b"letter").done(), "letter");
}

#[test]
fn a_folder_that_is_no_application_is_refused() {
    let Some(host) = Host::start() else { return };
    let empty = host.folder().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for (path, said) in [(empty.to_str().unwrap(), "sandbar.toml"), ("/nonexistent", "/nonexistent")] {
        for command in ["check", "deploy"] {
            let refused = host.sandbar(&[command, path]);
            assert_eq!(refused.code, Some(1), "{command} {path}: {}", refused.stderr);
            assert!(refused.stderr.contains(said), "{command} {path}: {}", refused.stderr);
        }
    }
    let staged: Vec<_> = std::fs::read_dir(host.state().join("applications")).unwrap().collect();
    assert!(staged.is_empty(), "{staged:?}");
}

#[test]
fn code_that_does_not_load_is_told_and_not_deployed() {
    let Some(host) = Host::start() else { return };
    let folder = host.folder().join("porch");
    let manifest = bundle::python_manifest("porch", &["handle"]);
    for (code, said) in [
        ("import nothing_of_this_name\n", "nothing_of_this_name"),
        ("def handle(event, context)\n", "SyntaxError"),
        ("def other(event, context):\n    return b''\n", "handle"),
        ("import os\nos._exit(3)\n", "the worker exited with status 3"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=[9]).start()\ndef handle(e, c): pass\n",
            "threads",
        ),
    ] {
        bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", code)]);
        let refused = host.sandbar(&["deploy", folder.to_str().unwrap()]);
        assert_eq!(refused.code, Some(1), "{code}: {}", refused.stderr);
        assert!(
            refused.stderr.contains("function handle") && refused.stderr.contains(said),
            "{code}: {}",
            refused.stderr
        );
        assert!(host.applications().is_empty());
    }
}
