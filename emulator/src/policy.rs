//! The policy for logging in as a database user: `rds-db:connect`.

use std::sync::{PoisonError, RwLock};

/// The statements of the policy. A change applies to the next login.
///
/// Without a statement, all credentials may log in as any user.
#[derive(Debug, Default)]
pub(crate) struct Policy(RwLock<Option<Vec<Statement>>>);

#[derive(Debug)]
struct Statement {
    principal: String,
    user: String,
}

impl Policy {
    /// Allows credentials that match `principal`, by access key or ARN, to log in as the users that match
    /// `user`.
    pub(crate) fn allow(&self, principal: String, user: String) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_default()
            .push(Statement { principal, user });
    }

    /// Removes a statement, and returns whether it existed. Without any left, no credentials are allowed.
    pub(crate) fn revoke(&self, principal: &str, user: &str) -> bool {
        let mut policy = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let statements = policy.get_or_insert_default();
        let before = statements.len();
        statements.retain(|statement| statement.principal != principal || statement.user != user);
        before != statements.len()
    }

    pub(crate) fn allows(&self, principals: &[&str], user: &str) -> bool {
        let policy = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(statements) = policy.as_ref() else {
            return true;
        };
        statements.iter().any(|statement| {
            matches(&statement.user, user)
                && principals
                    .iter()
                    .any(|principal| matches(&statement.principal, principal))
        })
    }
}

/// Whether `text` matches an IAM pattern: `*` matches any characters, `?` one.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    // `reached[i]`: the first i characters of the pattern match the text read so far.
    let mut reached = vec![false; pattern.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    skip_stars(&pattern, &mut reached);
    for character in text.chars() {
        let mut next = vec![false; reached.len()];
        for (index, expected) in pattern.iter().enumerate() {
            if !reached.get(index).copied().unwrap_or(false) {
                continue;
            }
            let target = match expected {
                '*' => index,
                '?' => index + 1,
                _ if *expected == character => index + 1,
                _ => continue,
            };
            if let Some(slot) = next.get_mut(target) {
                *slot = true;
            }
        }
        skip_stars(&pattern, &mut next);
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

/// A star also matches nothing.
fn skip_stars(pattern: &[char], reached: &mut [bool]) {
    for (index, expected) in pattern.iter().enumerate() {
        if *expected == '*'
            && reached.get(index) == Some(&true)
            && let Some(slot) = reached.get_mut(index + 1)
        {
            *slot = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_iam() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "app", true),
            ("app", "app", true),
            ("app", "App", false),
            ("app", "apps", false),
            ("app_*", "app_", true),
            ("app_*", "app_reader", true),
            ("a*r", "app_reader", true),
            ("a*d", "app_reader", false),
            ("ap?", "app", true),
            ("ap?", "ap", false),
            ("**a**", "bab", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn without_statements_all_are_allowed_and_after_the_last_is_revoked_none() {
        let policy = Policy::default();
        assert!(policy.allows(&["AKID"], "app"));
        policy.allow("AKID".to_owned(), "app".to_owned());
        assert!(policy.allows(&["AKID"], "app"));
        assert!(!policy.allows(&["AKID"], "other"));
        assert!(!policy.allows(&["OTHER"], "app"));
        assert!(policy.allows(&["OTHER", "AKID"], "app"));
        policy.revoke("AKID", "app");
        assert!(!policy.allows(&["AKID"], "app"));
    }
}
