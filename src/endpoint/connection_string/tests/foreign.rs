//! Tests of strings and parameters of other programs and languages.

use super::*;

/// FAULTS.md row 56: strings that are not libpq's are recognised before any rule of libpq's is applied.
#[test]
fn a_foreign_string_is_named_for_what_it_is() {
    for (input, expected) in [
        ("\"postgres://u:S3cr3t@h/d\"", "in quotes"),
        ("'postgres://u:S3cr3t@h/d'\n", "in quotes"),
        ("“postgres://u:S3cr3t@h/d”", "in quotes"),
        ("`host=h user=S3cr3t`", "in quotes"),
        ("DATABASE_URL=postgres://u:S3cr3t@h/d", "name of a variable"),
        (
            "DATABASE_URL=\"postgresql://u:S3cr3t@h/d\"",
            "name of a variable",
        ),
        (
            "export PG_URL=postgres://u:S3cr3t@h/d",
            "name of a variable",
        ),
        ("url = postgres://u:S3cr3t@h/d", "name of a variable"),
        ("jdbc:postgresql://h:5432/d?user=u&password=S3cr3t", "JDBC"),
        ("jdbc:aws-wrapper:postgresql://h/S3cr3t", "JDBC"),
        ("JDBC:postgresql:S3cr3t", "JDBC"),
        ("postgresql+psycopg2://u:S3cr3t@h/d", "SQLAlchemy"),
        ("postgresql+asyncpg://u:S3cr3t@h/d", "SQLAlchemy"),
        ("postgres+pg8000://u:S3cr3t@h/d", "SQLAlchemy"),
        ("POSTGRES://u:S3cr3t@h/d", "lower case"),
        ("PostgreSQL://u:S3cr3t@h/d", "lower case"),
        ("postgres:u:S3cr3t@h/d", "`//`"),
        ("postgres:/u:S3cr3t@h/d", "`//`"),
        ("mysql://u:S3cr3t@h/d", "another scheme"),
        ("prisma+postgres://u:S3cr3t@h/d?a=b", "another scheme"),
        ("https://h/S3cr3t", "another scheme"),
        ("Host=h;Port=5432;Username=u;Password=S3cr3t", "ADO.NET"),
        ("Server=h;Database=S3cr3t;", "ADO.NET"),
        ("Data Source=h; User Id=u; Password=S3cr3t", "ADO.NET"),
    ] {
        let text = refusal(input).to_string();
        assert!(!text.contains("S3cr3t"), "{input}: {text}");
        assert!(text.contains(expected), "{input}: {text}");
    }
}

/// FAULTS.md row 56.
#[test]
fn white_space_and_a_byte_order_mark_at_the_ends_are_dropped() {
    let url = format!("postgres://u@{HOST}/shop?application_name=web");
    let pairs = format!("user=u host={HOST} dbname=shop application_name=web");
    for (before, after) in [
        ("", "\n"),
        (" ", " "),
        ("\u{feff}", "\r\n"),
        ("\t\n", "\u{a0}"),
    ] {
        for input in [&url, &pairs] {
            let after = if input == &pairs {
                after.trim_end_matches('\u{a0}')
            } else {
                after
            };
            let parsed = parse(&format!("{before}{input}{after}"));
            parsed.check().unwrap();
            assert_eq!(parsed.get("dbname"), Some("shop"), "{before:?}{input}");
            assert_eq!(parsed.get("application_name"), Some("web"));
        }
    }
    // An escaped space belongs to the value.
    let parsed = parse(r"host=h user=u application_name=a\ ");
    assert_eq!(parsed.get("application_name"), Some("a "));
}

/// FAULTS.md row 56.
#[test]
fn values_of_libpq_that_look_foreign_are_accepted() {
    for (input, keyword, value) in [
        (
            "host=h user=u options='-c a=b;c=d'",
            "options",
            "-c a=b;c=d",
        ),
        (
            "host=h user=u application_name=a;b=c",
            "application_name",
            "a;b=c",
        ),
        (
            "dbname=postgres://x host=h user=u",
            "dbname",
            "postgres://x",
        ),
        ("host=h user=jdbc:x", "user", "jdbc:x"),
    ] {
        let parsed = parse(input);
        parsed.check().unwrap();
        assert_eq!(parsed.get(keyword), Some(value), "{input}");
    }
}

/// FAULTS.md row 56.
#[test]
fn a_foreign_parameter_is_named_with_its_equivalent() {
    for (parameter, equivalent) in [
        ("schema=shop", "options=-csearch_path"),
        ("currentSchema=shop", "options=-csearch_path"),
        ("search_path=shop", "options=-csearch_path"),
        ("pgbouncer=true", "leave it out"),
        ("connection_limit=5", "max_size"),
        ("pool_timeout=5", "connection_timeout"),
        ("statement_timeout=5", "options=-cstatement_timeout"),
        ("ssl=require", "sslmode"),
        ("ssl=false", "sslmode"),
        ("ssl=1", "sslmode"),
        ("tls=true", "sslmode"),
        ("sslaccept=strict", "sslmode"),
        ("region=eu-west-1", "iam_region"),
        ("profile=production", "iam_profile"),
        ("tokenDurationSecs=900", "token_lifetime"),
        ("iamRegion=eu-west-1", "iam_region"),
        ("iamHost=h", "iam_host"),
        ("iamDefaultPort=5432", "iam_port"),
        ("iamExpiration=870", "token_lifetime"),
        ("awsProfile=production", "iam_profile"),
        ("wrapperPlugins=iam", "leave it out"),
        ("ApplicationName=web", "application_name"),
        ("Host=h", "write host"),
        ("sslMode=require", "sslmode"),
        ("aplication_name=web", "no parameter of libpq"),
    ] {
        let name = parameter.split('=').next().unwrap();
        for input in [
            format!("postgres://u@{HOST}/d?{parameter}"),
            format!("user=u host={HOST} {parameter}"),
            format!("postgres://u@localhost/d?iam=off&{parameter}"),
        ] {
            let text = refusal(&input).to_string();
            assert!(text.contains(equivalent), "{input}: {text}");
            assert!(text.contains(name), "{input}: {text}");
        }
        // With a password, any name may be a part of it.
        for input in [
            format!("postgres://u:p@{HOST}/d?{parameter}"),
            format!("postgres://u:@{HOST}/d?{parameter}"),
            format!("user=u host={HOST} password=p {parameter}"),
        ] {
            let text = refusal(&input).to_string();
            assert!(text.contains("has a password"), "{input}: {text}");
            assert!(!text.contains(&format!("has {name},")), "{input}: {text}");
        }
    }
    let text = refusal("postgres://u@h/d?S3cr3t=1").to_string();
    assert!(!text.contains("S3cr3t"), "{text}");
}
