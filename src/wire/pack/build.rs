//! Builds a `KhronosValue` on its bytes, token by token: the mirror of [`super::walk`].
//!
//! For callers with values in another form (JSON, Luau) and does not know beforehand how long a map
//! or list will be. What comes out is canonical, and nests no deeper than any peer decodes.

use super::token::{Token, write_string_map};
use super::writer::{Open, Writer};
use crate::base::limits::WIRE_DEPTH_MAX;
use crate::wire::WireError;
use crate::wire::data::EncodedValue;

/// A value under construction.
#[derive(Debug, Default)]
pub struct Builder {
    writer: Writer,
    open: Vec<OpenHead>,
    /// Levels as [`super::walk::Walk`] counts them.
    depth: usize,
    is_complete: bool,
}

#[derive(Debug)]
struct OpenHead {
    head: Open,
    /// Values so far; a map's keys and values count one each.
    count: usize,
    is_map: bool,
}

impl Builder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes the value has so far.
    pub fn len(&self) -> usize {
        self.writer.len()
    }

    /// Whether there is nothing yet.
    pub fn is_empty(&self) -> bool {
        self.writer.is_empty()
    }

    /// How many maps and lists are open.
    pub fn open_levels(&self) -> usize {
        self.open.len()
    }

    /// Adds a step of a walk. The lengths of maps and lists are counted, not taken from the token.
    ///
    /// # Errors
    /// It does not belong there, or nests too deep.
    pub fn token(&mut self, token: &Token<'_>) -> Result<(), WireError> {
        match token {
            Token::Map(_) => self.begin_map(),
            Token::List(_) => self.begin_list(),
            Token::End => self.end(),
            leaf => self.leaf(leaf),
        }
    }

    /// Adds a value that has no values inside.
    ///
    /// # Errors
    /// It does not belong there, or nests too deep.
    pub fn leaf(&mut self, leaf: &Token<'_>) -> Result<(), WireError> {
        let levels = match leaf {
            Token::Map(_) | Token::List(_) | Token::End => {
                return Err(WireError::Invalid("not a leaf"));
            }
            Token::Buffer(_) | Token::Vector(_) | Token::Interval(_) | Token::LazyStringMap(_) => 1,
            _ => 0,
        };
        self.next_value()?;
        self.check_depth(levels)?;
        leaf.write(&mut self.writer);
        Ok(())
    }

    /// Adds a `LazyStringMap`.
    ///
    /// # Errors
    /// It does not belong there, or nests too deep.
    pub fn string_map(&mut self, pairs: &[(&str, &str)]) -> Result<(), WireError> {
        self.next_value()?;
        self.check_depth(1)?;
        write_string_map(pairs.iter().copied(), &mut self.writer);
        Ok(())
    }

    /// Starts a list; its values and an [`Builder::end`] follow.
    ///
    /// # Errors
    /// It does not belong there, or nests too deep.
    pub fn begin_list(&mut self) -> Result<(), WireError> {
        self.begin(b"\x81\xa4List", false)
    }

    /// Starts a map; key, value, key, value … and an [`Builder::end`] follow.
    ///
    /// # Errors
    /// It does not belong there, or nests too deep.
    pub fn begin_map(&mut self) -> Result<(), WireError> {
        self.begin(b"\x81\xa3Map", true)
    }

    /// Ends the innermost open map or list.
    ///
    /// # Errors
    /// None is open, or a key is without its value.
    pub fn end(&mut self) -> Result<(), WireError> {
        let level = self.open.pop().ok_or(WireError::Invalid("nothing is open"))?;
        self.depth -= if level.is_map && level.count > 0 { 2 } else { 1 };
        if level.is_map && level.count % 2 == 1 {
            return Err(WireError::Invalid("a key without its value"));
        }
        let len = if level.is_map { level.count / 2 } else { level.count };
        self.writer.close_array(level.head, len);
        self.is_complete = self.open.is_empty();
        Ok(())
    }

    /// The value.
    ///
    /// # Errors
    /// It is not complete.
    pub fn finish(self) -> Result<EncodedValue, WireError> {
        if self.is_complete {
            Ok(EncodedValue::from_checked(self.writer.into_bytes()))
        } else {
            Err(WireError::Truncated)
        }
    }

    fn begin(&mut self, variant: &[u8], is_map: bool) -> Result<(), WireError> {
        self.next_value()?;
        self.check_depth(1)?;
        self.depth += 1;
        self.is_complete = false;
        self.writer.encoded(variant);
        self.open.push(OpenHead { head: self.writer.open(), count: 0, is_map });
        Ok(())
    }

    /// Prepares for a value to be written.
    fn next_value(&mut self) -> Result<(), WireError> {
        let Some(level) = self.open.last_mut() else {
            if self.is_complete {
                return Err(WireError::Trailing);
            }
            self.is_complete = true;
            return Ok(());
        };
        level.count += 1;
        let (is_key, is_first) = (level.is_map && level.count % 2 == 1, level.count == 1);
        if is_key {
            self.writer.array(2);
        }
        if is_key && is_first {
            // The pairs of a map are arrays inside of an array.
            self.check_depth(1)?;
            self.depth += 1;
        }
        Ok(())
    }

    fn check_depth(&self, levels: usize) -> Result<(), WireError> {
        if self.depth + levels >= WIRE_DEPTH_MAX { Err(WireError::TooDeep) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::KhronosValue;
    use crate::wire::pack::value;

    #[test]
    fn what_is_built_is_what_the_tree_form_encodes_to() {
        let mut builder = Builder::new();
        builder.begin_map().expect("a value");
        builder.leaf(&Token::Text("list")).expect("a key");
        builder.begin_list().expect("a value");
        (0..100).for_each(|number| builder.leaf(&Token::Integer(number)).expect("an item"));
        builder.end().expect("open");
        builder.end().expect("open");
        let list = KhronosValue::List((0..100).map(KhronosValue::Integer).collect());
        let tree = KhronosValue::Map(vec![(KhronosValue::Text("list".to_owned()), list)]);
        assert_eq!(builder.finish(), Ok(value::encode(&tree)));
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        assert_eq!(Builder::new().finish(), Err(WireError::Truncated));
        assert!(Builder::new().end().is_err());
        let mut twice = Builder::new();
        twice.leaf(&Token::Null).expect("the value");
        assert_eq!(twice.leaf(&Token::Null), Err(WireError::Trailing));
        let mut half_a_pair = Builder::new();
        half_a_pair.begin_map().expect("a value");
        half_a_pair.leaf(&Token::Null).expect("a key");
        assert!(half_a_pair.end().is_err());
        let mut open = Builder::new();
        open.begin_list().expect("a value");
        assert_eq!(open.finish(), Err(WireError::Truncated));
    }

    #[test]
    fn it_builds_as_deep_as_anybody_decodes_and_no_deeper() {
        for (leaf, depth) in
            [(Token::Null, WIRE_DEPTH_MAX - 1), (Token::Vector([0.0; 3]), WIRE_DEPTH_MAX - 2)]
        {
            let mut builder = Builder::new();
            (0..depth).for_each(|_| builder.begin_list().expect("not too deep"));
            builder.leaf(&leaf).expect("not too deep");
            (0..depth).for_each(|_| builder.end().expect("open"));
            let bytes = builder.finish().expect("complete").into_bytes();
            assert!(value::check(bytes).is_ok());
            let mut deeper = Builder::new();
            (0..depth).for_each(|_| deeper.begin_list().expect("not too deep"));
            assert_eq!(
                deeper.begin_list().and_then(|()| deeper.leaf(&leaf)),
                Err(WireError::TooDeep)
            );
        }
        let mut maps = Builder::new();
        let pairs = std::iter::from_fn(|| {
            let begun = maps.begin_map().and_then(|()| maps.leaf(&Token::Null));
            begun.is_ok().then_some(())
        });
        assert_eq!(pairs.count(), (WIRE_DEPTH_MAX - 1) / 2);
    }
}
