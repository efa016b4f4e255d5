//! Where a server is met: scheme, host and port, as a web origin. A sign-in names it.
//!
//! It owns the one spelling of an origin. It must not look anything up.

use alloc::string::{String, ToString};
use core::fmt;
use core::net::Ipv6Addr;
use core::num::NonZeroU16;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

/// Longest host in bytes: what the domain name system carries.
const MAX_HOST_BYTES: usize = 253;

/// The text is no origin in its one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a server's origin: expected http or https, ://, a host in lower case, and a port unless it is the scheme's own, as in https://ledger.example.com or http://127.0.0.1:7070"
)]
pub struct NotAnOrigin;

/// `https://host[:port]` or `http://host[:port]`, in one spelling: lower case, the scheme's own port
/// left out, no path, an IPv6 address in brackets. Two origins are the same if their texts are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ServerOrigin(String);

impl ServerOrigin {
    /// The origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether connections to it are encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl fmt::Display for ServerOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServerOrigin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let (scheme, authority) = text.split_once("://").ok_or(NotAnOrigin)?;
        let own_port = match scheme {
            "http" => 80,
            "https" => 443,
            _other => return Err(NotAnOrigin),
        };
        let (is_host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(NotAnOrigin)?;
                (is_ipv6(address), port)
            }
            None => {
                let end = authority.find(':').unwrap_or(authority.len());
                let (host, port) = authority.split_at(end);
                (is_name(host), port)
            }
        };
        if is_host && is_port(port, own_port) {
            Ok(Self(text.to_string()))
        } else {
            Err(NotAnOrigin)
        }
    }
}

fn is_ipv6(address: &str) -> bool {
    let plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b':';
    address.bytes().all(plain) && address.parse::<Ipv6Addr>().is_ok()
}

/// A name or an IPv4 address.
fn is_name(host: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=MAX_HOST_BYTES).contains(&host.len()) && host.bytes().all(legal)
}

/// Nothing, or `:` and a number that is not the scheme's own, written without zeros before it.
fn is_port(text: &str, own: u16) -> bool {
    let Some(digits) = text.strip_prefix(':') else {
        return text.is_empty();
    };
    let number = digits.parse::<NonZeroU16>().map(NonZeroU16::get);
    number.is_ok_and(|number| number != own)
        && !digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit())
}

impl<'de> Deserialize<'de> for ServerOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_spelling() {
        for good in [
            "https://ledger.example.com",
            "https://ledger.example.com:8443",
            "http://127.0.0.1:7070",
            "http://localhost:443",
            "https://[::1]:7070",
            "https://[2001:db8::1]",
        ] {
            assert_eq!(good.parse::<ServerOrigin>().unwrap().as_str(), good);
        }
        let long = alloc::format!("https://{}", "a".repeat(254));
        for bad in [
            "",
            "https://",
            "https://:8443",
            "https://Ledger.example.com",
            "HTTPS://ledger.example.com",
            "https://ledger.example.com/",
            "https://ledger.example.com:443",
            "http://ledger.example.com:80",
            "https://ledger.example.com:0",
            "https://ledger.example.com:08443",
            "https://ledger.example.com:+8443",
            "https://ledger.example.com:65536",
            "https://ledger.example.com:",
            "https://u@ledger.example.com",
            "https://ledger example.com",
            "https://ledger.example.com?x",
            "https://b\u{fc}cher.example",
            "https://[::1",
            "https://[::G]",
            "https://[fe80::1%25eth0]",
            "https://[127.0.0.1]",
            "https://[::1]x",
            "ftp://ledger.example.com",
            "ledger.example.com",
            long.as_str(),
        ] {
            assert_eq!(bad.parse::<ServerOrigin>(), Err(NotAnOrigin), "{bad}");
        }
    }

    #[test]
    fn only_https_is_encrypted() {
        assert!("https://a".parse::<ServerOrigin>().unwrap().is_https());
        assert!(!"http://a".parse::<ServerOrigin>().unwrap().is_https());
    }
}
