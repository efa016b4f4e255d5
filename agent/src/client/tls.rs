//! Whom connections trust: the system's CAs, or those of one pinned file.
//!
//! It owns the pinned file's text and the words for what fails in TLS. It must not connect.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::{Certificate, Url};
use rustls::CertificateError;

/// A pinned CA file. With it no other CA counts; before it is read, none at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ca {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds, PEM.
    pub pem: String,
}

impl Ca {
    /// The certificates in it; none when it holds none that can be read.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        Certificate::from_pem_bundle(self.pem.as_bytes()).unwrap_or_default()
    }
}

/// Says whether what goes to this address never leaves the machine.
#[must_use]
pub fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

/// What TLS has against a server, as a sentence; none when the trouble is not of TLS.
pub(super) fn reason(error: &(dyn Error + 'static)) -> Option<String> {
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
                "its certificate was not issued by a CA that is trusted here; ca in agent.toml names the file of another"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired, or this machine's clock is ahead"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet, or this machine's clock is behind"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name than the one in server"
            }
            CertificateError::Revoked => "its certificate was revoked",
            _other => return format!("its certificate does not stand ({error})"),
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS at this address",
        other => return format!("TLS failed ({other})"),
    };
    words.to_owned()
}
