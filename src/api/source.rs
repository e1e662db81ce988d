//! The sources that may speak to the internal API at all: this host, and the networks that the
//! operator named. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network in CIDR notation, such as `10.0.0.0/8` or `fd00::/8`; a lone address is a network of
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// A text that names no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseCidrError {
    /// It is not an address with an optional prefix length.
    Malformed,
    /// The address has bits set beyond the prefix, which is mostly a slip; the text is the network
    /// that holds it.
    HostBits(String),
}

impl fmt::Display for ParseCidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseCidrError::Malformed => {
                f.write_str("a network is written like 10.0.0.0/8, fd00::/8 or 10.1.2.3")
            }
            ParseCidrError::HostBits(network) => {
                write!(f, "the address has bits set beyond its prefix; the network is {network}")
            }
        }
    }
}

impl std::error::Error for ParseCidrError {}

impl Cidr {
    /// Whether an address is in the network; an IPv4 address in IPv6's clothes counts as what it
    /// is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, width) = bits(self.network);
        let (address, address_width) = bits(address.to_canonical());
        width == address_width && masked(address, width, self.prefix) == network
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParseCidrError::Malformed)?;
        let (_, width) = bits(address);
        let prefix = match prefix {
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= width)
                .ok_or(ParseCidrError::Malformed)?,
            Some(_) => return Err(ParseCidrError::Malformed),
            None => width,
        };
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8.
        let (address, prefix) = match address.to_canonical() {
            canonical @ IpAddr::V4(_) if width == 128 => (canonical, prefix.checked_sub(96)),
            address => (address, Some(prefix)),
        };
        let prefix = prefix.ok_or(ParseCidrError::Malformed)?;
        let (value, width) = bits(address);
        let network = from_bits(masked(value, width, prefix), width);
        let cidr = Cidr { network, prefix };
        if network == address { Ok(cidr) } else { Err(ParseCidrError::HostBits(cidr.to_string())) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// The source rule.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceRule {
    trusted: Vec<Cidr>,
}

impl SourceRule {
    pub(super) fn new(trusted: Vec<Cidr>) -> Self {
        Self { trusted }
    }

    /// Whether a caller from this address is answered.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        address.to_canonical().is_loopback()
            || self.trusted.iter().any(|network| network.contains(address))
    }
}

/// An address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u32::from(address).into(), 32),
        IpAddr::V6(address) => (address.into(), 128),
    }
}

fn from_bits(value: u128, width: u8) -> IpAddr {
    match u32::try_from(value) {
        Ok(value) if width == 32 => IpAddr::V4(value.into()),
        _ => IpAddr::V6(value.into()),
    }
}

fn masked(value: u128, width: u8, prefix: u8) -> u128 {
    let host_bits = u32::from(width - prefix);
    // Shifting out all 128 bits at once is not defined.
    value.checked_shr(host_bits).and_then(|network| network.checked_shl(host_bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(trusted: &[&str], address: &str) -> bool {
        let trusted = trusted.iter().map(|text| text.parse().expect("a network")).collect();
        SourceRule::new(trusted).allows(address.parse().expect("an address"))
    }

    #[test]
    fn loopback_is_always_allowed() {
        for address in ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"] {
            assert!(allows(&[], address), "{address}");
        }
        for address in [
            "128.0.0.1",
            "10.0.0.1",
            "0.0.0.0",
            "::",
            "::2",
            "::ffff:10.0.0.1",
            "fe80::1",
            "::127.0.0.1",
        ] {
            assert!(!allows(&[], address), "{address}");
        }
    }

    #[test]
    fn trusted_networks_are_allowed_to_their_last_bit() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.168.1.128/25", "192.168.1.128", "192.168.1.127"),
            ("1.2.3.4", "1.2.3.4", "1.2.3.5"),
            ("1.2.3.4/32", "::ffff:1.2.3.4", "::ffff:1.2.3.5"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("2001:db8::/127", "2001:db8::1", "2001:db8::2"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
            ("::/0", "2001:db8::1", "8.8.8.8"),
        ] {
            assert!(allows(&[network], inside), "{network} {inside}");
            assert!(!allows(&[network], outside), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "::/129",
            "10.0.0/8",
            "host",
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(ParseCidrError::Malformed), "{text}");
        }
        assert_eq!("::ffff:10.0.0.0/95".parse::<Cidr>(), Err(ParseCidrError::Malformed));
        for (text, network) in
            [("10.1.0.0/8", "10.0.0.0/8"), ("fd00::1/64", "fd00::/64"), ("1.1.1.1/0", "0.0.0.0/0")]
        {
            assert_eq!(
                text.parse::<Cidr>(),
                Err(ParseCidrError::HostBits(network.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn networks_read_back_what_they_print() {
        for text in ["10.0.0.0/8", "::1/128", "0.0.0.0/0", "fd00::/8"] {
            assert_eq!(text.parse::<Cidr>().expect("a network").to_string(), text);
        }
    }
}
