//! The `mutext` command: shared documents, locks around commands, and experiments, over the `mutext` library.
//!
//! | file | what lives there |
//! |---|---|
//! | `args` | which commands there are |
//! | `config`, `config_file` | settings: flags, environment, file |
//! | `documents`, `write` | reading documents, and writing them as a whole |
//! | `edits`, `commits` | changing documents by what changes; several at once |
//! | `parts` | reading less than a whole document |
//! | `edit` | a document in a person's editor |
//! | `claim` | taking an element of a board |
//! | `past` | what documents were |
//! | `feed` | watching documents change |
//! | `whole` | searching, exporting, importing and tending a context |
//! | `input`, `said` | what is given to be written, and what is said of it |
//! | `conflict` | conflicts, as they are told |
//! | `sync` | a folder and a context that are kept alike |
//! | `lock`, `signals`, `inherited` | running a command under a lease, and what that command inherits |
//! | `locks` | who holds what, and breaking a lease |
//! | `watch` | who holds what, looked at again and again |
//! | `experiment` | the laboratory's door |
//! | `metrics`, `log` | what is measured, and what is said while it works |
//! | `output`, `error`, `exit` | what is said, and with which status |

mod args;
mod claim;
mod commits;
mod config;
mod config_file;
mod conflict;
mod doctor;
mod documents;
mod edit;
mod edits;
mod engines;
mod error;
mod exit;
mod experiment;
mod feed;
mod inherited;
mod input;
mod lock;
mod locks;
mod log;
mod metrics;
mod output;
mod parts;
mod past;
mod said;
mod signals;
mod sync;
mod watch;
mod whole;
mod write;

use std::process::ExitCode;

use crate::error::CliError;
use crate::output::Output;

fn main() -> ExitCode {
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let json = cli.global.json;
    // One thread: the engines bring their own, and a command that lives for milliseconds starts no others.
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(cli.run());
            // Whatever is still being opened belongs to a command that was interrupted.
            runtime.shutdown_background();
            outcome
        }
        Err(source) => {
            let (what, remedy) = ("the runtime cannot be started".to_owned(), "allow more open files and threads");
            Err(CliError::Io { what, remedy, source })
        }
    };
    outcome.unwrap_or_else(|error| {
        Output::new(json).error(&error);
        ExitCode::from(error.exit_code())
    })
}
