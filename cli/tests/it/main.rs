//! The client against a server that the tests write themselves: honest, and lying.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test binary: a failure here is a failed test"
)]

mod book;
#[path = "../../../tests/support/cedar.rs"]
mod cedar;
mod examples;
mod honest;
mod keygen;
mod lying_server;
mod past;
mod secrets;
mod server;

use countersign_cli::acts::{Client, Connection};
use countersign_cli::sign::Signer;
use countersign_cli::tls::Way;
use countersign_cli::trust::Pins;

/// A client of `server` that signs as `who`, with a state home of its own.
async fn client(server: &server::Server, home: &std::path::Path, who: &str) -> Client {
    let connection = connection(server, home, Signer::Software(book::key(who)));
    Client::connect(&connection).await.unwrap()
}

fn connection(server: &server::Server, home: &std::path::Path, signer: Signer) -> Connection {
    let ledger = server.inner().book.ledger();
    Connection {
        server: server.url.clone(),
        way: Way::default(),
        pins: Pins {
            ledger,
            vkey: None,
            origin: None,
        },
        state_home: home.to_path_buf(),
        signer,
        principal: None,
    }
}
