//! The checker against one that is too simple to be wrong, and too slow to be used: try every order
//! of every choice of unknown operations.

use mutext_history::{
    Budget, Operation, Outcome, Register, RegisterOp, RegisterOperation, RegisterRet, Verdict, check,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Whether some order explains the history. Written from the definition, not from the library: it
/// uses neither its specification nor its search.
fn some_order_explains(history: &[RegisterOperation], taken: &mut Vec<usize>, value: u64) -> bool {
    let certain = |index: usize| matches!(history[index].outcome, Outcome::Ok(_));
    if (0..history.len()).all(|index| !certain(index) || taken.contains(&index)) {
        return true;
    }
    for next in 0..history.len() {
        let is_late = |other: usize| {
            let returned = history[other].returned.unwrap_or(u64::MAX);
            certain(other) && !taken.contains(&other) && returned < history[next].invoked
        };
        if taken.contains(&next) || (0..history.len()).any(is_late) {
            continue;
        }
        let after = match (&history[next].op, &history[next].outcome) {
            (RegisterOp::Read, Outcome::Ok(RegisterRet::Saw(seen))) if *seen == value => value,
            (RegisterOp::Read, Outcome::Unknown) => value,
            (RegisterOp::Write(to), Outcome::Ok(RegisterRet::Written) | Outcome::Unknown)
            | (RegisterOp::Update { to }, Outcome::Unknown) => *to,
            (RegisterOp::Update { to }, Outcome::Ok(RegisterRet::Saw(seen))) if *seen == value => *to,
            // Not legal here, or failed and therefore nowhere.
            _ => continue,
        };
        taken.push(next);
        if some_order_explains(history, taken, after) {
            return true;
        }
        taken.pop();
    }
    false
}

/// What one operation of a simulated run does, and what befalls it.
#[derive(Clone, Debug)]
struct Step {
    op: RegisterOp,
    /// How long before and after its effect it was invoked and returned.
    before: u64,
    after: u64,
    fate: Fate,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// The answer was lost after the effect, or the request before it.
    LostAnswer,
    LostRequest,
    Refused,
}

fn ops(values: u64) -> impl Strategy<Value = RegisterOp> {
    prop_oneof![
        Just(RegisterOp::Read),
        (0..values).prop_map(RegisterOp::Write),
        (0..values).prop_map(|to| RegisterOp::Update { to }),
    ]
}

fn steps(values: u64, sizes: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::LostAnswer),
        1 => Just(Fate::LostRequest),
        1 => Just(Fate::Refused),
    ];
    let step = (ops(values), 0..40_u64, 0..40_u64, fate);
    prop::collection::vec(step.prop_map(|(op, before, after, fate)| Step { op, before, after, fate }), sizes)
}

/// Hundreds of reads and updates, as agents make them, of which some thirty are in flight at once, all of them answered.
fn crowds() -> impl Strategy<Value = Vec<Step>> {
    let op = prop_oneof![Just(RegisterOp::Read), any::<u64>().prop_map(|to| RegisterOp::Update { to })];
    let step = (op, 0..150_u64, 0..150_u64);
    let step = step.prop_map(|(op, before, after)| Step { op, before, after, fate: Fate::Answered });
    prop::collection::vec(step, 200..400)
}

/// Runs the steps on a real register, one effect every ten ticks, each somewhere inside the interval
/// of its operation. What comes of it is linearizable, because this is the order.
fn run(steps: &[Step]) -> Vec<RegisterOperation> {
    let mut value = 0;
    let mut history = Vec::new();
    for (process, step) in (0..).zip(steps) {
        let now = 1_000 + process * 10;
        let (invoked, returned) = (now - step.before, now + step.after);
        let happens = matches!(step.fate, Fate::Answered | Fate::LostAnswer);
        let (after, ret) = match step.op {
            RegisterOp::Read => (value, RegisterRet::Saw(value)),
            RegisterOp::Write(to) => (to, RegisterRet::Written),
            RegisterOp::Update { to } => (to, RegisterRet::Saw(value)),
        };
        if happens {
            value = after;
        }
        history.push(match step.fate {
            Fate::Answered => Operation::ok(process, invoked, returned, step.op, ret),
            Fate::LostAnswer | Fate::LostRequest => Operation::unknown(process, invoked, step.op),
            Fate::Refused => Operation::failed(process, invoked, returned, step.op),
        });
    }
    history
}

/// A history that no register need ever have produced.
fn made_up() -> impl Strategy<Value = Vec<RegisterOperation>> {
    let outcome = prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(2)];
    let operation = (ops(3), 0..20_u64, 0..12_u64, 0..3_u64, outcome);
    let operation = operation.prop_map(|(op, invoked, length, seen, outcome)| match outcome {
        0 => {
            let ret = if matches!(op, RegisterOp::Write(_)) { RegisterRet::Written } else { RegisterRet::Saw(seen) };
            Operation::ok(0, invoked, invoked + length, op, ret)
        }
        1 => Operation::failed(0, invoked, invoked + length, op),
        _ => Operation::unknown(0, invoked, op),
    });
    prop::collection::vec(operation, 0..8)
}

fn verdict(history: &[RegisterOperation]) -> Verdict<Register> {
    check(&Register(0), history, Budget::default())
}

/// What a counterexample claims must be true: its prefix holds, by the simple checker, and no one
/// of the stuck operations can follow it, whether or not unknown ones happen in between.
fn assert_counterexample_holds(history: &[RegisterOperation]) {
    let verdict = verdict(history);
    let Some(found) = verdict.counterexample() else { panic!("expected a violation, not: {verdict}") };
    assert!(!found.stuck.is_empty(), "{found}");
    let certain = |part: &[RegisterOperation]| part.iter().filter(|op| matches!(op.outcome, Outcome::Ok(_))).count();
    let mut value = 0;
    for operation in &found.prefix {
        let (after, legal) = match (operation.op, &operation.outcome) {
            (RegisterOp::Read, Outcome::Ok(RegisterRet::Saw(seen))) => (value, *seen == value),
            (RegisterOp::Update { to }, Outcome::Ok(RegisterRet::Saw(seen))) => (to, *seen == value),
            (RegisterOp::Write(to) | RegisterOp::Update { to }, _) => (to, true),
            (RegisterOp::Read, _) => (value, true),
        };
        assert!(legal, "{operation} does not fit\n{found}");
        value = after;
    }
    assert_eq!(found.state, Register(value));
    assert!(certain(&found.prefix) < certain(history));
    for stuck in &found.stuck {
        let fits = match (&stuck.op, &stuck.outcome) {
            (RegisterOp::Write(_), _) => true,
            (_, Outcome::Ok(RegisterRet::Saw(seen))) => {
                let could_write = |op: &RegisterOperation| match op.op {
                    RegisterOp::Write(to) | RegisterOp::Update { to } => to == *seen,
                    RegisterOp::Read => false,
                };
                *seen == value || found.unknown.iter().any(could_write)
            }
            _ => false,
        };
        assert!(!fits, "{stuck} could go next\n{found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_register_did_is_linearizable(steps in steps(4, 0..40)) {
        let verdict = verdict(&run(&steps));
        prop_assert!(verdict.is_linearizable(), "{verdict}");
    }

    #[test]
    fn the_order_of_the_log_does_not_matter(
        log in steps(3, 0..7).prop_map(|steps| run(&steps)).prop_flat_map(|log| (Just(log.clone()), Just(log).prop_shuffle()))
    ) {
        prop_assert_eq!(verdict(&log.0).is_linearizable(), verdict(&log.1).is_linearizable());
    }

    #[test]
    fn a_run_with_one_answer_changed_is_judged_as_by_brute_force(
        steps in steps(3, 1..8), victim in any::<prop::sample::Index>(), seen in 0..4_u64
    ) {
        let mut history = run(&steps);
        let operation = victim.get(&history).clone();
        if let Outcome::Ok(RegisterRet::Saw(_)) = operation.outcome {
            history[victim.index(steps.len())].outcome = Outcome::Ok(RegisterRet::Saw(seen));
        }
        let expected = some_order_explains(&history, &mut Vec::new(), 0);
        let verdict = verdict(&history);
        prop_assert_eq!(verdict.is_linearizable(), expected, "{}", verdict);
    }

    #[test]
    fn a_made_up_history_is_judged_as_by_brute_force(history in made_up()) {
        let expected = some_order_explains(&history, &mut Vec::new(), 0);
        let verdict = verdict(&history);
        prop_assert_eq!(verdict.is_linearizable(), expected, "{}", verdict);
        prop_assert_eq!(verdict.counterexample().is_some(), !expected);
        if !expected {
            assert_counterexample_holds(&history);
        }
    }
}

#[test]
fn what_a_crowd_did_to_a_register_is_proved_linearizable_within_the_budget() {
    // The same crowds in each run: what a budget suffices for is measured, not proved.
    let mut runner = TestRunner::deterministic();
    for _ in 0..30 {
        let steps = crowds().new_tree(&mut runner).unwrap().current();
        let verdict = verdict(&run(&steps));
        assert!(verdict.is_linearizable(), "{verdict}");
    }
}

#[test]
fn made_up_histories_are_of_both_kinds() {
    let mut runner = TestRunner::deterministic();
    let (mut sound, mut unsound) = (0, 0);
    for _ in 0..300 {
        let history = made_up().new_tree(&mut runner).unwrap().current();
        if verdict(&history).is_linearizable() { sound += 1 } else { unsound += 1 }
    }
    assert!(sound > 50 && unsound > 50, "{sound} linearizable, {unsound} not: the comparison proves little");
}
