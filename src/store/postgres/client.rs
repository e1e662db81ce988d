//! A connection to a PostgreSQL server, as far as the store speaks its protocol: simple queries and prepared statements.
//!
//! Requests are put one behind the other and sent together when the first of their answers is waited for, so that what belongs
//! together is one exchange. Each is answered in its turn, up to the server's word that it is ready for the next. Deliberately
//! without transactions and retries, which are `session.rs`'s. Runs on the thread that borrowed the connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::{IsNull, Kind, ToSql, Type};
use postgres_protocol::message::backend::{Message, RowDescriptionBody};
use postgres_protocol::message::frontend::{self, BindError};

use super::error::Error;
use super::row::Row;
use super::socket::Socket;

/// Parameters of a statement.
pub(super) type Params<'p> = &'p [&'p (dyn ToSql + Sync)];

/// What looks at each row of an answer.
pub(super) type Look<'l> = &'l mut dyn FnMut(Row);

/// A statement that the server has prepared.
pub(super) struct Statement {
    name: String,
    params: Vec<Type>,
    columns: Arc<[Type]>,
}

/// See the module.
pub(super) struct Client {
    socket: Socket,
    statements: HashMap<&'static str, Arc<Statement>>,
    /// Types that are not built in, once they were looked up.
    types: HashMap<u32, Type>,
    /// Requests that were put and not answered.
    owed: usize,
    /// Nothing more can be asked.
    is_closed: bool,
}

impl Client {
    /// On a connection whose server is ready for the first request.
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, statements: HashMap::new(), types: HashMap::new(), owed: 0, is_closed: false }
    }

    /// Whether it is known to be of no use any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether the server neither left nor said anything unasked; does not block.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_closed && self.owed == 0 && self.socket.is_quiet()
    }

    /// Until when each call may block, from now on; None is for as long as it takes.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.socket.set_deadline(deadline);
    }

    /// Requests that were put and not answered.
    pub(super) fn owed(&self) -> usize {
        self.owed
    }

    /// Puts statements without parameters.
    pub(super) fn put_query(&mut self, sql: &str) -> Result<(), Error> {
        let put = frontend::query(sql, self.socket.outgoing()).map_err(Error::from);
        self.note(put)?;
        self.owed += 1;
        Ok(())
    }

    /// Puts a prepared statement.
    pub(super) fn put(&mut self, statement: &Statement, params: Params<'_>) -> Result<(), Error> {
        let outgoing = self.socket.outgoing();
        let before = outgoing.len();
        let put = bind(statement, params, outgoing)
            .and_then(|()| frontend::execute("", 0, outgoing).map_err(|error| Error::Value(error.to_string())));
        if let Err(error) = put {
            outgoing.truncate(before);
            return Err(error);
        }
        frontend::sync(outgoing);
        self.owed += 1;
        Ok(())
    }

    /// Sends what was put.
    ///
    /// # Errors
    /// The last of it was not sent, and the connection is closed.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let sent = if self.is_closed { Err(closed()) } else { self.socket.flush() };
        self.note(sent)
    }

    /// The answer to the next request that has none, with its rows; says how many rows its last statement touched.
    ///
    /// # Errors
    /// The server's, after which the connection can be used, or another, after which it is closed.
    pub(super) fn answer(&mut self, columns: Option<&Arc<[Type]>>, look: Look<'_>) -> Result<u64, Error> {
        let answer = self.read_answer(columns, look);
        self.note(answer)
    }

    fn read_answer(&mut self, columns: Option<&Arc<[Type]>>, look: Look<'_>) -> Result<u64, Error> {
        let (mut touched, mut refused) = (0, None);
        loop {
            match self.next(&mut refused)? {
                Message::ReadyForQuery(_) => {
                    self.owed = self.owed.saturating_sub(1);
                    return refused.map_or(Ok(touched), Err);
                }
                Message::ErrorResponse(body) => {
                    refused.get_or_insert(Error::refused(body.fields()));
                }
                Message::DataRow(body) => {
                    if let Some(columns) = columns {
                        look(Row::new(columns, body)?);
                    }
                }
                Message::CommandComplete(body) => touched = rows_of(body.tag()?),
                Message::BindComplete
                | Message::RowDescription(_)
                | Message::EmptyQueryResponse
                | Message::PortalSuspended => {}
                _ => return Err(strange()),
            }
        }
    }

    /// A statement, prepared when it is used for the first time on this connection. What was put before is answered first.
    ///
    /// # Errors
    /// As for [`Client::answer`]; an error in what was put before among them.
    pub(super) fn prepared(&mut self, sql: &'static str) -> Result<Arc<Statement>, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(Arc::clone(statement));
        }
        let name = format!("s{}", self.statements.len());
        let outgoing = self.socket.outgoing();
        let put = frontend::parse(&name, sql, std::iter::empty(), outgoing)
            .and_then(|()| frontend::describe(b'S', &name, outgoing));
        put?;
        frontend::sync(outgoing);
        self.owed += 1;
        self.flush()?;
        let before = self.settle_all_but(1);
        let described = self.read_description();
        let described = self.note(described);
        before?;
        let (params, columns) = described?;
        let params = params.into_iter().map(|oid| self.type_of(oid)).collect::<Result<Vec<_>, _>>()?;
        let columns = columns.into_iter().map(|oid| self.type_of(oid)).collect::<Result<Arc<[_]>, _>>()?;
        let statement = Arc::new(Statement { name, params, columns });
        self.statements.insert(sql, Arc::clone(&statement));
        Ok(statement)
    }

    /// Reads answers until so many are left; the first error among them.
    pub(super) fn settle_all_but(&mut self, left: usize) -> Result<(), Error> {
        let mut settled = Ok(());
        while self.owed > left {
            let answer = self.answer(None, &mut |_| {}).map(drop);
            if self.is_closed {
                // What came first says more than that the connection is gone.
                return settled.and(answer);
            }
            settled = settled.and(answer);
        }
        settled
    }

    /// The numbers of the types of a statement's parameters and columns.
    fn read_description(&mut self) -> Result<(Vec<u32>, Vec<u32>), Error> {
        let (mut params, mut columns, mut refused) = (Vec::new(), Vec::new(), None);
        loop {
            match self.next(&mut refused)? {
                Message::ReadyForQuery(_) => {
                    self.owed = self.owed.saturating_sub(1);
                    return refused.map_or(Ok((params, columns)), Err);
                }
                Message::ErrorResponse(body) => {
                    refused.get_or_insert(Error::refused(body.fields()));
                }
                Message::ParameterDescription(body) => params = body.parameters().collect()?,
                Message::RowDescription(body) => columns = types_of(&body)?,
                Message::ParseComplete | Message::NoData => {}
                _ => return Err(strange()),
            }
        }
    }

    /// The next message that answers something. If the server left, what it said before is the error.
    fn next(&mut self, refused: &mut Option<Error>) -> Result<Message, Error> {
        loop {
            match self.socket.message() {
                Ok(Message::NoticeResponse(body)) => log::debug!("postgres: {}", Error::refused(body.fields())),
                Ok(Message::ParameterStatus(_) | Message::NotificationResponse(_)) => {}
                Ok(message) => return Ok(message),
                Err(error) => {
                    self.is_closed = true;
                    return Err(refused.take().unwrap_or(error));
                }
            }
        }
    }

    /// A type by its number. One that is not built in is known by its name, which is all that matters of it.
    fn type_of(&mut self, oid: u32) -> Result<Type, Error> {
        if let Some(known) = Type::from_oid(oid).or_else(|| self.types.get(&oid).cloned()) {
            return Ok(known);
        }
        let statement = self.prepared("SELECT typname FROM pg_catalog.pg_type WHERE oid = $1")?;
        self.put(&statement, &[&oid])?;
        self.flush()?;
        let mut name = None;
        self.answer(Some(&statement.columns), &mut |row| name = Some(row.try_get::<String>(0)))?;
        let name = name.unwrap_or_else(|| Err(strange()))?;
        let found = Type::new(name, oid, Kind::Simple, String::new());
        self.types.insert(oid, found.clone());
        Ok(found)
    }

    fn note<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.is_closed |= result.as_ref().is_err_and(|error| !error.leaves_connection());
        result
    }
}

impl Statement {
    pub(super) fn columns(&self) -> &Arc<[Type]> {
        &self.columns
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.is_closed && self.owed == 0 {
            let mut goodbye = BytesMut::new();
            frontend::terminate(&mut goodbye);
            self.socket.say_goodbye(&goodbye);
        }
    }
}

/// Values travel in binary, both ways.
fn bind(statement: &Statement, params: Params<'_>, outgoing: &mut BytesMut) -> Result<(), Error> {
    if params.len() != statement.params.len() {
        return Err(Error::Value(format!("{} parameters instead of {}", params.len(), statement.params.len())));
    }
    let pairs = params.iter().zip(&statement.params);
    let formats = pairs.clone().map(|(param, kind)| param.encode_format(kind) as i16);
    let serializer = |(param, kind): (&&(dyn ToSql + Sync), &Type), outgoing: &mut BytesMut| {
        Ok(match param.to_sql_checked(kind, outgoing)? {
            IsNull::Yes => postgres_protocol::IsNull::Yes,
            IsNull::No => postgres_protocol::IsNull::No,
        })
    };
    frontend::bind("", &statement.name, formats, pairs, serializer, Some(1), outgoing).map_err(|error| match error {
        BindError::Conversion(error) => Error::Value(error.to_string()),
        BindError::Serialization(error) => Error::Value(error.to_string()),
    })
}

fn types_of(body: &RowDescriptionBody) -> Result<Vec<u32>, Error> {
    Ok(body.fields().map(|field| Ok(field.type_oid())).collect()?)
}

/// How many rows a statement touched, by its tag: the last word, if that is a number.
fn rows_of(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|rows| rows.parse().ok()).unwrap_or(0)
}

fn closed() -> Error {
    Error::Io(std::io::ErrorKind::NotConnected.into())
}

fn strange() -> Error {
    Error::Strange("the server's answer is none to what was asked".to_owned())
}
