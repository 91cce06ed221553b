//! The modules of ARCHITECTURE.md, and which may import which.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The layer of each module, from the table in ARCHITECTURE.md.
fn layers() -> HashMap<String, u32> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let layer = cells.next()?.parse().ok()?;
        let module = cells.next()?.trim_matches('`').to_owned();
        Some((module, layer))
    });
    rows.collect()
}

/// The modules of `src`, each with the text of its files without tests.
fn sources() -> Vec<(String, PathBuf, String)> {
    let sources = sources_of(&root().join("src"));
    assert!(sources.len() > 10, "src was not found");
    sources
}

fn sources_of(src: &Path) -> Vec<(String, PathBuf, String)> {
    rust_files(src)
        .into_iter()
        .filter_map(|path| {
            let relative = path.strip_prefix(src).unwrap();
            let names: Vec<&str> = relative.iter().map(|name| name.to_str().unwrap()).collect();
            if names
                .iter()
                .any(|name| matches!(*name, "tests" | "tests.rs" | "models.rs"))
            {
                return None;
            }
            let module = names[0].trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = code.lines().map(|line| line.split("//").next().unwrap());
            Some((module, path.clone(), lines.collect::<Vec<_>>().join("\n")))
        })
        .collect()
}

pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_module_imports_from_rows_above_its_own_only() {
    let layers = layers();
    for (module, path, code) in sources() {
        if module == "lib" {
            continue;
        }
        let own = layers
            .get(&module)
            .unwrap_or_else(|| panic!("{module} has no row"));
        for import in code.split("crate::").skip(1) {
            let other: String = import
                .chars()
                .take_while(|char| char.is_ascii_alphanumeric() || *char == '_')
                .collect();
            if let Some(layer) = layers.get(&other)
                && other != module
            {
                assert!(layer < own, "{} imports {other}", path.display());
            }
        }
    }
}

/// The names in `files` that `code` imports from one of `paths`.
fn imports_from(paths: &[&str], code: &str, files: &[String]) -> BTreeSet<String> {
    let mut imports = BTreeSet::new();
    for path in paths {
        for import in code.split(path).skip(1) {
            let names = match import.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap(),
                None => import
                    .split(|char: char| !is_part_of_name(char))
                    .next()
                    .unwrap(),
            };
            let names = names.split(|char: char| !is_part_of_name(char));
            imports.extend(names.map(str::to_owned).filter(|name| files.contains(name)));
        }
    }
    imports
}

fn is_part_of_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

/// The imports of a folder's files form no cycle, so a reader can read them one after the other.
#[test]
fn files_of_one_folder_do_not_import_each_other_in_a_circle() {
    let mut folders: HashMap<PathBuf, HashMap<String, String>> = HashMap::new();
    // A published package has no other packages beside it.
    let others = ["emulator/src", "cli/src"].map(|folder| root().join(folder));
    let others = others.iter().filter(|folder| folder.exists());
    let others = others.flat_map(|folder| sources_of(folder));
    for (_, path, code) in sources().into_iter().chain(others) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let folder = path.parent().unwrap();
        if name != "mod" && !folder.ends_with("src") {
            let codes = folders.entry(folder.to_owned()).or_default();
            codes.insert(name, code);
        }
    }
    assert!(folders.len() > 5, "src was not found");
    for (folder, codes) in folders {
        let own = format!("crate::{}::", folder.file_name().unwrap().to_str().unwrap());
        assert_no_circle(&folder, &codes, &["super::", &own]);
    }
}

/// The library's modules have layers. Those of the other packages have none, but form no cycle either.
#[test]
fn modules_of_other_packages_do_not_import_each_other_in_a_circle() {
    for folder in ["emulator/src", "cli/src"] {
        let folder = root().join(folder);
        // A published package has no other packages beside it.
        if !folder.exists() {
            continue;
        }
        let mut codes: HashMap<String, String> = HashMap::new();
        for (module, _, code) in sources_of(&folder) {
            if module != "lib" && module != "main" {
                codes.entry(module).or_default().push_str(&code);
            }
        }
        assert!(codes.len() > 5, "{} was not found", folder.display());
        assert_no_circle(&folder, &codes, &["crate::"]);
    }
}

/// Fails if files of `folder`, with the code of each by its name, import each other from `paths` in a circle.
fn assert_no_circle(folder: &Path, codes: &HashMap<String, String>, paths: &[&str]) {
    let files: Vec<String> = codes.keys().cloned().collect();
    let mut left: HashMap<&String, BTreeSet<String>> = codes
        .iter()
        .map(|(name, code)| {
            let mut imports = imports_from(paths, code, &files);
            imports.remove(name);
            (name, imports)
        })
        .collect();
    // Removes the files that import none of the remaining ones.
    while let Some(name) = left
        .iter()
        .find(|(_, imports)| imports.iter().all(|import| !left.contains_key(import)))
        .map(|(name, _)| *name)
    {
        left.remove(name);
    }
    assert!(
        left.is_empty(),
        "a circle in {}: {left:?}",
        folder.display()
    );
}

/// FAULTS.md and the tests name the same rows.
#[test]
fn every_fault_has_its_tests() {
    let table = fs::read_to_string(root().join("FAULTS.md")).unwrap();
    let rows: BTreeSet<u32> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()?.parse().ok())
        .collect();
    let mut named = BTreeSet::new();
    for folder in ["src", "tests"] {
        for path in rust_files(&root().join(folder)) {
            let text = fs::read_to_string(path).unwrap();
            for mention in text.split("FAULTS.md row").skip(1) {
                let numbers = mention
                    .trim_start_matches('s')
                    .split([':', '.', '\n'])
                    .next()
                    .unwrap();
                let words = numbers.split(|char: char| !char.is_ascii_digit());
                named.extend(words.filter_map(|word| word.parse::<u32>().ok()));
            }
        }
    }
    assert_eq!(named, rows);
}

/// The programs that a test may run: those that `script/setup` installs, the shell, and those of Debian's essential
/// packages and of macOS. `ps` is for macOS, which has no /proc.
const PROGRAMS: &[&str] = &[
    "/bin/sh",
    "bash",
    "id",
    "pg_config",
    "ps",
    "psql",
    "script",
    "sh",
    // Debian's util-linux. Tests skip with a reason where it is missing.
    "unshare",
];

#[test]
fn tests_run_no_program_that_a_bare_machine_lacks() {
    let mut seen = 0;
    for folder in [
        "src",
        "tests",
        "examples",
        "emulator/src",
        "emulator/tests",
        "cli/src",
        "cli/tests",
    ] {
        let folder = root().join(folder);
        // A published package has no other packages beside it.
        if !folder.exists() {
            continue;
        }
        for path in rust_files(&folder) {
            let text = fs::read_to_string(&path).unwrap();
            for call in text.split(concat!("Command::", "new(\"")).skip(1) {
                let program = call.split('"').next().unwrap();
                seen += 1;
                assert!(
                    PROGRAMS.contains(&program),
                    "{} runs {program}",
                    path.display()
                );
            }
        }
    }
    assert!(seen > 0, "no program was found");
}

#[test]
fn every_row_has_a_module() {
    let modules: Vec<String> = sources().into_iter().map(|(module, ..)| module).collect();
    for module in layers().keys() {
        assert!(modules.contains(module), "{module} has a row and no code");
    }
}

#[test]
fn some_names_have_one_home() {
    for (name, home) in [
        ("tokio", "runtime.rs"),
        ("aws_sigv4", "sign.rs"),
        ("aws_config", "credentials.rs"),
        ("SystemTime::now", "clock.rs"),
        ("Instant::now", "clock.rs"),
        ("dispatcher", "sdk_trace.rs"),
        ("passfile", "backend/diesel/mod.rs"),
    ] {
        let mut is_at_home = false;
        for (_, path, code) in sources() {
            let is_guest = match name {
                "passfile" => path.starts_with(root().join("src/endpoint")),
                // The crate `postgres` and the AWS SDK are built on it.
                "tokio" => {
                    path.ends_with("src/backend/postgres/deadline_stream.rs")
                        || path.ends_with("src/http_client.rs")
                }
                _ => false,
            };
            if path.ends_with(Path::new("src").join(home)) {
                is_at_home |= code.contains(name);
            } else if !is_guest {
                assert!(!code.contains(name), "{} names {name}", path.display());
            }
        }
        assert!(is_at_home, "{name} is not where it is said to be");
    }
}
