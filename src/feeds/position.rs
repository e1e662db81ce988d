//! How far a reader has got: the id of an event, which a reader gives back as `Last-Event-ID`.
//!
//! A connection may carry the events of several masters, and there is one id for all of them: so it
//! names the last event of each, as `INCARNATION:NUMBER` with commas between. Pure.

use std::fmt;
use std::sync::Arc;

use crate::base::limits::FEED_POSITIONS_MAX;

/// An event among all that one master has had since its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which run of which master: sixteen hexadecimal digits.
    pub incarnation: Arc<str>,
    /// The event's number, or that of the last one before.
    pub number: u64,
}

/// The last event of each master. Limit: [`FEED_POSITIONS_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(Vec<Position>);

impl Positions {
    /// Reads an id; `None` if it is none of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let one = |text: &str| {
            let (incarnation, number) = text.split_once(':')?;
            let is_hex = incarnation.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
            let number = number.parse().ok().filter(|_| is_plain)?;
            (is_hex && incarnation.len() == 16)
                .then(|| Position { incarnation: incarnation.into(), number })
        };
        let all = text.split(',').take(FEED_POSITIONS_MAX + 1).map(one);
        let all = all.collect::<Option<Vec<_>>>()?;
        (all.len() <= FEED_POSITIONS_MAX).then_some(Self(all))
    }

    /// The number of the last event of this incarnation.
    pub fn of(&self, incarnation: &str) -> Option<u64> {
        self.0.iter().find(|one| *one.incarnation == *incarnation).map(|one| one.number)
    }

    /// Goes on to this event.
    pub fn advance(&mut self, to: &Position) {
        match self.0.iter_mut().find(|one| one.incarnation == to.incarnation) {
            Some(one) => one.number = to.number,
            None => {
                if self.0.len() == FEED_POSITIONS_MAX {
                    self.0.remove(0);
                }
                self.0.push(to.clone());
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Position> {
        self.0.iter()
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Position { incarnation, number }) in self.0.iter().enumerate() {
            write!(f, "{}{incarnation}:{number}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is() {
        let id = "0123456789abcdef:7,fedcba9876543210:18446744073709551615";
        let mut positions = Positions::parse(id).expect("an id");
        assert_eq!(positions.to_string(), id);
        let position = |incarnation: &str, number| {
            positions.advance(&Position { incarnation: incarnation.into(), number });
            positions.to_string()
        };
        let mut position = position;
        assert_eq!(position("0123456789abcdef", 9), id.replace(":7", ":9"));
        assert!(position("00000000000000aa", 1).ends_with(",00000000000000aa:1"));
        assert_eq!(positions.of("fedcba9876543210"), Some(u64::MAX));
        assert_eq!(positions.of("fedcba9876543211"), None);
        let long = vec!["0123456789abcdef:1"; FEED_POSITIONS_MAX + 1].join(",");
        for text in ["", ",", "7", "abc:7", "0123456789abcdef:", "0123456789abcdef:+7", &long] {
            assert_eq!(Positions::parse(text), None, "{text}");
        }
    }
}
