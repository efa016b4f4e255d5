//! TLS as its operator sets it up: files for the server, a CA for people and hosts, and what each
//! of them says when something about that is wrong.

use std::fs;
use std::process::{Child, Command};

use serde_json::Value;

use crate::agents::agent_of;
use crate::certificates::Authority;
use crate::folder::Folder;
use crate::proxy::Proxy;
use crate::support::{Dev, PROGRAM, free_port, signal, text, until};

/// A second server of a dev's ledger, killed when dropped.
struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn start(dev: &Dev, files: &Folder, certificates: &Authority) -> Self {
        let (cert, key) = certificates.issue(&["localhost"]).files(files.path());
        let port = free_port();
        let child = Command::new(PROGRAM)
            .args(["serve", "--first-start", "--listen"])
            .arg(format!("127.0.0.1:{port}"))
            .env("DATABASE_URL", dev.env("DATABASE_URL"))
            .env("COUNTERSIGN_TLS_CERT", cert)
            .env("COUNTERSIGN_TLS_KEY", key)
            .env("COUNTERSIGN_KEYS", dev.data().join("ledger"))
            .env("COUNTERSIGN_CHECKPOINT", files.path().join("checkpoint"))
            .stderr(fs::File::create(files.path().join("serve")).unwrap())
            .spawn()
            .unwrap();
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn people_and_agents_that_pin_a_ca_work_over_tls() {
    let (dev, files) = (Dev::start(), Folder::new("tls"));
    let authority = Authority::new();
    let ca = authority.file(files.path());
    let served = Served::start(&dev, &files, &authority);
    let url = served.url();
    let with_ca = ["--server", &url, "--ca", ca.to_str().unwrap(), "list"];
    until("it serves over TLS", || {
        let listed = dev.verb("alice", &with_ca);
        listed.status.success()
    });
    // Without the CA, or with another, nothing is said to whoever answers there.
    let other = Folder::new("other-ca");
    let with_other = Authority::named("another CA").file(other.path());
    let with_other = [
        "--server",
        &url,
        "--ca",
        with_other.to_str().unwrap(),
        "list",
    ];
    let told = dev.json("alice", 5, &with_other);
    assert!(message(&told).contains("not issued by a CA"), "{told}");
    let nothing = other.path().join("nothing");
    let nothing = ["--server", &url, "--ca", nothing.to_str().unwrap(), "list"];
    let told = dev.json("alice", 2, &nothing);
    assert!(message(&told).contains("cannot read the CA file"), "{told}");
    // The host's agent goes there too, and trusts that CA only.
    fs::write(dev.data().join("agent/ca.pem"), &authority.pem).unwrap();
    let config = dev.data().join("agent/agent.toml");
    let direct = fs::read_to_string(&config).unwrap();
    let server = format!("\"{}\"", dev.env("COUNTERSIGN_SERVER"));
    assert!(direct.contains(&server));
    let over_tls = direct.replace(&server, &format!("\"{url}\"\nca = \"ca.pem\""));
    fs::write(&config, over_tls).unwrap();
    signal(agent_of(&dev), "KILL");
    let shown = dev.through(&[], &["echo", "over TLS"]);
    assert_eq!(shown["executions"][0]["stdout"], "over TLS\n");
    let log = || fs::read_to_string(files.path().join("serve")).unwrap();
    // A renewed certificate serves without a restart, and the agent's stream goes on.
    authority.issue(&["localhost"]).files(files.path());
    until("the new certificate serves", || {
        log().contains("the certificate changed")
    });
    let shown = dev.through(&[], &["echo", "renewed"]);
    assert_eq!(shown["executions"][0]["stdout"], "renewed\n");
    // Half a pair does not, and the log says what to do.
    let half = authority.issue(&["localhost"]);
    crate::certificates::put(&files.path().join("cert.pem"), &half.cert, 0o644);
    until("the half pair is told", || {
        log().contains("put both files of one certificate in place")
    });
    let shown = dev.through(&[], &["echo", "still"]);
    assert_eq!(shown["executions"][0]["stdout"], "still\n");
    assert!(dev.is_sound());
}

fn message(told: &Value) -> &str {
    told["error"]["message"].as_str().unwrap()
}

#[test]
fn a_sign_in_through_a_relay_is_refused() {
    let dev = Dev::shared();
    let relay = Proxy::start(dev.env("COUNTERSIGN_SERVER"));
    let told = dev.json("alice", 4, &["--server", &relay.url, "list"]);
    assert_eq!(told["error"]["code"], "origin", "{told}");
    assert!(message(&told).contains(&relay.url), "{told}");
    dev.json("alice", 0, &["list"]);
}

#[test]
fn clear_text_over_a_network_is_refused_by_all_three() {
    let output = Command::new(PROGRAM)
        .args(["serve", "--listen", "0.0.0.0:0"])
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .output()
        .unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for way_out in ["--tls-cert", "--listen 127.0.0.1:7070", "--behind-proxy"] {
        assert!(told.contains(way_out), "{told}");
    }
    let dev = Dev::shared();
    let told = dev.json("alice", 2, &["--server", "http://192.0.2.1:7070", "list"]);
    assert!(message(&told).contains("in clear"), "{told}");
    let folder = Folder::new("clear");
    let own = fs::read_to_string(dev.data().join("agent/agent.toml")).unwrap();
    let signers = dev.data().join("agent/allowed_signers");
    fs::copy(signers, folder.path().join("allowed_signers")).unwrap();
    let config = folder.path().join("agent.toml");
    let check = |text: &str| {
        fs::write(&config, text).unwrap();
        let output = Command::new(PROGRAM)
            .args(["agent", "--config"])
            .arg(&config)
            .arg("check-config")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    let far = own.replace(dev.env("COUNTERSIGN_SERVER"), "http://192.0.2.1:7070");
    let (code, told) = check(&far);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("insecure_http = true"), "{told}");
    assert_eq!(check(&format!("insecure_http = true\n{far}")).0, Some(0));
    // A CA file without a certificate is a mistake that is told before the agent starts.
    fs::write(folder.path().join("ca.pem"), "nothing").unwrap();
    let (code, told) = check(&format!("ca = \"ca.pem\"\n{own}"));
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("holds no certificate"), "{told}");
}
