//! Text from outside, for a terminal.

use std::borrow::Cow;

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
}
