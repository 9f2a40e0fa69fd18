//! Hosts, compared as the URL standard does: by what they mean, not by their spelling.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The host of a configured URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Lower case.
    Name(Box<str>),
    Ip(IpAddr),
}

impl Host {
    /// `None` for an empty host, and for an invalid address.
    pub(crate) fn parse(host: &str) -> Option<Self> {
        if host.starts_with('[') || ends_in_number(host) {
            return address(host).map(Self::Ip);
        }
        (!host.is_empty()).then(|| Self::Name(host.to_ascii_lowercase().into()))
    }

    /// Whether `host` is a spelling of this host. Does not allocate.
    pub(crate) fn is(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case(host),
            Self::Ip(ip) => address(host) == Some(*ip),
        }
    }

    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            // No other name: resolvers may ask the network for `localhost.` or `a.localhost`.
            Self::Name(name) => &**name == "localhost",
            Self::Ip(ip) => ip.is_loopback(),
        }
    }
}

/// Displays the host as in a URL.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            // `Ipv6Addr` would print the end in dotted decimals.
            Self::Ip(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
                let [.., high, low] = ip.segments();
                write!(f, "[::ffff:{high:x}:{low:x}]")
            }
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => Some(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into()),
        None => ipv4(host).map(IpAddr::V4),
    }
}

/// Whether the host must be an IPv4 address: `127.0.0.1`, `127.1`, `0x7f000001`, with or without a
/// dot at its end.
fn ends_in_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_decimal = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    is_decimal || number(last).is_some()
}

/// One to four numbers. The last one fills all remaining bytes.
fn ipv4(host: &str) -> Option<Ipv4Addr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let (front, last) = host
        .rsplit_once('.')
        .map_or((None, host), |(front, last)| (Some(front), last));
    let (mut address, mut bits_left) = (0, 32_u32);
    for part in front.into_iter().flat_map(|front| front.split('.')) {
        bits_left = bits_left.checked_sub(8).filter(|bits| *bits > 0)?;
        address |= number(part).filter(|byte| *byte <= 0xff)? << bits_left;
    }
    address |= number(last).filter(|rest| rest >> bits_left == 0)?;
    u32::try_from(address).ok().map(Ipv4Addr::from)
}

/// Decimal, octal (`017`) or hexadecimal (`0xf`). Saturates, so that a number that is too large for
/// an address stays too large.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [] => return None,
        // Without digits it is zero, as in the URL standard.
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    digits.chars().try_fold(0_u64, |number, digit| {
        let digit = digit.to_digit(radix)?;
        Some(
            number
                .saturating_mul(radix.into())
                .saturating_add(digit.into()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host as the `url` crate normalizes it.
    fn normalized(host: &str) -> Option<String> {
        let url = url::Url::parse(&format!("https://{host}/")).ok()?;
        url.host_str().map(str::to_owned)
    }

    const HOSTS: [&str; 36] = [
        "api.klavi.ai",
        "API.Klavi.ai",
        "api.klavi.ai.",
        "localhost",
        "1e3.example",
        "1.2.3.4.example",
        "0x.example",
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0X7F000001",
        "0x",
        "0",
        "00",
        "1.2.3.256",
        "1.2.65535",
        "1.2.65536",
        "1.256.1",
        "1.2.3.4.5",
        "4294967295",
        "4294967296",
        "99999999999999999999999",
        "0xfffffffffffffffffffff",
        "1.2..4",
        "1.2.3.08",
        "a.08",
        "a.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[2001:DB8:0:0:1:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
    ];

    #[test]
    fn case_59_a_host_is_normalized_as_the_url_crate_does() {
        for host in HOSTS {
            assert_eq!(
                Host::parse(host).map(|host| host.to_string()),
                normalized(host),
                "{host}"
            );
        }
        for host in [
            "",
            "[]",
            "[",
            "[::1",
            "[::1%25eth0]",
            "[1:2]",
            "[127.0.0.1]",
        ] {
            assert_eq!(
                (Host::parse(host), normalized(host)),
                (None, None),
                "{host}"
            );
        }
    }

    #[test]
    fn case_59_two_spellings_are_one_host_if_the_url_crate_says_so() {
        for one in HOSTS {
            let Some(host) = Host::parse(one) else {
                continue;
            };
            for other in HOSTS {
                assert_eq!(
                    host.is(other),
                    normalized(one) == normalized(other),
                    "{one} {other}"
                );
            }
        }
    }

    #[test]
    fn case_58_loopback_is_loopback_in_every_spelling() {
        for host in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "127.8.9.1",
            "127.1",
            "0x7f.1",
            "[::1]",
            "[0::01]",
        ] {
            assert!(Host::parse(host).unwrap().is_loopback(), "{host}");
        }
        for host in [
            "localhost.",
            "localhost.evil.com",
            "127.0.0.1.nip.io",
            "128.0.0.1",
            "[::]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(!Host::parse(host).unwrap().is_loopback(), "{host}");
        }
    }
}
