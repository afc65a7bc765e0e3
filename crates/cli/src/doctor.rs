//! `doctor`: whether a configuration holds what Mutext promises, end to end, and what to change where it does not.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use mutext::{AgentName, Content, ContextName, Examination, Finding, Mutext, Precondition, Settings, Severity, Wait};
use serde_json::json;

use crate::config::{Common, Given, Origin};
use crate::config_file::parse_duration;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::span;

/// Check a configuration end to end, and say what to change
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mutext doctor\n  mutext doctor --config production.yaml\n  \
    mutext doctor --store postgres://db.example/board --locks redis://locks.example\n  \
    mutext doctor --json | jq .changes\n\n\
    It looks at where each setting came from, at both engines' versions, settings, clocks and round\n\
    trips, and then takes a lock and writes a document as any agent would, in a context of its own.\n\
    Exit status 1: a danger was found.")]
pub(crate) struct DoctorArgs {
    /// How long each engine may take to answer
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    timeout: Duration,
    /// Look only: take no lock and write no document
    #[arg(long)]
    look_only: bool,
}

/// Where the trial happens: nobody works here.
const CONTEXT: &str = "mutext-doctor";
const DOCUMENT: &str = "trial";
/// So many updates are tried; the first finds scripts and statements that nobody has used yet, and is not counted.
const TRIALS: usize = 20;
/// A wait below so many times the longest uncontended acquisition leaves no time to queue.
const ROOM_TO_QUEUE: u32 = 10;

/// A group of findings, as it is shown.
struct Chapter {
    title: &'static str,
    findings: Vec<Finding>,
}

pub(crate) async fn run(args: DoctorArgs, common: &Common) -> Result<ExitCode, CliError> {
    let store = common.store.address()?;
    let locks = common.locks.as_ref().map(Given::address).transpose()?;
    let (documents, own, mutext) = Mutext::survey(&store, locks.as_ref(), args.timeout).await;
    let mut chapters = vec![
        Chapter { title: "settings", findings: settings(common) },
        Chapter { title: "documents", findings: engine(documents) },
        Chapter { title: "locks", findings: engine(own) },
    ];
    match mutext {
        Some(mutext) if !args.look_only => {
            let tried = tokio::time::timeout(args.timeout, trial(&mutext, common)).await;
            let findings = match tried {
                Ok(Ok(findings)) => findings,
                Ok(Err(error)) => vec![broken("trial", &error.into())],
                Err(_) => vec![Finding::new(
                    "trial",
                    Severity::Danger,
                    format!("not done within {}", span(args.timeout)),
                    "see whether the engines are overloaded, and try a longer --timeout",
                )],
            };
            mutext.finish().await;
            chapters.push(Chapter { title: "end to end", findings });
        }
        _ => {}
    }
    tell(&chapters, common)
}

/// What an engine says about itself, or why it says nothing.
fn engine(examined: Examination) -> Vec<Finding> {
    examined.unwrap_or_else(|error| vec![broken("reach", &error.into())])
}

fn broken(subject: &str, error: &CliError) -> Finding {
    let remedy = "until then nothing can be kept here: the message says what to change";
    Finding::new(subject, Severity::Danger, error.chain().join("; caused by "), remedy)
}

fn settings(common: &Common) -> Vec<Finding> {
    let from = |value: String, origin: &Origin| format!("{value} (from {origin})");
    let address =
        |given: &Given| from(given.address().map_or_else(|_| String::new(), |url| url.to_string()), &given.origin);
    let origin = |key| common.origins.get(key).unwrap_or(&Origin::Default);
    let size = format!("{} bytes", common.document_bytes_max);
    let all = || "all are kept".to_owned();
    let revisions = common.retention.revisions.map_or_else(all, |most| format!("{most} of each document"));
    let age = common.retention.age.map_or_else(all, span);
    vec![
        Finding::fine("store", address(&common.store)),
        Finding::fine("locks", common.locks.as_ref().map_or_else(|| "with the documents".to_owned(), address)),
        Finding::fine("context", from(common.context.to_string(), origin("context"))),
        Finding::fine("agent", from(common.agent.to_string(), origin("agent"))),
        Finding::fine("wait", from(span(common.wait.get()), origin("wait"))),
        Finding::fine("ttl", from(span(common.ttl.get()), origin("ttl"))),
        Finding::fine("document_bytes_max", from(size, origin("document_bytes_max"))),
        Finding::fine("retention_revisions", from(revisions, origin("retention_revisions"))),
        Finding::fine("retention_age", from(age, origin("retention_age"))),
    ]
}

/// Locks, reads, writes and unlocks as an agent does; what each took.
async fn trial(mutext: &Mutext, common: &Common) -> Result<Vec<Finding>, mutext::Error> {
    let mut settings = Settings::new(AgentName::new("doctor")?);
    settings.wait = Wait::new(Duration::from_secs(2))?;
    let context = mutext.context(ContextName::new(CONTEXT)?, settings)?;
    let (mut acquire, mut update, mut release) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=TRIALS {
        let began = Instant::now();
        let guard = context.lock(DOCUMENT).await?;
        let granted = began.elapsed();
        let entered = Instant::now();
        guard.get(DOCUMENT).await?;
        guard.put(DOCUMENT, Content::text(format!("trial {round}"))).await?;
        let written = entered.elapsed();
        let asked = Instant::now();
        guard.release().await?;
        if round > 0 {
            acquire.push(granted);
            update.push(written);
            release.push(asked.elapsed());
        }
    }
    context.delete(DOCUMENT, Precondition::Any).await?;
    let slowest = acquire.iter().max().copied().unwrap_or_default();
    Ok(vec![
        Finding::fine("acquire", times(acquire)),
        Finding::fine("read and write under the lease", times(update)),
        Finding::fine("release", times(release)),
        patience(common.wait.get(), slowest),
    ])
}

fn times(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    format!("{median:.2?} at the median of {}, {longest:.2?} at most", times.len())
}

/// The published experiment met waits of 100 ms that were too short for its locks.
fn patience(wait: Duration, slowest: Duration) -> Finding {
    let needed = slowest * ROOM_TO_QUEUE;
    let found = format!("{}; a lock that nobody holds took {slowest:.1?} at most", span(wait));
    if wait >= needed {
        return Finding::fine("wait", found);
    }
    let remedy = format!("raise wait to {} or more: those who queue would give up before their turn", span(needed));
    Finding::new("wait", Severity::Warning, found, remedy)
}

fn tell(chapters: &[Chapter], common: &Common) -> Result<ExitCode, CliError> {
    let all =
        || chapters.iter().flat_map(|chapter| chapter.findings.iter().map(move |finding| (chapter.title, finding)));
    let worst = all().map(|(_, finding)| finding.severity).max().unwrap_or(Severity::Fine);
    let mut changes: Vec<_> = all().filter(|(_, finding)| !finding.remedy.is_empty()).collect();
    changes.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.severity));
    let answer = json!({
        "worst": worst,
        "findings": all().map(|(chapter, finding)| {
            let Finding { subject, severity, found, remedy } = finding;
            json!({ "of": chapter, "subject": subject, "severity": severity, "found": found, "remedy": remedy })
        }).collect::<Vec<_>>(),
        "changes": changes.iter().map(|(chapter, finding)| format!("{chapter}, {}: {}", finding.subject, finding.remedy))
            .collect::<Vec<_>>(),
    });
    common.out.answer(&answer, || {
        let rows = all().map(|(chapter, finding)| {
            [chapter.to_owned(), finding.subject.clone(), finding.severity.to_string(), finding.found.clone()]
        });
        let mut text = common.out.table(["of", "what", "is", "found"], rows.collect());
        text.push('\n');
        for (chapter, finding) in &changes {
            let _ = writeln!(text, "{}: {chapter}, {}: {}", finding.severity, finding.subject, finding.remedy);
        }
        text.push_str(match worst {
            Severity::Fine => "Nothing to change.\n",
            Severity::Note => "Nothing that must change.\n",
            Severity::Warning => "It works; what is named above would make it faster or safer.\n",
            Severity::Danger => "Do not rely on it before the dangers named above are gone.\n",
        });
        text
    })?;
    Ok(if worst == Severity::Danger { Exit::CriterionFailed } else { Exit::Done }.into())
}
