//! A working application to start from, as `sandbar init` writes it.
//!
//! The files are part of this program, so that they fit its version. A native application carries the sources of
//! `sandbar-function` and `sandbar-bus` along in `vendor/`, as these crates are tied to the host agent by the layout of
//! the shared memory, and come from no registry.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::manifest::{Name, Runtime};

/// What stands in a template for the application's name.
const NAME: &str = "@NAME@";
/// What stands in a template for the version of Sandbar.
const VERSION: &str = "@VERSION@";

static BUS_SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../bus/src");
static FUNCTION_SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/function/src");

/// Why no application was written.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file that would be written is there already; nothing was written.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file or its directory could not be written; those written before it were removed.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A file of an application, relative to its folder.
struct TemplateFile {
    path: PathBuf,
    content: String,
    mode: u32,
}

/// Writes an application of one function into the folder, which is made if there is none; what else is in it stays.
/// Returns the paths of the files, relative to the folder.
///
/// # Errors
/// A file of the application is there already, or the system refuses.
pub fn write(folder: &Path, runtime: Runtime, name: &Name) -> Result<Vec<PathBuf>, TemplateError> {
    let files = files(runtime, name);
    for file in &files {
        let path = folder.join(&file.path);
        // A link that leads nowhere is there too.
        if path.symlink_metadata().is_ok() {
            return Err(TemplateError::Exists { path });
        }
    }
    let mut written = Vec::new();
    for file in files {
        if let Err(error) = write_file(folder, &file) {
            for path in &written {
                // The error to tell about is the first; a file that stays is told of at the next attempt.
                drop(fs::remove_file(folder.join(path)));
            }
            return Err(error);
        }
        written.push(file.path);
    }
    Ok(written)
}

fn write_file(folder: &Path, file: &TemplateFile) -> Result<(), TemplateError> {
    let path = folder.join(&file.path);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(|source| TemplateError::Write { path: parent.to_owned(), source })?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(file.mode)
        .open(&path)
        .and_then(|mut opened| opened.write_all(file.content.as_bytes()))
        .map_err(|source| TemplateError::Write { path, source })
}

fn files(runtime: Runtime, name: &Name) -> Vec<TemplateFile> {
    match runtime {
        Runtime::Native => native_files(name),
        Runtime::Python3 => vec![
            file(name, "sandbar.toml", include_str!("../templates/python3/sandbar.toml")),
            file(name, "hello.py", include_str!("../templates/python3/hello.py")),
            file(name, "README.md", include_str!("../templates/python3/README.md")),
        ],
        Runtime::Executable => {
            let script = file(name, "hello.sh", include_str!("../templates/executable/hello.sh"));
            vec![
                file(name, "sandbar.toml", include_str!("../templates/executable/sandbar.toml")),
                TemplateFile { mode: 0o755, ..script },
                file(name, "README.md", include_str!("../templates/executable/README.md")),
            ]
        }
    }
}

fn native_files(name: &Name) -> Vec<TemplateFile> {
    let bus_package = include_str!("../templates/native/vendor/sandbar-bus.toml.in");
    let function_package = include_str!("../templates/native/vendor/sandbar-function.toml.in");
    let mut files = vec![
        file(name, "sandbar.toml", include_str!("../templates/native/sandbar.toml")),
        file(name, "Cargo.toml", include_str!("../templates/native/Cargo.toml.in")),
        file(name, "Makefile", include_str!("../templates/native/Makefile")),
        file(name, ".gitignore", include_str!("../templates/native/gitignore.in")),
        file(name, "README.md", include_str!("../templates/native/README.md")),
        file(name, "src/main.rs", include_str!("../templates/native/src/main.rs")),
        file(name, "vendor/sandbar-bus/Cargo.toml", bus_package),
        file(name, "vendor/sandbar-function/Cargo.toml", function_package),
    ];
    add_sources(&BUS_SOURCES, Path::new("vendor/sandbar-bus/src"), &mut files);
    add_sources(&FUNCTION_SOURCES, Path::new("vendor/sandbar-function/src"), &mut files);
    files
}

fn file(name: &Name, path: &str, template: &str) -> TemplateFile {
    TemplateFile {
        path: PathBuf::from(path),
        content: template.replace(NAME, name.as_str()).replace(VERSION, env!("CARGO_PKG_VERSION")),
        mode: 0o644,
    }
}

/// Adds the source files of a directory and of those in it.
fn add_sources(sources: &Dir<'_>, to: &Path, files: &mut Vec<TemplateFile>) {
    for file in sources.files() {
        if let Some(content) = file.contents_utf8() {
            files.push(TemplateFile { path: to.join(file.path()), content: content.to_owned(), mode: 0o644 });
        }
    }
    for directory in sources.dirs() {
        add_sources(directory, to, files);
    }
}

#[cfg(test)]
mod tests;
