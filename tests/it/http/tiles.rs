//! The log as tiles: read, checked and put together by crates that are not ours.

use std::path::{Path, PathBuf};

use countersign_protocol::checkpoint::VerifierKey;
use countersign_protocol::entry;
use reqwest::Method;
use tlog_tiles::{Hash, Tile};

use crate::folder::Folder;
use crate::left_out::left_out;
use crate::statements::public;
use crate::support::TestServer;
use crate::support::server::{json, problem};

/// Reads tiles over HTTP, one after the other.
struct Tiles<'a>(&'a TestServer, tokio::runtime::Handle);

impl tlog_tiles::TileReader for Tiles<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = async |tile: &Tile| {
            // Their paths name the height, which C2SP fixes and leaves out.
            let path = tile.path().replacen("tile/8/", "/tile/", 1);
            let answer = self.0.call(Method::GET, &path).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            assert_eq!(answer.headers()["content-type"], "application/octet-stream");
            let kept = answer.headers()["cache-control"].to_str().unwrap();
            assert_eq!(kept.contains("immutable"), tile.width() == 256, "{path}");
            answer.bytes().await.unwrap().to_vec()
        };
        let all = async {
            let mut found = Vec::new();
            for tile in tiles {
                found.push(read(tile).await);
            }
            found
        };
        Ok(tokio::task::block_in_place(|| self.1.block_on(all)))
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

/// A server whose log is longer than one full tile.
async fn long() -> TestServer {
    let server = TestServer::start().await;
    while server.book.ledger.newest().size() < 300 {
        let (request, _) = server.book.request();
        server.book.send(request).await.unwrap();
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_code_reads_the_log_and_finds_its_root() {
    let server = long().await;
    let answer = server
        .call(Method::GET, "/checkpoint")
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let note = answer.bytes().await.unwrap();
    let note = signed_note::Note::from_bytes(&note).unwrap();
    let vkey: &VerifierKey = server.book.ledger.verifier();
    let key = signed_note::StandardVerifier::new(&vkey.to_string()).unwrap();
    let (signed, _) = note
        .verify(&signed_note::VerifierList::new(vec![Box::new(key)]))
        .unwrap();
    assert_eq!(signed.len(), 1);
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    let (size, root) = (checkpoint.size(), *checkpoint.hash());

    // Their reader checks each tile against the root before it believes a hash of it.
    let tiles = Tiles(&server, tokio::runtime::Handle::current());
    let reader = tlog_tiles::TileHashReader::new(size, root, &tiles);
    assert_eq!(tlog_tiles::tree_hash(size, &reader).unwrap(), root);
    let token = server.sign_in("alice").await;
    let mut entries = Vec::new();
    for name in ["000".to_owned(), format!("001.p/{}", size - 256)] {
        let bundle = server
            .get_as(&token, &format!("/tile/entries/{name}"))
            .await;
        assert_eq!(bundle.status(), 200);
        assert_eq!(bundle.headers()["cache-control"], "no-store");
        let bytes = bundle.bytes().await.unwrap();
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let (entry, after) = after.split_at(u16::from_be_bytes(*length).into());
            entries.push(entry.to_vec());
            rest = after;
        }
    }
    assert_eq!(entries.len() as u64, size);
    for seq in [0, 1, 255, 256, size - 1] {
        let bytes = &entries[usize::try_from(seq).unwrap()];
        assert_eq!(
            entry::leaf(bytes).as_bytes(),
            &tlog_tiles::record_hash(bytes).0
        );
        let proof = tlog_tiles::prove_record(size, seq, &reader).unwrap();
        let leaf: Hash = tlog_tiles::record_hash(bytes);
        tlog_tiles::check_record(&proof, size, root, seq, leaf).unwrap();
    }
    for old in [1, 256, size - 1] {
        let proof = tlog_tiles::prove_tree(size, old, &reader).unwrap();
        let before = tlog_tiles::tree_hash(old, &reader).unwrap();
        tlog_tiles::check_tree(&proof, size, root, old, before).unwrap();
    }
}

/// Where Debian puts the sources of Go's packages: `golang-golang-x-mod-dev`.
const GO_SOURCES: &str = "/usr/share/gocode";

/// Builds `tests/tiles/reader.go`. None where this machine has no Go or not the packages.
#[expect(clippy::disallowed_methods, reason = "the test starts go")]
fn go_reader(folder: &Path) -> Option<PathBuf> {
    let packages = Path::new(GO_SOURCES).join("src/golang.org/x/mod/sumdb/tlog");
    if std::process::Command::new("go")
        .arg("version")
        .output()
        .is_err()
        || !packages.exists()
    {
        left_out(
            "golang-go and golang-golang-x-mod-dev are not installed: whether Go's own reader of checksum databases reads this log",
        );
        return None;
    }
    let built = std::process::Command::new("go")
        .args(["build", "-o"])
        .arg(folder.join("reader"))
        .arg("reader.go")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiles"))
        .envs([("GO111MODULE", "off"), ("GOPATH", GO_SOURCES)])
        .env("GOCACHE", folder.join("cache"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    Some(folder.join("reader"))
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test starts the reader")]
async fn go_reads_the_log_and_finds_its_root() {
    let folder = Folder::new("go");
    let Some(reader) = go_reader(folder.path()) else {
        return;
    };
    let server = long().await;
    let token = server.sign_in("alice").await;
    let read = async |vkey: String| {
        tokio::process::Command::new(&reader)
            .args([server.url(), &vkey])
            .env("TOKEN", &token)
            .output()
            .await
            .unwrap()
    };
    let ours = server.book.ledger.verifier();
    // What it reads is written down before it goes out; from then on the log stands still.
    let _first = read(ours.to_string()).await;
    let newest = server.book.ledger.newest();
    let said = read(ours.to_string()).await;
    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said, format!("{} {}\n", newest.size(), newest.root()));
    // The right name, another key.
    let other = VerifierKey::of(ours.origin(), &public("other")).unwrap();
    let refused = read(other.to_string()).await;
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no verifiable signatures"));
}

#[tokio::test]
async fn what_the_log_does_not_have_is_not_found() {
    let server = TestServer::start().await;
    let size = server.book.ledger.newest().size();
    let token = server.sign_in("alice").await;
    for path in [
        "/tile/0/000",
        &format!("/tile/0/000.p/{}", size + 50),
        "/tile/0/001.p/1",
        "/tile/1/000.p/1",
        "/tile/8/000.p/1",
        "/tile/00/000.p/1",
        "/tile/x/000.p/1",
        "/tile/0/0.p/1",
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/0/x000/000.p/1",
        "/tile/0/x999/x999/x999/x999/x999/x999/999",
        "/tile/entries/000",
        "/tile/entries/001.p/1",
        "/tile/entries/%2e%2e/000.p/1",
    ] {
        let answer = problem(server.get_as(&token, path).await).await;
        assert_eq!(answer, (404, "no_tile".into()), "{path}");
    }
}

/// Entries are read by right, and that somebody reads them stands in the log before they go out.
#[tokio::test]
async fn whoever_reads_entries_as_tiles_holds_the_right_and_is_written_down() {
    let server = TestServer::start().await;
    let before = server.book.ledger.newest().size();
    let alice = server.sign_in("alice").await;
    assert_eq!(
        server
            .get_as(&alice, "/tile/entries/000.p/1")
            .await
            .status(),
        200
    );
    assert_eq!(server.book.ledger.newest().size(), before + 1, "audit.read");
    // Once an hour, whichever window it is.
    let _page: countersign_protocol::api::Page<countersign_protocol::api::EntryItem> =
        json(server.get_as(&alice, "/v1/entries?limit=1").await).await;
    assert_eq!(server.book.ledger.newest().size(), before + 1);
    server.book.join("dave").await;
    let dave = server.sign_in("dave").await;
    let refused = problem(server.get_as(&dave, "/tile/entries/000.p/1").await).await;
    assert_eq!(refused, (403, "not_permitted".into()));
    assert_eq!(server.get_as(&dave, "/tile/0/000.p/1").await.status(), 200);
}

#[tokio::test]
async fn tiles_have_a_rate_of_their_own() {
    let server = TestServer::start().await;
    for path in ["/checkpoint", "/tile/0/000.p/1"] {
        let answer = server.call(Method::GET, path).send().await.unwrap();
        assert!(
            answer.headers()["ratelimit"]
                .to_str()
                .unwrap()
                .starts_with("\"tiles\"")
        );
    }
}
