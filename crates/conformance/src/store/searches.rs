//! Full text over a context.

use mutext_contract::{Content, Hit, PathPrefix, Precondition, Query, Revision};

use crate::StoreFixture;
use crate::support::{Scribe, path, same, soon};

async fn search(scribe: &Scribe, query: &str, prefix: &str, limit: usize) -> Vec<Hit> {
    let query: Query = query.parse().expect("a valid query");
    let prefix = PathPrefix::new(prefix).expect("a valid prefix");
    scribe.store.search(&scribe.context, &query, &prefix, limit, soon()).await.expect("a search without trouble")
}

async fn paths(scribe: &Scribe, query: &str) -> Vec<String> {
    let mut paths: Vec<String> =
        search(scribe, query, "", 100).await.iter().map(|hit| hit.path.as_str().to_owned()).collect();
    paths.sort();
    paths
}

/// Words, phrases, beginnings and exclusions find what has them, by whoever it was written; in any case of letters.
pub async fn a_search_finds_words_phrases_and_beginnings(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    anna.overwrite("plan.md", "# Plan\nMeasure twice, then cut the Höhe").await;
    bert.overwrite("notes/1", "cut twice, measure never").await;
    let json = Content::parse_json("{\"task\": \"measuring\", \"owner\": \"anna\"}").expect("JSON");
    anna.committed(&anna.commit().put(path("notes/2.json"), json, Precondition::Absent)).await;
    anna.overwrite("empty", "").await;
    let expected: [(&str, &[&str]); 9] = [
        ("measure", &["notes/1", "plan.md"]),
        ("MEASURE twice", &["notes/1", "plan.md"]),
        ("\"measure twice\"", &["plan.md"]),
        ("measur*", &["notes/1", "notes/2.json", "plan.md"]),
        ("measure -never", &["plan.md"]),
        ("höhe", &["plan.md"]),
        ("anna", &["notes/2.json"]),
        ("nowhere", &[]),
        ("it's \"quoted' AND (odd) OR NOT: & | ! <->", &[]),
    ];
    for (query, found) in expected {
        same(query, &paths(&bert, query).await, &found.iter().map(ToString::to_string).collect());
    }
    let below = search(&anna, "measure", "notes/", 9).await;
    same("below a prefix", &below.len(), &1);
    same("the snippet", &below[0].snippet.contains("**measure**"), &true);
    same("the revision", &below[0].revision, &Revision(1));
    same("at most so many", &search(&anna, "measur*", "", 2).await.len(), &2);
}

/// A search sees every commit that was acknowledged before it, whoever made it: changed, deleted and brought back.
pub async fn a_search_sees_what_was_committed_before_it(fixture: &dyn StoreFixture) {
    let (anna, bert) = Scribe::two(fixture).await;
    for number in 0..20 {
        let (writer, reader) = if number % 2 == 0 { (&anna, &bert) } else { (&bert, &anna) };
        writer.overwrite("counter", &format!("count{number}")).await;
        same("the new word", &paths(reader, &format!("count{number}")).await, &vec!["counter".to_owned()]);
        same("the word before", &paths(reader, &format!("\"count{}\"", number + 100)).await.len(), &0);
    }
    same("an old word", &paths(&anna, "count3").await.len(), &0);
    anna.committed(&anna.commit().delete(path("counter"), Precondition::Any)).await;
    same("a deleted document", &paths(&bert, "count19").await.len(), &0);
    let other = Scribe::one(fixture);
    other.overwrite("counter", "count19").await;
    same("another context's document", &paths(&bert, "count19").await.len(), &0);
    bert.overwrite("counter", "count19").await;
    same("one that is back", &paths(&anna, "count19").await.len(), &1);
}
