//! The cases of a document engine, one file for each theme.

mod commits;
mod content;
mod durability;
mod epochs;
mod equal_writes;
mod feed;
mod fences;
mod history;
mod keys;
mod lost_updates;
mod revisions;
mod revocations;
mod searches;
mod snapshots;
mod upkeep;

pub use commits::{
    a_moved_revision_is_refused_with_the_current_document, any_overwrites, contexts_do_not_share_documents,
    create_is_refused_where_one_exists, several_documents_change_together_or_not_at_all,
};
pub use content::content_survives_byte_for_byte;
pub use durability::what_was_committed_is_there_after_reopening;
pub use epochs::{an_epoch_is_above_all_that_anybody_remembers, an_epoch_that_cannot_be_is_refused, epochs_rise};
pub use equal_writes::{
    a_guarded_write_does_not_wear_a_document_down, a_holder_does_not_write_over_what_it_has_not_seen,
    a_write_of_what_is_there_keeps_the_revision, only_what_a_commit_changes_gets_a_revision,
    the_key_of_a_write_that_changed_nothing_is_remembered,
};
pub use feed::{a_feed_reader_waits_for_the_next_commit, the_feed_has_every_commit_once_in_order_without_gaps};
pub use fences::{
    a_fenced_read_keeps_older_tokens_out, a_good_fence_raises_the_mark_even_where_the_precondition_fails,
    a_newer_epoch_outranks, a_refused_fence_raises_no_mark, an_equal_number_of_another_owner_is_refused,
    an_older_fence_is_refused_even_at_the_right_revision, the_same_fence_may_write_twice,
};
pub use history::{history_keeps_every_revision, listing_by_prefix_in_pages};
pub use keys::{
    a_dropped_commit_and_its_retry_happen_once, a_refusal_does_not_use_the_key_up,
    the_same_key_for_another_commit_is_refused, the_same_key_happens_once,
};
pub use lost_updates::{no_update_is_lost, unprotected_updates_are_lost};
pub use revisions::{
    a_deleted_document_is_absent_and_its_revision_is_never_used_again, absent_means_absent, revisions_rise_from_one,
};
pub use revocations::{
    a_retry_of_what_a_revoked_lease_wrote_is_told, a_revoked_lease_reads_no_more, a_revoked_lease_writes_no_more,
    revocations_are_listed_newest_first,
};
pub use searches::{a_search_finds_words_phrases_and_beginnings, a_search_sees_what_was_committed_before_it};
pub use snapshots::{a_snapshot_stays_as_it_was_while_others_write, an_archive_brings_back_all_that_was_there};
pub use upkeep::{
    a_purge_leaves_a_tombstone_alone, a_write_says_what_becomes_of_an_expiry, an_expired_document_is_absent_at_once,
    retention_by_age_forgets_what_was_replaced_long_ago, retention_by_count_forgets_the_oldest_and_says_so,
};
