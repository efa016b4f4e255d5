//! `whoami`: who the key makes one in this ledger, and what one may do.

use countersign_protocol::key;

use super::{Globals, reviews};
use crate::failure::Failure;
use crate::{clock, console, describe, exit_code, shapes};

/// Says it, from the verified rights.
pub(super) async fn whoami(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let me = view.person(&client.key_id())?;
    let (rights, now) = (view.state.rights(), clock::now());
    let own = rights
        .reviews()
        .filter(|(_, review)| review.requester == me);
    let shape = shapes::WhoamiShape {
        ledger: client.ledger().to_string(),
        key_id: client.key_id().to_string(),
        fingerprint: key::fingerprint(&client.key_id()),
        person: shapes::person(rights, &me, now),
        reviews: own
            .map(|(id, review)| shapes::review(id, review, None, now))
            .collect(),
    };
    if globals.json {
        console::print_json(&shape)?;
    } else {
        console::print(&describe::whoami(&shape))?;
        reviews::remind(rights);
    }
    Ok(exit_code::DONE)
}
