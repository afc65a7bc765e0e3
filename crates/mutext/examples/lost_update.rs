//! A lost update, and three ways without one: by lease, by compare-and-set, and by hand under a guard.
//!
//! `cargo run --package mutext --example lost_update`

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use mutext::{Address, Content, Context, Document, Error, Mutext, Precondition, Settings, Strategy, UpdateOptions};

const AGENTS: u64 = 4;
const ROUNDS: u64 = 25;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let mutext = Mutext::open(&Address::embedded(dir.path()), None).await?;
    println!("{AGENTS} agents count one document up, {ROUNDS} times each: {} updates.\n", AGENTS * ROUNDS);
    let ways = ["unprotected", "by lease", "by compare-and-set", "by hand"];
    for way in ways {
        let agents: Vec<_> = (0..AGENTS)
            .map(|number| {
                let agent = mutext.context("example", Settings::new(format!("agent-{number}").try_into()?))?;
                Ok(tokio::spawn(async move {
                    for _ in 0..ROUNDS {
                        count_up(&agent, way).await?;
                    }
                    Ok::<_, Error>(())
                }))
            })
            .collect::<Result<_, Error>>()?;
        for agent in agents {
            agent.await??;
        }
        let reader = mutext.context("example", Settings::new("reader".try_into()?))?;
        let counted = number(reader.get(way).await?.as_ref())?;
        let lost = AGENTS * ROUNDS - counted;
        println!("{way:>18}: the document says {counted:3}, {lost:2} acknowledged updates are lost");
        assert_eq!(lost > 0, way == "unprotected", "without protection updates are lost, and with it none");
    }
    Ok(())
}

/// Reads, thinks, and writes one more than it read.
async fn count_up(agent: &Context, way: &str) -> Result<(), Error> {
    let change = async |document: Option<Document>| {
        think().await;
        one_more(document.as_ref())
    };
    match way {
        "unprotected" => {
            let content = change(agent.get(way).await?).await?;
            agent.put(way, content, Precondition::Any).await?;
        }
        "by compare-and-set" => {
            let options = UpdateOptions { strategy: Strategy::CompareAndSet, ..agent.update_options() };
            agent.update_with(way, &options, change).await?;
        }
        "by hand" => {
            let guard = agent.lock(way).reason("counting").await?;
            let content = change(guard.get(way).await?).await?;
            guard.put(way, content).await?;
            guard.release().await?;
        }
        _ => drop(agent.update(way, change).await?),
    }
    Ok(())
}

/// Where the others slip in.
async fn think() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}

fn number(document: Option<&Document>) -> Result<u64, Error> {
    Ok(document.map_or(Ok(0), |document| document.content.parse())?)
}

fn one_more(document: Option<&Document>) -> Result<Content, Error> {
    Ok(Content::json(&(number(document)? + 1))?)
}
