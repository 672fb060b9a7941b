//! `sandbar init`: a working application to start from.

use std::path::{Path, PathBuf};

use clap::Args;
use sandbar_runtime::manifest::{Name, Runtime};
use sandbar_runtime::template;

use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  sandbar init porch --runtime python3
  sandbar init . --runtime native --name doorbell";

/// Write a small working application to start from
///
/// Needs no host agent. Nothing that is in the folder is overwritten; the README.md written there says how to go on.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InitArguments {
    /// The folder; made if there is none
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// What its function is written in: native, python3 or executable
    #[arg(long, value_name = "RUNTIME")]
    runtime: Runtime,
    /// The application's name; the folder's name unless given
    #[arg(long, value_name = "NAME", value_parser = Name::new)]
    name: Option<Name>,
}

impl InitArguments {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let name = match self.name {
            Some(name) => name,
            None => folder_name(&self.folder)?,
        };
        let written = template::write(&self.folder, self.runtime, &name)
            .map_err(|source| Failure::Template { folder: self.folder.clone(), source })?;
        output::line(&format!("wrote {name} into {}: {}", self.folder.display(), summary(&written)))
    }
}

/// Files by name, folders for all that is in them.
fn summary(written: &[PathBuf]) -> String {
    let mut names: Vec<String> = Vec::new();
    for path in written {
        let Some(top) = path.iter().next() else {
            continue;
        };
        let folder = if path.iter().nth(1).is_some() { "/" } else { "" };
        let name = format!("{}{folder}", Path::new(top).display());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

/// The folder's own name, which for `.` and the like is found by looking.
fn folder_name(folder: &Path) -> Result<Name, Failure> {
    let whole = folder.canonicalize().or_else(|_| std::path::absolute(folder));
    let name = whole.ok().and_then(|whole| {
        let text = whole.file_name()?.to_str()?;
        Name::new(text).ok()
    });
    name.ok_or_else(|| Failure::Nameless { folder: folder.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_each_folder_once() {
        let written = ["sandbar.toml", "src/main.rs", "vendor/a/b.rs", "vendor/c.rs"];
        let written = written.map(PathBuf::from);
        assert_eq!(summary(&written), "sandbar.toml, src/, vendor/");
    }

    #[test]
    fn an_application_is_named_for_its_folder() {
        let name = folder_name(Path::new("new/porch")).unwrap();
        assert_eq!(name.as_str(), "porch");
        let here = std::env::current_dir().unwrap();
        let here = here.file_name().unwrap().to_str().unwrap();
        assert_eq!(folder_name(Path::new(".")).ok(), Name::new(here).ok());
    }

    #[test]
    fn a_folder_whose_name_will_not_do_needs_one_given() {
        for folder in ["/", "My Porch"] {
            let failure = folder_name(Path::new(folder)).unwrap_err();
            assert!(failure.to_string().contains("--name"), "{failure}");
        }
    }
}
