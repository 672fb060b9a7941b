//! What the command prints: results to standard output, everything else to standard error.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// A cell of a table that has nothing to show.
pub(crate) const NOTHING: &str = "-";

/// Writes bytes to standard output as they are, and sees them off.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a value to standard output as JSON for people and programs.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Writes a line to standard error.
pub(crate) fn note(text: &str) {
    // If standard error is gone there is nowhere left to say so.
    writeln!(io::stderr(), "{text}").ok();
}

/// Text from a function, fit for a terminal: control characters, by which it could steer the terminal, are shown
/// as escapes.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\t';
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| {
        if steers(c) { c.escape_default().to_string() } else { c.to_string() }
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// As [`visible`], for text of several lines.
pub(crate) fn visible_lines(text: &str) -> String {
    text.lines().map(visible).collect::<Vec<_>>().join("\n")
}

/// A value in JSON, on one line: control characters that JSON would let pass as they are, and a terminal may heed, are escapes too.
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value)?;
    // What is left of them stands within strings.
    let escaped = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Ok(if text.contains(char::is_control) { text.chars().map(escaped).collect() } else { text })
}

/// Rows of cells as text, the first one the columns' titles. Columns are as wide as their widest cell, with two
/// spaces between; columns of numbers are flush right.
pub(crate) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let numeric: [bool; COLUMNS] = std::array::from_fn(|column| {
        let mut cells = rows.iter().skip(1).map(|row| row[column].as_str());
        let is_number = |cell: &str| cell.parse::<f64>().is_ok();
        cells.clone().any(is_number) && cells.all(|cell| cell == NOTHING || is_number(cell))
    });
    let mut text = String::new();
    for row in rows {
        let cells: [String; COLUMNS] = std::array::from_fn(|column| {
            let (cell, width) = (&row[column], widths[column]);
            if numeric[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_steer_a_terminal_is_shown_instead() {
        assert_eq!(visible("plain µ\ttext"), "plain µ\ttext");
        assert_eq!(visible("a\u{1b}[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
    }

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let rows = [["NAME", "CALLS", "NEXT"], ["thermostat", "7", "-"], ["3d", "-", "-"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "NAME        CALLS  NEXT\nthermostat      7  -\n3d              -  -\n");
    }
}
