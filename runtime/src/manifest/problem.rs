//! What is wrong with a manifest, where, and what was perhaps meant.

use std::fmt;
use std::ops::Range;

/// The longest misspelt name for which a right one is looked for, in bytes.
const WRITTEN_BYTES_MAX: usize = 64;

/// Why a manifest was refused: every problem that was found, in the file's order, one a line when displayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The problems; at least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a manifest. Displayed as `sandbar.toml:7:1: unknown field …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The manifest's file name.
    pub file: String,
    /// Where in the file; `None` if it is the file as a whole.
    pub place: Option<Place>,
    /// What is wrong, on one line.
    pub text: String,
}

/// A place in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl ManifestError {
    pub(super) fn whole_file(file: &str, text: String) -> Self {
        Self { problems: vec![Problem { file: file.to_owned(), place: None, text }] }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            let line_end = if position == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place { line, column }) => {
                write!(f, "{}:{line}:{column}: {}", self.file, self.text)
            }
            None => write!(f, "{}: {}", self.file, self.text),
        }
    }
}

/// The problems found so far in one text.
pub(super) struct Problems<'t> {
    file: &'t str,
    text: &'t str,
    found: Vec<Problem>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Notes a problem with what stands at the span (in bytes).
    pub(super) fn at(&mut self, span: &Range<usize>, text: impl fmt::Display) {
        let place = Some(place_of(self.text, span.start));
        self.found.push(Problem { file: self.file.to_owned(), place, text: one_line(&text) });
    }

    /// Notes a problem with the file as a whole.
    pub(super) fn whole(&mut self, text: impl fmt::Display) {
        self.found.push(Problem { file: self.file.to_owned(), place: None, text: one_line(&text) });
    }

    pub(super) fn into_error(mut self) -> ManifestError {
        self.found.sort_by_key(|problem| problem.place);
        ManifestError { problems: self.found }
    }
}

/// Values of the manifest are quoted in problems and may hold anything; the TOML parser's own texts have line ends. A
/// terminal must not obey what a file says.
fn one_line(text: &impl fmt::Display) -> String {
    let lines = text.to_string().lines().collect::<Vec<_>>().join(", ");
    lines
        .chars()
        .flat_map(|letter| {
            let escaped = letter.is_control().then(|| letter.escape_default());
            let plain = (!letter.is_control()).then_some(letter);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

fn place_of(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).map_or(0, |line| line.chars().count()) + 1,
    }
}

/// "; did you mean `memory`?", if one of the right names is near enough to what was written to be what was meant, and
/// nothing otherwise.
pub(crate) fn did_you_mean<'n>(written: &str, right: impl IntoIterator<Item = &'n str>) -> String {
    // No name that is right is this long, and to compare costs quadratic time.
    if written.len() > WRITTEN_BYTES_MAX {
        return String::new();
    }
    // A third of the letters wrong is a slip; more is another word.
    let edits_max = |name: &str| (written.len().max(name.len()) / 3).max(1);
    right
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&written.to_lowercase(), name), name))
        .filter(|&(edits, name)| edits <= edits_max(name))
        .min_by_key(|&(edits, _)| edits)
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::{Place, did_you_mean, one_line, place_of};

    #[test]
    fn texts_stay_on_their_line_and_give_a_terminal_no_orders() {
        assert_eq!(one_line(&"a\nb\x1b[2J é"), "a, b\\u{1b}[2J é");
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a\nbé = 1\n";
        assert_eq!(place_of(text, 0), Place { line: 1, column: 1 });
        assert_eq!(place_of(text, text.find('=').unwrap()), Place { line: 2, column: 4 });
        assert_eq!(place_of(text, text.len()), Place { line: 3, column: 1 });
        assert_eq!(place_of(text, 999), Place { line: 3, column: 1 });
    }

    #[test]
    fn only_near_names_are_offered() {
        let right = ["memory", "cpus"];
        assert_eq!(did_you_mean("memmory", right), "; did you mean `memory`?");
        assert_eq!(did_you_mean("CPUS", right), "; did you mean `cpus`?");
        assert_eq!(did_you_mean("pyton", ["python3"]), "; did you mean `python3`?");
        assert_eq!(did_you_mean("disk", right), "");
        assert_eq!(did_you_mean(&"m".repeat(100_000), right), "");
    }
}
