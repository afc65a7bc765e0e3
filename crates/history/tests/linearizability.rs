//! Histories whose verdict is known, one sentence each.

use mutext_history::{
    Budget, Counterexample, Operation, Outcome, Register, RegisterOp, RegisterOperation, RegisterRet, SequentialSpec,
    Undecided, Verdict, check,
};

type History = Vec<RegisterOperation>;

fn verdict(history: &[RegisterOperation]) -> Verdict<Register> {
    check(&Register(0), history, Budget::default())
}

#[track_caller]
fn linearizable(history: &[RegisterOperation]) {
    let verdict = verdict(history);
    assert!(verdict.is_linearizable(), "{verdict}");
}

#[track_caller]
fn violated(history: &[RegisterOperation]) -> Counterexample<Register> {
    let verdict = verdict(history);
    verdict.counterexample().cloned().unwrap_or_else(|| panic!("expected a violation, not: {verdict}"))
}

fn read(process: u64, invoked: u64, returned: u64, value: u64) -> RegisterOperation {
    RegisterOperation::read(process, invoked, returned, value)
}

fn write(process: u64, invoked: u64, returned: u64, value: u64) -> RegisterOperation {
    RegisterOperation::write(process, invoked, returned, value)
}

fn update(process: u64, invoked: u64, returned: u64, from: u64, to: u64) -> RegisterOperation {
    RegisterOperation::update(process, invoked, returned, from, to)
}

#[test]
fn an_empty_history_is_linearizable() {
    linearizable(&[]);
}

#[test]
fn the_register_example_of_porcupine_is_linearizable() {
    linearizable(&[write(0, 0, 100, 100), read(1, 25, 75, 100), read(2, 30, 60, 0)]);
}

#[test]
fn the_stale_register_example_of_porcupine_is_not() {
    let found = violated(&[write(0, 0, 100, 200), read(1, 10, 30, 200), read(2, 40, 90, 0)]);
    assert_eq!(found.prefix, [write(0, 0, 100, 200), read(1, 10, 30, 200)]);
    assert_eq!(found.stuck, [read(2, 40, 90, 0)]);
}

#[test]
fn a_read_after_a_write_must_see_it() {
    violated(&[write(1, 0, 10, 1), read(2, 11, 20, 0)]);
    linearizable(&[write(1, 0, 10, 1), read(2, 11, 20, 1)]);
}

#[test]
fn a_read_on_the_tick_on_which_a_write_returned_may_miss_it() {
    linearizable(&[write(1, 0, 10, 1), read(2, 10, 20, 0)]);
}

#[test]
fn a_value_that_nobody_wrote_is_never_read() {
    violated(&[write(1, 0, 10, 1), read(2, 5, 20, 7)]);
}

#[test]
fn two_readers_may_not_see_two_writes_in_different_orders() {
    let writes = [write(1, 0, 100, 1), write(2, 0, 100, 2)];
    let reads = |first, second, third, fourth| {
        [read(3, 10, 20, first), read(3, 30, 40, second), read(4, 10, 20, third), read(4, 30, 40, fourth)]
    };
    linearizable(&[&writes[..], &reads(1, 2, 1, 2)].concat());
    violated(&[&writes[..], &reads(1, 2, 2, 1)].concat());
}

#[test]
fn a_lost_update_is_not_linearizable_in_any_overlap() {
    violated(&[update(1, 0, 10, 0, 1), update(2, 5, 15, 0, 2)]);
    violated(&[update(1, 0, 20, 0, 1), update(2, 5, 15, 0, 2)]);
    violated(&[update(1, 0, 10, 0, 1), update(2, 11, 15, 0, 2)]);
}

#[test]
fn a_lost_update_recorded_as_read_and_write_apart_goes_unseen() {
    linearizable(&[read(1, 0, 1, 0), read(2, 2, 3, 0), write(1, 4, 5, 1), write(2, 6, 7, 2)]);
}

#[test]
fn updates_that_saw_each_other_are_linearizable_in_any_order_of_the_log() {
    linearizable(&[update(3, 0, 30, 2, 3), update(1, 0, 30, 0, 1), update(2, 0, 30, 1, 2)]);
}

#[test]
fn updates_that_saw_each_other_against_time_are_not() {
    violated(&[update(1, 20, 30, 0, 1), update(2, 0, 10, 1, 2)]);
}

#[test]
fn a_failed_operation_did_not_happen() {
    let failed = RegisterOperation::failed(1, 0, 10, RegisterOp::Write(1));
    linearizable(&[failed.clone(), read(2, 11, 20, 0)]);
    violated(&[failed, read(2, 11, 20, 1)]);
}

#[test]
fn an_unknown_write_may_have_happened() {
    linearizable(&[RegisterOperation::unknown(1, 0, RegisterOp::Write(1)), read(2, 11, 20, 1)]);
}

#[test]
fn an_unknown_write_may_not_have_happened() {
    linearizable(&[RegisterOperation::unknown(1, 0, RegisterOp::Write(1)), read(2, 11, 20, 0)]);
}

#[test]
fn an_unknown_write_may_happen_long_after_its_client_gave_up() {
    let mut late = RegisterOperation::unknown(1, 0, RegisterOp::Write(1));
    late.returned = Some(5);
    linearizable(&[late, read(2, 11, 20, 0), read(2, 21, 30, 1), read(2, 31, 40, 1)]);
}

#[test]
fn an_unknown_write_happens_once_at_most() {
    let unknown = RegisterOperation::unknown(1, 0, RegisterOp::Write(1));
    let found = violated(&[unknown.clone(), read(2, 1, 2, 1), write(2, 3, 4, 0), read(2, 5, 6, 1)]);
    assert_eq!(found.prefix.len(), 3);
    assert_eq!(found.stuck, [read(2, 5, 6, 1)]);
    assert_eq!(violated(&[unknown, read(2, 1, 2, 1), read(2, 3, 4, 0)]).stuck, [read(2, 3, 4, 0)]);
}

#[test]
fn an_unknown_write_does_not_happen_before_it_was_invoked() {
    let found = violated(&[read(2, 0, 10, 1), RegisterOperation::unknown(1, 11, RegisterOp::Write(1))]);
    assert_eq!(found.unknown, [], "it was not under way yet");
}

#[test]
fn an_unknown_update_applies_to_whatever_is_there() {
    let unknown = RegisterOperation::unknown(1, 0, RegisterOp::Update { to: 9 });
    linearizable(&[unknown.clone(), update(2, 0, 10, 0, 1), update(3, 11, 20, 9, 2)]);
    linearizable(&[unknown.clone(), update(2, 0, 10, 0, 1), update(3, 11, 20, 1, 2)]);
    violated(&[unknown, update(2, 0, 10, 0, 1), update(3, 11, 20, 0, 2)]);
}

#[test]
fn an_answer_without_a_time_came_at_some_time() {
    let mut timeless = write(1, 0, 0, 1);
    timeless.returned = None;
    linearizable(&[timeless.clone(), read(2, 5, 6, 0)]);
    linearizable(&[timeless.clone(), read(2, 5, 6, 1)]);
    let impossible =
        [RegisterOperation { outcome: Outcome::Ok(RegisterRet::Saw(7)), op: RegisterOp::Read, invoked: 3, ..timeless }];
    assert_eq!(violated(&impossible).stuck, impossible);
}

#[test]
fn an_operation_that_returned_before_it_was_invoked_proves_nothing() {
    let history = [write(1, 0, 10, 1), read(2, 30, 20, 9)];
    assert_eq!(verdict(&history), Verdict::Undecided(Undecided::Malformed { index: 1 }));
}

#[test]
fn a_counterexample_names_process_interval_operation_and_result() {
    let unknown = RegisterOperation::unknown(4, 12, RegisterOp::Write(8));
    let history = [write(1, 0, 10, 1), unknown, update(2, 11, 30, 1, 2), update(3, 15, 25, 1, 3)];
    assert_eq!(
        verdict(&history).to_string(),
        "\
not linearizable: no order of these operations explains what they returned
the longest order that holds takes 2 of them:
  process 1 [0, 10] write 1 -> written
  process 3 [15, 25] update to 3 -> saw 1
and leaves 3, from where none of these can go on:
  process 2 [11, 30] update to 2 -> saw 1
whether or not these happened:
  process 4 [12, …) write 8 -> unknown"
    );
}

#[test]
fn a_counterexample_without_a_prefix_says_that_nothing_can_go_first() {
    assert_eq!(
        verdict(&[read(1, 0, 10, 7)]).to_string(),
        "\
not linearizable: no order of these operations explains what they returned
from 0, where it all began, none of these can go first:
  process 1 [0, 10] read -> saw 7"
    );
}

#[test]
fn a_long_prefix_is_printed_from_its_end() {
    let mut history = chain(100);
    history.push(read(9, 10_000, 10_001, 3));
    let text = verdict(&history).to_string();
    assert!(text.contains("takes 100 of them:\n  … 80 earlier\n  process 0 "), "{text}");
    assert!(text.ends_with("\n  process 9 [10000, 10001] read -> saw 3"), "{text}");
}

/// Updates one after another, each seeing the one before.
fn chain(length: u64) -> History {
    (0..length).map(|n| update(n % 5, n * 10, n * 10 + 9, n, n + 1)).collect()
}

/// Rounds in which all of `width` processes write and read at once.
fn crowded(rounds: u64, width: u64) -> History {
    let mut history = Vec::new();
    for round in 0..rounds {
        let at = round * 100;
        let last = round * width + width;
        for n in 0..width {
            history.push(write(n, at, at + 50, round * width + n + 1));
            history.push(read(width + n, at + 60, at + 90, last));
        }
    }
    history
}

#[test]
fn thousands_of_updates_one_after_another_are_checked_within_the_budget() {
    linearizable(&chain(5_000));
}

#[test]
fn hundreds_of_crowded_operations_are_checked_within_the_budget() {
    let mut history = crowded(40, 8);
    linearizable(&history);
    let last = history.len() - 1;
    history[last] = read(7, 3_960, 3_990, 1);
    violated(&history);
}

#[test]
fn hundreds_of_concurrent_updates_are_checked_within_the_budget() {
    let mut history: History = (0..300).map(|n| update(n, 0, 10, n, n + 1)).rev().collect();
    linearizable(&history);
    history.push(update(300, 0, 10, 150, 1_000));
    violated(&history);
}

#[test]
fn many_unknown_writes_do_not_blow_the_search_up() {
    let mut history: History =
        (0..40).map(|n| RegisterOperation::unknown(n, 0, RegisterOp::Write(1_000 + n))).collect();
    history.extend(chain(100));
    linearizable(&history);
    history.push(read(9, 10_000, 10_001, 3));
    let verdict = verdict(&history);
    assert!(verdict.counterexample().is_some(), "{verdict}");
}

#[test]
fn a_budget_that_runs_out_leaves_the_question_open() {
    for history in [chain(100), vec![write(1, 0, 10, 1), read(2, 11, 20, 0)]] {
        let verdict = check(&Register(0), &history, Budget::steps(1));
        assert_eq!(verdict, Verdict::Undecided(Undecided::Steps(1)));
    }
}

#[test]
fn a_larger_budget_only_ever_decides_more() {
    let history = crowded(2, 4);
    let mut decided = false;
    for steps in 0..2_000 {
        let verdict = check(&Register(0), &history, Budget::steps(steps));
        assert!(verdict.is_linearizable() || (!decided && matches!(verdict, Verdict::Undecided(_))), "{verdict}");
        decided |= verdict.is_linearizable();
    }
    assert!(decided);
}

#[test]
fn a_deadline_that_has_passed_leaves_the_question_open() {
    let budget = Budget::default().until(std::time::Instant::now());
    let verdict = check(&Register(0), &chain(10), budget);
    assert_eq!(verdict, Verdict::Undecided(Undecided::Deadline { steps: 0 }));
}

/// A bag from which one takes whatever it gives: several states may follow one operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bag(Vec<u8>);

impl SequentialSpec for Bag {
    /// Drop any one thing, or look at all of them.
    type Op = bool;
    type Ret = Vec<u8>;

    fn step(&self, look: &bool, ret: Option<&Vec<u8>>) -> Vec<Self> {
        if *look {
            return if ret.is_none_or(|seen| *seen == self.0) { vec![self.clone()] } else { Vec::new() };
        }
        let without = |index: usize| {
            let mut rest = self.0.clone();
            rest.remove(index);
            Self(rest)
        };
        (0..self.0.len()).map(without).collect()
    }
}

#[test]
fn an_object_that_may_choose_is_tried_in_all_of_its_choices() {
    let drop = |at| Operation::ok(1, at, at + 1, false, Vec::new());
    let look = |at, seen: &[u8]| Operation::ok(2, at, at + 1, true, seen.to_vec());
    let bag = Bag(vec![1, 2, 3]);
    let verdict = |history: &[_]| check(&bag, history, Budget::default());
    for left in [[1, 2], [1, 3], [2, 3]] {
        assert!(verdict(&[drop(0), look(5, &left)]).is_linearizable());
    }
    assert!(verdict(&[drop(0), drop(3), look(5, &[2])]).is_linearizable());
    assert!(verdict(&[drop(0), drop(3), look(5, &[2, 3])]).counterexample().is_some());
    assert!(verdict(&[drop(0), look(2, &[1, 2]), drop(4), look(6, &[3])]).counterexample().is_some());
    let unseen = Operation { outcome: Outcome::Unknown, ..drop(0) };
    assert!(verdict(&[unseen.clone(), look(5, &[1, 2, 3]), look(7, &[1, 3])]).is_linearizable());
    assert!(verdict(&[unseen, look(5, &[1])]).counterexample().is_some());
}

/// A ladder that is climbed one rung at a time, and only from the rung below.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ladder(u8);

impl SequentialSpec for Ladder {
    /// Climb to this rung.
    type Op = u8;
    type Ret = ();

    fn step(&self, to: &u8, _: Option<&()>) -> Vec<Self> {
        (*to == self.0 + 1).then_some(Self(*to)).into_iter().collect()
    }
}

#[test]
fn several_unknown_operations_may_have_happened_one_after_another() {
    let unknown = |to| Operation::unknown(1, 0, to);
    let verdict = |history: &[_]| check(&Ladder(0), history, Budget::default());
    let climbed = Operation::ok(2, 5, 6, 4, ());
    assert!(verdict(&[unknown(3), unknown(1), unknown(2), climbed.clone()]).is_linearizable());
    assert!(verdict(&[unknown(3), unknown(1), climbed]).counterexample().is_some());
}
