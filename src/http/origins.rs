//! Where clients meet this server. A sign-in names one of these, so that nobody who stands between
//! can use it here.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use countersign_protocol::origin::ServerOrigin;

/// The origins that are this server's own.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeSet<ServerOrigin>);

impl Origins {
    /// Those that its operator names and, where it listens on loopback, the addresses and the name
    /// that loopback has there: nobody else can be met at those.
    #[must_use]
    pub fn of(listen: SocketAddr, is_tls: bool, public: &[ServerOrigin]) -> Self {
        let mut all: BTreeSet<ServerOrigin> = public.iter().cloned().collect();
        if listen.ip().is_loopback() {
            let (scheme, own_port) = if is_tls { ("https", 443) } else { ("http", 80) };
            let host = match listen {
                SocketAddr::V4(address) => address.ip().to_string(),
                SocketAddr::V6(address) => format!("[{}]", address.ip()),
            };
            let port = match listen.port() {
                port if port == own_port => String::new(),
                port => format!(":{port}"),
            };
            for host in [host.as_str(), "localhost"] {
                all.extend(format!("{scheme}://{host}{port}").parse().ok());
            }
        }
        Self(all)
    }

    /// Says whether a client that meets a server there meets this one.
    pub(super) fn contains(&self, origin: &ServerOrigin) -> bool {
        self.0.contains(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(listen: &str, is_tls: bool, public: &[&str]) -> Vec<String> {
        let public: Vec<ServerOrigin> = public.iter().map(|url| url.parse().unwrap()).collect();
        let origins = Origins::of(listen.parse().unwrap(), is_tls, &public);
        origins.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn loopback_is_known_by_itself() {
        assert_eq!(
            all("127.0.0.1:7070", false, &[]),
            ["http://127.0.0.1:7070", "http://localhost:7070"]
        );
        assert_eq!(
            all("[::1]:443", true, &[]),
            ["https://[::1]", "https://localhost"]
        );
    }

    #[test]
    fn any_other_address_is_what_its_operator_says() {
        let public = ["https://ledger.example.com"];
        assert_eq!(all("0.0.0.0:7070", true, &public), public);
        assert!(all("192.0.2.1:7070", true, &[]).is_empty());
    }
}
