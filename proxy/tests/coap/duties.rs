//! What README.md beside this says is shown by tests is shown by tests.

use std::path::Path;

/// Whether a source file has a test of this name.
fn has_test(file: &Path, name: &str) -> bool {
    let source = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let signature = format!("fn {name}(");
    let at = lines.iter().position(|line| line.trim_start_matches("async ").starts_with(&signature));
    at.is_some_and(|at| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        above.into_iter().any(|attribute| matches!(*attribute, "#[test]" | "#[tokio::test]"))
    })
}

#[test]
fn every_duty_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("tests/coap/README.md")).unwrap();
    let (mut duties, mut points) = (0, std::collections::BTreeSet::new());
    for row in table.lines().filter(|line| line.starts_with("| ") && line.contains('.')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [point, duty, tests] = cells[..] else { panic!("three columns: {row}") };
        points.insert(point.parse::<u32>().unwrap());
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test for: {duty}");
        for test in named {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("no file and name: {test}"));
            assert!(has_test(&root.join(file), name), "there is no test {name} in {file}");
        }
        duties += 1;
    }
    assert!(points.into_iter().eq(1..=8) && duties >= 40, "{duties} duties");
}
