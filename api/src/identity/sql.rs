//! One set of queries for SQLite and Postgres: a statement with numbered parameters, its values, and rows read by column.
//!
//! Both databases know `$1`, and this module binds and reads the few types that the schema has: whole numbers, text
//! and bytes. The text of a statement is a constant or made of constants; what users say only ever comes in as a value.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Arguments, AssertSqlSafe, ColumnIndex, Database, Decode, Encode, Postgres, Row as _, Sqlite, Type};
use std::borrow::Cow;

/// A statement and its values.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// A statement made of a constant.
pub(crate) fn sql(text: &'static str) -> Query {
    Query { text: Cow::Borrowed(text), values: Vec::new() }
}

/// A statement made of several constants; never of anything that came from outside.
pub(crate) fn sql_of(constants: String) -> Query {
    Query { text: Cow::Owned(constants), values: Vec::new() }
}

/// What is bound to a parameter.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Whole(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

impl Query {
    /// Binds the next parameter.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Binds the next parameters.
    pub(crate) fn bind_all(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.values.extend(values);
        self
    }

    pub(super) fn for_sqlite(self) -> Prepared<Sqlite> {
        prepared(self)
    }

    pub(super) fn for_postgres(self) -> Prepared<Postgres> {
        prepared(self)
    }
}

pub(super) type Prepared<DB> = sqlx::query::Query<'static, DB, <DB as Database>::Arguments>;

fn prepared<DB: Database>(query: Query) -> Prepared<DB>
where
    DB::Arguments: sqlx::IntoArguments<DB>,
    Option<i64>: Encode<'static, DB> + Type<DB>,
    Option<String>: Encode<'static, DB> + Type<DB>,
    Option<Vec<u8>>: Encode<'static, DB> + Type<DB>,
{
    let mut arguments = DB::Arguments::default();
    for value in query.values {
        let bound = match value {
            Value::Whole(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(value),
        };
        bound.expect("numbers, texts and bytes can always be bound");
    }
    match query.text {
        Cow::Borrowed(text) => sqlx::query_with(text, arguments),
        Cow::Owned(text) => sqlx::query_with(AssertSqlSafe(text), arguments),
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Whole(Some(value))
    }
}

impl From<u64> for Value {
    /// An amount beyond SQL's range, which only a lying upstream can report, is its largest.
    fn from(value: u64) -> Self {
        Self::Whole(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl From<Option<u64>> for Value {
    fn from(value: Option<u64>) -> Self {
        value.map_or(Self::Whole(None), Self::from)
    }
}

impl From<&str> for Value {
    /// Postgres knows no text with a zero character in it.
    fn from(value: &str) -> Self {
        Self::Text(Some(value.replace('\0', "\u{fffd}")))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        value.map_or(Self::Text(None), Self::from)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(value: [u8; N]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}

impl<const N: usize> From<Option<[u8; N]>> for Value {
    fn from(value: Option<[u8; N]>) -> Self {
        Self::Bytes(value.map(|value| value.to_vec()))
    }
}

/// A row of either database.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(crate) fn whole(&self, column: &str) -> Result<u64, sqlx::Error> {
        self.optional_whole(column)?.ok_or_else(|| unreadable(column, "is null"))
    }

    pub(crate) fn optional_whole(&self, column: &str) -> Result<Option<u64>, sqlx::Error> {
        match self.get::<Option<i64>>(column)? {
            None => Ok(None),
            Some(value) => u64::try_from(value).map(Some).map_err(|_| unreadable(column, "is negative")),
        }
    }

    pub(crate) fn text(&self, column: &str) -> Result<String, sqlx::Error> {
        self.optional_text(column)?.ok_or_else(|| unreadable(column, "is null"))
    }

    pub(crate) fn optional_text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.get(column)
    }

    pub(crate) fn bytes<const N: usize>(&self, column: &str) -> Result<[u8; N], sqlx::Error> {
        self.optional_bytes(column)?.ok_or_else(|| unreadable(column, "is null"))
    }

    pub(crate) fn optional_bytes<const N: usize>(&self, column: &str) -> Result<Option<[u8; N]>, sqlx::Error> {
        let Some(bytes) = self.get::<Option<Vec<u8>>>(column)? else { return Ok(None) };
        bytes.try_into().map(Some).map_err(|_| unreadable(column, "has another length"))
    }

    fn get<T>(&self, column: &str) -> Result<T, sqlx::Error>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
        for<'c> &'c str: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

/// A row holds what we never write.
pub(crate) fn unreadable(column: &str, problem: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: problem.into() }
}
