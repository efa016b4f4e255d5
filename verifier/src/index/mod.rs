//! A bundle to be read: what its verified entries say, for people and for programs.
//!
//! ```text
//! gather    what is kept of each entry while the pages pass
//! shape     index.json
//! page      index.html
//! signers   allowed_signers
//! ```
//!
//! All of it is a function of the pages, so whoever verifies writes it again and compares.

mod gather;
mod page;
mod shape;
mod signers;

use countersign_protocol::fold::State;
use countersign_protocol::hash::CommandId;

use self::gather::Story;
use self::shape::{CommandShape, Index};
use crate::bundle::{MAX_TEXT_BYTES, Manifest, Tail};

pub(crate) use gather::Gathered;

/// By how much a command is indented in `index.json`, a line.
const INDENT: usize = 4;

/// What follows from the pages of a bundle.
pub(crate) fn write(manifest: &Manifest, gathered: &Gathered, state: &State, size: u64) -> Tail {
    let mut index = shape::shape(manifest, gathered, state, size);
    let stories = gathered.stories.values().rev();
    let known = stories.filter(|(id, _)| state.command(id).is_some());
    let shape = |(id, story): &(CommandId, Story)| shape::command(*id, story, state);
    fill(&mut index, known, shape, MAX_TEXT_BYTES);
    Tail {
        allowed_signers: signers::write(state.rights()),
        index_html: page::write(&index),
        index_json: json(&index),
    }
}

fn json(index: &Index) -> String {
    // A shape of ours has nothing that JSON has no form for.
    serde_json::to_string_pretty(index).unwrap_or_default() + "\n"
}

/// Takes the newest stories as long as each of the two texts stays within `room` bytes, so that there
/// is no log of which an honest index is refused for its size. The older ones are counted.
fn fill<T>(
    index: &mut Index,
    mut newest_first: impl Iterator<Item = T>,
    shape: impl Fn(T) -> Option<CommandShape>,
    room: usize,
) {
    // The number of those that are left out stands in both texts: counted with all its digits, which also
    // leaves room for the last line of the list.
    let left_out = std::mem::replace(&mut index.more_commands, u64::MAX);
    let mut json_room = room.saturating_sub(json(index).len());
    let mut page_room = room.saturating_sub(page::write(index).len());
    index.more_commands = left_out;
    for story in newest_first.by_ref() {
        let Some(command) = shape(story) else {
            continue;
        };
        let sizes = (json_size(&command), page::command_size(&command));
        let rest = json_room.checked_sub(sizes.0);
        let Some(rest) = rest.zip(page_room.checked_sub(sizes.1)) else {
            index.more_commands += 1;
            break;
        };
        (json_room, page_room) = rest;
        index.commands.push(command);
    }
    index.more_commands += u64::try_from(newest_first.count()).unwrap_or(u64::MAX);
}

/// What a command adds to `index.json`, with the comma and the line feed before it.
fn json_size(command: &CommandShape) -> usize {
    let text = serde_json::to_string_pretty(command).unwrap_or_default();
    let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
    text.len() + INDENT * lines + ",\n".len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::shape::{HostShape, empty};

    fn host(number: usize) -> HostShape {
        HostShape {
            agent: format!("web-{number}"),
            runs: None,
            status: "completed",
            outcome: Some("exited"),
            exit_code: Some(0),
            signal: None,
            duration_us: Some(1_500),
            started_seq: Some(7),
            stdout: "\"<&>\"\n".to_owned(),
            stderr: String::new(),
            is_cut: false,
        }
    }

    fn story(number: usize, hosts: usize) -> CommandShape {
        CommandShape {
            id: format!("{number:064}"),
            short: String::new(),
            status: "completed".to_owned(),
            requester: "alice".to_owned(),
            requested_us: 0,
            runs: Some("\"<&>\"".to_owned()),
            cwd: None,
            user: None,
            break_glass: false,
            words: Vec::new(),
            more_words: 0,
            hosts: (0..hosts).map(host).collect(),
            more_hosts: 0,
        }
    }

    fn filled(stories: usize, hosts: usize, room: usize) -> Index {
        let mut index = empty();
        fill(
            &mut index,
            0..stories,
            |number| Some(story(number, hosts)),
            room,
        );
        index
    }

    #[test]
    fn an_index_of_more_than_fits_has_the_newest_counts_the_others_and_is_as_large_as_it_may_be() {
        const STORIES: usize = 1_000;
        const ROOM: usize = 1024 * 1024;
        for (hosts, room) in [(200, ROOM), (1, ROOM / 4), (0, ROOM / 16)] {
            let index = filled(STORIES, hosts, room);
            let kept = index.commands.len();
            assert!(kept > 1 && kept < STORIES, "{kept}");
            assert_eq!(index.commands[0].id, story(0, 0).id);
            assert_eq!(index.commands[kept - 1].id, story(kept - 1, 0).id);
            assert_eq!(index.more_commands, (STORIES - kept) as u64);
            let sizes = |index: &Index| [json(index).len(), page::write(index).len()];
            let most = sizes(&index).into_iter().max().unwrap();
            assert!(most <= room, "{most}");
            // One more would not have fitted, but for the few digits that are kept free.
            let mut more = index;
            more.commands.push(story(kept, hosts));
            let most = sizes(&more).into_iter().max().unwrap();
            assert!(most + 64 > room, "{most}");
        }
    }

    #[test]
    fn an_index_that_fits_has_all() {
        let index = filled(20, 3, MAX_TEXT_BYTES);
        assert_eq!((index.commands.len(), index.more_commands), (20, 0));
        let nothing = filled(20, 3, 0);
        assert_eq!((nothing.commands.len(), nothing.more_commands), (0, 20));
    }
}
