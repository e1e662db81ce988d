//! What the value of an option means: spans of time, numbers, addresses,
//! words.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::base::labels::Label;
use crate::base::limits::{self, TENANT_RATE_MAX};
use crate::net::stream::names_a_listener;
use crate::store::RateLimit;
use crate::wire::data::is_host_name;

use super::{ConfigError, Options};

/// Reads a span of time such as `35s`, `500ms`, `2m`, `24h`; never zero.
pub fn parse_span(text: &str) -> Option<Duration> {
    parse_span_or_zero(text).filter(|span| !span.is_zero())
}

fn parse_span_or_zero(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

/// The names of a list with commas between them.
pub(super) fn names(list: &str) -> BTreeSet<String> {
    list.split(',').map(|name| name.trim().to_owned()).collect()
}

/// A span option with its default.
///
/// # Errors
/// It is not a span of time.
pub fn span(
    options: &impl Options,
    name: &str,
    default: Duration,
) -> Result<Duration, ConfigError> {
    match options.option(name) {
        None => Ok(default),
        Some((text, _)) => parse_span(text)
            .ok_or_else(|| wrong(options, name, "is a span of time such as 500ms, 35s, 2m or 24h")),
    }
}

/// How long a worker may drain.
///
/// # Errors
/// It is not a span of time, or too long.
pub(super) fn drain_timeout(options: &impl Options) -> Result<Duration, ConfigError> {
    const NAME: &str = "drain-timeout";
    let Some((text, _)) = options.option(NAME) else { return Ok(limits::DRAIN_TIMEOUT) };
    let span = parse_span_or_zero(text).filter(|span| *span <= limits::DRAIN_TIMEOUT_MAX);
    span.ok_or_else(|| wrong(options, NAME, "is a span of time from 0s to 300s"))
}

/// The address that `HOST:PORT` or `http://HOST:PORT` names.
///
/// # Errors
/// It names none.
pub fn address(
    options: &impl Options,
    name: &str,
    default: &str,
) -> Result<SocketAddr, ConfigError> {
    let given = without_scheme(options, name, default)?;
    let mut addresses = given.to_socket_addrs().ok().into_iter().flatten();
    addresses.next().ok_or_else(|| wrong(options, name, ADDRESS_RULE))
}

/// Where another program listens: the `HOST:PORT` of an address.
///
/// # Errors
/// It is none.
pub fn host_and_port<'o>(
    options: &'o impl Options,
    name: &str,
    default: &'o str,
) -> Result<&'o str, ConfigError> {
    let given = without_scheme(options, name, default)?;
    let is_one = names_a_listener(given) && !given.contains(['/', '@']);
    is_one.then_some(given).ok_or_else(|| wrong(options, name, ADDRESS_RULE))
}

const ADDRESS_RULE: &str = "is an address such as 127.0.0.1:7451 or http://127.0.0.1:7451";

/// An address without its `http://`.
pub(super) fn without_scheme<'o>(
    options: &'o impl Options,
    name: &str,
    default: &'o str,
) -> Result<&'o str, ConfigError> {
    let given = text(options, name, default);
    if given.starts_with("https:") || given.starts_with("tls:") {
        return Err(wrong(
            options,
            name,
            "is HOST:PORT or http://HOST:PORT; --listen-tls and --api-tls make a port speak TLS",
        ));
    }
    Ok(given
        .strip_prefix("http://")
        .map_or(given, |given| given.strip_suffix('/').unwrap_or(given)))
}

/// Reads a log level.
pub fn parse_level(text: &str) -> Option<log::LevelFilter> {
    text.parse().ok()
}

/// Reads what a switch may be set to where it is no flag.
pub fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

pub(super) fn text<'o>(options: &'o impl Options, name: &str, default: &'o str) -> &'o str {
    options.option(name).map_or(default, |(value, _)| value)
}

/// An option that is one of the words of a [`Label`].
///
/// # Errors
/// It is another word.
pub(super) fn one_of<L: Label>(
    options: &impl Options,
    name: &str,
    default: L,
) -> Result<L, ConfigError> {
    let Some((text, _)) = options.option(name) else { return Ok(default) };
    let words: Vec<&str> = L::ALL.iter().map(|label| label.as_str()).collect();
    let rule = || format!("is {}", words.join(" or "));
    L::of_name(text.as_bytes()).ok_or_else(|| wrong(options, name, &rule()))
}

/// A number from 1 on.
///
/// # Errors
/// It is none, or beyond `max`.
pub fn number(
    options: &impl Options,
    name: &str,
    max: usize,
) -> Result<Option<usize>, ConfigError> {
    let Some((text, _)) = options.option(name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.map(Some).ok_or_else(|| wrong(options, name, &format!("is a number from 1 to {max}")))
}

/// How much of something a tenant may ask for; an inner `None`: as much as it likes.
///
/// # Errors
/// It is no rate.
pub(super) fn rate(
    options: &impl Options,
    name: &str,
) -> Result<Option<Option<RateLimit>>, ConfigError> {
    let Some((text, _)) = options.option(name) else { return Ok(None) };
    parse_rate(text).map(Some).ok_or_else(|| {
        let rule = format!(
            "is a number a second and perhaps a burst, such as 20 or 20:200, each from 1 to \
             {TENANT_RATE_MAX}, or off"
        );
        wrong(options, name, &rule)
    })
}

/// Reads `20` (a second, and as many at once), `20:200` or `off`.
fn parse_rate(text: &str) -> Option<Option<RateLimit>> {
    if text == "off" {
        return Some(None);
    }
    // A sign is none of a number's digits here.
    let number = |text: &str| -> Option<u32> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)?;
        digits.parse().ok().filter(|number| (1..=TENANT_RATE_MAX).contains(number))
    };
    let (per_second, burst) = text.split_once(':').unwrap_or((text, text));
    Some(Some((number(per_second)?, number(burst)?)))
}

/// A number of events or records.
pub(super) fn amount(options: &impl Options, name: &str) -> Result<Option<u64>, ConfigError> {
    counted(options, name, "is a number from 1", |text| text.parse().ok())
}

/// A number of bytes.
pub(super) fn size(options: &impl Options, name: &str) -> Result<Option<u64>, ConfigError> {
    counted(options, name, "is a number of bytes such as 65536, 512KiB, 64MiB or 2GiB", parse_size)
}

fn counted(
    options: &impl Options,
    name: &str,
    rule: &str,
    parse: impl Fn(&str) -> Option<u64>,
) -> Result<Option<u64>, ConfigError> {
    let Some((text, _)) = options.option(name) else { return Ok(None) };
    // What fits into every store's counters.
    let number = parse(text).filter(|number| (1..=i64::MAX.unsigned_abs()).contains(number));
    number.map(Some).ok_or_else(|| wrong(options, name, rule))
}

/// The units of a size, the largest first.
pub const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads a number of bytes such as `65536` or `64MiB`.
fn parse_size(text: &str) -> Option<u64> {
    let unit = SIZE_UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, bytes) = unit.unwrap_or((text, 1));
    // A sign is none of a number's digits here.
    let number: u64 =
        number.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)?.parse().ok()?;
    number.checked_mul(bytes)
}

/// The error of an option whose value breaks a rule.
pub fn wrong(options: &impl Options, name: &str, rule: &str) -> ConfigError {
    let (given, is_usage) = options.option(name).unwrap_or_default();
    ConfigError { message: format!("{} {rule}, not {given:?}", options.named(name)), is_usage }
}

/// The error of an option that another one rules out, with any value.
pub(super) fn ruled_out(options: &impl Options, name: &str, rule: &str) -> ConfigError {
    let (_, is_usage) = options.option(name).unwrap_or_default();
    ConfigError { message: format!("{} {rule}", options.named(name)), is_usage }
}

/// Names of host processes.
pub(super) fn host_names(options: &impl Options) -> Result<Vec<String>, ConfigError> {
    let names = options.options("host-allow");
    match names.iter().find(|name| !is_host_name(name, limits::HOST_NAME_MAX_BYTES)) {
        Some(name) => {
            let text = format!("{name:?} is not letters, digits, '.', '_' and '-'");
            Err(wrong(options, "host-allow", &text))
        }
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_a_unit() {
        for (text, bytes) in [
            ("1", 1),
            ("65536", 65_536),
            ("512KiB", 1 << 19),
            ("64MiB", 1 << 26),
            ("2GiB", 1 << 31),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-1",
            "+1",
            "1.5GiB",
            "64 MiB",
            "64mib",
            "64MB",
            "64M",
            "18446744073709551615KiB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_number_with_or_without_a_burst_or_off() {
        assert_eq!(parse_rate("20"), Some(Some((20, 20))));
        assert_eq!(parse_rate("20:200"), Some(Some((20, 200))));
        assert_eq!(parse_rate("1000000:1"), Some(Some((1_000_000, 1))));
        assert_eq!(parse_rate("off"), Some(None));
        for text in ["", "0", "0:5", "5:0", ":", "5:", ":5", "+5", "5 :5", "5:5:5", "1000001", "no"]
        {
            assert_eq!(parse_rate(text), None, "{text}");
        }
    }

    #[test]
    fn spans_have_a_unit() {
        assert_eq!(parse_span("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_span("24h"), Some(Duration::from_secs(86_400)));
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "0s",
            "5 s",
            "5w",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }
}
