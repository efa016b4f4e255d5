//! The stream of work: kept open, and its pieces passed on one by one.
//!
//! It must not look at what they are.

use std::sync::Arc;

use countersign_protocol::api::Work;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::client::{Backoff, ClientError};
use crate::station::Station;

/// Keeps a stream of work open and passes on what it brings.
pub(crate) async fn listen(
    station: Arc<Station>,
    work: mpsc::Sender<Work>,
    again: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::for_server();
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = hear(&station, &work, &mut backoff) => heard,
            // All that is open comes with the next connection.
            () = again.notified() => continue,
        };
        match heard {
            Ok(()) => tracing::info!("the server ended the stream of work; connecting anew"),
            Err(error) => tracing::warn!(%error, "no stream of work"),
        }
        station.manager.status("no stream of work; connecting anew");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

async fn hear(
    station: &Station,
    work: &mpsc::Sender<Work>,
    backoff: &mut Backoff,
) -> Result<(), ClientError> {
    let seen = station.view.seen().map(|seen| seen.size);
    let mut stream = station.client.work(seen).await?;
    tracing::info!("listening for work");
    station.manager.listening();
    backoff.reset();
    while let Some(next) = stream.next().await? {
        if work.send(next).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
