//! Finding the host's Python, and what of the file system it needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// Prints where the interpreter is and what it loads from.
const QUESTION: &str = "import json, os, sys\n\
    print(json.dumps({'version': list(sys.version_info[:2]), 'executable': os.path.realpath(sys.executable), \
    'prefixes': sorted({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})}))";

/// The oldest version that functions may count on.
const OLDEST: (u32, u32) = (3, 9);

/// A Python interpreter of the host.
#[derive(Clone, Debug)]
pub(crate) struct Python {
    /// The interpreter itself, not a link to it.
    pub(crate) executable: PathBuf,
    /// Directories that it loads from, besides the system's own.
    pub(crate) directories: Vec<PathBuf>,
}

/// Why no interpreter can be used.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// It cannot be run.
    #[error("cannot run {}: install Python 3.9 or later, or name another interpreter", command.display())]
    Run {
        /// What was run.
        command: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// It runs, but does not answer as Python does.
    #[error("{} is not a Python that works: {said}", command.display())]
    Answer {
        /// What was run.
        command: PathBuf,
        /// What it printed, or how it ended.
        said: String,
    },
    /// It is too old.
    #[error("{} is Python {major}.{minor}; 3.9 or later is needed", command.display())]
    Old {
        /// What was run.
        command: PathBuf,
        /// Its version.
        major: u32,
        /// Its version.
        minor: u32,
    },
}

#[derive(Deserialize)]
struct Reply {
    version: (u32, u32),
    executable: PathBuf,
    prefixes: Vec<PathBuf>,
}

/// Asks an interpreter (`python3` is looked for in `PATH`).
///
/// # Errors
/// When it cannot be used.
pub(crate) fn find(command: &Path) -> Result<Python, PythonError> {
    let output = Command::new(command)
        .args(["-I", "-S", "-c", QUESTION])
        .output()
        .map_err(|source| PythonError::Run { command: command.to_owned(), source })?;
    let reply: Reply = serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().map_or_else(|| output.status.to_string(), str::to_owned);
        PythonError::Answer { command: command.to_owned(), said }
    })?;
    let (major, minor) = reply.version;
    if (major, minor) < OLDEST {
        return Err(PythonError::Old { command: command.to_owned(), major, minor });
    }
    // The system's own directories are seen by every sandbox anyway.
    let outside = |path: &Path| !path.starts_with("/usr") && path != Path::new("/");
    let mut directories: Vec<PathBuf> = reply.prefixes.into_iter().filter(|prefix| outside(prefix)).collect();
    if let Some(bin) = reply.executable.parent().filter(|bin| outside(bin))
        && !directories.iter().any(|directory| bin.starts_with(directory))
    {
        directories.push(bin.to_owned());
    }
    Ok(Python { executable: reply.executable, directories })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_python_is_found_with_all_it_needs() {
        let python = match find(Path::new("python3")) {
            Ok(python) => python,
            Err(error) => return println!("SKIPPED: {error}"),
        };
        let seen = python.directories.iter().any(|directory| python.executable.starts_with(directory));
        assert!(seen || python.executable.starts_with("/usr"), "{python:?}");
    }

    #[test]
    fn what_is_no_python_is_refused_with_its_name() {
        let error = find(Path::new("/bin/true")).expect_err("true is no interpreter");
        assert!(error.to_string().contains("/bin/true"));
        let error = find(Path::new("/nonexistent")).expect_err("nothing there");
        assert!(error.to_string().contains("install Python"));
    }
}
