//! Data flows one way: who may use whom, read off the `use` lines.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Each module of `src`, and the modules that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("sample", &[]),
    ("report", &[]),
    ("sys", &[]),
    ("os", &["sys"]),
    ("config", &["wire"]),
    ("control", &["wire"]),
    ("io", &["sys", "os"]),
    ("stats", &["sample", "report"]),
    ("output", &["report"]),
    (
        "engine",
        &["config", "wire", "io", "os", "sample", "stats", "report"],
    ),
    ("controller", &["control", "engine", "os", "wire"]),
    ("search", &["config", "engine", "report"]),
    (
        "server",
        &["config", "control", "engine", "os", "report", "wire"],
    ),
    (
        "cli",
        &[
            "config",
            "controller",
            "engine",
            "output",
            "report",
            "search",
            "server",
            "wire",
        ],
    ),
    ("main", &["cli"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Modules of the crate that a source file names outside its tests and comments.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\n").next().unwrap_or("");
    let lines = code.lines().filter(|l| !l.trim_start().starts_with("//"));
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or(""),
            None => rest,
        };
        let several = rest.starts_with('{');
        for item in list.split(',').take(if several { usize::MAX } else { 1 }) {
            let name: String = item
                .trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            names.insert(name);
        }
    }
    names
}

#[test]
fn modules_use_only_what_they_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    if fs::read_dir(&src).is_err() {
        // The built tests also run as a user who may not read the sources.
        let skipped = format!("SKIPPED: {} cannot be read\n", src.display());
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        return;
    }
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 15, "the sources were found");
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap();
        let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let rule = MAY_USE.iter().find(|(name, _)| *name == module);
        let (_, may) = rule.unwrap_or_else(|| panic!("{module} has no rule"));
        for name in used(&fs::read_to_string(&file).unwrap()) {
            assert!(
                name == module || may.contains(&name.as_str()),
                "{}: {module} may not use {name}",
                relative.display()
            );
        }
    }
}
