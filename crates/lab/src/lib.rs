//! The laboratory: the published experiment and its kin, measured through the same door as everyone else.
//!
//! An [`experiment`] runs trials of each treatment in turn. A [`trial`] starts agents, each a process of its own that
//! uses the public library as anyone would ([`agent`]), gathers their logs, and has them judged ([`judge`]). It runs on
//! engines that are there or that are started for it ([`servers`]), and beside a program that is not ours ([`peer`]).
//! [`engines`] runs it over many engines side by side, and measures what each lock costs where nobody and where everybody
//! wants it.
//! What is left behind is plain data ([`results`]), from which everything else is made: [`stats`] and [`summary`],
//! [`files`], [`charts`] and the [`report`].

pub mod agent;
pub mod charts;
pub mod engines;
pub mod experiment;
pub mod files;
pub mod judge;
pub mod machine;
pub mod peer;
mod process;
pub mod report;
pub mod results;
#[cfg(test)]
mod results_sample;
pub mod servers;
pub mod stats;
pub mod summary;
pub mod trial;
pub mod workload;
