//! Data flows one way, and no two files of `src` need each other: both read off the paths that the
//! files name, in `use` lines and elsewhere, in tests as well.

use std::collections::{BTreeMap, BTreeSet};
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
    ("io", &["sys", "os", "report"]),
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
            "os",
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

/// A path of modules from the crate's root: `["wire", "time"]`.
type Module = Vec<String>;

/// Names, `::` and single characters of a source text, without comments and literals.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let named = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match (at(i), at(i + 1)) {
            ('/', '/') => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            ('/', '*') => i = after_comment(&chars, i),
            ('"', _) => i = after_string(&chars, i),
            ('r', '"' | '#') if raw_string(&chars, i) => i = after_raw_string(&chars, i + 1),
            ('b' | 'c', 'r') if raw_string(&chars, i + 1) => i = after_raw_string(&chars, i + 2),
            // A character; else it is a lifetime, whose name does no harm.
            ('\'', '\\') => i += 3 + chars[i + 3..].iter().take_while(|c| **c != '\'').count() + 1,
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (':', ':') => {
                found.push("::".to_owned());
                i += 2;
            }
            (c, _) if named(c) => {
                let name: String = chars[i..].iter().take_while(|c| named(**c)).collect();
                i += name.chars().count();
                found.push(name);
            }
            (c, _) => {
                if !c.is_whitespace() {
                    found.push(c.to_string());
                }
                i += 1;
            }
        }
    }
    found
}

/// Behind the comment at `i`, which may have others inside.
fn after_comment(chars: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i < chars.len() {
        let step = match chars.get(i..i + 2) {
            Some(['/', '*']) => 1,
            Some(['*', '/']) => -1,
            _ => 0,
        };
        depth += step;
        i += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            break;
        }
    }
    i
}

/// Behind the string that begins at `i`.
fn after_string(chars: &[char], mut i: usize) -> usize {
    i += 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Whether the `r` at `i` begins a raw string; `r#type` is a name.
fn raw_string(chars: &[char], i: usize) -> bool {
    let before = i.checked_sub(1).map_or(' ', |i| chars[i]);
    let inside_a_name =
        (before.is_alphanumeric() && before != 'b' && before != 'c') || before == '_';
    let quote = chars[i + 1..].iter().find(|c| **c != '#');
    !inside_a_name && quote == Some(&'"')
}

/// Behind the raw string whose `#` or quote is at `i`.
fn after_raw_string(chars: &[char], i: usize) -> usize {
    let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let begin = i + hashes + 1;
    let inside = chars[begin..].windows(end.len()).position(|w| w == end);
    inside.map_or(chars.len(), |inside| begin + inside + end.len())
}

/// All paths that a file names, as it writes them, each with the module in which it stands: the file's
/// own or one inside of it.
fn paths(text: &str, file: &Module) -> Vec<(Module, Module)> {
    let tokens = tokens(text);
    let token = |i: usize| tokens.get(i).map_or("", String::as_str);
    let mut found = Vec::new();
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut i = 0;
    while i < tokens.len() {
        let here = || {
            file.iter()
                .chain(inner.iter().map(|(name, _)| name))
                .cloned()
                .collect()
        };
        match token(i) {
            "mod" if token(i + 2) == "{" => {
                inner.push((token(i + 1).to_owned(), depth));
                depth += 1;
                i += 3;
            }
            "use" if token(i + 1) != "<" => {
                i += 1;
                let mut named = Vec::new();
                tree(&tokens, &mut i, &Vec::new(), &mut named);
                let here: Module = here();
                found.extend(named.into_iter().map(|path| (here.clone(), path)));
            }
            // Who may see it, not what is used.
            "in" if token(i.wrapping_sub(1)) == "(" => {
                while token(i) != ")" {
                    i += 1;
                }
            }
            _ if token(i + 1) == "::" && (i == 0 || token(i - 1) != "::") => {
                let mut path = vec![token(i).to_owned()];
                i += 1;
                while token(i) == "::" && is_name(token(i + 1)) {
                    path.push(token(i + 1).to_owned());
                    i += 2;
                }
                found.push((here(), path));
            }
            "{" => {
                depth += 1;
                i += 1;
            }
            "}" => {
                depth -= 1;
                if inner.last().is_some_and(|(_, at)| *at == depth) {
                    inner.pop();
                }
                i += 1;
            }
            _ => i += 1,
        }
    }
    found
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The paths of what follows `use`, from `i` on, each behind `before`.
fn tree(tokens: &[String], i: &mut usize, before: &Module, found: &mut Vec<Module>) {
    let mut path = before.clone();
    while let Some(token) = tokens.get(*i) {
        match token.as_str() {
            "{" => {
                *i += 1;
                while tokens.get(*i).is_some_and(|t| t != "}") {
                    tree(tokens, i, &path, found);
                    *i += usize::from(tokens.get(*i).is_some_and(|t| t == ","));
                }
                *i += 1;
                return;
            }
            "," | "}" | ";" => break,
            "as" => *i += 1,
            name if is_name(name) => path.push(name.to_owned()),
            _ => {}
        }
        *i += 1;
    }
    found.push(path);
}

/// The module of `known` that a path written in `here` leads to or into; `None` for another crate's.
fn resolve(path: &[String], here: &Module, known: &BTreeSet<Module>) -> Option<Module> {
    let mut rest = path;
    let mut full = match path.first()?.as_str() {
        "crate" | "twamp_blast" => Vec::new(),
        "self" | "super" => here.clone(),
        child => {
            let inside: Module = here.iter().chain([&child.to_owned()]).cloned().collect();
            return known
                .contains(&inside)
                .then(|| longest(&inside, &path[1..], known))?;
        }
    };
    while let Some((first, others)) = rest.split_first() {
        match first.as_str() {
            "super" => drop(full.pop()),
            "self" | "crate" | "twamp_blast" => {}
            _ => break,
        }
        rest = others;
    }
    longest(&full, rest, known)
}

/// The longest beginning of `full` and `rest` that is a module.
fn longest(full: &Module, rest: &[String], known: &BTreeSet<Module>) -> Option<Module> {
    let all: Module = full.iter().chain(rest).cloned().collect();
    let mut beginnings = (1..=all.len()).rev().map(|n| all[..n].to_vec());
    beginnings.find(|beginning| known.contains(beginning))
}

/// For each module the others that it uses.
fn uses(files: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let known = files.keys().cloned().collect();
    let of = |(file, text): (&Module, &String)| {
        let paths = paths(text, file).into_iter();
        let mut used: BTreeSet<Module> = paths
            .filter_map(|(here, path)| resolve(&path, &here, &known))
            .collect();
        used.remove(file);
        (file.clone(), used)
    };
    files.iter().map(of).collect()
}

/// Whether `from` uses `to`, directly or through others.
fn reaches(uses: &BTreeMap<Module, BTreeSet<Module>>, from: &Module, to: &Module) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        next.extend(uses[module].iter().filter(|used| seen.insert(*used)));
    }
    seen.contains(to)
}

/// Those that use themselves through others.
fn in_rings(uses: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let ring = |module: &&Module| reaches(uses, module, module);
    uses.keys().filter(ring).cloned().collect()
}

/// The texts of `src` by module; `None`, and said, where they cannot be read.
fn read_sources() -> Option<BTreeMap<Module, String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    if fs::read_dir(&src).is_err() {
        // The built tests also run as a user who may not read the sources.
        let skipped = format!("SKIPPED: {} cannot be read\n", src.display());
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        return None;
    }
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 15, "the sources were found");
    let of = |file: PathBuf| {
        let path = file.strip_prefix(&src).unwrap().with_extension("");
        let mut module: Module = path
            .iter()
            .map(|p| p.to_str().unwrap().to_owned())
            .collect();
        module.pop_if(|last| last == "mod");
        (module != ["lib"]).then(|| (module, fs::read_to_string(&file).unwrap()))
    };
    Some(files.into_iter().filter_map(of).collect())
}

#[test]
fn modules_use_only_what_they_may() {
    let Some(files) = read_sources() else { return };
    for (file, used) in uses(&files) {
        let rule = MAY_USE.iter().find(|(name, _)| *name == file[0]);
        let (_, may) = rule.unwrap_or_else(|| panic!("{} has no rule", file[0]));
        for other in used {
            let allowed = file[0] == other[0] || may.contains(&other[0].as_str());
            let may = "may not use";
            assert!(allowed, "{} {may} {}", file.join("/"), other.join("/"));
        }
    }
}

#[test]
fn no_files_need_each_other() {
    let Some(files) = read_sources() else { return };
    let uses = uses(&files);
    let mut found = String::new();
    for module in in_rings(&uses) {
        let inside = uses[&module]
            .iter()
            .filter(|used| reaches(&uses, used, &module));
        let inside: Vec<String> = inside.map(|used| used.join("/")).collect();
        found += &format!("\n  {} uses {}", module.join("/"), inside.join(", "));
    }
    assert!(
        found.is_empty(),
        "files stand in a ring; move what two of them need into one that uses neither:{found}"
    );
}

fn module(path: &str) -> Module {
    path.split("::").map(str::to_owned).collect()
}

/// Which of `a`, `a::b`, `a::c` and `d` the text of `a::b` uses.
#[track_caller]
fn assert_uses(text: &str, expected: &[&str]) {
    let mut files: BTreeMap<Module, String> = ["a", "a::b::x", "a::c", "d"]
        .map(|path| (module(path), String::new()))
        .into();
    files.insert(module("a::b"), text.to_owned());
    let found: Vec<String> = uses(&files)[&module("a::b")]
        .iter()
        .map(|m| m.join("::"))
        .collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn paths_lead_to_modules() {
    assert_uses("use crate::a::c::Name;", &["a::c"]);
    assert_uses("use super::c;", &["a::c"]);
    assert_uses(
        "use super::{Name, c::{self, Other as Third}};",
        &["a", "a::c"],
    );
    assert_uses("pub(in crate::d) use self::x::{One, Two};", &["a::b::x"]);
    assert_uses("use crate::{a::c::Name, d};", &["a::c", "d"]);
    assert_uses("use super::*; use std::d::Name;", &["a"]);
    assert_uses(
        "fn f(n: super::c::Name) { crate::d::g::<u8>(x::h()) }",
        &["a::b::x", "a::c", "d"],
    );
    assert_uses("mod x; pub mod c; pub(in crate::d) fn f() {}", &[]);
}

#[test]
fn modules_inside_of_a_file_are_its_own() {
    assert_uses(
        "mod tests { use super::*; use super::super::c::Name; }",
        &["a::c"],
    );
    assert_uses(
        "mod tests { fn f() { if true {} } use super::Name; } use super::Name;",
        &["a"],
    );
    assert_uses(
        "#[cfg(test)] mod tests {}\nfn f() { crate::d::g() }",
        &["d"],
    );
}

#[test]
fn comments_and_literals_name_nothing() {
    assert_uses("// crate::d::f\n/* crate::d /* */ crate::d */", &[]);
    assert_uses(
        r##"("crate::d \" crate::d", r"\", r#"crate::d::f""#, br"crate::d", '"', '\'', '\u{41}')"##,
        &[],
    );
    assert_uses(
        "fn f<'a>(r#type: &'a str) { crate::d::g('a', '\"') }",
        &["d"],
    );
}

#[test]
fn rings_are_found_however_long_they_are() {
    let uses = [
        ("a", vec!["b"]),
        ("b", vec!["c"]),
        ("c", vec!["a", "d"]),
        ("d", vec![]),
        ("e", vec!["a"]),
    ];
    let uses = uses.map(|(m, used)| (module(m), used.into_iter().map(module).collect()));
    let found = in_rings(&uses.into());
    assert_eq!(found, ["a", "b", "c"].map(module).into());
}
