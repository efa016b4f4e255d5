//! `--secret`: where a value is read from. It is never an argument, which everybody on the machine
//! could read.

use std::io::Read as _;
use std::path::PathBuf;

use countersign_protocol::secret::{Delivery, MAX_SECRET_BYTES, MIN_SECRET_BYTES, SecretName};
use zeroize::Zeroizing;

use crate::acts::SecretSpec;
use crate::failure::Failure;

/// Where the value is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    File(PathBuf),
    OurStdin,
}

/// One `--secret`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SecretWanted {
    name: SecretName,
    delivery: Delivery,
    from: From,
}

/// Parses `NAME[:file|:env|:stdin]=@FILE|-`.
fn wanted(text: &str) -> Result<SecretWanted, String> {
    // The text may be a value that somebody gave by mistake, so no message repeats it.
    let form = "it is NAME=@FILE or NAME=-, with :env or :stdin behind the name if it is to be no file; a value is never an argument";
    let (named, from) = text.split_once('=').ok_or(form)?;
    let (name, delivery) = match named.split_once(':') {
        None | Some((_, "file")) => (named, Delivery::File),
        Some((name, "env")) => (name, Delivery::Env),
        Some((name, "stdin")) => (name, Delivery::Stdin),
        Some(_) => return Err(form.to_owned()),
    };
    let name = name.strip_suffix(":file").unwrap_or(name);
    let from = match from.strip_prefix('@') {
        Some(path) if !path.is_empty() => From::File(path.into()),
        None if from == "-" => From::OurStdin,
        Some(_) | None => return Err(form.to_owned()),
    };
    Ok(SecretWanted {
        name: name.parse().map_err(|error| format!("{error}"))?,
        delivery,
        from,
    })
}

/// Reads all of them; `ours_is_taken` says that something else reads our standard input.
pub(super) async fn read(
    given: &[String],
    ours_is_taken: bool,
) -> Result<Vec<SecretSpec>, Failure> {
    // Not parsed as an argument, because a mistake there would be told with what was given.
    let parsed = given.iter().map(|text| wanted(text));
    let parsed = parsed.collect::<Result<Vec<_>, _>>();
    let wanted = parsed.map_err(|why| Failure::usage(format!("--secret: {why}")))?;
    let from_ours = wanted.iter().filter(|one| one.from == From::OurStdin);
    if from_ours.count() + usize::from(ours_is_taken) > 1 {
        return Err(Failure::usage(
            "only one thing can be read from standard input",
        ));
    }
    let reading = tokio::task::spawn_blocking(move || wanted.into_iter().map(read_one).collect());
    reading
        .await
        .map_err(|error| Failure::failed("read", error.to_string()))?
}

fn read_one(wanted: SecretWanted) -> Result<SecretSpec, Failure> {
    let SecretWanted {
        name,
        delivery,
        from,
    } = wanted;
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut value = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
    let cap = MAX_SECRET_BYTES as u64 + 1;
    let read = match &from {
        From::OurStdin => std::io::stdin().lock().take(cap).read_to_end(&mut value),
        From::File(path) => {
            std::fs::File::open(path).and_then(|file| file.take(cap).read_to_end(&mut value))
        }
    };
    read.map_err(|error| {
        let from = match &from {
            From::File(path) => path.display().to_string(),
            From::OurStdin => "standard input".to_owned(),
        };
        Failure::usage(format!(
            "cannot read the secret {name} from {from}: {error}"
        ))
    })?;
    if !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&value.len()) {
        return Err(Failure::usage(format!(
            "the secret {name} has {} bytes or more, and must have {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}",
            value.len()
        ))
        .hint("a shorter one could not be masked in the output; a longer one is no secret but an archive"));
    }
    Ok(SecretSpec {
        name,
        delivery,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_says_its_name_its_way_and_where_it_is() {
        let file = |path: &str| From::File(path.into());
        for (text, name, delivery, from) in [
            ("tls.key=@a/b=c", "tls.key", Delivery::File, file("a/b=c")),
            ("tls.key:file=@x", "tls.key", Delivery::File, file("x")),
            ("TOKEN:env=-", "TOKEN", Delivery::Env, From::OurStdin),
            ("word:stdin=@x", "word", Delivery::Stdin, file("x")),
        ] {
            let parsed = wanted(text).unwrap();
            let expected = SecretWanted {
                name: name.parse().unwrap(),
                delivery,
                from,
            };
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn a_value_in_the_arguments_is_refused_and_not_repeated() {
        for bad in [
            "TOKEN=hunter2hunter2",
            "TOKEN:env=hunter2hunter2",
            "hunter2hunter2",
            "TOKEN:hunter2=@x",
            "TOKEN=@",
            "../up=@x",
            ".hidden=@x",
        ] {
            let refused = wanted(bad).unwrap_err();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
