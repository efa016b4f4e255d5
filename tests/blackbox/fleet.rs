//! A fleet of simulated agents, real in all that a server sees, at two servers behind one address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign::keys;
use countersign_simulator::{Administrator, Fleet, Office, Plan};
use tokio::net::{TcpListener, TcpStream};

use crate::folder::Folder;
use crate::servers::Server;
use crate::support::{Dev, PATIENCE, until};

/// Agents: enough that a server dies while some run and others wait.
const HOSTS: usize = 40;

/// How often a server is killed.
const KILLS: u64 = 3;

/// One address before several servers: each connection goes to the next one that answers.
async fn balance(listener: TcpListener, servers: Vec<SocketAddr>) {
    let (servers, turn) = (Arc::new(servers), Arc::new(AtomicUsize::new(0)));
    while let Ok((mut client, _)) = listener.accept().await {
        let (servers, turn) = (Arc::clone(&servers), Arc::clone(&turn));
        tokio::spawn(async move {
            for _each in servers.iter() {
                let next = turn.fetch_add(1, Ordering::Relaxed) % servers.len();
                if let Ok(mut server) = TcpStream::connect(servers[next]).await {
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
    }
}

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// A fleet of a `dev`'s ledger that meets its server at `url`.
async fn fleet(dev: &Dev, url: &str, hosts: usize) -> Fleet {
    let server: reqwest::Url = url.parse().unwrap();
    let ledger = dev.env("COUNTERSIGN_LEDGER").parse().unwrap();
    let vkey: countersign_protocol::checkpoint::VerifierKey =
        dev.env("COUNTERSIGN_VKEY").parse().unwrap();
    let signers = dev.data().join("agent/allowed_signers");
    let plan = Plan {
        server: server.clone(),
        ledger,
        vkey: vkey.clone(),
        signers: std::fs::read_to_string(signers).unwrap(),
        hosts,
        prefix: "host-".to_owned(),
        own_addresses: false,
    };
    let administrator = |name: &str| Administrator {
        name: name.parse().unwrap(),
        key: keys::read(&dev.data().join("keys").join(name)).unwrap(),
    };
    let people = (administrator("alice"), administrator("bob"));
    let office = Office::new(&server, (ledger, vkey), people.0, people.1).unwrap();
    let fleet = Fleet::new(&plan, dev.folder().path()).await.unwrap();
    fleet.enrol(&office).await.unwrap();
    fleet
}

fn ask_all(dev: &Dev, fleet: &Fleet) -> String {
    let names: Vec<String> = fleet.names().map(ToString::to_string).collect();
    let count = names.len().to_string();
    let targets = names.iter().flat_map(|name| ["--on", name.as_str()]);
    let mut words = vec!["request", "--reason", "a test", "--yes-all", &count];
    words.extend(targets);
    words.extend(["--", "true"]);
    let asked = dev.json("alice", 0, &words);
    asked["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_run_on_many_hosts_loses_and_doubles_nothing() {
    // Held from the start: nobody else gets the port.
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    door.set_nonblocking(true).unwrap();
    let port = door.local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let dev = Dev::start_met_at(Arc::new(Folder::new("fleet")), &[&url]);
    let keys = dev.data().join("ledger");
    let database = dev.env("DATABASE_URL").to_owned();
    let serve = |name: &str| {
        let checkpoint = dev.folder().path().join(name);
        let first = !checkpoint.exists();
        Server::start(&dev, &database, &keys, &checkpoint, first)
    };
    let first = serve("first-checkpoint");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut second = serve("second-checkpoint");
    let mut behind = vec![address(&first.url), address(&second.url)];
    let balancing = |behind: Vec<SocketAddr>| {
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(door.try_clone().unwrap()).unwrap();
        runtime.spawn(balance(listener, behind))
    };
    let mut balancer = balancing(behind.clone());
    let fleet = runtime.block_on(fleet(&dev, &url, HOSTS));
    runtime.block_on(fleet.connect());
    let (all, mut in_the_middle) = (HOSTS as u64, 0);
    for round in 0..KILLS {
        let id = ask_all(&dev, &fleet);
        dev.json("bob", 0, &["approve", &id, "--yes"]);
        let before = round * all;
        std::thread::scope(|scope| {
            let approving = scope.spawn(|| dev.json("carol", 0, &["approve", &id, "--yes"]));
            let some = fleet.until(PATIENCE, |counts| counts.started >= before + 3);
            assert!(runtime.block_on(some), "{:?}", fleet.counts());
            second.child.kill().unwrap();
            in_the_middle += u64::from(fleet.counts().completed < before + all);
            approving.join().unwrap();
        });
        let ended = fleet.until(PATIENCE, |counts| counts.completed >= before + all);
        assert!(runtime.block_on(ended), "{:?}", fleet.counts());
        assert_eq!(dev.ended(&id)["status"], "completed");
        let each = format!(
            "SELECT count(*) || ' ' || count(DISTINCT who) FROM projections.deeds
             WHERE command = decode('{id}', 'hex') AND kind = 'execution."
        );
        for kind in ["started", "completed"] {
            let told = dev.sql(&format!("{each}{kind}'"));
            assert_eq!(told, format!("{HOSTS} {HOSTS}"), "{kind}, round {round}");
        }
        second = serve("second-checkpoint");
        behind[1] = address(&second.url);
        balancer.abort();
        balancer = balancing(behind.clone());
        until("all listen again", || fleet.counts().listening == HOSTS);
    }
    assert!(in_the_middle > 0, "no server died while a run went on");
    let counts = fleet.counts();
    assert_eq!((counts.refused, counts.told_no), (0, 0), "{counts:?}");
    runtime.block_on(async {
        let stopped = tokio::time::timeout(Duration::from_secs(10), fleet.stop());
        stopped.await.unwrap();
    });
    assert!(dev.is_sound());
}

#[test]
fn where_agents_are_is_shown_and_not_guessed() {
    let dev = Dev::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fleet = runtime.block_on(fleet(&dev, dev.env("COUNTERSIGN_SERVER"), 2));
    let of = |name: &str| {
        let shown = dev.json("alice", 0, &["agents"]);
        let items = shown["items"].as_array().unwrap().clone();
        let found = items.into_iter().find(|item| item["agent"] == name);
        found.unwrap()["presence"].clone()
    };
    let table = || {
        let output = dev.verb("alice", &["agents"]);
        crate::support::text(&output.stdout)
    };
    // It has enrolled, which it signed, and was never met here.
    let waiting = of("host-00000");
    assert_eq!(
        (&waiting["listening"], &waiting["says_version"]),
        (&0.into(), &().into())
    );
    assert!(waiting["last_statement_seq"].is_u64(), "{waiting}");
    assert!(table().contains("not connected to this server; last seen "));
    runtime.block_on(fleet.connect());
    let here = of("host-00000");
    assert_eq!(here["listening"], 1);
    let version = concat!("countersign-agent/", env!("CARGO_PKG_VERSION"));
    assert_eq!(here["says_version"], version);
    assert!(here["listening_since_us"].is_u64() && here["last_request_us"].is_u64());
    assert!(table().contains("connected  "), "{}", table());
    runtime.block_on(fleet.stop());
    until("the server has noticed", || {
        of("host-00000")["listening"] == 0
    });
    let gone = of("host-00000");
    assert!(gone["listening_since_us"].is_null());
    assert!(gone["last_request_us"].as_u64() >= here["last_request_us"].as_u64());
    assert!(!table().contains("offline"));
}
