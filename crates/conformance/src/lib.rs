//! The suites that every engine passes, written once: one named test for each promise of the two contracts.
//!
//! An engine enrols by a fixture and one line for each suite:
//!
//! ```ignore
//! mutext_conformance::lock_suite!(MyEngine);
//! mutext_conformance::store_suite!(MyEngine);
//! ```
//!
//! Each case opens an engine of its own. A capability that an engine declares not to have is tested as declared:
//! no case passes by not running.

#![expect(clippy::missing_panics_doc, reason = "a case that fails panics: that is what it is for")]

pub mod lock;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mutext_contract::{
    Acquisition, AgentName, Claim, ContextName, Deadline, DocumentStore, Grant, Holder, LockRequest, LockService, Mode,
    Ttl,
};

/// A lock engine under test, opened afresh for one case.
#[async_trait]
pub trait LockFixture: Send + Sync + Sized {
    /// Opens it.
    async fn open() -> Self;
    /// One client.
    fn locks(&self) -> Arc<dyn LockService>;
    /// Another client of the same locks, as another process would have.
    async fn second(&self) -> Arc<dyn LockService>;
}

/// A document engine under test, opened afresh for one case.
#[async_trait]
pub trait StoreFixture: Send + Sync + Sized {
    /// Opens it.
    async fn open() -> Self;
    /// One client.
    fn store(&self) -> Arc<dyn DocumentStore>;
    /// Another client of the same documents, as another process would have.
    async fn second(&self) -> Arc<dyn DocumentStore>;
}

/// Makes one test of each case, in a module named for the suite.
#[macro_export]
macro_rules! suite {
    ($module:ident, $suite:ident, $fixture:ty: $($file:ident { $($case:ident),+ $(,)? })+) => {
        mod $module {
            use super::*;
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::$suite::$file::$case::<$fixture>().await;
                }
            )+)+
        }
    };
}

/// Enrols a [`LockFixture`].
#[macro_export]
macro_rules! lock_suite {
    ($fixture:ty) => {
        $crate::suite! { lock_suite, lock, $fixture:
            granting {
                a_free_lock_is_granted, a_held_lock_names_its_holder, two_resources_do_not_meet, contexts_do_not_meet,
                names_keep_case_and_odd_characters, shared_leases_stand_together, a_lease_covers_all_below_it,
                the_root_covers_the_context, several_resources_are_granted_together_or_not_at_all,
                inspection_shows_holders_and_waiters,
            }
            tokens { tokens_rise_with_every_grant, tokens_rise_across_expiry, tokens_rise_across_clients }
            expiry {
                an_expired_lease_is_granted_to_another, validity_never_outlives_the_lease, renewal_extends_the_lease,
                renewal_after_another_took_over_is_lost, an_expired_lease_that_nobody_took_is_as_declared,
                release_is_idempotent, a_late_release_harms_nobody, a_revoked_lease_is_lost_and_its_holder_told,
            }
            waiting {
                waiting_ends_at_the_deadline, a_passed_deadline_means_one_try,
                a_waiter_is_served_when_the_holder_releases, a_waiter_of_another_client_is_served_too,
                first_come_is_first_served, a_dropped_waiter_does_not_block_the_queue,
                a_writer_is_not_starved_by_readers, contenders_never_overlap,
            }
        }
    };
}

/// Enrols a [`StoreFixture`].
#[macro_export]
macro_rules! store_suite {
    ($fixture:ty) => {
        $crate::suite! { store_suite, store, $fixture:
            documents {
                revisions_rise_from_one, absent_means_absent, content_survives_byte_for_byte,
                a_deleted_document_is_absent_and_its_revision_is_never_used_again, history_keeps_every_revision,
                listing_by_prefix_goes_in_pages, contexts_do_not_share_documents,
                what_was_committed_is_there_for_another_client,
            }
            commits {
                a_moved_revision_is_refused_with_the_current_document, create_is_refused_where_one_exists,
                any_overwrites, several_documents_change_together_or_not_at_all, the_same_key_happens_once,
                the_same_key_for_another_commit_is_refused, a_dropped_commit_and_its_retry_happen_once,
                no_update_is_lost, unprotected_updates_are_lost,
            }
            fences {
                an_older_fence_is_refused_even_at_the_right_revision, the_same_fence_may_write_twice,
                an_equal_number_of_another_owner_is_refused, a_newer_epoch_outranks_every_counter_of_the_old,
                a_fenced_read_keeps_older_tokens_out, a_good_fence_raises_the_mark_even_where_the_precondition_fails,
                epochs_rise,
            }
            feed {
                the_feed_has_every_commit_once_in_order_without_gaps, a_reader_of_the_feed_waits_for_the_next_commit,
            }
        }
    };
}

pub(crate) fn context() -> ContextName {
    ContextName::new("conformance").unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn holder(name: &str) -> Holder {
    Holder::new(AgentName::new(name).unwrap_or_else(|error| panic!("{error}")))
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

pub(crate) fn claim(resource: &str, mode: Mode) -> Claim {
    Claim { resource: resource.parse().unwrap_or_else(|error| panic!("{error}")), mode }
}

/// A request of `name` for `claims`, with a TTL of so many milliseconds.
pub(crate) fn request(name: &str, claims: &[(&str, Mode)], ttl_ms: u64) -> LockRequest {
    let ttl = Ttl::new(Duration::from_millis(ttl_ms)).unwrap_or_else(|error| panic!("{error}"));
    let claims = claims.iter().map(|(resource, mode)| claim(resource, *mode));
    LockRequest::new(context(), holder(name), ttl, claims).unwrap_or_else(|error| panic!("{error}"))
}

/// An exclusive request for one resource, with a TTL of ten seconds.
pub(crate) fn exclusive(name: &str, resource: &str) -> LockRequest {
    request(name, &[(resource, Mode::Exclusive)], 10_000)
}

pub(crate) async fn acquire(locks: &dyn LockService, request: &LockRequest, wait_ms: u64) -> Acquisition {
    let deadline = if wait_ms == 0 { Deadline::now() } else { Deadline::after(Duration::from_millis(wait_ms)) };
    locks.acquire(request, deadline).await.unwrap_or_else(|error| panic!("acquire: {error}"))
}

pub(crate) async fn grant(locks: &dyn LockService, request: &LockRequest, wait_ms: u64) -> Grant {
    match acquire(locks, request, wait_ms).await {
        Acquisition::Granted(grant) => grant,
        other => panic!("{} was not granted: {other:?}", request.holder),
    }
}

pub(crate) async fn refused(locks: &dyn LockService, request: &LockRequest, wait_ms: u64) -> mutext_contract::Blocked {
    match acquire(locks, request, wait_ms).await {
        Acquisition::TimedOut(blocked) => blocked,
        other => panic!("{} was to be refused: {other:?}", request.holder),
    }
}

pub(crate) async fn release(locks: &dyn LockService, lease: mutext_contract::LeaseId) -> mutext_contract::Release {
    locks.release(&context(), lease, soon()).await.unwrap_or_else(|error| panic!("release: {error}"))
}

pub(crate) async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
