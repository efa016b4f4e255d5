//! TLS by certificate and key files, read again when they change.
//!
//! It owns the pair that is in force: it is replaced whole or not at all. It must not accept
//! connections.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, version};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How often the files are looked at: a renewed certificate serves within seconds, and two small
/// reads cost nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Largest file: a chain of certificates has some ten KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What nobody beside owner and group may do with a key, nor the group beside reading it.
const FORBIDDEN_MODE: u32 = 0o027;

/// The two files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate and those that lead to its CA, PEM, its own first.
    pub cert: PathBuf,
    /// The private key of the first certificate, PEM.
    pub key: PathBuf,
}

/// Why a pair cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; it must be there and readable by the account that serves", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any.
    #[error("{path} is larger than 1 MiB; it is no PEM file of certificates or a key", path = .0.display())]
    TooLarge(PathBuf),
    /// Others can read the key.
    #[error("the key {path} can be read by others, who could then pose as this server; run: chmod 600 {path}", path = .0.display())]
    Permissions(PathBuf),
    /// No certificate in the file of certificates.
    #[error("{path} holds no certificate; it must begin with the server's own, as PEM (-----BEGIN CERTIFICATE-----)", path = .0.display())]
    NoCertificate(PathBuf),
    /// No key in the file of the key.
    #[error("{path} holds no private key that can be used; it must be one, as PEM without a passphrase", path = .0.display())]
    NoKey(PathBuf),
    /// The key is not the certificate's.
    #[error("the key {key} does not belong to the first certificate of {cert}; put both files of one certificate in place, its own certificate first", key = key.display(), cert = cert.display())]
    Mismatch {
        /// The certificates.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Something else about the pair.
    #[error("the certificate {cert} cannot serve: {source}; look at it with: openssl x509 -noout -text -in {cert}", cert = cert.display())]
    Unusable {
        /// The certificates.
        cert: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// What both files held at one moment.
struct Pair {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Pair {
    /// Names the contents without holding them.
    fn digest(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(Sha256::digest(&self.cert))
            .chain_update(Sha256::digest(self.key.as_slice()))
            .finalize()
            .into()
    }
}

fn read(path: &Path, forbidden_mode: u32) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & forbidden_mode != 0 {
        return Err(TlsError::Permissions(path.to_owned()));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(TlsError::TooLarge(path.to_owned()));
    }
    // Room for all of it at once: a buffer that grows would leave pieces of a key behind.
    let room = usize::try_from(metadata.len())
        .unwrap_or(0)
        .saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

impl TlsFiles {
    fn read(&self) -> Result<Pair, TlsError> {
        Ok(Pair {
            cert: std::mem::take(&mut *read(&self.cert, 0)?),
            key: read(&self.key, FORBIDDEN_MODE)?,
        })
    }

    fn config(&self, pair: &Pair) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pair.cert).collect();
        let no_certificate = || TlsError::NoCertificate(self.cert.clone());
        let chain = chain.map_err(|_| no_certificate())?;
        if chain.is_empty() {
            return Err(no_certificate());
        }
        let no_key = |_| TlsError::NoKey(self.key.clone());
        let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(no_key)?;
        let unusable = |source| self.unusable(source);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn unusable(&self, source: rustls::Error) -> TlsError {
        let (cert, key) = (self.cert.clone(), self.key.clone());
        if matches!(source, rustls::Error::InconsistentKeys(_)) {
            TlsError::Mismatch { cert, key }
        } else {
            TlsError::Unusable { cert, source }
        }
    }
}

/// The pair in force. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    files: TlsFiles,
    first: [u8; 32],
    config: watch::Sender<Arc<ServerConfig>>,
    look: Duration,
}

impl Tls {
    /// Reads the pair.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let pair = files.read()?;
        Ok(Self {
            first: pair.digest(),
            config: watch::Sender::new(files.config(&pair)?),
            files,
            look: LOOK,
        })
    }

    /// Looks at the files more or less often than every two seconds.
    #[must_use]
    pub const fn looking_every(mut self, look: Duration) -> Self {
        self.look = look;
        self
    }

    /// What takes up connections with the pair that is in force now. What is remembered of earlier
    /// connections goes with its pair.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config.borrow()))
    }

    /// Puts changed files in force, until `shutdown`. Connections that are open go on.
    pub(super) async fn follow(self, shutdown: CancellationToken) {
        let mut view = View {
            served: self.first,
            trouble: None,
        };
        while shutdown
            .run_until_cancelled(tokio::time::sleep(self.look))
            .await
            .is_some()
        {
            let (files, served) = (self.files.clone(), view.served);
            let look = move || {
                let pair = files.read()?;
                let digest = pair.digest();
                let is_new = digest != served;
                let config = is_new.then(|| files.config(&pair)).transpose()?;
                Ok(config.map(|config| (config, digest)))
            };
            // A disk that hangs does not hold up connections.
            let Ok(seen) = tokio::task::spawn_blocking(look).await else {
                continue;
            };
            if let Some(config) = view.see(seen) {
                self.config.send_replace(config);
                let path = self.files.cert.display();
                tracing::info!(%path, "the certificate changed; the new one serves from now on");
            }
        }
    }
}

/// A pair that can serve, and the digest of what it was read from.
type Renewed = (Arc<ServerConfig>, [u8; 32]);

/// What was seen of the files so far.
struct View {
    served: [u8; 32],
    /// What was wrong at the last look, and whether it was told.
    trouble: Option<(String, bool)>,
}

impl View {
    /// Takes a look; gives what is to be put in force. One file may have been replaced a moment
    /// before the other, so trouble is told when it is still there at the next look, and once.
    fn see(&mut self, seen: Result<Option<Renewed>, TlsError>) -> Option<Arc<ServerConfig>> {
        let error = match seen {
            Ok(new) => {
                self.trouble = None;
                let (config, digest) = new?;
                self.served = digest;
                return Some(config);
            }
            Err(error) => error.to_string(),
        };
        let told = match self.trouble.take() {
            Some((before, told)) if before == error => {
                if !told {
                    tracing::error!(%error, "the new certificate and key are not used, the old ones serve on; mend the files, they are read again by themselves");
                }
                true
            }
            Some(_) | None => false,
        };
        self.trouble = Some((error, told));
        None
    }
}
