//! Which store: `redb:PATH`, `postgres://…` or `memory:`, and why one cannot be opened.
//!
//! A PostgreSQL URL may hold a password, so it is never printed. Pure; any thread.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Names a store, as `--store` takes it.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// The embedded store, in one file.
    Redb(PathBuf),
    /// A PostgreSQL server, with its whole URL.
    Postgres(String),
    /// Gone at exit.
    Memory,
}

/// A text that does not name a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidStoreUrl;

impl fmt::Display for InvalidStoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store is redb:PATH, postgres://USER:PASSWORD@HOST/DATABASE or memory:")
    }
}

impl std::error::Error for InvalidStoreUrl {}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("memory", "")) => Ok(StoreUrl::Memory),
            Some(("redb", path)) if !path.is_empty() => Ok(StoreUrl::Redb(path.into())),
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                Ok(StoreUrl::Postgres(text.to_owned()))
            }
            _ => Err(InvalidStoreUrl),
        }
    }
}

impl StoreUrl {
    /// Which kind of store, and nothing of where it is.
    pub fn kind(&self) -> &'static str {
        match self {
            StoreUrl::Redb(_) => "redb",
            StoreUrl::Postgres(_) => "postgres",
            StoreUrl::Memory => "memory",
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Redb(path) => write!(f, "redb:{}", path.display()),
            StoreUrl::Postgres(url) => f.write_str(&masked(url)),
            StoreUrl::Memory => f.write_str("memory:"),
        }
    }
}

/// The parameters of a database's URL that are no secret.
const SHOWN_PARAMETERS: [&str; 12] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "target_session_attrs",
    "application_name",
    "connect_timeout",
];

/// A store's URL for the operator, without the password in it, before the host or among the
/// parameters. Nothing of where it leads, if it is in doubt what belongs to a password.
pub(crate) fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (user, place) = rest.split_once('@').map_or(("", rest), |(user, place)| (user, place));
    let hosts = place.split(['/', '?']).next().unwrap_or_default();
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = |host: &str| {
        host.starts_with('[') || host.split_once(':').is_none_or(|(_, port)| is_port(port))
    };
    if user.contains(['?', '/']) || rest.matches('@').count() > 1 || !hosts.split(',').all(is_host)
    {
        return format!("{scheme}://…");
    }
    let user = match user.split_once(':') {
        Some((name, _)) => format!("{name}:***@"),
        None if user.is_empty() => String::new(),
        None => format!("{user}@"),
    };
    let Some((place, parameters)) = place.split_once('?') else {
        return format!("{scheme}://{user}{place}");
    };
    let parameters: Vec<_> = parameters.split('&').map(masked_parameter).collect();
    format!("{scheme}://{user}{place}?{}", parameters.join("&"))
}

fn masked_parameter(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if !SHOWN_PARAMETERS.contains(&name) => format!("{name}=***"),
        Some(_) => pair.to_owned(),
        None => "***".to_owned(),
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a store cannot be used. Its text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// The disk or the server does not give it; the text says what it answered.
    Unavailable(String),
    /// Another process has the file open: another master, most likely.
    Locked,
    /// The file, or the database, is something else than a store of ours. It was left as it was.
    Foreign(&'static str),
    /// A newer version of this program wrote it. It was left as it was.
    Newer {
        /// The version of its layout.
        found: u64,
        /// The newest that this program knows.
        known: u64,
    },
    /// A table is missing in the database.
    NotMigrated(&'static str),
    /// The URL is none, or asks for what cannot be had. It is never repeated, as it may hold a
    /// password.
    BadUrl(String),
    /// This program was built without that store.
    NotBuilt(&'static str),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Unavailable(why) => write!(f, "the store cannot be opened: {why}"),
            OpenError::Locked => f.write_str("the store is in use by another process"),
            OpenError::Foreign(what) => write!(f, "this is not a store of ours: {what}"),
            OpenError::Newer { found, known } => {
                write!(
                    f,
                    "the store has layout {found}, and this version of the program knows {known} at most"
                )
            }
            OpenError::NotMigrated(table) => write!(
                f,
                "the database has no table {table}: create the tables with `mesophyll migrate --store postgres://…` first"
            ),
            OpenError::BadUrl(why) => write!(f, "the store's URL cannot be used: {why}"),
            OpenError::NotBuilt(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_of_store_are_told_apart() {
        assert_eq!("memory:".parse(), Ok(StoreUrl::Memory));
        assert_eq!("redb:a:b/c.redb".parse(), Ok(StoreUrl::Redb("a:b/c.redb".into())));
        assert!(matches!("postgresql://x".parse(), Ok(StoreUrl::Postgres(_))));
        for text in ["", "memory", "memory:x", "redb:", "redb", "postgres:x", "mysql://x", "REDB:x"]
        {
            assert_eq!(text.parse::<StoreUrl>(), Err(InvalidStoreUrl), "{text}");
        }
    }

    #[test]
    fn where_a_store_is_is_printed_and_a_password_never() {
        for (url, shown) in [
            ("postgres://me@host/db", "postgres://me@host/db"),
            ("postgres://me:secret@host:5432/db", "postgres://me:***@host:5432/db"),
            ("postgres://me:sec:ret@host/db", "postgres://me:***@host/db"),
            ("postgres://:secret@host/db", "postgres://:***@host/db"),
            (
                "postgresql://me@a:1,[::1]:2/db?password=secret&connect_timeout=3",
                "postgresql://me@a:1,[::1]:2/db?password=***&connect_timeout=3",
            ),
            ("postgres:///db?host=/run&password=secret", "postgres:///db?host=/run&password=***"),
            ("postgres:///db?pass%77ord=secret&user=me", "postgres:///db?pass%77ord=***&user=me"),
            ("postgres://127.0.0.1:5432", "postgres://127.0.0.1:5432"),
            // What is not escaped as it should be.
            ("postgres://me:secret", "postgres://…"),
            ("postgres://me:12?34secret", "postgres://me:12?***"),
            ("postgres://me:s?host=secret@host/db", "postgres://…"),
            ("postgres://me:s/secret@host/db", "postgres://…"),
            ("postgres://me:s@secret@host/db", "postgres://…"),
            ("postgres://host/db?password=a@secret", "postgres://…"),
        ] {
            let url: StoreUrl = url.parse().expect("a store");
            assert_eq!(format!("{url} {url:?}"), format!("{shown} {shown}"));
        }
    }
}
