//! One throw-away Postgres cluster a test binary, migrated once; a database of its own a test.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use countersign::dev::{Cluster, Durability, Options, Role};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::OnceCell;

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A folder that the account which runs Postgres can enter; removed when dropped.
pub(crate) struct OpenFolder(PathBuf);

impl OpenFolder {
    pub(crate) fn new(name: &str) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("countersign-test-{}-{count}-{name}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        std::fs::DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for OpenFolder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// The cluster ends with this process (its death signal), so its folder is removed by the next run.
fn remove_stale_folders() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let Some(rest) = name.strip_prefix("countersign-test-") else {
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
            let folder = OpenFolder::new("cluster");
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
