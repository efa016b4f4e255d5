//! Signing: with `ssh-keygen -Y sign` (key file, ssh-agent, security key), or with a key in memory.
//!
//! The only file of the client that starts a process. It signs what it is given; what that is, is
//! [`crate::acts`]'s to decide, and nothing leaves before the signature was verified here.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use countersign_protocol::event::{Event, EventError};
use countersign_protocol::key::{KeyError, PublicKey};
use countersign_protocol::sshsig::{self, SshSig, SshSigError};
use countersign_protocol::statement::{Statement, StatementError, Verified};
use ed25519_dalek::SigningKey;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::Command;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::render;

/// How long `ssh-keygen` may take: a person types a passphrase or looks for the security key.
const SIGN_TIMEOUT: Duration = Duration::from_secs(120);

/// Most bytes taken of what `ssh-keygen` prints; a signature has less than 1 KiB.
const MAX_OUTPUT_BYTES: u64 = 64 * 1024;

/// Largest public key file that is read.
const MAX_KEY_FILE_BYTES: u64 = 16 * 1024;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// There is no `ssh-keygen`.
    #[error("cannot start ssh-keygen: {0}")]
    NoProgram(std::io::Error),
    /// A key file cannot be read.
    #[error("cannot read the key {path}: {source}")]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key is none that we take.
    #[error("the key {path} is not usable: {source}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// `ssh-keygen` said no.
    #[error("ssh-keygen did not sign with {path}: {said}")]
    Refused {
        /// Which key.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// It took too long.
    #[error("ssh-keygen did not answer within {} s", SIGN_TIMEOUT.as_secs())]
    Timeout,
    /// What it gave is no signature of ours.
    #[error("ssh-keygen gave a signature that is not usable: {0}")]
    Signature(#[from] SshSigError),
    /// The payload cannot be made.
    #[error("the statement cannot be written: {0}")]
    Payload(#[from] EventError),
    /// What was signed does not verify.
    #[error("the signature that was made does not verify: {0}")]
    Verify(#[from] StatementError),
}

impl From<SignError> for Failure {
    fn from(error: SignError) -> Self {
        let message = error.to_string();
        let hint = match &error {
            SignError::NoProgram(_) => {
                "install OpenSSH's client (Debian: apt-get install openssh-client)".to_owned()
            }
            SignError::KeyFile { .. } | SignError::Key { .. } => {
                return Self::usage(message).hint(
                    "--key (COUNTERSIGN_KEY) names a private ssh-ed25519 key file, or its .pub when an ssh-agent holds it",
                );
            }
            SignError::Refused { path, said } => refused_hint(path, said),
            SignError::Timeout => "touch the security key, or unlock the key with ssh-add".into(),
            SignError::Payload(_) => {
                return Self::failed("unsignable", message);
            }
            SignError::Signature(_) | SignError::Verify(_) => {
                "check that --key names the key that the ssh-agent signs with".into()
            }
        };
        Self::failed("not_signed", message).hint(hint)
    }
}

fn refused_hint(path: &Path, said: &str) -> String {
    let said = said.to_ascii_lowercase();
    if said.contains("passphrase") {
        return format!("unlock it first: ssh-add {}", path.display());
    }
    if said.contains("agent") {
        return "is the ssh-agent running (SSH_AUTH_SOCK) and does `ssh-add -l` list this key?"
            .to_owned();
    }
    if said.contains("permissions") || said.contains("unprotected") {
        return format!("chmod 600 {}", path.display());
    }
    "try the same key with: ssh-keygen -Y sign -n test -f KEY < /dev/null".to_owned()
}

/// Who signs.
#[derive(Clone)]
pub enum Signer {
    /// `ssh-keygen -Y sign -f` with this private key file, or with a `.pub` whose private half an
    /// ssh-agent holds.
    SshKeygen(PathBuf),
    /// A key in this process, for demonstrations and measurements.
    Software(SigningKey),
}

/// Never the key itself.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SshKeygen(path) => f.debug_tuple("SshKeygen").field(path).finish(),
            Self::Software(_) => f.debug_tuple("Software").finish_non_exhaustive(),
        }
    }
}

impl Signer {
    /// The public half.
    ///
    /// # Errors
    /// The file cannot be read, or is no key that we take.
    pub async fn public_key(&self) -> Result<PublicKey, SignError> {
        let path = match self {
            Self::Software(key) => return Ok(PublicKey::of(key)),
            Self::SshKeygen(path) => path,
        };
        let beside = if path.extension().is_some_and(|ending| ending == "pub") {
            path.clone()
        } else {
            let mut name = path.clone().into_os_string();
            name.push(".pub");
            PathBuf::from(name)
        };
        let line = match read_key_file(&beside).await {
            Ok(line) => line,
            // No .pub beside a private key: ssh-keygen can say it, and asks for a passphrase if so.
            Err(_) if beside != *path => {
                read_key_file(path).await?;
                keygen(path, &["-y"], b"").await?
            }
            Err(error) => return Err(error),
        };
        PublicKey::from_openssh(&line).map_err(|source| SignError::Key {
            path: path.clone(),
            source,
        })
    }

    /// Encodes and signs an event, and verifies what came out.
    ///
    /// # Errors
    /// See [`SignError`].
    pub async fn sign(&self, event: &Event) -> Result<Verified, SignError> {
        let statement = match self {
            Self::Software(key) => Statement::sign(event, key)?,
            Self::SshKeygen(path) => {
                let (kind, payload) = (event.kind(), event.to_payload()?);
                let arguments = ["-q", "-Y", "sign", "-n", kind.namespace()];
                let armour = keygen(path, &arguments, &payload).await?;
                let signature = SshSig::from_armour(&armour)?.to_blob();
                Statement {
                    kind,
                    payload,
                    signature,
                }
            }
        };
        debug_assert!(statement.signature.len() <= sshsig::MAX_SSHSIG_BYTES);
        Ok(statement.verify()?)
    }
}

async fn read_key_file(path: &Path) -> Result<String, SignError> {
    let failed = |source| SignError::KeyFile {
        path: path.to_path_buf(),
        source,
    };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    let mut capped = file.take(MAX_KEY_FILE_BYTES);
    capped.read_to_string(&mut text).await.map_err(failed)?;
    Ok(text)
}

/// Runs `ssh-keygen` on a key with `input` on its standard input; gives what it printed.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one file of the client that starts a process"
)]
async fn keygen(key: &Path, arguments: &[&str], input: &[u8]) -> Result<String, SignError> {
    let mut child = Command::new("ssh-keygen")
        .args(arguments)
        .arg("-f")
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(SignError::NoProgram)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // It may end before it read all; its own words are the better error then.
                drop(stdin.write_all(input).await);
            }
        };
        let ((), printed, said) = tokio::join!(feed, collect(stdout), relay(stderr));
        (child.wait().await, printed, said)
    };
    let (status, printed, said) = timeout(SIGN_TIMEOUT, talk)
        .await
        .map_err(|_elapsed| SignError::Timeout)?;
    if status.map_err(SignError::NoProgram)?.success() {
        return Ok(printed);
    }
    let said = said.lines().rev().find(|line| !line.trim().is_empty());
    Err(SignError::Refused {
        path: key.to_path_buf(),
        said: said.unwrap_or("it gave no reason").trim().to_owned(),
    })
}

async fn collect(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // A read that fails leaves what came; parsing it says the rest.
        drop(stream.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes).await);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Collects what `ssh-keygen` says, and passes on at once what it wants of the person.
async fn relay(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(stream) = stream else {
        return String::new();
    };
    let mut lines = BufReader::new(stream.take(MAX_OUTPUT_BYTES)).lines();
    let mut said = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("Confirm user presence") {
            crate::console::note(&render::line(&line));
        }
        said.push_str(&line);
        said.push('\n');
    }
    said
}
