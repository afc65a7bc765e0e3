//! The conformance suites: what every lock engine and every document engine of Mutext must do, as tests.
//!
//! An engine enrols with a fixture and one line a suite, in its own `tests/conformance.rs`; it needs `tokio` there:
//!
//! ```ignore
//! mutext_conformance::lock_suite!(MyFixture);
//! mutext_conformance::store_suite!(MyFixture);
//! ```
//!
//! Each case is a test of its own, named as the sentence that it shows. What an engine declares in its capabilities
//! decides what a case demands: an engine that cannot do a thing must show the behaviour that it declares instead.
//! A case that an engine or its fixture cannot run at all is named in the call with the reason, and the test report
//! shows it as ignored, with that reason:
//!
//! ```ignore
//! mutext_conformance::lock_suite!(MyFixture, skip = [
//!     a_vanished_client_frees_its_lock_within_its_ttl: "the fixture has no second process to kill",
//! ]);
//! ```
//!
//! Beside the cases stands a [`model`]: random schedules of all that a lock service does, compared step by step with a
//! small reference.
//!
//! Every case works in a context with a fresh random name, so that it can share a server with others.

#![expect(clippy::missing_panics_doc, reason = "a case panics where the engine breaks its contract: that is its use")]

pub mod asking;
mod clients;
mod fixture;
pub mod lock;
pub mod model;
pub mod store;
mod support;

pub use clients::{Clients, Epochs, Servers};
pub use fixture::{LockFixture, StoreFixture};
pub use support::{waits_in_vain, within_limit};

/// Enrols a lock engine: one test for each case of [`lock`], in a module `lock`. Takes the type of a
/// [`LockFixture`] and, where needed, `skip = [case: "reason", …]`.
#[macro_export]
macro_rules! lock_suite {
    ($fixture:ty $(, skip = [$($skip:ident : $reason:literal),* $(,)?])? $(,)?) => {
        $crate::enrol! {
            ($) $fixture, lock, LockFixture, [$($($skip : $reason),*)?],
            [
                a_free_lock_is_granted
                a_held_lock_names_its_holder
                two_resources_do_not_meet
                names_keep_case_and_odd_characters
                contexts_do_not_meet
                tokens_rise_with_every_grant
                tokens_to_spare_are_nobody_elses
                whoever_has_tokens_to_spare_is_told_who_wants_the_lease
                tokens_rise_across_expiry
                tokens_rise_across_reopening
                a_new_epoch_begins_above_what_documents_have_seen
                an_expired_lease_is_granted_to_another
                validity_never_outlives_the_service
                renewal_extends_the_lease
                renewal_after_another_took_over_is_lost
                an_expired_lease_that_nobody_took
                release_is_idempotent
                a_late_release_harms_nobody
                waiting_ends_at_the_deadline
                a_waiter_is_served_when_the_holder_releases
                first_come_first_served
                a_passed_deadline_means_one_try
                a_cycle_of_waiters_is_found_or_runs_out_of_time
                a_longer_cycle_is_named_from_end_to_end
                a_cycle_through_the_queue_is_found
                waiting_for_oneself_is_a_cycle
                whoever_keeps_nothing_waits_in_no_circle
                a_dropped_waiter_does_not_block_the_queue
                a_dropped_acquire_leaves_nothing_beyond_release
                a_released_attempt_does_not_come_back
                a_revoked_lease_is_lost_and_its_holder_told
                inspect_shows_holders_and_waiters
                inspect_shows_the_oldest_grant_first
                shared_leases_stand_together
                a_writer_is_not_starved_by_readers
                a_lease_covers_all_below_it
                the_root_covers_the_context
                several_resources_all_or_none
                a_reader_becomes_a_writer_with_nobody_in_between
                a_writer_becomes_a_reader_and_lets_others_in
                two_readers_who_want_to_write_are_told
                an_upgrade_that_times_out_keeps_the_shared_lease
                a_lost_lease_cannot_be_replaced
                thirty_contenders_never_overlap
                a_vanished_client_frees_its_lock_within_its_ttl
                a_dead_waiter_does_not_block_those_behind_it
            ]
        }
    };
}

/// Enrols a document engine: one test for each case of [`store`], in a module `store`. Takes the type of a
/// [`StoreFixture`] and, where needed, `skip = [case: "reason", …]`.
#[macro_export]
macro_rules! store_suite {
    ($fixture:ty $(, skip = [$($skip:ident : $reason:literal),* $(,)?])? $(,)?) => {
        $crate::enrol! {
            ($) $fixture, store, StoreFixture, [$($($skip : $reason),*)?],
            [
                absent_means_absent
                revisions_rise_from_one
                a_moved_revision_is_refused_with_the_current_document
                create_is_refused_where_one_exists
                any_overwrites
                a_deleted_document_is_absent_and_its_revision_is_never_used_again
                several_documents_change_together_or_not_at_all
                an_older_fence_is_refused_even_at_the_right_revision
                a_refused_fence_raises_no_mark
                the_same_fence_may_write_twice
                an_equal_number_of_another_owner_is_refused
                a_newer_epoch_outranks
                a_fenced_read_keeps_older_tokens_out
                a_good_fence_raises_the_mark_even_where_the_precondition_fails
                a_revoked_lease_writes_no_more
                a_revoked_lease_reads_no_more
                a_retry_of_what_a_revoked_lease_wrote_is_told
                revocations_are_listed_newest_first
                the_same_key_happens_once
                the_same_key_for_another_commit_is_refused
                a_refusal_does_not_use_the_key_up
                a_dropped_commit_and_its_retry_happen_once
                history_keeps_every_revision
                listing_by_prefix_in_pages
                contexts_do_not_share_documents
                the_feed_has_every_commit_once_in_order_without_gaps
                a_feed_reader_waits_for_the_next_commit
                content_survives_byte_for_byte
                epochs_rise
                an_epoch_is_above_all_that_anybody_remembers
                an_epoch_that_cannot_be_is_refused
                no_update_is_lost
                unprotected_updates_are_lost
                what_was_committed_is_there_after_reopening
                a_write_of_what_is_there_keeps_the_revision
                only_what_a_commit_changes_gets_a_revision
                the_key_of_a_write_that_changed_nothing_is_remembered
                a_guarded_write_does_not_wear_a_document_down
                a_holder_does_not_write_over_what_it_has_not_seen
                an_expired_document_is_absent_at_once
                a_write_says_what_becomes_of_an_expiry
                retention_by_count_forgets_the_oldest_and_says_so
                retention_by_age_forgets_what_was_replaced_long_ago
                a_purge_leaves_a_tombstone_alone
                a_snapshot_stays_as_it_was_while_others_write
                an_archive_brings_back_all_that_was_there
                a_search_finds_words_phrases_and_beginnings
                a_search_sees_what_was_committed_before_it
            ]
        }
    };
}

/// Enrols a lock engine for the [`model`]: one test, `model::random_schedules_go_as_the_reference_says`. Takes the type of
/// a [`LockFixture`] and how many schedules are played.
#[macro_export]
macro_rules! model_suite {
    ($fixture:ty, schedules = $schedules:expr $(,)?) => {
        mod model {
            use super::*;

            #[test]
            fn random_schedules_go_as_the_reference_says() {
                $crate::model::check::<$fixture>($schedules);
            }
        }
    };
}

/// Writes the tests of a suite; used by [`lock_suite!`] and [`store_suite!`].
///
/// `$d` is a dollar sign: the inner macro, which tells the skipped cases from the others, has a parameter of its own.
#[doc(hidden)]
#[macro_export]
macro_rules! enrol {
    (
        ($d:tt) $fixture:ty, $suite:ident, $trait:ident, [$($skip:ident : $reason:literal),*], [$($case:ident)*]
    ) => {
        mod $suite {
            // The fixture's type is named as it is where the suite is called.
            use super::*;

            // A skip of a case that does not exist does not compile.
            $( const _: fn() = || { let _ = $crate::$suite::$skip; }; )*

            macro_rules! case {
                $(
                    ($skip) => {
                        #[test]
                        #[ignore = $reason]
                        fn $skip() {}
                    };
                )*
                ($d name:ident) => {
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $d name() {
                        let case = async {
                            let fixture = <$fixture as $crate::$trait>::open().await;
                            $crate::$suite::$d name(&fixture).await;
                        };
                        $crate::within_limit(case).await;
                    }
                };
            }

            $( case!($case); )*
        }
    };
}
