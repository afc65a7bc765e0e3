//! Judges a trial from its agents' logs and the documents that are left.

use std::collections::BTreeMap;

use mutext_history::{
    Acknowledged, Budget, Contents, Grant, Interner, Register, RegisterOp, RegisterOperation, Section, Token, Verdict,
    Written, check, check_grants, check_written, duplicates, lost_updates, overlaps,
};

use crate::agent::{AgentLog, UpdateRecord};
use crate::results::Treatment;

/// The most findings of one kind that are written out.
const EVIDENCE_MAX: usize = 5;

/// What was found; see the fields of the same names in [`crate::results::Trial`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Acknowledged updates that the final documents lack.
    pub lost_updates: usize,
    /// Pairs of critical sections that certainly overlapped.
    pub overlaps: usize,
    /// Tokens out of order.
    pub token_violations: usize,
    /// Documents whose history no serial order explains.
    pub nonlinearizable_documents: usize,
    /// Documents whose history could not be judged within the budget.
    pub undecided_documents: usize,
    /// Updates that are in a document more than once.
    pub duplicates: usize,
    /// All of it in words.
    pub evidence: Vec<String>,
}

impl Findings {
    /// Whether any check failed.
    pub const fn is_corrupt(&self) -> bool {
        self.lost_updates + self.overlaps + self.token_violations + self.nonlinearizable_documents + self.duplicates > 0
    }
}

/// The documents at the end of a trial: each path with its JSON text.
pub type FinalDocuments = BTreeMap<String, String>;

/// Judges one trial. Critical sections and tokens are judged where a lease is taken.
pub fn judge(treatment: Treatment, logs: &[AgentLog], documents: &FinalDocuments) -> Findings {
    let updates: Vec<(u64, &UpdateRecord)> = (0_u64..)
        .zip(logs)
        .flat_map(|(process, log)| log.updates.iter().map(move |update| (process, update)))
        .collect();
    let mut findings = Findings::default();
    judge_contents(&updates, documents, &mut findings);
    judge_histories(&updates, documents, &mut findings);
    if treatment.takes_lease() {
        judge_sections(&updates, &mut findings);
        // The store of an unfenced treatment never saw a token: only the grants can be judged. A peer has no tokens.
        judge_tokens(&updates, treatment != Treatment::Unfenced, &mut findings);
    }
    findings
}

fn note<T: ToString>(evidence: &mut Vec<String>, found: &[T]) -> usize {
    evidence.extend(found.iter().take(EVIDENCE_MAX).map(ToString::to_string));
    if found.len() > EVIDENCE_MAX {
        evidence.push(format!("... and {} more of this kind", found.len() - EVIDENCE_MAX));
    }
    found.len()
}

fn judge_contents(updates: &[(u64, &UpdateRecord)], documents: &FinalDocuments, findings: &mut Findings) {
    let acknowledged: Vec<Acknowledged> = updates
        .iter()
        .filter(|(_, update)| update.returned.is_some())
        .map(|(process, update)| Acknowledged {
            path: update.path.clone(),
            id: update.id.clone(),
            process: *process,
            revision: update.revision,
        })
        .collect();
    let ids = |text: &String| serde_json::from_str::<Vec<String>>(text).unwrap_or_default();
    let contents: Contents = documents.iter().map(|(path, text)| (path.clone(), ids(text))).collect();
    findings.lost_updates = note(&mut findings.evidence, &lost_updates(&acknowledged, &contents));
    findings.duplicates = note(&mut findings.evidence, &duplicates(&contents));
}

fn judge_histories(updates: &[(u64, &UpdateRecord)], documents: &FinalDocuments, findings: &mut Findings) {
    let last = updates.iter().filter_map(|(_, update)| update.returned).max().unwrap_or(0);
    for (path, end) in documents {
        let of_document: Vec<_> = updates.iter().filter(|(_, update)| update.path == *path).collect();
        if of_document.is_empty() {
            continue;
        }
        let mut texts = Interner::new();
        let start = texts.intern("[]");
        let mut history: Vec<RegisterOperation> = Vec::with_capacity(of_document.len() + 1);
        for (process, update) in of_document {
            let (read, to) = (texts.intern(&update.read), texts.intern(&update.written));
            history.push(match update.returned {
                Some(returned) => RegisterOperation::update(*process, update.invoked, returned, read, to),
                None => RegisterOperation::unknown(*process, update.invoked, RegisterOp::Update { to }),
            });
        }
        let nobody = u64::MAX;
        history.push(RegisterOperation::read(nobody, last + 1, last + 2, texts.intern(end)));
        match check(&Register(start), &history, Budget::default()) {
            Verdict::Linearizable => {}
            Verdict::Undecided(_) => findings.undecided_documents += 1,
            Verdict::Violated(counterexample) => {
                findings.nonlinearizable_documents += 1;
                if findings.nonlinearizable_documents <= EVIDENCE_MAX {
                    findings.evidence.push(format!("{path}: {counterexample}"));
                }
            }
        }
    }
}

fn judge_sections(updates: &[(u64, &UpdateRecord)], findings: &mut Findings) {
    let sections: Vec<Section> = updates
        .iter()
        .filter(|(_, update)| update.returned.is_some())
        .map(|(process, update)| Section {
            process: *process,
            // A lock without tokens has no name of its own: the update's stands for it.
            lease: update.token.map_or_else(|| update.id.clone(), |token| token.owner.to_string()),
            resource: update.path.clone(),
            exclusive: true,
            entered: update.entered,
            left: update.left,
            token: token(update),
        })
        .collect();
    findings.overlaps = note(&mut findings.evidence, &overlaps(&sections));
}

fn judge_tokens(updates: &[(u64, &UpdateRecord)], fenced: bool, findings: &mut Findings) {
    let grants: Vec<Grant> = updates
        .iter()
        .filter_map(|(_, update)| {
            let (token, resource) = (token(update)?, update.path.clone());
            Some(Grant { token, resource, asked: update.asked?, answered: update.granted? })
        })
        .collect();
    findings.token_violations = note(&mut findings.evidence, &check_grants(&grants));
    if fenced {
        let written = updates.iter().filter_map(|(_, update)| {
            Some(Written { path: update.path.clone(), revision: update.revision?, token: token(update) })
        });
        findings.token_violations += note(&mut findings.evidence, &check_written(&written.collect::<Vec<_>>()));
    }
}

fn token(update: &UpdateRecord) -> Option<Token> {
    let token = update.token?;
    Some(Token { epoch: token.epoch, counter: token.counter, owner: token.owner.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutext::{FencingToken, LeaseId};

    fn update(id: &str, span: (u64, u64), read: &str, written: &str, revision: u64, counter: u64) -> UpdateRecord {
        UpdateRecord {
            id: id.to_owned(),
            path: "documents/000".to_owned(),
            invoked: span.0,
            returned: Some(span.1),
            entered: span.0 + 10,
            left: span.1 - 10,
            asked: Some(span.0),
            granted: Some(span.0 + 5),
            acquire_ms: Some(0.1),
            token: Some(FencingToken::new(1, counter, LeaseId::from_bytes([u8::try_from(counter).unwrap(); 16]))),
            read: read.to_owned(),
            written: written.to_owned(),
            revision: Some(revision),
        }
    }

    fn log(updates: &[UpdateRecord]) -> AgentLog {
        AgentLog { updates: updates.to_vec(), ..AgentLog::default() }
    }

    fn end(text: &str) -> FinalDocuments {
        FinalDocuments::from([("documents/000".to_owned(), text.to_owned())])
    }

    #[test]
    fn one_after_the_other_is_clean() {
        let logs = [
            log(&[update("0-0", (100, 200), "[]", r#"["0-0"]"#, 2, 1)]),
            log(&[update("1-0", (250, 350), r#"["0-0"]"#, r#"["0-0","1-0"]"#, 3, 2)]),
        ];
        let findings = judge(Treatment::Locking, &logs, &end(r#"["0-0","1-0"]"#));
        assert_eq!(findings, Findings::default());
    }

    #[test]
    fn a_lost_update_is_found_and_shown() {
        let logs = [
            log(&[update("0-0", (100, 200), "[]", r#"["0-0"]"#, 2, 1)]),
            log(&[update("1-0", (150, 300), "[]", r#"["1-0"]"#, 3, 2)]),
        ];
        let findings = judge(Treatment::Baseline, &logs, &end(r#"["1-0"]"#));
        assert_eq!((findings.lost_updates, findings.nonlinearizable_documents), (1, 1));
        assert!(findings.is_corrupt());
        assert!(findings.evidence.iter().any(|line| line.contains("0-0")), "{:?}", findings.evidence);
    }

    #[test]
    fn two_holders_at_once_are_found_even_where_nothing_was_lost() {
        let logs = [
            log(&[update("0-0", (100, 200), "[]", r#"["0-0"]"#, 2, 1)]),
            log(&[update("1-0", (110, 300), r#"["0-0"]"#, r#"["0-0","1-0"]"#, 3, 2)]),
        ];
        let findings = judge(Treatment::Unfenced, &logs, &end(r#"["0-0","1-0"]"#));
        assert_eq!((findings.lost_updates, findings.overlaps), (0, 1));
        assert!(findings.is_corrupt());
    }

    #[test]
    fn a_token_that_goes_back_is_found() {
        let logs = [
            log(&[update("0-0", (100, 200), "[]", r#"["0-0"]"#, 2, 7)]),
            log(&[update("1-0", (250, 350), r#"["0-0"]"#, r#"["0-0","1-0"]"#, 3, 6)]),
        ];
        let findings = judge(Treatment::Locking, &logs, &end(r#"["0-0","1-0"]"#));
        assert!(findings.token_violations > 0);
    }
}
