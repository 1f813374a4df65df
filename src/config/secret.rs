//! Secrets: where they may come from, and that they are not printed.
//!
//! Enters: variables, files, the login part of a URL. Leaves: a [`Login`]. Must not repeat a secret in a message,
//! nor take one from a flag of its own, where every user of the machine could read it.

use std::fmt;
use std::path::Path;

use super::{ConfigError, conflict, setting};

/// A text that `Debug` leaves out.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one who must be shown it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// Who to be for a server of the Redis protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// `None`: the default user.
    pub user: Option<String>,
    /// `None`: nothing is shown.
    pub password: Option<Secret>,
}

impl Login {
    /// From what stands before the `@` of a URL.
    pub(super) fn parse(text: &str) -> Self {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decoded = |text: &str| {
            let bytes = percent_encoding::percent_decode_str(text);
            Some(bytes.decode_utf8_lossy().into_owned()).filter(|text| !text.is_empty())
        };
        Self {
            user: decoded(user),
            password: decoded(password).map(Secret),
        }
    }

    /// With what was given beside the URL. `flags` are those of the user and of the file with the password.
    pub(super) fn completed(
        self,
        user: Option<String>,
        variable: &str,
        file: Option<&Path>,
        flags: [&str; 2],
    ) -> Result<Self, ConfigError> {
        let given = read(variable, file, flags[1])?;
        if self.user.is_some() && user.is_some() {
            let names = format!("{} and a user name in the URL", flags[0]);
            return Err(conflict(&names, "give one"));
        }
        if let (Some(_), Some((_, name))) = (&self.password, &given) {
            let names = format!("{name} and a password in the URL");
            return Err(conflict(&names, "give one"));
        }
        let given = given.map(|(text, _)| Secret(text));
        // In a URL it may be a password that lacks its colon.
        let shown = user.clone().unwrap_or_else(|| "…".into());
        let login = Self {
            user: self.user.or(user),
            password: self.password.or(given),
        };
        if login.user.is_some() && login.password.is_none() {
            let mend = format!(
                "a user needs a password, as in redis://user:password@host: set {variable}, or give {}",
                flags[1]
            );
            return Err(setting(flags[0], &shown, &mend));
        }
        Ok(login)
    }
}

/// The text of a secret and where it comes from: the variable, else the file; `None` when neither is given. An
/// empty one is refused: a secret that was lost on its way must not open anything.
pub(super) fn read(
    variable: &str,
    file: Option<&Path>,
    flag: &str,
) -> Result<Option<(String, String)>, ConfigError> {
    match (std::env::var_os(variable), file) {
        (Some(text), _) => not_empty(text.to_string_lossy().into_owned(), variable.to_owned()),
        (None, Some(file)) => read_file(file, flag),
        (None, None) => return Ok(None),
    }
    .map(Some)
}

/// As [`read`], from the file alone.
pub(super) fn read_file(file: &Path, flag: &str) -> Result<(String, String), ConfigError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        let mend = format!("{error}; give a file that holds the secret");
        setting(flag, &name, &mend)
    })?;
    not_empty(text.trim_end().to_owned(), name)
}

fn not_empty(text: String, name: String) -> Result<(String, String), ConfigError> {
    if text.is_empty() {
        return Err(setting(&name, "(empty)", "unset it, or give the secret"));
    }
    Ok((text, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: Option<&str>, password: Option<&str>) -> Login {
        Login {
            user: user.map(str::to_owned),
            password: password.map(|text| Secret(text.to_owned())),
        }
    }

    #[test]
    fn the_login_of_a_url_is_decoded() {
        assert_eq!(Login::parse("u:p%40ss"), login(Some("u"), Some("p@ss")));
        assert_eq!(Login::parse(":p"), login(None, Some("p")));
        assert_eq!(Login::parse("u"), login(Some("u"), None));
        assert_eq!(Login::parse(""), Login::default());
    }

    #[test]
    fn a_login_is_whole_and_said_once() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "from the file\n").expect("written");
        let complete = |url: &str, user: Option<&str>, file: Option<&Path>| {
            let user = user.map(str::to_owned);
            Login::parse(url).completed(user, "KVPOC_NOT_SET", file, ["--user", "--file"])
        };
        let file = Some(file.path());
        let found = complete("", Some("u"), file).expect("whole");
        assert_eq!(found, login(Some("u"), Some("from the file")));
        assert_eq!(
            complete("u:p", None, None).expect("whole"),
            login(Some("u"), Some("p"))
        );
        assert_eq!(complete("", None, None).expect("none"), Login::default());
        for (url, user, file) in [
            ("u", None, None),
            ("", Some("u"), None),
            ("u:p", Some("u"), None),
            ("u:p", None, file),
            ("", None, Some(Path::new("/does/not/exist"))),
        ] {
            let error = complete(url, user, file).expect_err(url).to_string();
            assert!(!error.contains("from the file"), "{error}");
        }
    }
}
