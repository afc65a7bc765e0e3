//! What agents do with documents, on both stores: edits, whole writes, conflicts, reads, watching, pasts and archives.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "documents/archives.rs"]
mod archives;
mod common;
#[path = "documents/conflicts.rs"]
mod conflicts;
#[path = "documents/edits.rs"]
mod edits;
#[path = "documents/histories.rs"]
mod histories;
#[path = "documents/parts.rs"]
mod parts;
#[path = "documents/place.rs"]
mod place;
#[path = "documents/reads.rs"]
mod reads;
#[path = "documents/searches.rs"]
mod searches;
#[path = "documents/watches.rs"]
mod watches;
#[path = "documents/writes.rs"]
mod writes;

/// Each case once on either store.
macro_rules! on_both_stores {
    ($($file:ident: $($case:ident),+ $(,)?);+ $(;)?) => {
        mod embedded {
            $($(#[tokio::test]
            async fn $case() {
                crate::$file::$case(&crate::place::Place::embedded().await).await;
            })+)+
        }
        mod postgres {
            $($(#[tokio::test]
            async fn $case() {
                crate::$file::$case(&crate::place::Place::postgres().await).await;
            })+)+
        }
    };
}

on_both_stores! {
    edits:
        an_edit_is_made_on_what_is_there_now,
        the_same_edits_under_the_same_key_are_made_once,
        an_edit_that_does_not_fit_shows_what_is_there,
        edits_for_a_revision_are_not_tried_again,
        edits_that_change_nothing_keep_the_revision,
        appends_side_by_side_are_all_there,
        a_document_is_gone_when_its_time_is_up,
        edits_under_a_lease_are_refused_once_that_is_lost,
        an_edit_that_was_dropped_happens_once_when_it_is_asked_for_again;
    writes:
        a_whole_document_needs_a_word_on_what_it_replaces,
        a_write_says_what_it_did,
        what_would_wear_a_document_down_is_refused,
        a_stale_whole_document_is_merged_or_a_conflict_but_never_a_loss,
        a_merge_of_a_forgotten_base_is_a_conflict,
        the_same_write_under_the_same_key_happens_once;
    conflicts:
        a_conflict_says_who_wrote_why_and_what,
        a_conflict_says_where_both_sides_contradict_each_other,
        a_long_difference_is_clipped;
    parts:
        several_documents_change_together_or_not_at_all,
        edits_of_several_documents_are_made_again_where_others_were_faster,
        a_part_that_names_a_revision_is_not_tried_again,
        several_changes_under_the_same_key_are_made_once;
    watches:
        a_watcher_sees_every_commit_of_its_prefix_once_and_in_order,
        a_watcher_resumes_from_its_cursor,
        a_watcher_begins_with_now_unless_told_otherwise,
        a_watcher_that_is_dropped_while_it_waits_misses_nothing,
        a_cursor_that_is_too_old_is_said_to_be,
        a_cursor_that_the_feed_has_not_come_to_is_said_to_be,
        any_place_that_was_given_out_can_be_gone_on_from;
    histories:
        a_past_revision_is_shown_compared_and_brought_back,
        a_revision_that_is_forgotten_is_told_from_one_to_come,
        a_deletion_is_brought_back_as_one,
        a_purge_leaves_nothing_but_a_tombstone,
        what_retention_does_not_keep_is_forgotten;
    reads:
        a_reader_who_knows_a_revision_is_told_what_changed_since,
        a_part_is_read_without_the_rest,
        a_long_document_is_read_in_pieces_of_one_revision,
        blame_names_who_last_touched_each_line;
    searches:
        a_search_shows_where_the_words_are,
        a_snapshot_stays_as_it_was;
    archives:
        an_archive_brings_everything_into_another_context,
        an_archive_that_is_not_whole_is_refused_and_nothing_is_written,
        an_archive_goes_into_an_empty_context_only,
        an_archive_of_what_is_forgotten_while_it_is_made_is_not_finished,
}
