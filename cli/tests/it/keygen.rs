//! Signing with the real `ssh-keygen`: a key file, and an ssh-agent with only the public half.
#![expect(
    clippy::disallowed_methods,
    reason = "these tests start ssh-keygen, ssh-agent and ssh-add themselves"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use countersign_cli::acts::{Client, RequestSpec};
use countersign_cli::exit_code;
use countersign_cli::failure::Failure;
use countersign_cli::sign::Signer;
use countersign_protocol::key::PublicKey;

use super::book::Book;
use super::server::Server;

fn generate(path: &Path, passphrase: &str) -> PublicKey {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", passphrase, "-C", "bob", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
    PublicKey::from_openssh(&std::fs::read_to_string(path.with_extension("pub")).unwrap()).unwrap()
}

/// An ssh-agent of our own, ended with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn try_request(server: &Server, home: &Path, path: &Path) -> Result<(), Failure> {
    let signer = Signer::SshKeygen(path.to_path_buf());
    let connection = super::connection(server, home, signer);
    let bob = Client::connect(&connection).await?;
    let argv = vec!["true".to_owned()];
    let spec = RequestSpec::new(vec!["web-1".parse().unwrap()], argv, "because");
    bob.request(&spec).await.map(drop)
}

#[tokio::test]
async fn a_key_file_signs_with_and_without_its_public_half_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("bob");
    let server = Server::start(Book::of(generate(&path, "")).equipped()).await;
    try_request(&server, home.path(), &path).await.unwrap();
    std::fs::remove_file(path.with_extension("pub")).unwrap();
    try_request(&server, home.path(), &path).await.unwrap();
    assert_eq!(server.signed(), 2);
}

/// Names the folder with the `.pub` for the test below, which is run in a process of its own: an
/// environment belongs to a whole process.
const FOLDER: &str = "COUNTERSIGN_TEST_FOLDER";

#[tokio::test]
#[ignore = "started by the next test, with and without an ssh-agent"]
async fn with_the_agent_of_this_process() {
    let folder = std::path::PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let public = folder.join("bob.pub");
    let line = std::fs::read_to_string(&public).unwrap();
    let key = PublicKey::from_openssh(&line).unwrap();
    let server = Server::start(Book::of(key).equipped()).await;
    let asked = try_request(&server, &folder, &public).await;
    if std::env::var_os("SSH_AUTH_SOCK").is_some() {
        asked.unwrap();
        assert_eq!(server.signed(), 1);
    } else {
        let failure = asked.unwrap_err();
        assert_eq!(
            (failure.exit, failure.code.as_ref()),
            (exit_code::FAILED, "not_signed")
        );
        assert!(failure.hint.is_some(), "{failure}");
    }
}

#[test]
fn an_agent_signs_for_a_public_key_and_its_absence_is_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("bob");
    generate(&path, "");
    let socket = home.path().join("agent");
    let agent = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn();
    let _agent = Agent(agent.unwrap());
    for _try in 0..100 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(&path).env("SSH_AUTH_SOCK", &socket);
    assert!(add.status().unwrap().success());
    std::fs::remove_file(&path).unwrap();
    for with_agent in [true, false] {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again
            .args([
                "--exact",
                "keygen::with_the_agent_of_this_process",
                "--ignored",
            ])
            .env(FOLDER, home.path())
            .env_remove("SSH_AUTH_SOCK");
        if with_agent {
            again.env("SSH_AUTH_SOCK", &socket);
        }
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn keys_that_cannot_sign_are_told_apart() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(Book::ready()).await;
    let absent = try_request(&server, home.path(), &home.path().join("nobody")).await;
    assert_eq!(absent.unwrap_err().exit, exit_code::USAGE);
    let rsa = home.path().join("rsa");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ecdsa", "-N", "", "-f"])
        .arg(&rsa)
        .status();
    assert!(made.unwrap().success());
    let unsupported = try_request(&server, home.path(), &rsa).await.unwrap_err();
    assert_eq!(unsupported.exit, exit_code::USAGE);
    assert!(
        unsupported.message().contains("ssh-ed25519"),
        "{unsupported}"
    );
    assert_eq!(server.signed(), 0);
}
