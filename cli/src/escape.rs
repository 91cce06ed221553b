//! Text from outside, for a terminal.

use std::borrow::Cow;

use serde_json::Value;

/// `text` with an escape in place of each character that a terminal interprets or does not show, such
/// as `\u{1b}`, a line break or a mark that reverses the direction of writing.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() * 2);
    for char in text.chars() {
        match is_shown(char) {
            true => shown.push(char),
            false => shown.extend(char.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// The same for each line of `text`.
pub(crate) fn escaped_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(escaped).collect();
    lines.join("\n")
}

/// `value` as JSON in one line, or in several if `pretty`. Characters that a terminal interprets are
/// escaped as JSON has it, so a parser gets them back.
pub(crate) fn json(value: &Value, pretty: bool) -> String {
    let text = match pretty {
        true => format!("{value:#}"),
        false => value.to_string(),
    };
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match is_shown(char) || char == '\n' {
            true => shown.push(char),
            false => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    shown.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    shown
}

fn is_shown(char: char) -> bool {
    // `escape_debug` escapes what cannot be printed. It escapes quotes as well, which can.
    matches!(char, '\'' | '"' | '\\') || char.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_terminal_shows_is_left() {
        for (text, shown) in [
            (
                "a 'b' \"c\" \\ d\u{e9}\u{44f}\u{4e2d}",
                "a 'b' \"c\" \\ d\u{e9}\u{44f}\u{4e2d}",
            ),
            ("\x1b[2Jx\r\n", "\\u{1b}[2Jx\\u{d}\\u{a}"),
            ("\u{9b}31m\u{7f}\u{202e}", "\\u{9b}31m\\u{7f}\\u{202e}"),
        ] {
            assert_eq!(escaped(text), shown);
        }
        assert_eq!(escaped_lines("a\nb\x07"), "a\nb\\u{7}");
    }

    #[test]
    fn json_is_the_same_for_a_parser() {
        let value = serde_json::json!({"a": "\x1b\u{9b}\u{202e}\u{e0001}\n\u{e9}"});
        for pretty in [false, true] {
            let text = json(&value, pretty);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            assert!(
                text.chars().all(|char| is_shown(char) || char == '\n'),
                "{text}"
            );
        }
    }
}
