//! What is said while a lock server is away, or lets nobody in: what happened, once.

use mutext_testbed::RedisServer;

use crate::place::{Holder, Place, Ran, ran};

/// A command whose locks lie in Redis.
fn on_redis(place: &Place, url: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = place.mutext(arguments);
    command.env("MUTEXT_LOCKS", url);
    command
}

#[track_caller]
fn says(ran: &Ran, what: &str, times: usize) {
    assert_eq!(ran.err.matches(what).count(), times, "{what:?}: {}", ran.err);
}

#[test]
fn an_outage_that_costs_the_lease_is_told_once() {
    let mut redis = RedisServer::start().unwrap();
    let place = Place::new();
    let arguments = ["lock", "plan.md", "--ttl", "3s", "--", "sh", "-c", "echo ready; exec sleep 60"];
    let holder = Holder::start(&mut on_redis(&place, &redis.url(), &arguments));
    redis.kill().unwrap();
    let ran = holder.end();
    assert_eq!(ran.status, 5, "{ran:?}");
    says(&ran, "could not be renewed; trying again", 1);
    says(&ran, "warning: the lease on plan.md is lost", 1);
    says(&ran, "warning:", 2);
    says(&ran, "error:", 1);
}

#[test]
fn whoever_may_not_lock_is_told_why_and_not_of_a_lease_that_never_was() {
    let redis = RedisServer::start().unwrap();
    redis.cli(&["ACL", "SETUSER", "weak", "on", ">x", "~*", "&*", "+@all", "-@scripting"]).unwrap();
    let url = format!("redis://weak:x@127.0.0.1:{}", redis.port());
    let place = Place::new();
    let ran = ran(&mut on_redis(&place, &url, &["lock", "plan.md", "--", "true"]));
    ran.refused(7, &["the user may not do what locks need"]);
    says(&ran, "warning", 0);
}
