//! The way to a PostgreSQL server: what its URL asks for, how long that may take, and connecting.
//! Any thread.

use std::error::Error as _;
use std::time::Duration;

use postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation, TargetSessionAttrs};
use postgres::{Client, Config, NoTls};

use super::session::NoSession;
use super::tls::PgTls;
use crate::base::limits::{
    POSTGRES_CONNECT_TIMEOUT, POSTGRES_GREETING_TIMEOUT, POSTGRES_SILENCE_MAX,
};
use crate::store::OpenError;

/// How to reach a server: all connections to it are made here.
#[derive(Clone)]
pub(super) struct PgConnector {
    pub(super) config: Config,
    /// `None`: in plain text.
    tls: Option<PgTls>,
}

impl PgConnector {
    /// Reads a URL, and fills in what it leaves open.
    ///
    /// # Errors
    /// It is none, or asks for what cannot be had. Its text is never repeated: it may hold a
    /// password.
    pub(super) fn new(url: &str) -> Result<Self, OpenError> {
        let (rest, ssl) = SslParameters::taken_from(url).map_err(OpenError::BadUrl)?;
        let mut config: Config =
            rest.parse().map_err(|error| OpenError::BadUrl(not_understood(&rest, &error)))?;
        check(&config).map_err(|why| OpenError::BadUrl(why.to_owned()))?;
        let is_local = |host: &Host| matches!(host, Host::Unix(_));
        let is_local = !config.get_hosts().is_empty() && config.get_hosts().iter().all(is_local);
        let tls =
            ssl.check(is_local).and_then(|is_used| is_used.then(|| PgTls::new(&ssl)).transpose());
        let tls = tls.map_err(OpenError::BadUrl)?;
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(POSTGRES_CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("mesophyll");
        }
        // A server that vanished without a word is noticed by its silence.
        config.tcp_user_timeout(POSTGRES_SILENCE_MAX);
        config
            .keepalives_idle(POSTGRES_SILENCE_MAX / 2)
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3);
        Ok(Self { config, tls })
    }

    /// Connects to the first of its hosts that is as it should be.
    ///
    /// # Blocks
    /// Until the server answered, which may be never.
    pub(super) fn connect(&self) -> Result<Client, NoSession> {
        match &self.tls {
            None => Ok(self.config.connect(NoTls)?),
            Some(tls) => tls.connect(&self.config),
        }
    }

    /// How long connecting may take as a whole: what the URL allows for each host, and then for its
    /// greeting. (Of a name with several addresses all share it.)
    pub(super) fn time(&self) -> Duration {
        let each = self.config.get_connect_timeout().copied().unwrap_or(POSTGRES_CONNECT_TIMEOUT);
        let hosts = self.config.get_hosts().len().max(1);
        each.saturating_mul(u32::try_from(hosts).unwrap_or(u32::MAX))
            .saturating_add(POSTGRES_GREETING_TIMEOUT)
    }
}

/// What the `postgres` crate would take, and that cannot be.
fn check(config: &Config) -> Result<(), &'static str> {
    if config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
        return Err("target_session_attrs=read-only: a store is written to; use read-write");
    }
    if config.get_channel_binding() == ChannelBinding::Require {
        return Err(
            "channel_binding=require is not supported; sslmode=verify-full says who the server is",
        );
    }
    if config.get_ssl_negotiation() == SslNegotiation::Direct {
        return Err("sslnegotiation=direct is not supported");
    }
    Ok(())
}

/// What a URL says of TLS, in libpq's terms; an empty value is none, as there.
#[derive(Default)]
pub(super) struct SslParameters {
    pub(super) mode: Option<String>,
    pub(super) root_cert: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}

impl SslParameters {
    /// Takes them out of a URL, as the `postgres` crate knows few of them.
    fn taken_from(url: &str) -> Result<(String, Self), String> {
        let mut ssl = Self::default();
        // Where that crate looks for them: a `?` in a password is none of theirs.
        let after_user = url.find('@').map_or(0, |at| at + 1);
        let Some(from) = url[after_user..].find('?').map(|at| after_user + at) else {
            return Ok((url.to_owned(), ssl));
        };
        let mut others = Vec::new();
        for pair in url[from + 1..].split('&') {
            let Some((name, value)) = pair.split_once('=') else {
                others.push(pair);
                continue;
            };
            let place = match decoded(name).as_deref() {
                Some("sslmode") => &mut ssl.mode,
                Some("sslrootcert") => &mut ssl.root_cert,
                Some("sslcert") => &mut ssl.cert,
                Some("sslkey") => &mut ssl.key,
                // As libpq names what is newer than the crate.
                Some("target_session_attrs") if value == "primary" => {
                    others.push("target_session_attrs=read-write");
                    continue;
                }
                _ => {
                    others.push(pair);
                    continue;
                }
            };
            let bad = || format!("invalid value for parameter {name}");
            *place = Some(decoded(value).ok_or_else(bad)?).filter(|value| !value.is_empty());
        }
        Ok((format!("{}?{}", &url[..from], others.join("&")), ssl))
    }

    /// Whether TLS is used, if that can be.
    fn check(&self, is_local: bool) -> Result<bool, String> {
        let has_files = self.root_cert.is_some() || self.cert.is_some() || self.key.is_some();
        match self.mode.as_deref() {
            None if has_files => Err(
                "sslrootcert, sslcert and sslkey need sslmode=verify-full, verify-ca or require"
                    .to_owned(),
            ),
            None | Some("disable") => Ok(false),
            Some(mode @ ("allow" | "prefer")) => Err(format!(
                "sslmode={mode} goes on in plain text when the server, or a machine between, says that it has no \
                 TLS: use verify-full, or disable"
            )),
            // libpq encrypts nothing on a socket of this machine either.
            Some("require" | "verify-ca" | "verify-full") if is_local => Ok(false),
            Some(mode @ ("require" | "verify-ca" | "verify-full")) => self.check_files(mode),
            Some(_) => Err("sslmode is disable, require, verify-ca or verify-full".to_owned()),
        }
    }

    fn check_files(&self, mode: &str) -> Result<bool, String> {
        match self.root_cert.as_deref() {
            None if mode != "require" => {
                Err(format!("sslmode={mode} needs sslrootcert, a file of the authorities to trust"))
            }
            Some("system") => Err(
                "sslrootcert=system is not supported: name the file of the system's authorities, \
                 such as /etc/ssl/certs/ca-certificates.crt"
                    .to_owned(),
            ),
            _ if self.cert.is_some() != self.key.is_some() => {
                Err("sslcert and sslkey belong together".to_owned())
            }
            _ => Ok(true),
        }
    }
}

/// Decodes a part of a URL, by the parser that reads the rest of it.
fn decoded(part: &str) -> Option<String> {
    let config: Config = format!("postgres:///?dbname={part}").parse().ok()?;
    Some(config.get_dbname().unwrap_or_default().to_owned())
}

/// Why a URL cannot be read, with the name of the parameter. Values are never repeated; and as a
/// password may hold a `?`, a name only if it is one where parameters stand.
fn not_understood(url: &str, error: &postgres::Error) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let (what, name) = cause.split_once('`').unwrap_or_default();
    let name = name.trim_end_matches('`');
    let parameters =
        url.rsplit('@').next().and_then(|place| place.split_once('?')).map_or("", |(_, rest)| rest);
    let is_parameter = parameters.split('&').any(|one| one.split('=').next() == Some(name));
    match (name, is_parameter) {
        (name, true) => format!("{}{name}", what.replace("option", "parameter")),
        ("port" | "host" | "hostaddr", false) => format!("{}{name}", what.replace("option ", "")),
        _ => "it is no URL that PostgreSQL understands".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_names_its_parameter_and_no_secret() {
        for (url, says) in [
            ("postgres://h/d?sslmode=prefer", "sslmode=prefer goes on in plain text"),
            (
                "postgres://h/d?sslmode=secret",
                "sslmode is disable, require, verify-ca or verify-full",
            ),
            ("postgres://h/d?sslmode=verify-full", "sslmode=verify-full needs sslrootcert"),
            (
                "postgres://h/d?sslmode=verify-ca&sslrootcert=",
                "sslmode=verify-ca needs sslrootcert",
            ),
            ("postgres://h/d?sslmode=require&sslrootcert=system", "name the file of the system's"),
            ("postgres://h/d?sslmode=require&sslcert=x", "sslcert and sslkey belong together"),
            ("postgres://h/d?sslrootcert=x", "sslrootcert, sslcert and sslkey need sslmode="),
            ("postgres://h/d?sslmode=require&sslkey=%FF", "invalid value for parameter sslkey"),
            ("postgres://h/d?sslnegotiation=direct", "sslnegotiation=direct is not supported"),
            ("postgres://h/d?channel_binding=require", "channel_binding=require is not supported"),
            ("postgres://h/d?target_session_attrs=read-only", "a store is written to"),
            ("postgres://h/d?target_session_attrs=standby", "invalid value for parameter target_"),
            ("postgres://h/d?sslcrl=x", "unknown parameter sslcrl"),
            ("postgres://h/d?connect_timeout=soon", "invalid value for parameter connect_timeout"),
            ("postgres://h:99999/d", "invalid value for port"),
            ("postgres://u:p?secret=1@h/d?x", "it is no URL that PostgreSQL understands"),
            ("postgres://u:p?secret@h/d?secret=", "unknown parameter secret"),
        ] {
            let error =
                PgConnector::new(url).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn what_a_url_says_of_tls_is_taken_out_of_it() {
        let url = "postgres://u:p?sslmode=x@a,b:1/d?ssl%6Dode=verify-ca&user=me&sslrootcert=%2Fa%20b\
                   &x&sslcert=c&sslmode=require&sslkey=k&target_session_attrs=primary";
        let (rest, ssl) = SslParameters::taken_from(url).expect("a URL");
        assert_eq!(
            rest,
            "postgres://u:p?sslmode=x@a,b:1/d?user=me&x&target_session_attrs=read-write"
        );
        let SslParameters { mode, root_cert, cert, key } = ssl;
        let found = [mode, root_cert, cert, key].map(Option::unwrap_or_default);
        assert_eq!(found, ["require", "/a b", "c", "k"]);
    }

    #[test]
    fn tls_is_used_where_it_is_asked_for_and_can_be() {
        for (url, is_used) in [
            ("postgres://h/d", false),
            ("postgres://h/d?sslmode=disable&sslrootcert=x", false),
            // As libpq does.
            ("postgres:///d?host=/run/postgresql&sslmode=verify-full&sslrootcert=x", false),
            #[cfg(feature = "postgres-tls")]
            ("postgres://h/d?sslmode=require", true),
        ] {
            let connector = PgConnector::new(url).expect("a URL");
            assert_eq!(connector.tls.is_some(), is_used, "{url}");
            let mode = if is_used { SslMode::Require } else { SslMode::Disable };
            assert_eq!(connector.config.get_ssl_mode(), mode, "{url}");
        }
        if cfg!(not(feature = "postgres-tls")) {
            let error = PgConnector::new("postgres://h/d?sslmode=require").err();
            let says = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(says.contains("needs the feature `postgres-tls`"), "{says}");
        }
    }

    #[test]
    fn connecting_has_a_bound_as_a_whole() {
        let time = |url| PgConnector::new(url).expect("a URL").time();
        assert_eq!(time("postgres://h/d"), POSTGRES_CONNECT_TIMEOUT + POSTGRES_GREETING_TIMEOUT);
        assert_eq!(
            time("postgres://h/d?connect_timeout=7"),
            Duration::from_secs(7) + POSTGRES_GREETING_TIMEOUT
        );
        assert_eq!(
            time("postgres://h,i/d?connect_timeout=7"),
            Duration::from_secs(14) + POSTGRES_GREETING_TIMEOUT
        );
        assert!(
            time("postgres://h/d?connect_timeout=9223372036854775807")
                > Duration::from_secs(1 << 40)
        );
    }
}
