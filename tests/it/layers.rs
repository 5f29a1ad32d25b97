//! Holds the sources to the layer table in the crate's documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module, its layer, and the modules of the same layer that it may use.
const TABLE: &[(&str, u8, &[&str])] = &[
    ("model", 0, &[]),
    ("protocol", 1, &[]),
    ("ban", 1, &[]),
    ("httpcache", 1, &[]),
    ("event", 1, &[]),
    ("verdict", 2, &[]),
    ("engine", 2, &["verdict"]),
    ("clock", 3, &[]),
    ("net", 3, &["clock"]),
    ("admin", 3, &["net", "clock"]),
    ("probe", 3, &["net", "clock"]),
    ("ingest", 3, &["net", "clock"]),
    ("store", 3, &["net", "clock"]),
    ("expose", 3, &["net", "clock"]),
    ("systemd", 3, &["net", "clock"]),
    ("config", 4, &[]),
    ("daemon", 4, &["config"]),
    ("commands", 5, &[]),
];

/// What the pure layers (0 to 2) must not name: sockets, clocks, files, the environment, logs.
const IMPURE: &[&str] = &[
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::std",
    "Instant",
    "SystemTime",
    "tokio::",
    "hyper::",
    "tracing::",
    "println!",
    "eprintln!",
];

/// The one adapter of a pure layer: the codec is a shell around the parser (design: "a codec is a
/// hundred lines around a pure parser"), and does no I/O of its own.
const CODEC: &str = "tokio_util::codec";

#[test]
fn imports_run_strictly_downwards() {
    let mut faults = Vec::new();
    for (path, module, text) in sources() {
        let Some(&(_, layer, siblings)) = TABLE.iter().find(|(name, ..)| *name == module) else {
            faults.push(format!("{}: module {module} is not in the table", path.display()));
            continue;
        };
        for used in used_modules(&text) {
            if used == module {
                continue;
            }
            let Some(&(_, used_layer, _)) = TABLE.iter().find(|(name, ..)| *name == used) else {
                faults.push(format!("{}: uses crate::{used}, not in the table", path.display()));
                continue;
            };
            let downwards = used_layer < layer || siblings.contains(&used.as_str());
            if !downwards {
                faults.push(format!("{}: {module} must not use {used}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_lower_layers_touch_nothing_outside() {
    let mut faults = Vec::new();
    for (path, module, text) in sources() {
        let pure = TABLE.iter().any(|&(name, layer, _)| name == module && layer <= 2);
        if !pure {
            continue;
        }
        let code = without_tests_and_comments(&text).replace(CODEC, "");
        for word in IMPURE {
            if code.contains(word) {
                faults.push(format!("{}: a pure layer names {word}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_hold_one_idea() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|(_, _, text)| text.lines().count() > 700)
        .map(|(path, ..)| path.display().to_string())
        .collect();
    assert!(long.is_empty(), "over 700 lines: {long:?}");
    let vague = ["utils", "util", "common", "helpers", "helper", "manager", "misc"];
    let named: Vec<_> = sources()
        .into_iter()
        .filter(|(path, ..)| path.file_stem().is_some_and(|s| vague.iter().any(|v| s == *v)))
        .map(|(path, ..)| path.display().to_string())
        .collect();
    assert!(named.is_empty(), "names that say nothing: {named:?}");
}

/// `super::super::` from a module's own file, or further up from a deeper one, leads past the top
/// module to its siblings; `use crate as` gives the root another name.
#[test]
fn nothing_reaches_the_root_by_another_way() {
    let mut faults = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (path, _, text) in sources() {
        let depth = path.strip_prefix(&root).unwrap().components().count();
        if climbs_out(&text, depth) {
            faults.push(path.display().to_string());
        }
    }
    assert!(faults.is_empty(), "say crate:: instead of climbing: {faults:?}");
}

/// Whether the code of a file this deep (1: `src/foo.rs`) reaches the crate's root with `super`.
fn climbs_out(text: &str, depth: usize) -> bool {
    let code: String = without_tests_and_comments(text).split_whitespace().collect();
    code.contains(&"super::".repeat(depth)) || code.contains("usecrateas")
}

#[test]
fn the_reader_of_imports_sees_detours() {
    assert!(climbs_out("use super::commands;", 1));
    assert!(climbs_out("use super:: super::commands;", 2));
    assert!(climbs_out("use crate as root;", 2));
    assert!(!climbs_out("use super::super::Exit;", 3));
    let late = "#[cfg(test)]\nmod simulation;\nuse crate::daemon::Driver;\n\
                #[cfg(test)]\nmod tests { use crate::commands; }";
    assert_eq!(used_modules(late).into_iter().collect::<Vec<_>>(), ["daemon"]);
    assert_eq!(used_modules("use purgewatch::daemon;").len(), 1);
}

/// Every source below `src` but the two roots: its path, its top module, its text.
fn sources() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let relative = path.strip_prefix(&root).unwrap();
                let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
                let module = first.trim_end_matches(".rs").to_owned();
                if module != "lib" && module != "main" {
                    let text = fs::read_to_string(&path).unwrap();
                    found.push((path, module, text));
                }
            }
        }
    }
    assert!(found.len() > 5, "no sources found below {}", root.display());
    found
}

/// The top modules named in `crate::NAME`, also within `crate::{...}`, tests and docs left out.
fn used_modules(text: &str) -> BTreeSet<String> {
    // The root has other names: those must not be a way around the table.
    let code = without_tests_and_comments(text).replace("purgewatch::", "crate::");
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut word, mut wanted) = (1, String::new(), true);
            for c in group.chars() {
                let named = c.is_alphanumeric() || c == '_';
                if depth == 1 && named && wanted {
                    word.push(c);
                } else if !word.is_empty() {
                    used.insert(std::mem::take(&mut word));
                    wanted = false;
                }
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => wanted = true,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            let word: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            used.insert(word);
        }
    }
    used
}

/// The tests at a file's end are left out. A test module of its own file ends nothing: what comes
/// after its declaration is code.
fn without_tests_and_comments(text: &str) -> String {
    let mut code = String::new();
    let mut parts = text.split("#[cfg(test)]");
    code.push_str(parts.next().unwrap());
    for part in parts {
        let (declaration, rest) = part.split_once(['{', ';']).unwrap_or((part, ""));
        let elsewhere = declaration.trim_start().starts_with("mod ")
            && part[declaration.len()..].starts_with(';');
        if !elsewhere {
            break;
        }
        code.push_str(rest);
    }
    code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reader_of_imports_sees_groups() {
    let used = used_modules("use crate::model::Name;\nuse crate::{net::dial, clock::Clock};");
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["clock", "model", "net"]);
}
