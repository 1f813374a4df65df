//! Text of others in messages of this program. Pure.
//!
//! Enters: a message, or a part of one that a client or a store has chosen. Leaves: its beginning and its end. Must not let
//! an answer grow with what it tells about: refusals have no part of what may be held.

use std::borrow::Cow;

/// What of others' text is said: who sent it knows the rest.
const MAX_TEXT_BYTES: usize = 200;
/// Longer than any message of this program with such text in it.
const MAX_MESSAGE_BYTES: usize = 1_000;

/// Text that somebody else has chosen.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    cut(text, MAX_TEXT_BYTES)
}

/// A whole message, whatever has come into it.
pub(super) fn message(message: String) -> String {
    match cut(&message, MAX_MESSAGE_BYTES) {
        Cow::Borrowed(_) => message,
        Cow::Owned(cut) => cut,
    }
}

/// Keeps the end too: there a reader of JSON says what it expected, and where.
fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return text.into();
    }
    let end = max / 3;
    let before = text.floor_char_boundary(max - end);
    let after = text.ceil_char_boundary(text.len() - end);
    format!("{}…{}", &text[..before], &text[after..]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_keeps_its_ends_between_whole_characters() {
        let all = "a".repeat(MAX_TEXT_BYTES);
        assert_eq!(text(&all), all);
        for (one, count) in [("a", 1_000), ("é", 1_001), ("\u{200b}", 999), ("😀", 777)] {
            for before in ["", "x", "xy"] {
                let long = format!("{before}{}!", one.repeat(count));
                let short = text(&long);
                assert!(short.len() <= MAX_TEXT_BYTES + "…".len(), "{short}");
                assert!(short.len() > MAX_TEXT_BYTES - 8, "{short}");
                assert!(short.starts_with(before) && short.ends_with('!'), "{short}");
            }
        }
        assert_eq!(message("b".repeat(1_000)), "b".repeat(1_000));
        assert!(message("b".repeat(1_001)).contains('…'));
    }
}
