use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{TemplateError, write};
use crate::manifest::{Application, Name, Runtime};

fn written(runtime: Runtime) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), runtime, &Name::new("porch").unwrap()).unwrap();
    for file in files {
        let content = fs::read_to_string(dir.path().join(&file)).unwrap();
        assert!(!content.contains("@NAME@") && !content.contains("@VERSION@"), "{}", file.display());
    }
    dir
}

/// What a command prints when it is given the input.
fn output(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn scripts_can_be_deployed_as_they_are() {
    for runtime in [Runtime::Python3, Runtime::Executable] {
        let dir = written(runtime);
        let application = Application::load(dir.path()).unwrap();
        assert_eq!(application.name.as_str(), "porch");
        assert_eq!((application.functions.len(), application.functions[0].runtime), (1, runtime));
    }
}

#[test]
fn the_script_greets() {
    let dir = written(Runtime::Executable);
    let script = dir.path().join("hello.sh");
    assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o111, 0o111);
    assert_eq!(output(Command::new(&script).env("SANDBAR_CALL", "1"), "Ada"), "hello, Ada\n");
    assert_eq!(output(Command::new(&script).env("SANDBAR_CALL", "1"), ""), "hello, world\n");
}

#[test]
fn the_python_function_greets() {
    let dir = written(Runtime::Python3);
    let program = "import hello, sys
class Context:
    def log(self, text): pass
    def set_content_format(self, number): assert number == 0
print(hello.handle(sys.stdin.buffer.read(), Context()), end='')";
    let python = || {
        let mut command = Command::new("python3");
        command.args(["-B", "-c", program]).current_dir(dir.path());
        command
    };
    assert_eq!(output(&mut python(), "Ada"), "hello, Ada\n");
    assert_eq!(output(&mut python(), ""), "hello, world\n");
}

#[test]
fn the_native_application_builds_away_from_this_workspace() {
    let dir = written(Runtime::Native);
    let missing = Application::load(dir.path()).unwrap_err().to_string();
    assert!(missing.contains("`bin/hello` does not exist"), "{missing}");
    // Offline: the one crate that it needs is in cargo's cache, as this workspace needs it too.
    let made = Command::new("make")
        .current_dir(dir.path())
        .envs([("CARGO_NET_OFFLINE", "true"), ("CARGO_TARGET_DIR", "target")])
        .output();
    let Ok(made) = made else {
        eprintln!("SKIPPED: there is no make here");
        return;
    };
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let application = Application::load(dir.path()).unwrap();
    assert_eq!(application.functions[0].code, Path::new("bin/hello"));
}

#[test]
fn an_existing_file_is_not_overwritten_and_nothing_else_is_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes"), "mine").unwrap();
    fs::write(dir.path().join("README.md"), "mine").unwrap();
    let name = Name::new("porch").unwrap();
    let error = write(dir.path(), Runtime::Python3, &name).unwrap_err();
    assert!(matches!(&error, TemplateError::Exists { path } if path.ends_with("README.md")), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    fs::remove_file(dir.path().join("README.md")).unwrap();
    write(dir.path(), Runtime::Python3, &name).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("notes")).unwrap(), "mine");
}

#[test]
fn a_folder_that_is_not_there_is_made_and_one_that_cannot_be_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let name = Name::new("porch").unwrap();
    write(&dir.path().join("new/porch"), Runtime::Executable, &name).unwrap();
    assert!(dir.path().join("new/porch/hello.sh").is_file());
    fs::write(dir.path().join("file"), "").unwrap();
    let error = write(&dir.path().join("file/porch"), Runtime::Executable, &name).unwrap_err();
    assert!(matches!(error, TemplateError::Write { .. }), "{error}");
}
