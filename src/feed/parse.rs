//! The file of sinks, parsed once.
//!
//! Files of secrets and CAs are read here, so that a mistake stops the server at its start and not a
//! sink at night. What is wrong is told with what to do, and never with a secret.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{Certificate, Url};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::config::{
    Begin, ConfigError, FeedConfig, Format, Kinds, Receiver, ReceiverKind, SinkConfig, SyslogTo,
    Transport, WebhookTo,
};
use super::secret::{self, MAX_SECRETS, SecretError, Secrets};

/// Most sinks of a server: each takes a connection of the database.
const MAX_SINKS: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    sink: Vec<RawSink>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawKind {
    Jsonl,
    Syslog,
    Webhook,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSink {
    name: String,
    kind: RawKind,
    from: Begin,
    #[serde(default = "event")]
    format: Format,
    kinds: Option<Vec<String>>,
    #[serde(default)]
    texts: bool,
    path: Option<PathBuf>,
    to: Option<String>,
    url: Option<SecretString>,
    url_file: Option<PathBuf>,
    #[serde(default)]
    secret_files: Vec<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default)]
    insecure: bool,
}

const fn event() -> Format {
    Format::Event
}

impl FeedConfig {
    /// Reads a file of sinks and the files of secrets and CAs that it names. Relative paths are
    /// beside it.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let raw: RawFile = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            ConfigError::Toml {
                path: path.to_path_buf(),
                line: before.unwrap_or_default().matches('\n').count() + 1,
                why: without_values(error.message()),
            }
        })?;
        let sinks = |why: String| ConfigError::Sinks {
            path: path.to_path_buf(),
            why,
        };
        if raw.sink.is_empty() {
            return Err(sinks("there is no [[sink]] in it".into()));
        }
        if raw.sink.len() > MAX_SINKS {
            return Err(sinks(format!("a server feeds {MAX_SINKS} sinks at most")));
        }
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let mut names = BTreeSet::new();
        let mut checked = Vec::new();
        for raw in raw.sink {
            let name = secret::unless_it_looks_like_one(&raw.name).to_owned();
            let failed = |why| ConfigError::Sink {
                path: path.to_path_buf(),
                name,
                why,
            };
            let sink = raw.check(folder).map_err(failed)?;
            if !names.insert(sink.name.clone()) {
                return Err(sinks(format!("two sinks are called {}", sink.name)));
            }
            checked.push(sink);
        }
        Ok(Self { sinks: checked })
    }
}

impl RawSink {
    fn check(self, folder: &Path) -> Result<SinkConfig, String> {
        self.check_places()?;
        let name = self.name.parse()?;
        let kinds = self.kinds.as_deref().map(Kinds::of).transpose()?;
        self.check_fields()?;
        let receiver = match self.kind {
            RawKind::Jsonl => {
                let path = self.path.as_deref();
                let path = path.ok_or("a jsonl sink needs path, the file to write to")?;
                ReceiverKind::File(folder.join(path))
            }
            RawKind::Syslog => ReceiverKind::Syslog(self.syslog(folder)?),
            RawKind::Webhook => ReceiverKind::Webhook(Box::new(self.webhook(folder)?)),
        };
        Ok(SinkConfig {
            name,
            receiver: Receiver(receiver),
            format: self.format,
            kinds: kinds.unwrap_or_default(),
            begin: self.from,
            texts: self.texts,
        })
    }

    /// A secret where a name belongs would be shown with the mistake, so it is looked for first.
    fn check_places(&self) -> Result<(), String> {
        let path = |path: &Option<PathBuf>| path.iter().cloned().collect();
        let kinds = self.kinds.iter().flatten().map(PathBuf::from).collect();
        let places: [(&str, Vec<PathBuf>); 8] = [
            ("name", vec![PathBuf::from(&self.name)]),
            ("kinds", kinds),
            ("path", path(&self.path)),
            ("url_file", path(&self.url_file)),
            ("secret_files", self.secret_files.clone()),
            ("ca", path(&self.ca)),
            ("cert", path(&self.cert)),
            ("key", path(&self.key)),
        ];
        for (place, values) in places {
            if values
                .iter()
                .any(|value| secret::looks_like_one(&value.to_string_lossy()))
            {
                return Err(format!(
                    "what stands at {place} begins with whsec_ or holds ://, so it may be a secret or an address in the wrong place, and is not shown; write it into a file of mode 0600 and name that file in secret_files or url_file (a file that is called so: ./ before its name)"
                ));
            }
        }
        Ok(())
    }

    /// What belongs to another kind of sink is a mistake, and not left out silently.
    fn check_fields(&self) -> Result<(), String> {
        let given = [
            ("path", self.path.is_some(), RawKind::Jsonl),
            ("to", self.to.is_some(), RawKind::Syslog),
            ("cert", self.cert.is_some(), RawKind::Syslog),
            ("key", self.key.is_some(), RawKind::Syslog),
            ("url", self.url.is_some(), RawKind::Webhook),
            ("url_file", self.url_file.is_some(), RawKind::Webhook),
            (
                "secret_files",
                !self.secret_files.is_empty(),
                RawKind::Webhook,
            ),
        ];
        for (field, is_given, kind) in given {
            if is_given && kind != self.kind {
                let kind = format!("{kind:?}").to_lowercase();
                return Err(format!("{field} belongs to a {kind} sink"));
            }
        }
        if self.kind == RawKind::Jsonl && (self.ca.is_some() || self.insecure) {
            return Err("ca and insecure belong to sinks that are reached over a network".into());
        }
        if self.format == Format::Slack && self.kind != RawKind::Webhook {
            return Err("the format slack is for webhooks".into());
        }
        Ok(())
    }

    fn syslog(&self, folder: &Path) -> Result<SyslogTo, String> {
        const FORM: &str = "a syslog sink needs to, as in tls://siem.example.com:6514, tcp://127.0.0.1:514 or udp://127.0.0.1:514";
        let url: Url = self
            .to
            .as_deref()
            .and_then(|to| to.parse().ok())
            .ok_or(FORM)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(FORM)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = url.port().ok_or(FORM)?;
        let is_bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty();
        if !is_bare {
            return Err(FORM.into());
        }
        let transport = match url.scheme() {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "tls" => {
                let ca = self.ca.as_deref().ok_or(
                    "syslog over TLS needs ca, the file of the CA whose certificate the receiver has (for a public one, the system's bundle)",
                )?;
                Transport::Tls {
                    name: ServerName::try_from(host.clone()).map_err(|_| {
                        format!("{host:?} is no name that a certificate could have")
                    })?,
                    config: Arc::new(self.tls(folder, &folder.join(ca))?),
                }
            }
            _other => return Err(FORM.into()),
        };
        if !matches!(transport, Transport::Tls { .. }) {
            self.check_clear(&host)?;
        }
        Ok(SyslogTo {
            transport,
            host,
            port,
        })
    }

    /// Whom a connection over TLS believes, and what it shows of itself.
    fn tls(&self, folder: &Path, ca: &Path) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(ca)?);
        match (&self.cert, &self.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(cert), Some(key)) => {
                let (cert, key) = (folder.join(cert), folder.join(key));
                let chain = certificate_chain(&cert)?;
                let text = secret::read_private(&key).map_err(|error| error.to_string())?;
                let no_key = |_| format!("{} holds no private key as PEM", key.display());
                let private = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(no_key)?;
                let unusable = |error| format!("cert and key do not fit together: {error}");
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(unusable)
            }
            (Some(_), None) | (None, Some(_)) => Err("cert and key are given together".into()),
        }
    }

    fn webhook(&self, folder: &Path) -> Result<WebhookTo, String> {
        let url = match (&self.url, &self.url_file) {
            (Some(url), None) => url.clone(),
            (None, Some(file)) => {
                secret::read_line(&folder.join(file)).map_err(|error| error.to_string())?
            }
            (None, None) | (Some(_), Some(_)) => {
                return Err("a webhook needs url, or url_file where the address is itself a secret, and not both".into());
            }
        };
        let parsed: Url = url.expose_secret().parse().map_err(
            |_| "its url cannot be read; it looks like https://hooks.example.com/countersign",
        )?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("its url holds a name or password; put the whole url into a url_file, or have the receiver check signatures instead".into());
        }
        match parsed.scheme() {
            "https" => {}
            "http" => self.check_clear(parsed.host_str().unwrap_or_default())?,
            _other => return Err("its url is neither https nor http".into()),
        }
        if self.secret_files.is_empty() && self.format != Format::Slack {
            return Err("a webhook needs secret_files, a list of at least one: without a signature its receiver cannot tell this feed from anybody else (only the format slack goes without)".into());
        }
        if self.secret_files.len() > MAX_SECRETS {
            return Err(format!("a webhook has {MAX_SECRETS} secrets at most"));
        }
        let files: Vec<PathBuf> = self
            .secret_files
            .iter()
            .map(|file| folder.join(file))
            .collect();
        let secrets = Secrets::read(&files).map_err(|error: SecretError| error.to_string())?;
        let ca = match (&self.ca, parsed.scheme()) {
            // Without TLS no roots are needed, and a bare machine has none.
            (_, "http") => Some(Vec::new()),
            (Some(ca), _) => Some(certificates(&folder.join(ca))?),
            (None, _) => None,
        };
        Ok(WebhookTo {
            url,
            origin: parsed.origin().ascii_serialization(),
            secrets,
            ca,
        })
    }

    /// In clear to another machine only who says so.
    fn check_clear(&self, host: &str) -> Result<(), String> {
        let host = host.trim_matches(['[', ']']);
        let address: Option<IpAddr> = host.parse().ok();
        let is_near = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        if is_near || self.insecure {
            return Ok(());
        }
        Err(format!(
            "{host} is another machine, and messages would go there in clear: whoever is on the way could read and change them; use tls or https, or say insecure = true"
        ))
    }
}

/// What TOML's reader says, without the value that it found: in a wrong place that may be a secret.
fn without_values(message: &str) -> String {
    const BEFORE_A_VALUE: [&str; 3] = ["invalid type", "invalid value", "unknown variant"];
    let mut told = message.trim_end().to_owned();
    if BEFORE_A_VALUE.iter().any(|words| told.starts_with(words)) {
        let (found, expected) = told
            .rfind(", expected ")
            .map_or((told.as_str(), ""), |at| told.split_at(at));
        let value = found.find(['"', '`']).unwrap_or(found.len());
        let (words, _not_shown) = found.split_at(value);
        told = format!("{}{expected}", words.trim_end());
    }
    // A key, say: whatever the reader says one day, this does not leave.
    secret::unless_it_looks_like_one(&told).to_owned()
}

fn read_ca(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path)
        .map_err(|error| format!("cannot read the certificates {}: {error}", path.display()))
}

fn no_certificate(path: &Path) -> String {
    format!(
        "{} holds no certificate as PEM (-----BEGIN CERTIFICATE-----)",
        path.display()
    )
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    match Certificate::from_pem_bundle(&read_ca(path)?) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(no_certificate(path)),
    }
}

fn certificate_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read_ca(path)?).collect();
    let found = found.map_err(|_| no_certificate(path))?;
    if found.is_empty() {
        return Err(no_certificate(path));
    }
    Ok(found)
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(certificate_chain(path)?);
    if added == 0 {
        return Err(no_certificate(path));
    }
    Ok(roots)
}
