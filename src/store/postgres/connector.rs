//! Reads the URL of a PostgreSQL server: what it asks for, and how long that may take. Pure; any
//! thread.

use std::error::Error as _;
use std::time::Duration;

use postgres::Config;

use crate::base::limits::{
    POSTGRES_CONNECT_TIMEOUT, POSTGRES_GREETING_TIMEOUT, POSTGRES_SILENCE_MAX,
};
use crate::store::OpenError;

/// How long connecting may take as a whole: what the URL allows for each host, and then for its
/// greeting. (Of a name with several addresses all share it.)
pub(super) fn time_to_connect(config: &Config) -> Duration {
    let each = config.get_connect_timeout().copied().unwrap_or(POSTGRES_CONNECT_TIMEOUT);
    let hosts = config.get_hosts().len().max(1);
    each.saturating_mul(u32::try_from(hosts).unwrap_or(u32::MAX))
        .saturating_add(POSTGRES_GREETING_TIMEOUT)
}

/// Reads a URL, and fills in what it leaves open.
///
/// # Errors
/// It is none, or asks for what is not built in. Its text is never repeated: it may hold a
/// password.
pub(super) fn config(url: &str) -> Result<Config, OpenError> {
    let mut config: Config =
        url.parse().map_err(|error| OpenError::BadUrl(not_understood(url, &error)))?;
    if config.get_ssl_mode() == postgres::config::SslMode::Require {
        let why = "sslmode=require: connections with TLS are not built in; sslmode=disable and sslmode=prefer are";
        return Err(OpenError::BadUrl(why.to_owned()));
    }
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
    Ok(config)
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
        ("sslmode", _) => {
            "sslmode is disable or prefer: connections with TLS are not built in".to_owned()
        }
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
            (
                "postgres://h/d?sslmode=verify-full",
                "sslmode is disable or prefer: connections with TLS are not built in",
            ),
            (
                "postgres://h/d?sslmode=require",
                "sslmode=require: connections with TLS are not built in",
            ),
            ("postgres://h/d?sslrootcert=x", "unknown parameter sslrootcert"),
            ("postgres://h/d?connect_timeout=soon", "invalid value for parameter connect_timeout"),
            ("postgres://h:99999/d", "invalid value for port"),
            ("postgres://u:p?secret=1@h/d?x", "it is no URL that PostgreSQL understands"),
            ("postgres://u:p?secret@h/d?secret=", "unknown parameter secret"),
        ] {
            let error = config(url).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn connecting_has_a_bound_as_a_whole() {
        let time = |url| time_to_connect(&config(url).expect("a URL"));
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
