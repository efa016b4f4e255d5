//! Whom a connection trusts: the system's CAs or a pinned file, never nobody by accident.
//!
//! It owns what is read from the CA file and the words for what fails in TLS. It must not connect.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Url};
use rustls::CertificateError;

/// How a server is reached.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// A file of CA certificates, PEM: with it only those count, and not the system's.
    pub ca: Option<PathBuf>,
    /// Speak in clear to another machine.
    pub insecure_http: bool,
}

/// Why a server may not be reached that way.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// In clear, over a network.
    #[error(
        "{0} is another machine, and http sends sessions and all output there in clear: whoever is on the way can read them, and use the session as you"
    )]
    InClear(String),
    /// The CA file cannot be read.
    #[error("cannot read the CA file {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The CA file holds none.
    #[error("the CA file {path} holds no certificate as PEM (-----BEGIN CERTIFICATE-----)", path = .0.display())]
    NoCertificate(PathBuf),
}

impl Way {
    /// Checks the way to a server, and gives the only CAs that count there, if some are pinned.
    pub(crate) fn check(&self, url: &Url) -> Result<Option<Vec<Certificate>>, WayError> {
        if url.scheme() == "https" {
            return self.ca.as_deref().map(read).transpose();
        }
        if !self.insecure_http && !is_this_machine(url) {
            return Err(WayError::InClear(url.host_str().unwrap_or("it").to_owned()));
        }
        // Without TLS no roots are needed, and a bare machine has none.
        Ok(Some(Vec::new()))
    }
}

fn read(path: &Path) -> Result<Vec<Certificate>, WayError> {
    let text = std::fs::read(path).map_err(|source| WayError::Read {
        path: path.to_owned(),
        source,
    })?;
    match Certificate::from_pem_bundle(&text) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(WayError::NoCertificate(path.to_owned())),
    }
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

/// What TLS has against a server, as the end of "cannot trust it: …"; none when the trouble is not
/// of TLS.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(words(found));
    }
    // An I/O error does not give what it wraps as its source.
    let wrapped = error.downcast_ref::<io::Error>();
    match wrapped.and_then(io::Error::get_ref) {
        Some(wrapped) => reason(wrapped),
        None => reason(error.source()?),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls adds errors; those that people meet have words of ours, the others its own"
)]
fn words(error: &rustls::Error) -> String {
    let words = match error {
        rustls::Error::InvalidCertificate(error) => match error {
            // A CA of the same name with another key is another one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate was not issued by a CA that is trusted here"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired, or this machine's clock is ahead"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet, or this machine's clock is behind"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name than the one in the address"
            }
            CertificateError::Revoked => "its certificate was revoked",
            _other => return format!("its certificate does not stand ({error})"),
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS at this address",
        other => return format!("TLS failed ({other})"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, insecure_http: bool) -> Result<Option<usize>, String> {
        let way = Way {
            ca: None,
            insecure_http,
        };
        let roots = way.check(&url.parse().unwrap());
        let count = roots.map(|roots| roots.map(|roots| roots.len()));
        count.map_err(|error| error.to_string())
    }

    #[test]
    fn clear_is_for_this_machine_unless_told() {
        for near in [
            "http://127.0.0.1:7070",
            "http://[::1]:7070",
            "http://localhost",
        ] {
            assert_eq!(check(near, false), Ok(Some(0)), "{near}");
        }
        for far in [
            "http://192.0.2.1:7070",
            "http://ledger.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
        ] {
            assert!(check(far, false).is_err(), "{far}");
            assert_eq!(check(far, true), Ok(Some(0)), "{far}");
        }
        assert_eq!(check("https://ledger.example.com", false), Ok(None));
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let way = Way {
            ca: Some(path.clone()),
            insecure_http: false,
        };
        let url = "https://ledger.example.com".parse().unwrap();
        assert!(matches!(way.check(&url), Err(WayError::Read { .. })));
        std::fs::write(&path, "none").unwrap();
        assert!(matches!(way.check(&url), Err(WayError::NoCertificate(_))));
    }
}
