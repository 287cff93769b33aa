//! SEMANTICS.md promises tests: every row names some, and all of them exist.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

/// The last cells of the table's rows, with the first ones to name them.
fn rows(document: &str) -> Vec<(String, Vec<String>)> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().into()).collect()
    };
    let rows = document.lines().filter(|line| line.starts_with("| ")).map(cells);
    let names = |cell: &String| cell.split(", ").map(Into::into).collect();
    rows.filter(|cells| cells[0] != "call")
        .map(|cells| (cells[0].clone(), cells.get(3).map_or(Vec::new(), names)))
        .collect()
}

/// `FILE::name` is a test of dfs/tests; `MODULE::tests::name` one of dfs/src; `posix::name` a check of tests/posix; others are a
/// test or a suite by its path.
fn exists(test: &str) -> bool {
    let has = |path: String, what: String| text(&path).is_some_and(|text| text.contains(&what));
    match test.split("::").collect::<Vec<_>>()[..] {
        ["model"] => text("tests/model/tests/dfs.rs").is_some(),
        ["posix", name] => has("tests/posix/checks.py".into(), format!("@check\ndef {name}():")),
        [file, name] => has(format!("dfs/tests/{file}.rs"), format!("#[test]\nfn {name}()")),
        [module, "tests", name] => {
            has(format!("dfs/src/{module}.rs"), format!("#[test]\n    fn {name}()"))
        }
        [path] => path.contains('/') && root().join(path).exists(),
        _ => false,
    }
}

#[test]
fn every_row_has_tests_and_they_exist() {
    let document = text("dfs/SEMANTICS.md").unwrap();
    let rows = rows(&document);
    assert!(rows.len() > 40, "only {} rows", rows.len());
    for (call, tests) in &rows {
        assert!(tests.iter().any(|test| !test.is_empty()), "the row `{call}` has no test");
        for test in tests {
            assert!(exists(test), "the row `{call}` names a test that does not exist: `{test}`");
        }
    }
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    for test in ["", "acl::nothing", "nothing::nothing", "posix::nothing", "tests/nothing", "acl"] {
        assert!(!exists(test), "{test}");
    }
    assert!(exists("semantics::a_name_that_does_not_exist_is_found"));
}
