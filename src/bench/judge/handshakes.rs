//! How long it took to agree on the keys of connections with TLS. Pure.
//!
//! Enters: single handshakes. Leaves: their number, their mean and the longest. Must not count any to an arrival: a
//! connection is made before there is something to send, or counts as connection wait.

/// TLS handshakes, each from the TCP connection to the first moment at which a request could be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Handshakes {
    /// How many there were.
    pub count: u64,
    /// Those of them that went on with an earlier session, which takes less of both sides.
    pub resumed: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// The longest.
    pub max_us: u64,
}

impl Handshakes {
    /// One of them.
    #[must_use]
    pub fn one(took_us: u64, is_resumed: bool) -> Self {
        Self {
            count: 1,
            resumed: u64::from(is_resumed),
            mean_us: took_us as f64,
            max_us: took_us,
        }
    }

    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        let count = self.count.saturating_add(others.count);
        let sum = |one: &Self| one.mean_us * one.count as f64;
        self.mean_us = (sum(self) + sum(others)) / count.max(1) as f64;
        self.count = count;
        self.resumed = self.resumed.saturating_add(others.resumed);
        self.max_us = self.max_us.max(others.max_us);
    }

    /// `None` when there were none: nothing is known of their time.
    #[must_use]
    pub fn if_any(self) -> Option<Self> {
        (self.count > 0).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_add_up_to_their_mean_and_the_longest() {
        let mut all = Handshakes::default();
        assert_eq!(all.if_any(), None);
        for (took_us, is_resumed) in [(1_000, false), (500, true), (3_000, false)] {
            all.add(&Handshakes::one(took_us, is_resumed));
        }
        let expected = Handshakes {
            count: 3,
            resumed: 1,
            mean_us: 1_500.0,
            max_us: 3_000,
        };
        assert_eq!(all.if_any(), Some(expected));
        all.add(&expected);
        assert_eq!((all.count, all.mean_us), (6, 1_500.0));
    }
}
