//! The statements of the pages of `src/guide`, compared with the code.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use diesel_rds_iam::{IamAuth, Password, PgConnectionManager};

use crate::architecture::rust_files;
use crate::support::database::auth_builder;

fn page(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("src/guide").join(name)).unwrap()
}

/// The string literals of Rust code, with line breaks removed, each with the code before it.
fn literals(code: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(char) = code[at..].chars().next() {
        let (before, rest) = code.split_at(at);
        let to = |ends: char, from: usize| from + rest[from..].find(ends).unwrap() + 1;
        at += match char {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            // A character literal, rather than a lifetime.
            '\'' if rest.starts_with("'\\") => to('\'', 3),
            '\'' if rest.chars().nth(2) == Some('\'') => to('\'', 1),
            'r' if rest.starts_with("r\"") && !before.ends_with(char::is_alphanumeric) => {
                to('"', 2)
            }
            '"' => {
                let mut end = 1;
                while !rest[end..].starts_with('"') {
                    end += usize::from(rest[end..].starts_with('\\'));
                    end += rest[end..].chars().next().unwrap().len_utf8();
                }
                let lines = rest[1..end].split("\\\n").map(str::trim_start);
                found.push((before.trim_end(), lines.collect()));
                end + 1
            }
            _ => char.len_utf8(),
        };
    }
    found
}

/// The text of a message before its first placeholder.
fn fixed_parts(message: &str) -> Vec<String> {
    let what = message.split([';', ':', ',', '(']).next().unwrap();
    let parts = what.split('{').map(|part| {
        let text = part.split_once('}').map_or(part, |(_, text)| text);
        text.trim().to_owned()
    });
    parts.filter(|text| !text.is_empty()).collect()
}

/// Whether a literal is a sentence in the form of errors and log lines. Shorter literals are names and messages of
/// libpq; one that begins with a capital describes a metric.
fn is_message(literal: &str) -> bool {
    let is_sentence = literal.matches(' ').count() >= 5 && !literal.starts_with('#');
    let has_capital = literal.starts_with(|char: char| char.is_ascii_uppercase())
        && literal[1..].starts_with(|char: char| char.is_ascii_lowercase());
    let is_statement = literal.contains(" FROM ") || literal.starts_with("SELECT ");
    is_sentence && !has_capital && !is_statement
}

#[test]
fn every_message_of_the_crate_has_its_row() {
    let page = page("failures.md").replace(['`', '"'], "");
    let mut missing = Vec::new();
    let mut seen = 0;
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in rust_files(&src) {
        let path = path.strip_prefix(&src).unwrap();
        let name = path.to_str().unwrap();
        // The cache's messages appear in its tests only: `auth` has its own for callers.
        if name.starts_with("cache") || name.contains("tests") || name.contains("models") {
            continue;
        }
        let text = fs::read_to_string(src.join(path)).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (before, literal) in literals(code) {
            if !is_message(&literal) || before.ends_with("reason =") || before.ends_with("expect(")
            {
                continue;
            }
            seen += 1;
            let parts = fixed_parts(&literal.replace(":?}", "}").replace(['`', '"'], ""));
            if !parts.iter().all(|part| page.contains(part.as_str())) {
                missing.push(literal);
            }
        }
    }
    assert!(seen > 70, "only {seen} messages were found");
    assert!(
        missing.is_empty(),
        "src/guide/failures.md lacks {missing:#?}"
    );
}

/// The calls of tracing's macros in Rust code: level and message.
fn log_lines(code: &str) -> Vec<(String, String)> {
    let code = code.replace("tracing::field::", "");
    let calls = code.split("tracing::").skip(1).filter_map(|call| {
        let (level, arguments) = call.split_once("!(")?;
        let arguments = arguments.split_once(");")?.0;
        let (_, message) = literals(arguments).pop()?;
        Some((level.to_uppercase(), message))
    });
    calls.collect()
}

#[test]
fn every_line_of_a_production_log_has_its_row() {
    let page = page("failures.md");
    let (_, page) = page.split_once("# Lines in the log").unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `") && !line.contains("| DEBUG |"))
        .map(|line| line.split(" | ").collect())
        .collect();
    let mut seen = 0;
    for path in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (level, message) in log_lines(code) {
            if !["INFO", "WARN", "ERROR"].contains(&level.as_str()) {
                continue;
            }
            seen += 1;
            let begin = format!("`{}", message.split('{').next().unwrap());
            let has_row = rows
                .iter()
                .any(|cells| cells[0].contains(&begin) && cells[1] == level);
            assert!(has_row, "{level} {message} of {}", path.display());
        }
    }
    assert!(seen >= rows.len(), "{seen} lines, {} rows", rows.len());
}

#[test]
fn ip_literals_are_recognised() {
    let code = r##"let a = "one \"two\" \
        three"; // "no"
        let b = ['"', '\'', '\\']; fn c<'d>() {} expect("e"); r"f\";"##;
    let found: Vec<String> = literals(code).into_iter().map(|(_, text)| text).collect();
    assert_eq!(found, [r#"one \"two\" three"#, "e"]);
}

/// The second column of the tables under `heading` of a page, by the first column.
fn table(page: &str, heading: &str) -> HashMap<String, String> {
    let section = page
        .split("\n# ")
        .find(|section| section.starts_with(heading));
    let rows = section.unwrap().lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.next()?.trim_matches('`').to_owned()))
    });
    rows.collect()
}

/// The value of a field in a `Debug` output, written as in the page.
fn shown(debug: &str, field: &str) -> String {
    let (_, value) = debug.split_once(&format!("{field}: ")).unwrap();
    match value.split([',', ' ']).next().unwrap() {
        "None" | "[]" => "none".to_owned(),
        value => value.to_owned(),
    }
}

fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds % 60 == 0 => format!("{}min", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

#[test]
fn the_defaults_are_those_of_the_code() {
    let page = page("defaults.md");
    let nobody = || IamAuth::builder().credentials_fn(|| Err("not in this test".into()));

    let debug = format!("{:?}", IamAuth::builder());
    let rows = table(&page, "Tokens and credentials");
    assert_eq!(rows["profile"], shown(&debug, "profile"));
    assert_eq!(rows["assume_role"], shown(&debug, "roles"));
    assert_eq!(rows["refresh_ahead"], shown(&debug, "refresh_ahead"));
    assert_eq!(rows["refresh_timeout"], shown(&debug, "refresh_timeout"));
    assert_eq!(shown(&debug, "token_lifetime"), "900s");
    assert_eq!(rows["token_lifetime"], span(Duration::from_secs(900)));
    assert_eq!(rows.len(), 5);

    let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
    let builder = PgConnectionManager::builder(url);
    let debug = format!("{builder:?}");
    let rows = table(&page, "Connections");
    for field in ["auth", "password", "connect_timeout"] {
        assert_eq!(rows[field], shown(&debug, field), "{field}");
    }
    assert_eq!(rows["region"], "the host name's");
    assert_eq!(rows["writer"], "off");
    let is_writer = |manager: &PgConnectionManager| {
        let mut parameters = manager.parameters();
        parameters.any(|(keyword, _)| keyword == "target_session_attrs")
    };
    let a_writer = PgConnectionManager::builder(url).writer().build().unwrap();
    assert!(is_writer(&a_writer));
    assert_eq!(rows["require_iam"], "off");
    let with_password = url.replace("app@", "app:password@");
    PgConnectionManager::new(&with_password).unwrap();
    // The tests in `silent_machine.rs` check the values of TCP.
    assert_eq!(rows.len(), 11);

    let manager = builder.auth(nobody().build().unwrap()).build().unwrap();
    assert_eq!(manager.endpoint().unwrap().region(), Some("eu-west-1"));
    assert!(!is_writer(&manager));
    let pool = manager.pool_builder().build_unchecked().unwrap();
    let rows = table(&page, "Pools");
    assert_eq!(rows["max_size"], pool.max_size().to_string());
    assert_eq!(rows["min_idle"], pool.min_idle().unwrap().to_string());
    assert_eq!(
        rows["test_on_check_out"],
        pool.test_on_check_out().to_string()
    );
    assert_eq!(rows["max_lifetime"], span(pool.max_lifetime().unwrap()));
    // Each pool has its own, between 60 and 100 %.
    assert_eq!(rows["idle_timeout"], "10min");
    let idle_timeout = pool.idle_timeout().unwrap().as_secs();
    assert!((360..=600).contains(&idle_timeout), "{idle_timeout}");
    assert_eq!(rows["connection_timeout"], span(pool.connection_timeout()));
    assert_eq!(rows["startup_timeout"], "0s");
    assert_eq!(rows.len(), 7);

    let debug = format!("{:?}", Password::builder(|| Err("not in this test".into())));
    let rows = table(&page, "Passwords");
    for field in ["refresh_ahead", "refresh_timeout"] {
        assert_eq!(rows[field], shown(&debug, field), "{field}");
    }
    assert_eq!(rows.len(), 2);
}

#[cfg(feature = "migrations")]
#[test]
fn the_defaults_of_migrations_are_those_of_the_code() {
    let debug = format!("{:?}", diesel_rds_iam::migrate::Options::new());
    let page = page("defaults.md");
    let rows = table(&page, "Migrations");
    assert_eq!(shown(&debug, "lock_wait"), "300s");
    assert_eq!(rows["lock_wait"], span(Duration::from_secs(300)));
    for field in ["lock_key", "lock_timeout", "statement_timeout"] {
        assert_eq!(rows[field], shown(&debug, field), "{field}");
    }
    assert_eq!(rows.len(), 4);
}

/// The code blocks of a page in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let blocks = page.split(begin.as_str()).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_statements_of_the_setup_make_a_user_who_can_log_in() {
    let emulator = rds_iam_emulator::Emulator::builder().start().unwrap();
    let page = page("setup.md");
    let statements = blocks(&page, "sql");
    assert!(!statements.is_empty());
    for statements in statements {
        emulator.execute(statements).unwrap();
    }
    // The statements create a user, but no database.
    let url = emulator.url_of("app", "postgres");
    let auth = auth_builder(&emulator).build().unwrap();
    let manager = PgConnectionManager::builder(&url).auth(auth);
    manager.build().unwrap().try_connect().unwrap();
}

#[test]
fn the_policies_can_be_read() {
    for (name, action) in [
        ("setup.md", "rds-db:connect"),
        ("aurora_dsql.md", "dsql:DbConnect"),
    ] {
        let page = page(name);
        let policies = blocks(&page, "json");
        assert_eq!(policies.len(), 1);
        let policy: serde_json::Value = serde_json::from_str(policies[0]).unwrap();
        let statement = &policy["Statement"][0];
        assert_eq!(statement["Action"], action);
        assert!(
            statement["Resource"]
                .as_str()
                .unwrap()
                .starts_with("arn:aws:")
        );
    }
}

/// `script/check-recipes` uses the tools for which the recipes are written. This test needs none.
#[test]
fn the_recipes_name_the_same_role_user_and_database() {
    let page = page("deployment.md");
    let role = "arn:aws:iam::123456789012:role/app";
    let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
    PgConnectionManager::new(url).unwrap();

    let tasks = blocks(&page, "json");
    let task: serde_json::Value = serde_json::from_str(tasks[0]).unwrap();
    assert_eq!(task["taskRoleArn"], role);
    let variable = &task["containerDefinitions"][0]["environment"][0];
    assert_eq!(variable["name"], "DATABASE_URL");
    assert_eq!(variable["value"], url);

    let objects = blocks(&page, "yaml")[0];
    assert!(objects.contains(&format!("eks.amazonaws.com/role-arn: {role}\n")));
    assert!(objects.contains(&format!("value: {url}\n")));
    for language in ["hcl", "typescript"] {
        let recipes = blocks(&page, language);
        assert_eq!(recipes.len(), 1, "{language}");
        assert!(recipes[0].contains("eu-west-1"), "{language}");
    }
    assert!(blocks(&page, "hcl")[0].contains(r#"roles = ["rds_iam"]"#));
    // The program of the recipes is the example.
    let example = include_str!("../../examples/web.rs");
    assert!(example.contains(r#".route("/ready", "#) && objects.contains("path: /ready\n"));
}
