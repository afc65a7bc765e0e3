//! The Python reproduction runs on real servers, beside whatever else is measured, where `compare/python/setup` ran.

use std::path::Path;

use mutext_lab::experiment::{self, Place, Plan};
use mutext_lab::peer::{PeerError, Program};
use mutext_lab::results::{Treatment, Workload};
use mutext_lab::servers::{Server, Servers};
use mutext_lab::workload::profile;

#[tokio::test(flavor = "current_thread")]
async fn python_loses_updates_without_its_lock_and_none_with_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = match Program::python(&[&root]) {
        Ok(program) => program,
        // Tests fetch nothing from registries by themselves.
        Err(PeerError::NotSetUp { setup, .. }) => {
            println!("not tested, because {} has not been run", setup.display());
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let servers = Servers::start(&[Server::Redis, Server::Postgres]).unwrap();
    let (store, locks) = (servers.store().unwrap().unwrap(), servers.locks().unwrap().unwrap());
    let facts = servers.facts();
    assert!(facts[1].contains("PostgreSQL") && facts[1].contains("fsync=on"), "{facts:?}");
    assert!(facts[0].contains("Redis") && facts[0].contains("appendonly=no"), "{facts:?}");
    let plan = Plan {
        treatments: Treatment::PEERS.to_vec(),
        trials: 1,
        workload: Workload { agents: 3, updates_per_agent: 10, ..profile("hot").unwrap() },
        seed: 1,
        store: Place::Fresh,
        locks: Place::Fresh,
        servers: facts,
        peer: Some(program.on(store, locks)),
        scratch: std::env::temp_dir(),
        agent_command: Vec::new(),
        command: String::new(),
        commit: None,
    };
    let results = experiment::run(&plan, |_| {}, std::future::pending()).await.unwrap();
    let trial = |treatment| results.of(treatment).next().unwrap();
    let (without, with) = (trial(Treatment::PythonBaseline), trial(Treatment::PythonLocking));
    assert!(without.corrupt && without.lost_updates > 0, "{without:?}");
    assert!(!with.corrupt && with.acknowledged_updates == 30 && with.errors == 0, "{with:?}");
    assert_eq!(results.samples_of(Treatment::PythonLocking).filter(|sample| sample.acquire_ms.is_some()).count(), 30);
}
