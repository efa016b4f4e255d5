//! All parts on one machine: Postgres, the server, three people, one agent; as a real set-up would
//! make them, with the same calls.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use countersign_cli::acts::{Client, Connection};
use countersign_cli::failure::Failure;
use countersign_cli::sign::Signer;
use countersign_cli::tls::Way;
use countersign_cli::trust::Pins;
use countersign_protocol::checkpoint::{Origin, VerifierKey};
use countersign_protocol::hash::LedgerId;
use countersign_protocol::name::AgentName;
use countersign_protocol::origin::ServerOrigin;
use countersign_protocol::policy::Policy;
use countersign_protocol::rights::ChangeBody;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::agent::{self, AgentProcess};
use super::home::Home;
use super::people::{self, Person};
use super::postgres::{Cluster, Durability, Options, PostgresError, Role};
use crate::clock::Clock;
use crate::keys::{self, KeyFileError};
use crate::ledger::StartRule;
use crate::primary::FellSilent;
use crate::server::{self, Server, StartError};
use crate::setup::{self, Founding, SetupError};

/// The database in the cluster.
const DATABASE: &str = "countersign";

/// How long the agent may take to appear: it starts in well under a second.
const AGENT_LIMIT: Duration = Duration::from_secs(30);

/// Why it does not come up.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevError {
    /// Postgres.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The ledger was not made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The server.
    #[error(transparent)]
    Server(#[from] StartError),
    /// A key.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// A call to the server.
    #[error("{0}")]
    Client(#[from] Failure),
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The file system.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A name that is none.
    #[error("a name is not one that the ledger takes")]
    Name,
    /// The agent is not there.
    #[error("the agent did not connect within 30 s; its log is {0}")]
    Agent(PathBuf),
    /// It was told to stop.
    #[error("stopped by a signal before its end; nothing is left running, what was recorded stays")]
    Stopped,
}

impl DevError {
    /// Says whether the database contradicts what was committed.
    pub(super) const fn is_evidence(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_evidence())
    }
}

/// What differs between one station and another.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Where the server listens.
    pub(super) listen: SocketAddr,
    /// Other addresses at which clients meet it.
    pub(super) public_urls: Vec<ServerOrigin>,
    /// The origin line of its checkpoints.
    pub(super) origin: Origin,
    /// Another policy than [`people::policy`].
    pub(super) policy: Option<Policy>,
}

/// Everything, running.
#[derive(Debug)]
pub(super) struct Station {
    /// Its files.
    pub(super) home: Home,
    /// The people.
    pub(super) people: Vec<Person>,
    ledger: LedgerId,
    vkey: String,
    origin: String,
    url: String,
    app_url: String,
    owner_url: String,
    shutdown: CancellationToken,
    agent: AgentProcess,
    server: tokio::task::JoinHandle<Result<(), FellSilent>>,
    cluster: Cluster,
}

impl Station {
    /// Starts everything and returns when all of it works. What a start before left is used.
    ///
    /// # Errors
    /// See [`DevError`]; what was started until then is stopped.
    pub(super) async fn start(
        home: Home,
        wanted: Wanted,
        shutdown: CancellationToken,
    ) -> Result<Self, DevError> {
        let Wanted {
            listen,
            public_urls,
            origin,
            policy,
        } = wanted;
        let people = people::people(&home.keys())?;
        let folder = home.clone();
        let cluster = tokio::task::spawn_blocking(move || start_cluster(&folder))
            .await
            .map_err(std::io::Error::other)??;
        let (app_url, owner_url) = (
            cluster.url(Role::App, DATABASE),
            cluster.url(Role::Owner, DATABASE),
        );
        create_database(&cluster.url(Role::Owner, "postgres")).await?;
        setup::migrate(&SecretString::from(owner_url.clone())).await?;
        let app = SecretString::from(app_url.clone());
        found(&home, &people, &app, origin).await?;
        let options = server::Options {
            database: app,
            keys: home.ledger_keys(),
            checkpoint_file: home.checkpoint(),
            start: StartRule::FileRequired,
            listen,
            witness_policy: None,
            feed: None,
            way: server::Way {
                public_urls,
                ..server::Way::default()
            },
            clock: Clock::system(),
        };
        // The server outlives the word to stop, so that the agent can deliver how its commands ended.
        let serving = CancellationToken::new();
        let server = Server::start(options, serving.clone()).await?;
        let url = format!("http://{}", server.address());
        let (ledger, vkey, origin) = (
            server.ledger(),
            server.vkey().to_owned(),
            server.origin().to_owned(),
        );
        let id = ledger.to_string();
        let pins = agent::Pins {
            server: &url,
            ledger: &id,
            origin: &origin,
            vkey: &vkey,
        };
        let config = agent::configure(&home, &people, pins)?;
        let presence = server.presence();
        let server = tokio::spawn(server.run());
        let agent = AgentProcess::start(&home, config)?;
        let station = Self {
            home,
            people,
            ledger,
            vkey,
            origin,
            url,
            app_url,
            owner_url,
            shutdown: serving,
            agent,
            server,
            cluster,
        };
        let ready = async {
            station.arrange(policy).await?;
            let name: AgentName = agent::NAME.parse().map_err(|_| DevError::Name)?;
            tokio::time::timeout(AGENT_LIMIT, presence.wait_for(&name))
                .await
                .map_err(|_| DevError::Agent(station.home.path().join("agent.log")))
        };
        let ready = tokio::select! {
            ready = ready => ready,
            () = shutdown.cancelled() => Err(DevError::Stopped),
        };
        match ready {
            Ok(()) => Ok(station),
            Err(error) => {
                station.stop().await;
                Err(error)
            }
        }
    }

    /// A client of one of the people, who signs with `ssh-keygen`.
    ///
    /// # Errors
    /// The server or the key.
    pub(super) async fn client(&self, person: &Person) -> Result<Client, DevError> {
        let connection = Connection {
            server: self.url.clone(),
            way: Way::default(),
            pins: Pins {
                ledger: self.ledger,
                vkey: self.vkey.parse::<VerifierKey>().ok(),
                origin: self.origin.parse().ok(),
            },
            state_home: self.home.client(),
            signer: Signer::SshKeygen(person.key_file.clone()),
            principal: Some(person.name.clone()),
        };
        Ok(Client::connect(&connection).await?)
    }

    /// The three people, each with a client.
    ///
    /// # Errors
    /// The server or a key.
    pub(super) async fn clients(&self) -> Result<Vec<Client>, DevError> {
        let mut clients = Vec::new();
        for person in &self.people {
            clients.push(self.client(person).await?);
        }
        Ok(clients)
    }

    /// Publishes the policy and accepts the agent, unless that was done before.
    async fn arrange(&self, wanted: Option<Policy>) -> Result<(), DevError> {
        let clients = self.clients().await?;
        let [asks, consents, ..] = clients.as_slice() else {
            return Err(DevError::Name);
        };
        let agree = async |body: ChangeBody, policy: Option<&Policy>| -> Result<(), DevError> {
            let change = asks.change(&body, policy, Some("countersign dev")).await?;
            consents.approve_change(&change.id, None).await?;
            Ok(())
        };
        let rights = asks.rights().await?;
        let in_force = rights.state.rights().policy();
        let reference = in_force.map(|in_force| in_force.reference);
        let is_own = reference.is_none_or(|reference| reference.seq == 0);
        let policy = match wanted {
            Some(policy) => Some(policy),
            None => is_own.then(people::policy).transpose()?,
        };
        let differs =
            |policy: &Policy| reference.map(|known| known.digest) != Some(policy.digest());
        if let Some(policy) = policy.filter(differs) {
            let body = ChangeBody::PolicyPublished {
                policy: policy.digest(),
            };
            agree(body, Some(&policy)).await?;
        }
        let name: AgentName = agent::NAME.parse().map_err(|_| DevError::Name)?;
        let state = self.home.agent().join(agent::STATE);
        let begun = std::time::Instant::now();
        loop {
            let view = asks.rights().await?;
            let rights = view.state.rights();
            if rights.agent(&name).is_some() {
                return Ok(());
            }
            // Anybody may enrol under this name; the key on this machine is the one to accept.
            let own = countersign_agent::key::public_key(&state);
            let waiting = rights
                .enrolments()
                .find(|(enrolled, key)| **enrolled == name && Some(*key) == own.as_ref())
                .map(|(_, key)| key.clone());
            if let Some(key) = waiting {
                let agent = name.clone();
                let body = ChangeBody::AgentAccepted {
                    agent,
                    key,
                    replaces: None,
                    labels: Vec::new(),
                };
                return agree(body, None).await;
            }
            if begun.elapsed() > AGENT_LIMIT {
                return Err(DevError::Agent(self.home.path().join("agent.log")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Environment for a shell: `export NAME='value'` lines.
    #[must_use]
    pub(super) fn environment(&self) -> String {
        [
            ("COUNTERSIGN_SERVER", self.url.as_str()),
            ("COUNTERSIGN_LEDGER", &self.ledger.to_string()),
            ("COUNTERSIGN_VKEY", &self.vkey),
            ("COUNTERSIGN_ORIGIN", &self.origin),
            ("COUNTERSIGN_AGENT", agent::NAME),
            ("COUNTERSIGN_SELFCHECK_APPROVERS", &self.approver_keys()),
            ("DATABASE_URL", &self.app_url),
            ("COUNTERSIGN_OWNER_DATABASE_URL", &self.owner_url),
        ]
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect()
    }

    /// The keys of everybody but the first, who asks: `selfcheck` has both sides here.
    fn approver_keys(&self) -> String {
        let others = self.people.iter().skip(1);
        let files: Vec<String> = others
            .map(|person| person.key_file.display().to_string())
            .collect();
        files.join(",")
    }

    /// Writes the environment for shells.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn write_environment(&self) -> Result<(), DevError> {
        Ok(agent::write_private(&self.home.env(), &self.environment())?)
    }

    /// The ledger.
    #[must_use]
    pub(super) const fn ledger(&self) -> LedgerId {
        self.ledger
    }

    /// The database, as the role that serves.
    #[must_use]
    pub(super) fn database(&self) -> &str {
        &self.app_url
    }

    /// Where the server listens.
    #[must_use]
    pub(super) fn server(&self) -> &str {
        &self.url
    }

    /// Stops everything: the agent while it can still deliver, then the server, then Postgres.
    pub(super) async fn stop(self) {
        let Self {
            agent,
            server,
            cluster,
            shutdown,
            ..
        } = self;
        let _panicked = tokio::task::spawn_blocking(move || agent.stop()).await;
        shutdown.cancel();
        let _panicked = server.await;
        let _panicked = tokio::task::spawn_blocking(move || cluster.stop()).await;
    }
}

/// Starts Postgres in the home; when the account that runs it cannot get there, in a folder of its
/// own that the home then points to.
fn start_cluster(home: &Home) -> Result<Cluster, DevError> {
    let start = |folder: PathBuf| {
        Cluster::start(&Options {
            folder,
            durability: Durability::Durable,
            binaries: None,
        })
    };
    let place = home.postgres();
    if let Ok(elsewhere) = std::fs::read_link(&place) {
        return Ok(start(elsewhere)?);
    }
    match start(place.clone()) {
        Err(PostgresError::Unreachable { account, folder }) => {
            let elsewhere = super::home::data_home()
                .join("postgres")
                .join(hex::encode(keys::random::<8>()));
            tracing::warn!(
                "the account {account} that runs Postgres cannot enter {}; the database is in {}",
                folder.display(),
                elsewhere.display()
            );
            let cluster = start(elsewhere.clone())?;
            match std::fs::remove_dir_all(&place) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                Ok(()) | Err(_) => {}
            }
            std::os::unix::fs::symlink(&elsewhere, &place)?;
            Ok(cluster)
        }
        started => Ok(started?),
    }
}

async fn create_database(url: &str) -> Result<(), DevError> {
    let pool = PgPool::connect(url).await?;
    let there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(DATABASE)
            .fetch_one(&pool)
            .await?;
    if !there {
        sqlx::query("CREATE DATABASE countersign")
            .execute(&pool)
            .await?;
    }
    pool.close().await;
    Ok(())
}

/// Makes the ledger unless there is one.
async fn found(
    home: &Home,
    people: &[Person],
    database: &SecretString,
    origin: Origin,
) -> Result<(), DevError> {
    let pool = server::connect(database).await?;
    let size: i64 = sqlx::query_scalar("SELECT size FROM head")
        .fetch_one(&pool)
        .await?;
    if size == 0 {
        let founding = Founding {
            origin,
            administrators: people::administrators(people),
            threshold: people::THRESHOLD,
            recovery_key: None,
        };
        setup::found(
            pool.clone(),
            &home.ledger_keys(),
            &home.checkpoint(),
            &Clock::system(),
            founding,
        )
        .await?;
    }
    pool.close().await;
    Ok(())
}
