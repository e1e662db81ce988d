//! One row of an answer.

use std::ops::Range;
use std::sync::Arc;

use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::{FromSql, Type, WrongType};
use postgres_protocol::message::backend::DataRowBody;

use super::error::Error;

/// A row with the types of its columns.
pub(super) struct Row {
    columns: Arc<[Type]>,
    body: DataRowBody,
    /// Where each column's value is; None is NULL.
    ranges: Vec<Option<Range<usize>>>,
}

impl Row {
    pub(super) fn new(columns: &Arc<[Type]>, body: DataRowBody) -> Result<Self, Error> {
        let ranges: Vec<_> = body.ranges().collect()?;
        if ranges.len() != columns.len() {
            return Err(Error::Strange("a row has other columns than were announced".to_owned()));
        }
        Ok(Self { columns: Arc::clone(columns), body, ranges })
    }

    /// The value of a column, counted from 0.
    ///
    /// # Errors
    /// It is of another type, or NULL where that is none of the type's values.
    pub(super) fn try_get<'r, T: FromSql<'r>>(&'r self, column: usize) -> Result<T, Error> {
        let (Some(kind), Some(range)) = (self.columns.get(column), self.ranges.get(column)) else {
            return Err(Error::Value(format!("there is no column {column}")));
        };
        let value = range.clone().and_then(|range| self.body.buffer().get(range));
        let got = if T::accepts(kind) {
            T::from_sql_nullable(kind, value)
        } else {
            Err(Box::new(WrongType::new::<T>(kind.clone())).into())
        };
        got.map_err(|error| Error::Value(format!("column {column}: {error}")))
    }
}
