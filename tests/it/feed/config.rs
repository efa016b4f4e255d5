//! What a file of sinks may say. A mistake stops the server at its start, and says what to do.

use std::path::Path;

use countersign::feed::FeedConfig;

use super::support::{SECRET, private};
use crate::certificates::{Authority, put};
use crate::folder::Folder;

fn read(folder: &Path, text: &str) -> Result<String, String> {
    let file = folder.join("feed.toml");
    std::fs::write(&file, text).unwrap();
    match FeedConfig::read(&file) {
        Ok(config) => Ok(format!(
            "{:?} {}",
            config,
            config
                .sinks
                .iter()
                .map(ToString::to_string)
                .collect::<String>()
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn sink(kind: &str, rest: &str) -> String {
    format!("[[sink]]\nname = \"one\"\nkind = \"{kind}\"\nfrom = \"start\"\n{rest}\n")
}

#[test]
fn mistakes_are_named_with_what_to_do() {
    let folder = Folder::new("feed");
    let folder = folder.path();
    private(folder, "secret", SECRET);
    Authority::new().file(folder);
    private(folder, "short", "whsec_c2hvcnQ=");
    put(&folder.join("open"), SECRET, 0o644);
    put(&folder.join("empty.pem"), "", 0o644);
    let jsonl = sink("jsonl", "path = \"x\"");
    let hook = |rest: &str| {
        sink(
            "webhook",
            &format!("url = \"https://siem.example.com/x\"\n{rest}"),
        )
    };
    let signed = |url: &str| {
        sink(
            "webhook",
            &format!("url = \"{url}\"\nsecret_files = [\"secret\"]"),
        )
    };
    let cases = [
        (String::new(), "no [[sink]]"),
        (format!("{jsonl}{jsonl}"), "two sinks are called one"),
        (jsonl.replace("\"one\"", "\"One two\""), "a-z 0-9"),
        (
            jsonl.replace("from = \"start\"\n", ""),
            "missing field `from`",
        ),
        (jsonl.replace("path", "pth"), "unknown field `pth`"),
        (sink("jsonl", ""), "needs path"),
        (
            sink("jsonl", "path = \"x\"\nto = \"udp://127.0.0.1:1\""),
            "to belongs to a syslog sink",
        ),
        (
            sink("jsonl", "path = \"x\"\nformat = \"slack\""),
            "is for webhooks",
        ),
        (
            sink("jsonl", "path = \"x\"\nkinds = [\"comand.*\"]"),
            "no kind of event is called \"comand.*\"",
        ),
        (
            sink("jsonl", "path = \"x\"\nkinds = [\"command.req*\"]"),
            "all of a family",
        ),
        (
            sink("jsonl", "path = \"x\"\nkinds = [\"key.claimed\"]"),
            "no kind of event",
        ),
        (
            sink("jsonl", "path = \"x\"\nkinds = []"),
            "never hear anything",
        ),
        (
            sink("syslog", "to = \"siem.example.com:514\""),
            "tls://siem.example.com:6514",
        ),
        (
            sink("syslog", "to = \"udp://siem.example.com:514\""),
            "insecure = true",
        ),
        (
            sink("syslog", "to = \"tcp://192.0.2.1:514\""),
            "insecure = true",
        ),
        (
            sink("syslog", "to = \"tls://siem.example.com:6514\""),
            "needs ca",
        ),
        (
            sink(
                "syslog",
                "to = \"tls://siem.example.com:6514\"\nca = \"ca.pem\"\ncert = \"ca.pem\"",
            ),
            "given together",
        ),
        (
            sink(
                "syslog",
                "to = \"tls://siem.example.com:6514\"\nca = \"empty.pem\"",
            ),
            "no certificate",
        ),
        (hook(""), "needs secret_files"),
        (hook("secret_files = [\"nowhere\"]"), "cannot read"),
        (hook("secret_files = [\"open\"]"), "chmod 600"),
        (
            hook("secret_files = [\"short\"]"),
            "openssl rand -base64 32",
        ),
        (hook("url_file = \"secret\""), "not both"),
        (signed("http://siem.example.com/x"), "insecure = true"),
        (signed("ftp://siem.example.com/x"), "neither https nor http"),
        (
            signed("https://me:pass@siem.example.com/x"),
            "name or password",
        ),
        (signed("no url"), "cannot be read"),
    ];
    for (text, words) in cases {
        let told = read(folder, &text).expect_err(&text);
        assert!(told.contains(words), "{text}\n{told}");
        assert!(!told.contains("me:pass"), "{told}");
    }
}

#[test]
fn what_may_be_said_is_said_back_in_words() {
    let folder = Folder::new("feed");
    let folder = folder.path();
    private(folder, "secret", SECRET);
    Authority::new().file(folder);
    let cases = [
        (sink("jsonl", "path = \"x.jsonl\""), "JSON lines to"),
        (
            sink("syslog", "to = \"udp://[::1]:514\""),
            "to ::1 port 514 over UDP, without any promise",
        ),
        (
            sink("syslog", "to = \"tcp://192.0.2.1:514\"\ninsecure = true"),
            "TCP in clear",
        ),
        (
            sink(
                "syslog",
                "to = \"tls://siem.example.com:6514\"\nca = \"ca.pem\"",
            ),
            "over TLS",
        ),
        (
            sink(
                "webhook",
                "url = \"http://127.0.0.1:1/\"\nsecret_files = [\"secret\"]",
            ),
            "signed with 1 secret",
        ),
        (
            sink(
                "webhook",
                "url = \"https://hooks.example.com/T0/B0\"\nformat = \"slack\"",
            ),
            "an unsigned webhook at https://hooks.example.com,",
        ),
        (
            sink(
                "jsonl",
                "path = \"x\"\ntexts = true\nkinds = [\"command.*\"]",
            ),
            "8 kinds",
        ),
    ];
    for (text, words) in cases {
        let told = read(folder, &text).unwrap();
        assert!(told.contains(words), "{text}\n{told}");
    }
}

#[test]
fn secrets_and_secret_addresses_are_in_no_words() {
    let folder = Folder::new("feed");
    let folder = folder.path();
    private(folder, "secret", SECRET);
    private(
        folder,
        "address",
        "https://hooks.example.com/T00/hidden-part\n",
    );
    let text = sink(
        "webhook",
        "url_file = \"address\"\nsecret_files = [\"secret\"]",
    );
    let told = read(folder, &text).unwrap();
    assert!(told.contains("https://hooks.example.com"), "{told}");
    assert!(!told.contains("hidden-part"), "{told}");
    assert!(!told.contains(&SECRET[6..]), "{told}");
    let wrong = text.replace("from = \"start\"", "from = \"hidden-part\"");
    put(
        &folder.join("address"),
        "https://hooks.example.com/T00/hidden-part\n",
        0o640,
    );
    let told = read(folder, &text).unwrap_err();
    assert!(
        told.contains("chmod 600") && !told.contains("hidden-part"),
        "{told}"
    );
    assert!(read(folder, &wrong).unwrap_err().contains("line 4"));
}

/// Whoever mistakes a line is told which one, and neither terminal nor journal is told the secret.
#[test]
fn a_secret_in_a_wrong_place_is_not_shown_with_the_mistake() {
    const ADDRESS: &str = "https://hooks.example.com/T00/hidden-part";
    let folder = Folder::new("feed");
    let hook = |rest: String| sink("webhook", &format!("url = \"{ADDRESS}\"\n{rest}"));
    let wrong = |from: &str, to: &str| sink("jsonl", "path = \"x\"").replace(from, to);
    let cases = [
        (
            hook(format!("secret_files = \"{SECRET}\"")),
            "line 6: invalid type: string, expected",
        ),
        (hook(format!("secret_files = {SECRET}")), "line 6"),
        (
            hook(format!("secret_files = [\"{SECRET}\"]")),
            "what stands at secret_files",
        ),
        (
            hook(format!("secret_files = [\"{ADDRESS}\"]")),
            "what stands at secret_files",
        ),
        (hook(format!("ca = \"{SECRET}\"")), "what stands at ca"),
        (
            hook(format!("texts = \"{SECRET}\"")),
            "line 6: invalid type: string, expected a boolean",
        ),
        (hook(format!("\"{SECRET}\" = 1")), "line 6"),
        (hook(format!("{SECRET} = 1")), "line 6"),
        (
            hook(format!("kinds = [\"{SECRET}\"]")),
            "what stands at kinds",
        ),
        (hook(format!("url = \"{ADDRESS}\"")), "line 6"),
        (hook(format!("url_file = [\"{ADDRESS}\"]")), "line 6"),
        (
            sink("webhook", &format!("url_file = \"{ADDRESS}\"")),
            "what stands at url_file",
        ),
        (
            sink("jsonl", &format!("path = \"{SECRET}\"")),
            "what stands at path",
        ),
        (sink("syslog", &format!("to = \"{ADDRESS}\"")), "needs to"),
        (
            wrong("\"start\"", &format!("\"{SECRET}\"")),
            "line 4: unknown variant, expected",
        ),
        (
            wrong("\"start\"", "\"`\\\", expected hidden-part\""),
            "line 4: unknown variant, expected",
        ),
        (
            wrong("\"start\"", &format!("\"start\"\nformat = \"{ADDRESS}\"")),
            "line 5: unknown variant, expected",
        ),
        (
            wrong("\"jsonl\"", &format!("\"{ADDRESS}\"")),
            "line 3: unknown variant, expected",
        ),
        (
            wrong("\"one\"", &format!("\"{SECRET}\"")),
            "what stands at name",
        ),
    ];
    for (text, words) in cases {
        let told = read(folder.path(), &text).expect_err(&text);
        assert!(told.contains(words), "{text}\n{told}");
        assert!(
            !told.contains(&SECRET[6..]) && !told.contains("hidden-part"),
            "{told}"
        );
    }
}

#[test]
fn the_manuals_file_is_one_that_can_be_used() {
    let manual = include_str!("../../../docs/FEED.md");
    let mut blocks = manual.split("```");
    let text = blocks
        .find_map(|block| block.strip_prefix("toml\n"))
        .unwrap();
    let folder = Folder::new("feed");
    let folder = folder.path();
    let authority = Authority::new();
    put(&folder.join("siem-ca.pem"), &authority.pem, 0o644);
    let pair = authority.issue(&["feed.example.com"]);
    put(&folder.join("feed.pem"), &pair.cert, 0o644);
    private(folder, "feed.key", &pair.key);
    private(folder, "tickets.secret", SECRET);
    private(folder, "chat.url", "https://hooks.example.com/T00/B00\n");
    let told = read(folder, text).unwrap();
    for name in ["siem: ", "files: ", "tickets: ", "chat: "] {
        assert!(told.contains(name), "{told}");
    }
}
