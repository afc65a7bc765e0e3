//! Random operations of every kind by several processes on one store, and what must be true of the store after them.

use std::collections::{BTreeMap, HashMap};

use mutext::{Commit, Context, Cursor, Document, DocumentPath, Error, Precondition, Revision, Strategy};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::child::Child;
use crate::roles::{agent, agent_of, appended, hear_from_the_parent, ids, open, say};

/// Lists of numbers, to which every process appends numbers of its own.
const LISTS: u64 = 6;
/// Documents that come and go.
const SCRATCH: u64 = 8;

/// What one operation did: what was acknowledged, or that it lost against another.
enum Outcome {
    Read,
    /// Documents with their new revisions, and the number that was appended to each, if any.
    Written(Vec<(DocumentPath, Revision, Option<u64>)>),
    Conflict,
    Timeout,
}

/// A child: so many operations, each told to the parent; any error that is not contention ends it.
pub(crate) async fn run(address: &str, index: u64, operations: u64, seed: u64) {
    let mutext = open(address).await;
    let agent = agent_of(&mutext, &format!("p{index}"));
    let mut random = StdRng::seed_from_u64(seed + index);
    // Together, so that they meet.
    say("ready");
    hear_from_the_parent();
    let (mut conflicts, mut timeouts, mut reads) = (0, 0, 0);
    for number in 0..operations {
        let id = index * 1_000_000 + number;
        match operation(&agent, &mut random, id).await {
            Ok(Outcome::Read) => reads += 1,
            Ok(Outcome::Written(changes)) => {
                let changes = changes.iter().map(|(path, revision, id)| {
                    format!("{path}:{revision}:{}", id.map_or_else(|| "-".to_owned(), |id| id.to_string()))
                });
                say(&format!("ack {}", changes.collect::<Vec<_>>().join(" ")));
            }
            Ok(Outcome::Conflict) => conflicts += 1,
            Ok(Outcome::Timeout) => timeouts += 1,
            Err(error) => panic!("operation {number} of process {index}, seed {seed}: {error:?}"),
        }
    }
    // What an update has dropped is given back by now, so that the parent may look for what is left.
    mutext.finish().await;
    say(&format!("done {conflicts} {timeouts} {reads}"));
}

/// One operation of a random kind. Contention is an outcome; all else is an error.
async fn operation(agent: &Context, random: &mut StdRng, id: u64) -> Result<Outcome, Error> {
    let kind = random.random_range(0..100);
    let list = format!("lists/{}", random.random_range(0..LISTS));
    let scratch = format!("scratch/{}", random.random_range(0..SCRATCH));
    let outcome = match kind {
        0..20 => agent.get(&*list).await.map(|list| check(&ids(list.as_ref()))),
        20..35 => update(agent, &list, agent.update_options().strategy, id).await,
        35..50 => update(agent, &list, Strategy::CompareAndSet, id).await,
        50..60 => hold(agent, &list, id).await,
        60..68 => {
            let found = agent.get(&*list).await?;
            let content = appended(found.as_ref(), id)?;
            let put = agent.put(&*list, content, Precondition::unchanged(found.as_ref())).await;
            put.map(|revision| written(&list, revision, Some(id)))
        }
        68..74 => agent
            .put(&*scratch, format!("new {id}"), Precondition::Absent)
            .await
            .map(|new| written(&scratch, new, None)),
        74..80 => {
            agent.put(&*scratch, format!("over {id}"), Precondition::Any).await.map(|new| written(&scratch, new, None))
        }
        80..86 => match agent.get(&*scratch).await? {
            Some(found) => {
                let deleted = agent.delete(&*scratch, Precondition::Exact(found.revision)).await;
                deleted.map(|revision| written(&scratch, revision, None))
            }
            None => Ok(Outcome::Read),
        },
        86..93 => together(agent, random, id).await,
        93..96 => agent.list("lists/").await.map(|entries| {
            assert!(entries.len() <= LISTS as usize && entries.is_sorted_by_key(|entry| entry.path.clone()));
            Outcome::Read
        }),
        _ => agent.history(&*list, None, 5).await.map(|past| {
            assert!(past.windows(2).all(|pair| pair[0].revision.0 == pair[1].revision.0 + 1), "{past:?}");
            Outcome::Read
        }),
    };
    match outcome {
        Err(Error::Conflict(_)) => Ok(Outcome::Conflict),
        Err(Error::Timeout { .. }) => Ok(Outcome::Timeout),
        Err(Error::RetriesExhausted { last, .. }) if matches!(*last, Error::Conflict(_) | Error::Timeout { .. }) => {
            Ok(Outcome::Conflict)
        }
        other => other,
    }
}

fn written(path: &str, revision: Revision, id: Option<u64>) -> Outcome {
    Outcome::Written(vec![(path.try_into().unwrap(), revision, id)])
}

/// What is read is whole at every moment: no number twice, those of one process in their order.
fn check(ids: &[u64]) -> Outcome {
    let mut last: HashMap<u64, u64> = HashMap::new();
    for id in ids {
        let before = last.insert(id / 1_000_000, *id);
        assert!(before.is_none_or(|before| before < *id), "{id} after {before:?} in {ids:?}");
    }
    Outcome::Read
}

async fn update(agent: &Context, list: &str, strategy: Strategy, id: u64) -> Result<Outcome, Error> {
    let options = mutext::UpdateOptions { strategy, ..agent.update_options() };
    let change = async |found: Option<Document>| appended(found.as_ref(), id);
    let updated = agent.update_with(list, &options, change).await?;
    Ok(written(list, updated.revision, Some(id)))
}

/// By hand what an update does by itself.
async fn hold(agent: &Context, list: &str, id: u64) -> Result<Outcome, Error> {
    let guard = agent.lock(list).reason("by hand").await?;
    let found = guard.get(list).await?;
    let outcome = guard.put(list, appended(found.as_ref(), id)?).await;
    // Given back, or dropped where the write was refused.
    if outcome.is_ok() {
        guard.release().await?;
    }
    outcome.map(|revision| written(list, revision, Some(id)))
}

/// Two lists and a scratch document at once, or none.
async fn together(agent: &Context, random: &mut StdRng, id: u64) -> Result<Outcome, Error> {
    let first = random.random_range(0..LISTS);
    let second = (first + random.random_range(1..LISTS)) % LISTS;
    let mut commit = Commit::new(agent.agent().clone());
    for list in [first, second] {
        let path: DocumentPath = format!("lists/{list}").try_into()?;
        let found = agent.get(&path).await?;
        commit = commit.put(path, appended(found.as_ref(), id)?, Precondition::unchanged(found.as_ref()));
    }
    let scratch: DocumentPath = format!("scratch/{}", random.random_range(0..SCRATCH)).try_into()?;
    let committed = agent.commit(commit.delete(scratch.clone(), Precondition::Any)).await?;
    let id_of = |path: &DocumentPath| (*path != scratch).then_some(id);
    Ok(Outcome::Written(committed.revisions.into_iter().map(|(path, new)| (path.clone(), new, id_of(&path))).collect()))
}

/// What the children were told: for each document and revision, by whom it was written, and the number appended.
type Told = BTreeMap<(String, u64), (String, Option<u64>)>;

/// Runs `processes` children with `operations` each on the store at `address`; returns a summary for people.
pub(crate) fn run_all(address: &str, processes: u64, operations: u64) -> String {
    let seed: u64 = rand::random_range(0..1_000_000);
    let mut children: Vec<Child> = (0..processes)
        .map(|index| Child::start("mix", &[address, &index.to_string(), &operations.to_string(), &seed.to_string()]))
        .collect();
    for child in &children {
        child.until("ready");
    }
    let start = std::time::Instant::now();
    children.iter_mut().for_each(|child| child.say("go"));
    let mut told = Told::new();
    let mut counts = [0; 3];
    for (index, child) in children.into_iter().enumerate() {
        for line in child.finish() {
            match line.split_once(' ') {
                Some(("ack", changes)) => hear(&mut told, index, changes),
                Some(("done", numbers)) => {
                    for (count, number) in counts.iter_mut().zip(numbers.split(' ')) {
                        *count += number.parse::<u64>().unwrap();
                    }
                }
                _ => panic!("not understood: {line}"),
            }
        }
    }
    let took = start.elapsed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(verify(address, &told));
    let [conflicts, timeouts, reads] = counts;
    assert!(told.len() as u64 > processes * operations / 4, "only {} documents were written", told.len());
    assert!(conflicts > 0, "the processes never met");
    let sum = processes * operations;
    format!(
        "{sum} operations by {processes} processes in {took:.1?} (seed {seed}): {} revisions acknowledged, {reads} \
         reads, {conflicts} conflicts, {timeouts} timeouts",
        told.len()
    )
}

fn hear(told: &mut Told, index: usize, changes: &str) {
    for change in changes.split(' ') {
        let [path, revision, id] = change.split(':').collect::<Vec<_>>()[..] else { panic!("{change}") };
        let key = (path.to_owned(), revision.parse().unwrap());
        let twice = told.insert(key, (format!("p{index}"), id.parse().ok()));
        assert!(twice.is_none(), "{path} at {revision} was acknowledged to two: p{index} and {twice:?}");
    }
}

/// Nothing acknowledged is missing, nothing is there that was not, and the feed tells exactly the same story.
async fn verify(address: &str, told: &Told) {
    let agent = agent(address, "reader").await;
    let mut feed = BTreeMap::new();
    let mut after = Cursor::START;
    loop {
        let page = agent.changes(after, 500, std::time::Duration::ZERO).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.is_sorted_by(|one, next| one.cursor < next.cursor) && page[0].cursor > after);
        after = last.cursor;
        for record in page {
            for (path, revision, _) in record.changes {
                feed.insert((path.to_string(), revision.0), record.author.to_string());
            }
        }
    }
    let acknowledged: BTreeMap<_, _> = told.iter().map(|(key, (author, _))| (key.clone(), author.clone())).collect();
    assert_eq!(feed.len(), acknowledged.len());
    assert!(feed == acknowledged, "the feed and the acknowledgements differ");
    // No document's revisions have a gap: each is one more than the one before it, from 1.
    let mut expected = ("", 0);
    for (path, revision) in feed.keys() {
        expected = if expected.0 == path { (path, expected.1 + 1) } else { (path, 1) };
        assert_eq!((path.as_str(), *revision), expected);
    }
    for list in (0..LISTS).map(|list| format!("lists/{list}")) {
        let appended: Vec<u64> =
            told.iter().filter(|((path, _), _)| *path == list).filter_map(|(_, (_, id))| *id).collect();
        let found = agent.get(&*list).await.unwrap();
        assert_eq!(ids(found.as_ref()), appended, "{list} does not hold what was acknowledged, in its order");
        assert_eq!(found.map_or(0, |found| found.revision.0), appended.len() as u64);
    }
    let table = agent.locks().await.unwrap();
    assert!(table.holdings.is_empty() && table.waiters.is_empty(), "left behind: {table:?}");
}
