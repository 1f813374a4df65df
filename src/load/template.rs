//! A text with places that each arrival fills: `/users/{id}`. Pure.
//!
//! Enters: a text as a user wrote it. Leaves: its literal pieces and its places, found once. Must not fill them: what
//! stands in them, and how it is written, is the business of whoever sends the text.

use std::fmt;

/// What an arrival puts into a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The index of its key, of several the first.
    Id,
    /// The indexes of its keys, with commas between them.
    Ids,
    /// Its key, of several the first.
    Key,
    /// Its own number.
    Number,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Id, Self::Ids, Self::Key, Self::Number];

    /// As it is written in a text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "{id}",
            Self::Ids => "{ids}",
            Self::Key => "{key}",
            Self::Number => "{n}",
        }
    }
}

/// A part of a text.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// It stands as it is.
    Text(Vec<u8>),
    /// An arrival fills it.
    Place(Place),
}

/// A text and its places. It may be a secret, or hold one: `Debug` leaves it out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Finds the places of a text. A brace that begins none stands for itself, as those of JSON do.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let (mut pieces, mut literal) = (Vec::new(), Vec::new());
        let mut rest = text;
        while !rest.is_empty() {
            let place = Place::ALL
                .into_iter()
                .find(|place| rest.starts_with(place.name().as_bytes()));
            let Some(place) = place else {
                // All up to the next brace begins no place either.
                let next = memchr::memchr(b'{', &rest[1..]).map_or(rest.len(), |at| at + 1);
                literal.extend_from_slice(&rest[..next]);
                rest = &rest[next..];
                continue;
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Place(place));
            rest = &rest[place.name().len()..];
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Self { pieces }
    }

    /// Its parts, in order; no two texts follow one another.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether an arrival fills this place in it.
    #[must_use]
    pub fn has(&self, place: Place) -> bool {
        self.pieces.contains(&Piece::Place(place))
    }

    /// Its bytes without those of its places.
    pub fn literals(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(&**text),
            Piece::Place(_) => None,
        })
    }

    /// How long it is as it was written.
    #[must_use]
    pub fn written_bytes(&self) -> usize {
        let of = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Place(place) => place.name().len(),
        };
        self.pieces.iter().map(of).sum()
    }
}

/// As it was written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => f.write_str(&String::from_utf8_lossy(text))?,
                Piece::Place(place) => f.write_str(place.name())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} bytes, not shown)", self.written_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_and_all_other_braces_stand_for_themselves() {
        let text = |text: &str| Piece::Text(text.into());
        let place = Piece::Place;
        for (written, expected) in [
            ("", vec![]),
            ("/a?x=1", vec![text("/a?x=1")]),
            ("{id}", vec![place(Place::Id)]),
            (
                "/u/{id}?k={key}",
                vec![
                    text("/u/"),
                    place(Place::Id),
                    text("?k="),
                    place(Place::Key),
                ],
            ),
            (
                r#"{"id":{id},"all":[{ids}]}"#,
                vec![
                    text(r#"{"id":"#),
                    place(Place::Id),
                    text(r#","all":["#),
                    place(Place::Ids),
                    text("]}"),
                ],
            ),
            (
                "{n}{n}{{n}}",
                vec![
                    place(Place::Number),
                    place(Place::Number),
                    text("{"),
                    place(Place::Number),
                    text("}"),
                ],
            ),
            ("{ID}{i{d}", vec![text("{ID}{i{d}")]),
        ] {
            let found = Template::of(written.as_bytes());
            assert!(found.pieces() == expected, "{written}: {found}");
            assert_eq!(found.to_string(), written);
            assert_eq!(found.written_bytes(), written.len());
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let found = Template::of(b"\xff{id}\0");
        let literals: Vec<&[u8]> = found.literals().collect();
        assert_eq!(literals, [&b"\xff"[..], b"\0"]);
        assert!(found.has(Place::Id) && !found.has(Place::Ids));
    }

    #[test]
    fn it_is_not_printed_for_a_programmer() {
        let shown = format!("{:?}", Template::of(b"secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
