//! The cases of a lock engine, one file for each theme.

mod abandonment;
mod cancellation;
mod conversion;
mod deadlocks;
mod exclusion;
mod expiry;
mod grants;
mod inspection;
mod modes;
mod release;
mod renewal;
mod tokens;
mod waiting;

pub use abandonment::{a_dead_waiter_does_not_block_those_behind_it, a_vanished_client_frees_its_lock_within_its_ttl};
pub use cancellation::{
    a_dropped_acquire_leaves_nothing_beyond_release, a_dropped_waiter_does_not_block_the_queue,
    a_released_attempt_does_not_come_back,
};
pub use conversion::{
    a_lost_lease_cannot_be_replaced, a_reader_becomes_a_writer_with_nobody_in_between,
    a_writer_becomes_a_reader_and_lets_others_in, an_upgrade_that_times_out_keeps_the_shared_lease,
    two_readers_who_want_to_write_are_told,
};
pub use deadlocks::{
    a_cycle_of_waiters_is_found_or_runs_out_of_time, a_cycle_through_the_queue_is_found,
    a_longer_cycle_is_named_from_end_to_end, waiting_for_oneself_is_a_cycle, whoever_keeps_nothing_waits_in_no_circle,
};
pub use exclusion::thirty_contenders_never_overlap;
pub use expiry::{
    an_expired_lease_is_granted_to_another, an_expired_lease_that_nobody_took, validity_never_outlives_the_service,
};
pub use grants::{
    a_free_lock_is_granted, a_held_lock_names_its_holder, contexts_do_not_meet, names_keep_case_and_odd_characters,
    two_resources_do_not_meet,
};
pub use inspection::{inspect_shows_holders_and_waiters, inspect_shows_the_oldest_grant_first};
pub use modes::{
    a_lease_covers_all_below_it, a_writer_is_not_starved_by_readers, several_resources_all_or_none,
    shared_leases_stand_together, the_root_covers_the_context,
};
pub use release::{a_late_release_harms_nobody, a_revoked_lease_is_lost_and_its_holder_told, release_is_idempotent};
pub use renewal::{renewal_after_another_took_over_is_lost, renewal_extends_the_lease};
pub use tokens::{
    a_new_epoch_begins_above_what_documents_have_seen, tokens_rise_across_expiry, tokens_rise_across_reopening,
    tokens_rise_with_every_grant, tokens_to_spare_are_nobody_elses,
    whoever_has_tokens_to_spare_is_told_who_wants_the_lease,
};
pub use waiting::{
    a_passed_deadline_means_one_try, a_waiter_is_served_when_the_holder_releases, first_come_first_served,
    waiting_ends_at_the_deadline,
};
