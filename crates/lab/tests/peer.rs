//! A peer's processes are started, told, heard and judged as ours are. This one is a few lines of shell.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mutext_lab::experiment::{self, Place, Plan};
use mutext_lab::peer::Program;
use mutext_lab::results::{Treatment, Workload};
use mutext_lab::trial::{self, TrialError, TrialOutcome, TrialPlan};
use mutext_lab::workload::profile;

/// Two agents say that they were inside at once, and the keeper's document holds one of their two updates. It works
/// only with the task on its standard input, and fails where the task's password is to be seen elsewhere.
const PEER: &str = r#"
case "$*" in *hush*) echo "a password in the arguments" >&2; exit 1;; esac
if env | grep -q hush; then echo "a password in the environment" >&2; exit 1; fi
read -r task
case $task in *'"store":"postgres://me:hush@'*) ;; *) echo "no store in $task" >&2; exit 1;; esac
case $task in *warm-up/001*) ;; *'"agent":0'*) ;; *) echo "no warm-up in $task" >&2; exit 1;; esac
echo ready
read -r go
update() {
    echo '{"updates":[{"id":"'$1'","path":"documents/000","invoked":100,"returned":300,"entered":'$2',"left":250,
        "asked":100,"granted":110,"acquire_ms":0.01,"token":null,"read":"[]","written":"[\"'$1'\"]","revision":null}],
        "conflicts":0,"timeouts":2,"lost_leases":0,"errors":[]}' | tr -d '\n'
    echo
}
case "$1 $task" in
keeper*) echo '{"documents/000":"[\"1-0\"]"}' ;;
agent*'"agent":0'*) update 0-0 120 ;;
agent*) update 1-0 130 ;;
esac
"#;

fn workload() -> Workload {
    Workload { agents: 2, updates_per_agent: 1, documents: 1, ..profile("published").unwrap() }
}

fn plan(treatment: Treatment, script: &str) -> TrialPlan {
    TrialPlan {
        trial: 1,
        order: 1,
        treatment,
        seed: 1,
        workload: workload(),
        store: "postgres://me:hush@127.0.0.1:1/test".parse().unwrap(),
        locks: "redis://127.0.0.1:1".parse().unwrap(),
        context: "laboratory-test".to_owned(),
        agent_command: ["/bin/sh", "-c", script, "peer"].map(OsString::from).to_vec(),
    }
}

fn run(plan: &TrialPlan) -> Result<TrialOutcome, TrialError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(trial::run(plan, Instant::now()))
}

#[test]
fn a_peer_is_judged_by_the_same_checks() {
    let TrialOutcome { trial, samples } = run(&plan(Treatment::PythonLocking, PEER)).unwrap();
    assert_eq!((trial.acknowledged_updates, trial.lost_updates, trial.overlaps), (2, 1, 1), "{:?}", trial.evidence);
    assert_eq!((trial.nonlinearizable_documents, trial.token_violations, trial.timeouts), (1, 0, 4));
    assert!(trial.corrupt && samples.iter().all(|sample| sample.acquire_ms == Some(0.01)));
    // Without a lock there is no critical section to be in.
    let trial = run(&plan(Treatment::PythonBaseline, PEER)).unwrap().trial;
    assert_eq!((trial.lost_updates, trial.overlaps), (1, 0));
}

#[test]
fn a_peer_that_fails_is_quoted() {
    let fails = |script: &str| run(&plan(Treatment::PythonLocking, script)).unwrap_err().to_string();
    let keeper = fails("read -r task; echo no such database >&2; exit 3");
    assert!(keeper.starts_with("the keeper") && keeper.contains("no such database"), "{keeper}");
    let agent = fails("read -r task; [ $1 = keeper ] || { echo cannot connect >&2; exit 3; }; echo ready; read -r go");
    assert!(agent.starts_with("agent ") && agent.contains("cannot connect"), "{agent}");
}

fn experiment(treatments: &[Treatment]) -> Plan {
    Plan {
        treatments: treatments.to_vec(),
        trials: 2,
        workload: workload(),
        seed: 1,
        store: Place::Fresh,
        locks: Place::Fresh,
        servers: Vec::new(),
        peer: None,
        scratch: std::env::temp_dir(),
        agent_command: Vec::new(),
        command: String::new(),
        commit: None,
    }
}

/// A source tree whose `compare/python` is the peer above.
fn tree(root: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let bin = root.join("compare/python/.venv/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(root.join("compare/python/agent.py"), format!("[ $1 = check ] && echo shell && exit\n{PEER}"))
        .unwrap();
    std::fs::write(bin.join("python"), "#!/bin/sh\nexec /bin/sh \"$@\"\n").unwrap();
    std::fs::set_permissions(bin.join("python"), PermissionsExt::from_mode(0o755)).unwrap();
    root.to_owned()
}

#[tokio::test(flavor = "current_thread")]
async fn an_experiment_runs_its_peer_and_says_what_it_ran_with() {
    let root = tempfile::tempdir().unwrap();
    let TrialPlan { store, locks, .. } = plan(Treatment::PythonLocking, "");
    let mut plan = experiment(&Treatment::PEERS);
    plan.peer = Some(Program::python(&[&tree(root.path())]).unwrap().on(store, locks));
    let results = experiment::run(&plan, |_| {}, std::future::pending()).await.unwrap();
    assert_eq!(results.trials.len(), 4);
    assert!(results.metadata.engines.contains(&"peer: shell".to_owned()), "{:?}", results.metadata.engines);
    let shown = format!("{:?}", results.metadata);
    assert!(!shown.contains("hush"), "{shown}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_treatment_of_the_peer_without_one_says_how_to_get_it() {
    let plan = experiment(&[Treatment::PythonLocking]);
    let error = experiment::run(&plan, |_| {}, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("--compare python"), "{error}");
}
