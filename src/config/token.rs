//! The token that a server demands and a client shows.
//!
//! Enters: `KVPOC_TOKEN`, or a file. Leaves: a [`Token`]. Must not print it, nor take it from the command line,
//! where every user of the machine could read it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::{ConfigError, secret, setting};

/// The variable that holds it.
const VARIABLE: &str = "KVPOC_TOKEN";
/// The flag that names a file with it.
const FLAG: &str = "--token-file";
/// Shorter ones can be tried out over a network.
const MIN_BYTES: usize = 8;

/// A secret text of visible ASCII characters. `Debug` leaves it out.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// Reads the variable, else the file; `None` when neither is given. An empty variable is refused: a secret
    /// that was lost on its way must not open the server.
    pub(super) fn read(file: Option<&Path>) -> Result<Option<Self>, ConfigError> {
        let found = secret::read(VARIABLE, file, FLAG)?;
        found.map(Self::of).transpose()
    }

    /// Reads the file alone. The variable may hold the token of one's own server, which is no business of another
    /// one's.
    pub(super) fn read_for_another(file: Option<&Path>) -> Result<Option<Self>, ConfigError> {
        file.map(|file| Self::of(secret::read_file(file, FLAG)?))
            .transpose()
    }

    fn of((text, name): (String, String)) -> Result<Self, ConfigError> {
        Self::parse(&text).ok_or_else(|| {
            let mend = format!("a token has at least {MIN_BYTES} visible ASCII characters");
            setting(&format!("the token of {name}"), "(not shown)", &mend)
        })
    }

    /// A token from its text; `None` when that is no token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        (visible && text.len() >= MIN_BYTES).then(|| Self(text.into()))
    }

    /// Whether `shown` is this token, in a time that does not tell where they differ.
    #[must_use]
    pub fn matches(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }

    /// The header that shows it, name and value.
    #[must_use]
    pub fn header(&self) -> String {
        format!("authorization: Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_itself_alone_and_is_never_printed() {
        let token = Token::parse("correct-horse").expect("a token");
        assert!(token.matches(b"correct-horse"));
        for other in [
            &b""[..],
            b"correct-hors",
            b"correct-horsf",
            b"correct-horse ",
        ] {
            assert!(!token.matches(other));
        }
        assert!(!format!("{token:?}").contains("horse"));
    }

    #[test]
    fn what_could_be_guessed_or_not_be_sent_is_no_token() {
        for text in ["", "short", "with a space", "with\na line", "ümläute-ü"] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }
}
