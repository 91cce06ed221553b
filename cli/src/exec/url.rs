//! The connection string as it was given, for the program.

use percent_encoding::percent_decode_str;

/// Whether `given` is a URL, rather than pairs of `keyword=value`.
pub(super) fn is_url(given: &str) -> bool {
    ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| given.starts_with(scheme))
}

/// `url` without the library's parameters, which libpq refuses, and without those of `others`.
/// Everything else stays as it is.
pub(super) fn without_parameters(url: &str, others: &[&str]) -> String {
    let Some((start, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let is_kept = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default();
        let name = percent_decode_str(name).decode_utf8_lossy();
        name != "iam" && !name.starts_with("iam_") && !others.contains(&&*name)
    };
    let kept: Vec<&str> = query.split('&').filter(is_kept).collect();
    match kept.as_slice() {
        [] => start.to_owned(),
        kept => format!("{start}?{}", kept.join("&")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_parameters_are_removed() {
        for (given, expected) in [
            ("postgresql://app@h/db", "postgresql://app@h/db"),
            ("postgresql://app@h/db?", "postgresql://app@h/db?"),
            (
                "postgres://app@h/db?iam_region=eu-west-1",
                "postgres://app@h/db",
            ),
            (
                "postgresql://a%40b@h:1/d%2Fb?sslmode=require&iam_host=x&options=-c%20a%3Db&iam=on",
                "postgresql://a%40b@h:1/d%2Fb?sslmode=require&options=-c%20a%3Db",
            ),
            (
                "postgresql:///db?host=h&i%61m_region=x&user=app",
                "postgresql:///db?host=h&user=app",
            ),
        ] {
            assert!(is_url(given));
            assert_eq!(without_parameters(given, &[]), expected, "{given}");
        }
        let url = "postgresql://app@h/db?sslrootcert=/a&user=iam_x";
        assert_eq!(
            without_parameters(url, &["sslrootcert"]),
            "postgresql://app@h/db?user=iam_x"
        );
        assert!(!is_url("host=h user=app"));
    }
}
