//! Errors of the system, and one of fred's own, in words for people.
//!
//! Enters: the text of fred's errors, which keeps those of the system only as Rust would print them to a programmer.
//! Leaves: what they say, or the text as it is. Must not lose a text that it does not know.

/// `… Os { code: 111, kind: ConnectionRefused, message: "Connection refused" } …` says `connection refused`.
pub(super) fn plain(details: &str) -> String {
    if details == "Invalid or missing cluster state." {
        return "its cluster_state is not ok, as when nobody has some of the slots".to_owned();
    }
    let said = |open: &str, before: &str| {
        let (start, rest) = details.split_once(open)?;
        let (inside, end) = rest.split_once(" }")?;
        let (_, words) = inside.split_once(before)?;
        let words = words.strip_suffix('"')?;
        let mut letters = words.chars();
        let first = letters.next()?.to_lowercase();
        Some(format!("{start}{first}{}{end}", letters.as_str()))
    };
    said("Os { ", "message: \"")
        .or_else(|| said("Custom { ", "error: \""))
        .unwrap_or_else(|| details.to_owned())
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn the_system_speaks_to_people() {
        for (details, said) in [
            (
                r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#,
                "connection refused",
            ),
            (
                r#"a: Os { code: 2, kind: NotFound, message: "No such file or directory" }, b"#,
                "a: no such file or directory, b",
            ),
            (
                r#"Custom { kind: Uncategorized, error: "failed to lookup address" }"#,
                "failed to lookup address",
            ),
            // Who asks about certificates needs the name of the error.
            (
                "Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }",
                "Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }",
            ),
            (
                "Invalid or missing cluster state.",
                "its cluster_state is not ok, as when nobody has some of the slots",
            ),
            ("Os { ", "Os { "),
            ("ERR unknown", "ERR unknown"),
        ] {
            assert_eq!(plain(details), said);
        }
    }
}
