//! Two agents at one plan: one thinks under a lock, the other waits its turn, and an operator steps in.
//!
//! `cargo run --package mutext --example two_agents`

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::time::Duration;

use mutext::{Address, Context, Error, Mutext, Precondition, Settings, Wait};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let mutext = Mutext::open(&Address::embedded(dir.path()), None).await?;
    let planner = mutext.context("research-42", Settings::new("planner".try_into()?))?;
    let critic = mutext.context("research-42", Settings::new("critic".try_into()?))?;
    planner.put("plan.md", "1. measure", Precondition::Absent).await?;

    println!("The planner takes the plan, and thinks.");
    let guard = planner.lock("plan.md").reason("planning the week").await?;
    let plan = guard.get("plan.md").await?.map(|plan| plan.content.as_str().to_owned()).unwrap_or_default();

    println!("The critic does not wait long:");
    let impatient = critic.lock("plan.md").wait(Wait::new(Duration::from_millis(50))?).await;
    println!("  {}", impatient.err().ok_or("the lock was given twice")?);

    println!("The critic waits its turn; the planner writes and gives the plan back.");
    let patient = critic.clone();
    let turn = tokio::spawn(async move { append(&patient, "3. publish").await });
    guard.put("plan.md", format!("{plan}\n2. cut")).await?;
    guard.release().await?;
    turn.await??;
    let plan = planner.get("plan.md").await?.ok_or("the plan is gone")?;
    println!(
        "  revision {}, last by {}:\n    {}",
        plan.revision,
        plan.author,
        plan.content.as_str().replace('\n', "\n    ")
    );
    assert_eq!(plan.content.as_str(), "1. measure\n2. cut\n3. publish");

    println!("The planner takes the plan once more, and an operator takes it away.");
    let guard = planner.lock("plan.md").await?;
    guard.get("plan.md").await?;
    critic.revoke(guard.lease().id(), "the week is over").await?;
    println!("  the planner is told: {}", guard.lost().await);
    let late = guard.put("plan.md", "4. rest").await;
    println!("  and writes no more: {}", late.err().ok_or("a lost lease wrote")?);
    Ok(())
}

/// Adds a line, under the lock: waits until it is free, for half a second unless told otherwise.
async fn append(agent: &Context, line: &str) -> Result<(), Error> {
    agent
        .update("plan.md", async |plan| {
            let plan = plan.map(|plan| plan.content.as_str().to_owned()).unwrap_or_default();
            Ok::<_, Error>(format!("{plan}\n{line}").into())
        })
        .await
        .map(drop)
}
