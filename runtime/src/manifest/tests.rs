use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbar_supervisor::identity::Network;

use super::{Application, FILE_NAME, FunctionLimits, Name, Runtime};

const THERMOSTAT: &str = r#"
name = "thermostat"
entry = "ingest"

[limits]
memory = "64MiB"
processes = 20
cpus = 0.5
payload = "1MiB"

[functions.ingest]
runtime = "python3"
code = "ingest.py"
handler = "take"
timeout = "2s"
next = "average"

[functions.average]
runtime = "native"
code = "./bin//average"
next = ["alarm", "archive"]

[functions.alarm]
runtime = "executable"
code = "alarm.sh"
timeout = "500ms"

[functions.archive]
runtime = "python3"
code = "archive.py"
"#;

/// The problems of a text, one a line.
fn problems(text: &str) -> String {
    match Application::parse(text, FILE_NAME) {
        Ok(application) => panic!("nothing is wrong with {application:?}"),
        Err(error) => error.to_string(),
    }
}

/// A manifest of one function, with more lines at its end, which belong to the function.
fn one(more: &str) -> String {
    format!("name = \"a\"\n[functions.f]\nruntime = \"python3\"\ncode = \"f.py\"\n{more}")
}

#[test]
fn a_whole_manifest_is_read_in_its_order() {
    let application = Application::parse(THERMOSTAT, FILE_NAME).unwrap();
    assert_eq!(application.name.as_str(), "thermostat");
    assert_eq!(application.entry, 0);
    let names: Vec<_> = application.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["ingest", "average", "alarm", "archive"]);
    let [ingest, average, alarm, archive] = application.functions.as_slice() else { panic!() };
    assert_eq!((ingest.runtime, ingest.handler.as_str(), &ingest.next), (Runtime::Python3, "take", &vec![1]));
    assert_eq!((average.runtime, average.handler.as_str(), &average.next), (Runtime::Native, "average", &vec![2, 3]));
    assert_eq!(average.code, PathBuf::from("bin/average"));
    assert_eq!((alarm.runtime, alarm.handler.as_str(), alarm.next.len()), (Runtime::Executable, "", 0));
    assert_eq!((archive.handler.as_str(), archive.timeout), ("handle", Duration::from_secs(10)));
    assert_eq!(application.limits.memory_bytes, 64 << 20);
    assert_eq!(application.limits.processes, 20);
    assert_eq!(application.limits.cpus, 0.5);
    assert_eq!(application.limits.payload_bytes, 1 << 20);
}

#[test]
fn what_is_not_said_has_the_documented_default() {
    let application = Application::parse(&one(""), FILE_NAME).unwrap();
    assert_eq!(application.entry, 0);
    assert_eq!(application.limits.memory_bytes, 128 << 20);
    assert_eq!(application.limits.processes, 64);
    assert_eq!(application.limits.cpus, 1.0);
    assert_eq!(application.limits.payload_bytes, 16 << 20);
    assert_eq!(application.limits.spin, Duration::ZERO);
    assert!(application.calls.is_empty() && application.callers.is_empty() && application.rootfs.is_none());
}

/// A manifest of one function, with more lines before it, which belong to the application.
fn with_top(more: &str) -> String {
    one("").replace("name = \"a\"\n", &format!("name = \"a\"\n{more}\n"))
}

#[test]
fn calls_and_callers_are_other_applications() {
    let text = with_top("calls = [\"/gallery\", \"/gallery/thumbnail\"]\ncallers = [\"thermostat\", \"porch\"]");
    let application = Application::parse(&text, FILE_NAME).unwrap();
    let calls: Vec<_> = application.calls.iter().map(ToString::to_string).collect();
    assert_eq!(calls, ["/gallery", "/gallery/thumbnail"]);
    let callers: Vec<_> = application.callers.iter().map(Name::as_str).collect();
    assert_eq!(callers, ["porch", "thermostat"]);
    let application = Application::parse(&with_top("calls = \"/b\"\ncallers = \"c\""), FILE_NAME).unwrap();
    assert_eq!((application.calls.len(), application.callers.len()), (1, 1), "one alone needs no list");
}

#[test]
fn calls_that_cannot_be_made_are_refused_with_their_place() {
    for (written, part) in [
        ("calls = 64", "sandbar.toml:2:9: `calls` must be a path such as \"/gallery/thumbnail\" or a list of paths"),
        ("calls = [\"gallery\"]", "sandbar.toml:2:10: `gallery` is not the path of a call"),
        ("calls = [\"/b\", \"/B\"]", "sandbar.toml:2:16: in `/B`, `B` is not a name"),
        ("calls = [\"/b\", \"/b/c\", \"/b\"]", "sandbar.toml:2:24: `calls` names `/b` twice"),
        ("calls = [\"/a/g\"]", "`/a/g` is of this application, whose functions call each other by name, such as `g`"),
        ("calls = [\"/a\"]", "`/a` is of this application, whose functions call each other by name, such as `f`"),
        ("callers = 1", "sandbar.toml:2:11: `callers` must be an application's name such as \"thermostat\" or a list"),
        ("callers = [\"/b\"]", "sandbar.toml:2:12: `/b` is not a name"),
        ("callers = [\"b\", \"b\"]", "sandbar.toml:2:17: `callers` names `b` twice"),
        ("callers = [\"a\"]", "`callers` names `a` itself"),
    ] {
        let found = problems(&with_top(written));
        assert!(found.contains(part), "{written}: {found}");
    }
}

#[test]
fn calls_and_callers_are_so_many_at_most() {
    for (field, before, max, part) in
        [("calls", "/", 64, "`calls` names 65 functions"), ("callers", "", 256, "`callers` names 257 applications")]
    {
        let text = |count: usize| {
            let names: Vec<_> = (0..count).map(|n| format!("\"{before}b{n}\"")).collect();
            with_top(&format!("{field} = [{}]", names.join(",")))
        };
        assert!(Application::parse(&text(max), FILE_NAME).is_ok());
        assert!(problems(&text(max + 1)).contains(&format!("{part}; the most is {max}")));
    }
}

#[test]
fn an_instance_may_look_for_a_message_for_a_while() {
    for (written, spin) in
        [("20us", Duration::from_micros(20)), ("1ms", Duration::from_millis(1)), ("0us", Duration::ZERO)]
    {
        let application = Application::parse(&one(&format!("[limits]\nspin = \"{written}\"\n")), FILE_NAME).unwrap();
        assert_eq!(application.limits.spin, spin);
    }
}

#[test]
fn a_small_sandbox_gets_a_small_default_payload() {
    let application = Application::parse(&one("[limits]\nmemory = \"8MiB\"\n"), FILE_NAME).unwrap();
    assert_eq!(application.limits.payload_bytes, 2 << 20);
}

#[test]
fn the_answering_path_alone_counts_for_the_chain_timeout() {
    let application = Application::parse(THERMOSTAT, FILE_NAME).unwrap();
    assert_eq!(application.chain_timeout(0), Duration::from_millis(2_000 + 10_000 + 500));
    assert_eq!(application.chain_timeout(1), Duration::from_millis(10_500));
    assert_eq!(application.chain_timeout(3), Duration::from_secs(10));
    assert_eq!(application.chain_timeout(4), Duration::ZERO);
}

#[test]
fn an_unknown_field_is_refused_with_its_place_and_the_nearest_right_name() {
    let text = one("handlr = \"h\"\n[limits]\nmemmory = \"64MiB\"\n");
    assert_eq!(
        problems(&text),
        "sandbar.toml:5:1: unknown field `handlr`; did you mean `handler`?\n\
         sandbar.toml:7:1: unknown field `memmory`; did you mean `memory`?"
    );
    assert!(problems(&one("[nonsense]\n")).contains(
        "unknown field `nonsense`; known here: name, entry, calls, callers, network, rootfs, access, limits, rest, functions"
    ));
}

#[test]
fn a_function_may_have_limits_of_its_own_within_its_applications() {
    let text = one("[functions.f.limits]\nmemory = \"32MiB\"\nprocesses = 4\ncpus = 0.5\n");
    let limits = Application::parse(&text, FILE_NAME).unwrap().functions[0].limits;
    assert_eq!((limits.memory_bytes, limits.processes, limits.cpus), (Some(32 << 20), Some(4), Some(0.5)));
    assert_eq!(Application::parse(&one(""), FILE_NAME).unwrap().functions[0].limits, FunctionLimits::default());
    let found = problems(&one("[functions.f.limits]\nmemory = \"1GiB\"\nprocesses = 1\ncpus = 2\nqueue = 4\n"));
    for said in [
        "1GiB is out of range: the memory of a function (at most its application's) is from 4MiB to 128MiB",
        "1 is out of range: processes of a function (at most its application's) is from 2 to 64",
        "2 is out of range: cpus of a function (at most its application's) is from 0.01 to 1",
        "unknown field `queue`; known here: memory, processes, cpus",
    ] {
        assert!(found.contains(said), "{found}");
    }
}

#[test]
fn the_network_is_the_hosts_or_none() {
    let parsed = |network: &str| Application::parse(&format!("{network}\n{}", one("")), FILE_NAME).unwrap().network;
    assert_eq!(parsed(""), Network::None);
    assert_eq!(parsed("network = \"none\""), Network::None);
    assert_eq!(parsed("network = \"host\""), Network::Host);
    let found = problems(&format!("network = \"bridge\"\n{}", one("")));
    assert_eq!(found, "sandbar.toml:1:11: network = \"bridge\" is neither \"none\" nor \"host\"");
}

#[test]
fn unknown_functions_and_runtimes_are_refused_with_the_nearest_right_name() {
    let text = THERMOSTAT
        .replace("next = \"average\"", "next = \"avrage\"")
        .replace("entry = \"ingest\"", "entry = \"ingset\"");
    let found = problems(&text);
    assert!(found.contains("entry `ingset` is not a function of this application; did you mean `ingest`?"), "{found}");
    assert!(found.contains("next `avrage` is not a function of this application; did you mean `average`?"), "{found}");
    let found = problems(&one("").replace("python3", "python"));
    assert_eq!(
        found,
        "sandbar.toml:3:11: unknown runtime `python`: it is none of native, python3, executable; did you mean `python3`?"
    );
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = "name = \"A\"\nentry = 3\n[limits]\ncpus = \"much\"\n[functions.f]\nruntime = \"nativ\"\ncode = \"/f\"\ntimeout = \"2\"\n";
    let error = Application::parse(text, FILE_NAME).unwrap_err();
    let lines: Vec<_> = error.problems.iter().map(|problem| problem.place.unwrap().line).collect();
    assert_eq!(lines, [1, 2, 4, 6, 7, 8], "{error}");
}

#[test]
fn wrong_types_are_named() {
    assert!(
        problems(&one("timeout = 2")).contains("`timeout` must be a string such as \"2s\"; this is of type integer")
    );
    assert!(
        problems(&one("next = [1]"))
            .contains("`next` must be a function's name or a list of names; this is of type integer")
    );
    assert!(problems(&one("[limits]\nprocesses = 1.5")).contains("`processes` must be a whole number"));
    assert!(problems(&one("observe = \"no\"")).contains("`observe` must be true or false; this is of type string"));
    assert!(problems("name = \"a\"\nfunctions = 1").contains("`functions` must be a table"));
    assert!(problems("name = \"a\"\nfunctions.f = 1").contains("`functions.f` must be a table"));
}

#[test]
fn what_is_not_toml_is_refused_with_its_place() {
    let found = problems("name = \"a\n[functions.f]\n");
    assert!(found.starts_with("sandbar.toml:1:") && found.contains("not valid TOML"), "{found}");
    assert!(problems("name = \"a\"\nname = \"b\"\n").contains("sandbar.toml:2:1: not valid TOML: duplicate key"));
    assert!(!problems("").is_empty());
}

#[test]
fn what_is_missing_is_named() {
    let found = problems("[functions.f]\n");
    assert!(found.contains("the field `name` is missing"), "{found}");
    assert!(found.contains("sandbar.toml:1:1: function `f` has no `runtime`"), "{found}");
    assert!(found.contains("function `f` has no `code`"));
    assert!(problems("name = \"a\"").contains("there is no function"));
    assert!(problems("name = \"a\"\n[functions]").contains("there is no function"));
    let two = one("[functions.g]\nruntime = \"python3\"\ncode = \"g.py\"\n");
    assert!(problems(&two).contains("the field `entry` is missing"));
}

#[test]
fn a_cycle_is_shown_as_a_path() {
    let text = |next: [&str; 4]| {
        let mut text = "name = \"x\"\nentry = \"a\"\n".to_owned();
        for (name, next) in ["a", "b", "c", "d"].into_iter().zip(next) {
            text += &format!("[functions.{name}]\nruntime = \"python3\"\ncode = \"f.py\"\nnext = {next}\n");
        }
        text
    };
    let loop_at_end = problems(&text(["\"b\"", "\"c\"", "\"b\"", "[]"]));
    assert_eq!(loop_at_end, "sandbar.toml:7:12: `next` leads in a circle: b -> c -> b");
    assert!(problems(&text(["\"a\"", "[]", "[]", "[]"])).contains("circle: a -> a"));
    assert!(problems(&text(["[]", "[\"c\", \"d\"]", "\"d\"", "\"b\""])).contains("circle: b -> c -> d -> b"));
    let diamond = text(["[\"b\", \"c\"]", "\"d\"", "\"d\"", "[]"]);
    assert!(Application::parse(&diamond, FILE_NAME).is_ok(), "two ways to one function are no cycle");
}

#[test]
fn next_has_neither_doubles_nor_more_than_eight() {
    let two = one("next = [\"g\", \"g\"]\n[functions.g]\nruntime = \"python3\"\ncode = \"g.py\"\n")
        .replace("name = \"a\"", "name = \"a\"\nentry = \"f\"");
    assert!(problems(&two).contains("`next` names `g` twice"));
    let many = (0..9).map(|n| format!("\"g{n}\"")).collect::<Vec<_>>().join(",");
    assert!(problems(&one(&format!("next = [{many}]"))).contains("`next` names 9 functions; the most is 8"));
}

#[test]
fn more_than_128_functions_are_refused() {
    let text = |count: usize| {
        let tables = (0..count).map(|n| format!("[functions.f{n}]\nruntime = \"python3\"\ncode = \"f.py\"\n"));
        format!("name = \"a\"\nentry = \"f0\"\n{}", tables.collect::<String>())
    };
    let most = Application::parse(&text(128), FILE_NAME).unwrap();
    assert_eq!(most.limits.processes, 513, "the default leaves room for every worker");
    assert!(problems(&text(129)).contains("129 functions are too many"));
}

#[test]
fn quantities_out_of_range_are_refused_with_the_range() {
    assert!(problems(&one("timeout = \"0ms\"")).contains("0s is out of range: a time-out is from 1ms to 1h"));
    assert!(problems(&one("timeout = \"2h\"")).contains("2h is out of range"));
    for (limit, part) in [
        ("memory = \"1MiB\"", "memory is from 8MiB to 1024GiB"),
        ("memory = \"2048GiB\"", "memory is from 8MiB"),
        ("processes = 2", "is not from 3 (PID 1 of the sandbox, a worker and an instance of each function) to 32768"),
        ("processes = -1", "processes = -1 is not from 3"),
        ("cpus = 0", "cpus is from 0.01 to 1024"),
        ("cpus = nan", "NaN is out of range"),
        ("cpus = inf", "out of range"),
        ("spin = \"1001us\"", "1001us is out of range: spin is from 0s to 1ms"),
        ("spin = 20", "`spin` must be a string such as \"20us\""),
        ("payload = \"1B\"", "is from 1KiB to 64MiB"),
        ("payload = \"65MiB\"", "payload (at most half of the memory) is from 1KiB to 64MiB"),
    ] {
        let found = problems(&one(&format!("[limits]\n{limit}\n")));
        assert!(found.contains(part), "{limit}: {found}");
    }
}

#[test]
fn handlers_are_what_their_runtime_can_call() {
    assert!(problems(&one("handler = \"a b\"")).contains("not the name of a Python function"));
    assert!(problems(&one("handler = \"\"")).contains("not the name of a Python function"));
    assert!(problems(&one("handler = \"h\"").replace("python3", "executable")).contains("has no handler"));
    assert!(problems(&one("handler = \"f\"").replace("python3", "native")).contains("has no `handler`"));
}

#[test]
fn code_stays_in_the_folder() {
    for (code, part) in [
        ("/etc/passwd", "is absolute"),
        ("../f.py", "leads out of the application's folder"),
        ("lib/../../f.py", "leads out"),
        ("", "is not a path"),
        (".", "is the application's folder itself"),
    ] {
        let found = problems(&one("").replace("\"f.py\"", &format!("\"{code}\"")));
        assert!(found.contains(part), "{code}: {found}");
    }
}

/// Writes the application `one` with the code file's content and mode, and loads it.
fn load_with(runtime: Runtime, content: &[u8], mode: u32) -> Result<Application, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE_NAME), one("").replace("python3", runtime.as_str())).unwrap();
    fs::write(dir.path().join("f.py"), content).unwrap();
    fs::set_permissions(dir.path().join("f.py"), fs::Permissions::from_mode(mode)).unwrap();
    Application::load(dir.path()).map_err(|error| error.to_string())
}

#[test]
fn code_must_be_what_its_runtime_can_start() {
    let elf = b"\x7fELF\x02";
    assert!(load_with(Runtime::Python3, b"", 0o644).is_ok());
    assert!(load_with(Runtime::Native, elf, 0o755).is_ok());
    assert!(load_with(Runtime::Executable, elf, 0o700).is_ok());
    assert!(load_with(Runtime::Executable, b"#!/bin/sh\n", 0o755).is_ok());
    for (runtime, content, mode, part) in [
        (Runtime::Python3, &elf[..], 0o755, "not Python source"),
        (Runtime::Native, &elf[..], 0o644, "a program without permission to be run: chmod +x"),
        (Runtime::Native, b"#!/bin/sh\n", 0o755, "is not a program"),
        (Runtime::Executable, b"#!/bin/sh\n", 0o644, "a script without permission to be run: chmod +x"),
        (Runtime::Executable, b"echo hello\n", 0o755, "does not start with `#!`"),
        (Runtime::Executable, b"", 0o755, "cannot be run"),
    ] {
        let found = load_with(runtime, content, mode).unwrap_err();
        assert!(found.starts_with("sandbar.toml:4:8: code `f.py` ") && found.contains(part), "{found}");
    }
}

fn load_error(dir: &Path) -> String {
    Application::load(dir).unwrap_err().to_string()
}

#[test]
fn code_that_is_no_regular_file_of_the_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let code = dir.path().join("f.py");
    fs::write(dir.path().join(FILE_NAME), one("")).unwrap();
    assert!(load_error(dir.path()).contains("code `f.py` does not exist in the application's folder"));
    symlink("/etc/passwd", &code).unwrap();
    assert!(load_error(dir.path()).contains("leads over a symbolic link"));
    fs::remove_file(&code).unwrap();
    fs::create_dir(&code).unwrap();
    assert!(load_error(dir.path()).contains("is not a regular file"));
    fs::remove_dir(&code).unwrap();
    nix::unistd::mkfifo(&code, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(load_error(dir.path()).contains("is not a regular file"));
    fs::write(dir.path().join(FILE_NAME), one("").replace("f.py", "target/f.py")).unwrap();
    assert!(load_error(dir.path()).contains("is in `target/`, which is not deployed"));
}

#[test]
fn a_root_file_system_is_in_the_folder_and_what_it_should_be() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f.py"), "").unwrap();
    fs::create_dir_all(dir.path().join("image/root")).unwrap();
    fs::create_dir(dir.path().join("target")).unwrap();
    symlink("image", dir.path().join("link")).unwrap();
    let write = |rootfs: &str| {
        fs::write(dir.path().join(FILE_NAME), with_top(&format!("rootfs = \"{rootfs}\"\n"))).unwrap();
    };
    for (rootfs, why) in [
        ("images", "does not exist in the application's folder; did you mean `image`?"),
        ("image/rot", "does not exist in the application's folder; did you mean `root`?"),
        ("link/root", "leads over a symbolic link"),
        ("f.py", "is not a directory"),
        ("target", "is in `target/`, which is not deployed"),
        ("oci:image", "cannot be used: cannot read oci-layout of the image: "),
        ("../image", "has a `..`"),
    ] {
        write(rootfs);
        let found = load_error(dir.path());
        assert!(found.contains(&format!("10: rootfs `{rootfs}` {why}")), "{found}");
    }
    for rootfs in ["image/root", "/not/on/this/host", "oci:/not/on/this/host:tag"] {
        write(rootfs);
        assert_eq!(Application::load(dir.path()).unwrap().rootfs.unwrap().to_string(), rootfs);
    }
    assert!(problems(&with_top("rootfs = 1\n")).contains("`rootfs` must be a string such as \"oci:image\""));
    assert!(problems(&with_top("rootsf = \"image\"\n")).contains("did you mean `rootfs`?"));
}

#[test]
fn a_manifest_that_cannot_be_read_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join(FILE_NAME);
    let found = load_error(dir.path());
    assert!(found.starts_with("sandbar.toml: there is no such file in ") && found.contains("sandbar init"), "{found}");
    symlink("/etc/passwd", &manifest).unwrap();
    assert!(load_error(dir.path()).contains("symbolic link"));
    fs::remove_file(&manifest).unwrap();
    nix::unistd::mkfifo(&manifest, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(load_error(dir.path()).contains("not a regular file"));
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, b"a = 1\n\xff\n").unwrap();
    assert!(load_error(dir.path()).contains("line 2 is not UTF-8"));
    fs::write(&manifest, vec![b'#'; 300 * 1024]).unwrap();
    assert!(load_error(dir.path()).contains("is longer than"));
}

#[test]
fn runtimes_are_read_as_they_are_shown() {
    for runtime in Runtime::ALL {
        assert_eq!(runtime.to_string().parse(), Ok(runtime));
    }
}
