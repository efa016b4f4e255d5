//! One throw-away Postgres cluster a test binary, migrated once; a database of its own a test.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use countersign::dev::{Cluster, Durability, Options, Role};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor as _, PgPool, Postgres, Transaction};
use tokio::sync::OnceCell;

use crate::folder::{self, Folder};

/// Longer than anybody here takes to come to a lock.
const PATIENCE: Duration = Duration::from_secs(10);

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The cluster ends with this process (its death signal), so its folder is removed by the next run.
fn remove_stale_folders() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let Some(rest) = name.strip_prefix(folder::PREFIX) else {
            continue;
        };
        let pid = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            let _busy = std::fs::remove_dir_all(entry.path());
        }
    }
}

async fn cluster() -> &'static Cluster {
    CLUSTER
        .get_or_init(|| async {
            remove_stale_folders();
            let folder = Folder::new("cluster");
            let path = folder.path().to_path_buf();
            // Outlives this function; see above.
            std::mem::forget(folder);
            let options = Options {
                folder: path,
                durability: Durability::ThrowAway,
                binaries: None,
            };
            let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options));
            let cluster = cluster.await.unwrap().unwrap();
            let owner = pool(&cluster.url(Role::Owner, "postgres")).await;
            sqlx::query("CREATE DATABASE template")
                .execute(&owner)
                .await
                .unwrap();
            owner.close().await;
            let template = pool(&cluster.url(Role::Owner, "template")).await;
            sqlx::migrate!("./migrations").run(&template).await.unwrap();
            template.close().await;
            cluster
        })
        .await
}

/// Holds what a statement locks, until it is dropped or committed.
pub(crate) async fn hold(pool: &PgPool, what: &'static str) -> Transaction<'static, Postgres> {
    let mut held = pool.begin().await.unwrap();
    sqlx::query(what).execute(&mut *held).await.unwrap();
    held
}

pub(crate) async fn pool(url: &str) -> PgPool {
    PgPoolOptions::new()
        .max_connections(8)
        .connect(url)
        .await
        .unwrap()
}

/// As the server connects.
async fn serving(url: String) -> PgPool {
    let url = secrecy::SecretString::from(url);
    countersign::server::connect(&url).await.unwrap()
}

/// A migrated database of one test.
pub(crate) struct TestDatabase {
    pub(crate) owner: PgPool,
    pub(crate) app: PgPool,
    pub(crate) name: String,
}

impl TestDatabase {
    /// A further pool of the serving role, as another server would have.
    pub(crate) async fn another_app(&self) -> PgPool {
        serving(self.app_url().await).await
    }

    /// A pool of the serving role whose sessions may not do nothing in a transaction for longer than this.
    pub(crate) async fn hasty_app(&self, idle: Duration) -> PgPool {
        let hasty = format!(
            "SET idle_in_transaction_session_timeout = {}",
            idle.as_millis()
        );
        let options = PgPoolOptions::new().after_connect(move |connection, _| {
            let hasty = AssertSqlSafe(hasty.clone());
            Box::pin(async move { connection.execute(sqlx::raw_sql(hasty)).await.map(drop) })
        });
        options.connect(&self.app_url().await).await.unwrap()
    }

    /// Waits until some connection to it waits for a lock that another one holds.
    pub(crate) async fn until_a_lock_is_awaited(&self) {
        let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock')";
        let begun = Instant::now();
        while !sqlx::query_scalar::<_, bool>(waiting)
            .fetch_one(&self.owner)
            .await
            .unwrap()
        {
            assert!(begun.elapsed() < PATIENCE, "nobody waits for the lock");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its address for the serving role.
    pub(crate) async fn app_url(&self) -> String {
        cluster().await.url(Role::App, &self.name)
    }
}

/// A fresh database from the migrated template.
pub(crate) async fn database() -> TestDatabase {
    let cluster = cluster().await;
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let admin = pool(&cluster.url(Role::Owner, "postgres")).await;
    let create = format!("CREATE DATABASE {name} TEMPLATE template");
    sqlx::query(AssertSqlSafe(create))
        .execute(&admin)
        .await
        .unwrap();
    admin.close().await;
    TestDatabase {
        owner: pool(&cluster.url(Role::Owner, &name)).await,
        app: serving(cluster.url(Role::App, &name)).await,
        name,
    }
}
