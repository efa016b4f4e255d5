//! What each subcommand does: the rooms put to work, and exit codes.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use countersign::dev::{self, Binaries, Develop, PostgresError};
use countersign::feed::{self, FeedConfig, Kinds, Printing};
use countersign::ledger::{SCHEMA, StartRule};
use countersign::projections::{self, CompareError};
use countersign::server::{self, Server};
use countersign::setup::{self, Founded, Founding};
use countersign::{clock, keys, telemetry, witness};
use countersign_cli::failure::Failure;
use countersign_cli::{Globals, Lists, console, exit_code};
use countersign_protocol::api::Submission;
use countersign_protocol::cosignature::WitnessKey;
use countersign_protocol::statement::Statement;
use serde_json::json;
use sqlx::Connection as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::arguments::{
    Arguments, Database, FeedPrint, FeedVerb, Init, Migrate, Serve, Verb, Witness,
};

/// Does what the arguments say and gives the exit code.
pub(crate) fn run(arguments: Arguments) -> u8 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(Box::pin(dispatch(arguments)));
            // Whatever still waits for a peer does not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(error) => fail(&format!("the runtime does not start: {error}")),
    }
}

async fn dispatch(arguments: Arguments) -> u8 {
    let shutdown = match stop_on_signals() {
        Ok(shutdown) => shutdown,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
    let globals = &arguments.globals;
    match arguments.verb {
        Verb::Demo(demo) => {
            telemetry::start(telemetry::Format::Human, "error");
            if let Err(code) = have_postgres(demo.yes, exit_code::RUN_OURS) {
                return code;
            }
            let options = dev::Demo {
                data: demo.data,
                command: demo.command,
            };
            dev::demo(options, shutdown).await
        }
        Verb::Dev(options) => {
            telemetry::start(telemetry::Format::Human, "warn");
            if let Err(code) = have_postgres(options.yes, exit_code::FAILED) {
                return code;
            }
            let options = Develop {
                data: options.data,
                listen: options.listen,
                public_urls: options.public_urls,
                policy: options.allowed_commands,
            };
            dev::develop(options, shutdown).await
        }
        Verb::Serve(options) => serve(options, shutdown).await,
        Verb::Init(options) => answer(globals, init(options, globals).await),
        Verb::Migrate(options) => answer(globals, migrate(options, globals).await),
        Verb::Rebuild(options) => answer(globals, rebuild(options, globals).await),
        Verb::Witness(options) => watch(options, shutdown).await,
        Verb::Feed(FeedVerb::Check { file }) => answer(globals, check_feed(&file, globals)),
        Verb::Feed(FeedVerb::Print(options)) => print_feed(options).await,
        Verb::Agent(options) => countersign_agent::args::main(options).await,
        Verb::Verify(options) => countersign_cli::verify(globals, options, compare_lists).await,
        Verb::Client(verb) => countersign_cli::run(globals, verb).await,
    }
}

/// INT and TERM say stop. Client verbs do not wait for the word; they end as signals end a process.
fn stop_on_signals() -> io::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let told = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        told.cancel();
    });
    Ok(shutdown)
}

/// The exit code of a verb that comes to an end; a failure is told as the client's verbs tell theirs.
fn answer(globals: &Globals, result: Result<(), Failure>) -> u8 {
    match result {
        Ok(()) => exit_code::DONE,
        Err(failure) => console::report(globals.json, &failure),
    }
}

/// Without a stderr there is nobody to tell.
fn tell(text: &str) {
    let _gone = writeln!(io::stderr(), "{text}");
}

fn fail(text: &str) -> u8 {
    tell(&format!("error: {text}"));
    exit_code::FAILED
}

/// Makes sure that Postgres is installed; offers to install it where somebody can say yes.
fn have_postgres(yes: bool, otherwise: u8) -> Result<(), u8> {
    let found = Binaries::find(None);
    let Err(PostgresError::NotInstalled { install }) = found else {
        return found.map(drop).map_err(|error| {
            fail(&error.to_string());
            otherwise
        });
    };
    tell(&format!(
        "Postgres is not installed here, and countersign keeps its ledger in one.\n    {install}"
    ));
    let agreed = yes || (io::stdin().is_terminal() && io::stderr().is_terminal() && ask());
    if !agreed {
        tell("Run that line, or this command again with --yes to have it run.");
        return Err(otherwise);
    }
    if dev::install() && Binaries::find(None).is_ok() {
        return Ok(());
    }
    tell("error: that did not install Postgres; run the line yourself and look at what it says");
    Err(otherwise)
}

fn ask() -> bool {
    let mut answer = String::new();
    let asked = write!(io::stderr(), "Run it now? [y/N] ").and_then(|()| io::stderr().flush());
    asked.is_ok()
        && io::stdin().read_line(&mut answer).is_ok()
        && matches!(answer.trim(), "y" | "Y" | "yes")
}

async fn serve(options: Serve, shutdown: CancellationToken) -> u8 {
    telemetry::start(options.log_format, "info");
    let start = match (options.first_start, &options.accept_checkpoint) {
        (true, _) => StartRule::FirstStart,
        (false, Some(path)) => match std::fs::read_to_string(path) {
            Ok(note) => StartRule::Accept(note),
            Err(error) => return fail(&format!("cannot read {}: {error}", path.display())),
        },
        (false, None) => StartRule::FileRequired,
    };
    let checkpoint_file = options.keys.checkpoint_file();
    let options = server::Options {
        database: options.database.database,
        keys: options.keys.keys,
        checkpoint_file,
        start,
        listen: options.listen,
        way: options.way.way(),
        witness_policy: options.witness_policy,
        feed: options.feed,
        clock: clock::Clock::system(),
    };
    server::open_many_files();
    match Server::start(options, shutdown).await {
        Ok(server) => match server.run().await {
            Ok(()) => exit_code::DONE,
            Err(silent) => fail(&silent.to_string()),
        },
        Err(error) if error.is_evidence() => {
            tell(&format!("error: {error}"));
            exit_code::TAMPERING
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// Runs a witness, or prints its key as policies name it.
async fn watch(options: Witness, shutdown: CancellationToken) -> u8 {
    telemetry::start(options.log_format, "info");
    let Some(state) = options.state.filter(|_| !options.show_key) else {
        return match keys::read(&options.key) {
            Ok(key) => {
                let key = WitnessKey::of(&options.name, &key);
                match writeln!(io::stdout(), "{key}") {
                    Ok(()) => exit_code::DONE,
                    Err(error) => fail(&error.to_string()),
                }
            }
            Err(error) => fail(&error.to_string()),
        };
    };
    let options = witness::Options {
        name: options.name,
        key: options.key,
        state,
        logs: options.logs,
        listen: options.listen,
        tls: options.ends.files(),
        behind_proxy: options.ends.behind_proxy,
        clock: clock::Clock::system(),
    };
    server::open_many_files();
    match witness::Witness::start(options, shutdown).await {
        Ok(witness) => {
            witness.run().await;
            exit_code::DONE
        }
        Err(error) => fail(&error.to_string()),
    }
}

async fn init(options: Init, globals: &Globals) -> Result<(), Failure> {
    let made = make(&options, globals).await?;
    tell(&format!(
        "{}. Pin it on every host and in every client:\n    \
         ledger = \"{}\"\n    origin = \"{}\"\n    vkey   = \"{}\"",
        match &options.offline {
            Some(path) => format!("The first entry is signed into {}", path.display()),
            None => "The ledger is made".to_owned(),
        },
        made.id,
        made.vkey.origin(),
        made.vkey
    ));
    if globals.json {
        return console::print_json(&json!({
            "ledger": made.id.to_string(),
            "origin": made.vkey.origin().to_string(),
            "vkey": made.vkey.to_string(),
        }));
    }
    console::print(&format!("{}\n", made.id))
}

/// Signs a first entry or reads one, and enters it unless it is to stay offline.
async fn make(options: &Init, globals: &Globals) -> Result<Founded, Failure> {
    let clock = clock::Clock::system();
    let failed = |error: &dyn Display| Failure::failed("init", error.to_string());
    let genesis = match &options.genesis {
        Some(path) => read_genesis(path).map_err(|error| failed(&error))?,
        None => {
            let Some(origin) = globals.origin.clone() else {
                return Err(Failure::usage("a ledger needs a name of its own")
                    .hint("give --origin, as in ledger.example.com/prod"));
            };
            let founding = Founding {
                origin,
                administrators: options.administrators.clone(),
                threshold: options.threshold,
                recovery_key: options.recovery_key.clone(),
            };
            let drafted = setup::draft(&options.keys.keys, &clock, founding);
            drafted.map_err(|error| failed(&error))?
        }
    };
    if let Some(path) = &options.offline {
        let text = serde_json::to_string_pretty(&Submission::new(&genesis, &[]));
        let text = text.map_err(|error| failed(&error))?;
        let mut file = std::fs::OpenOptions::new();
        // Never over another one: the keys that signed it may be in use.
        let file = file.write(true).create_new(true).open(path);
        let written = file.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| failed(&format!("cannot write {}: {error}", path.display())))?;
        return setup::pins(&genesis).map_err(|error| failed(&error));
    }
    let Some(database) = &options.database else {
        return Err(
            Failure::usage("there is no database to enter the first entry into")
                .hint("set DATABASE_URL, or sign it for later with --offline FILE"),
        );
    };
    let pool = server::connect(database).await;
    let pool = pool.map_err(|error| failed(&error))?;
    let (keys, checkpoint) = (&options.keys.keys, options.keys.checkpoint_file());
    let entered = setup::enter(pool, keys, &checkpoint, &clock, genesis).await;
    entered.map_err(|error| failed(&error))
}

fn read_genesis(path: &Path) -> Result<Statement, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let body: Option<Submission> = serde_json::from_str(&text).ok();
    let statement = body.and_then(|body| body.statement());
    statement.ok_or_else(|| {
        format!(
            "{} is no first entry as `countersign init --offline` writes it",
            path.display()
        )
    })
}

async fn migrate(options: Migrate, globals: &Globals) -> Result<(), Failure> {
    let migrated = setup::migrate(&options.database).await;
    migrated.map_err(|error| Failure::failed("migrate", error.to_string()))?;
    tell("The schema is up to date.");
    if globals.json {
        console::print_json(&json!({ "schema": SCHEMA }))?;
    }
    Ok(())
}

async fn rebuild(options: Database, globals: &Globals) -> Result<(), Failure> {
    let failed = |error: &dyn Display| Failure::failed("rebuild", error.to_string());
    let pool = server::connect(&options.database).await;
    let pool = pool.map_err(|error| failed(&error))?;
    let rebuilt = projections::rebuild(&pool, &setup::judge()).await;
    let size = rebuilt.map_err(|error| failed(&error))?;
    tell(&format!("The lists are built anew from {size} entries."));
    if globals.json {
        console::print_json(&json!({ "entries": size }))?;
    }
    Ok(())
}

fn check_feed(file: &Path, globals: &Globals) -> Result<(), Failure> {
    let config = FeedConfig::read(file);
    let config = config.map_err(|error| Failure::failed("feed", error.to_string()))?;
    let sinks = config.sinks.iter();
    if globals.json {
        let sinks: Vec<String> = sinks.map(ToString::to_string).collect();
        return console::print_json(&json!({ "sinks": sinks }));
    }
    console::print(&sinks.map(|sink| format!("{sink}\n")).collect::<String>())
}

async fn print_feed(options: FeedPrint) -> u8 {
    let kinds = if options.kinds.is_empty() {
        Ok(Kinds::default())
    } else {
        Kinds::of(&options.kinds)
    };
    let kinds = match kinds {
        Ok(kinds) => kinds,
        Err(why) => {
            tell(&format!("error: {why}"));
            return exit_code::USAGE;
        }
    };
    let pool = match server::connect(&options.database.database).await {
        Ok(pool) => pool,
        Err(error) => return fail(&error.to_string()),
    };
    let printing = Printing {
        from: options.from,
        format: options.format,
        kinds,
        texts: options.texts,
    };
    match feed::print(&pool, printing, &mut io::stdout()).await {
        Ok(()) => exit_code::DONE,
        // Whoever reads has enough.
        Err(feed::PrintError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            exit_code::DONE
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// Compares the lists in a database with a fold of its log.
async fn compare_lists(url: String) -> Lists {
    let compared = async {
        let mut connection = sqlx::PgConnection::connect(&url).await?;
        projections::compare(&mut connection, &setup::judge()).await
    };
    match compared.await {
        Ok(found) if found.is_empty() => Lists::Equal,
        Ok(found) => Lists::Differ(found.iter().map(ToString::to_string).collect()),
        Err(CompareError::Behind(entries)) => Lists::NotCompared(format!(
            "not compared, they are {entries} entries behind; `countersign rebuild` or a server moves them"
        )),
        Err(error) => Lists::Failed(error.to_string()),
    }
}
