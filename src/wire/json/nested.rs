//! Reads a value that stands in JSON, through its lists and maps: what both of its forms have in
//! common. How each value inside begins is for the form to say.

use super::reader::{JsonError, JsonReader, JsonToken};
use crate::wire::data::EncodedValue;
use crate::wire::pack::build::Builder;

/// What the innermost bracket of the text belongs to.
pub(super) enum Bracket {
    /// A list or a map, which ends with it.
    Whole,
    /// A list that is the only value of an object, which ends behind it.
    #[cfg(feature = "postgres")]
    Wrapped,
    /// The array of a map's pairs, in such an object.
    Pairs,
    /// The array of a pair, with so many values so far.
    Pair(usize),
}

/// Reads the value. `begin` reads one value inside of it whole, or up to the values inside of that;
/// `pair` says what a map consists of.
pub(super) fn read_nested<'t>(
    mut reader: JsonReader<'t>,
    pair: &'static str,
    mut begin: impl FnMut(
        JsonToken<'t>,
        &mut JsonReader<'t>,
        &mut Builder,
    ) -> Result<Option<Bracket>, JsonError>,
) -> Result<EncodedValue, JsonError> {
    let mut builder = Builder::new();
    let mut open: Vec<Bracket> = Vec::new();
    while let Some(token) = reader.next()? {
        match (token, open.last_mut()) {
            (JsonToken::End, Some(Bracket::Pair(2))) => drop(open.pop()),
            (JsonToken::End, Some(Bracket::Whole)) => {
                open.pop();
                builder.end()?;
            }
            (JsonToken::BeginArray, Some(Bracket::Pairs)) => open.push(Bracket::Pair(0)),
            (JsonToken::End, None | Some(Bracket::Pair(_))) => return Err(reader.error(pair)),
            (JsonToken::End, Some(_)) => {
                open.pop();
                builder.end()?;
                reader.close()?;
            }
            (_, Some(Bracket::Pairs)) => return Err(reader.error(pair)),
            (token, within) => {
                if let Some(Bracket::Pair(values)) = within {
                    *values += 1;
                }
                open.extend(begin(token, &mut reader, &mut builder)?);
            }
        }
    }
    Ok(builder.finish()?)
}
