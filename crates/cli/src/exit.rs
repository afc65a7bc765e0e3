//! The exit status of every command: one table, shown by `mutext --help` and used everywhere.

use std::process::ExitCode;

/// How a command ended. A signal that ends it, or ends the command of `mutext lock`, is 128 plus its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    CriterionFailed = 1,
    BadInput = 2,
    Conflict = 3,
    NotGranted = 4,
    LeaseLost = 5,
    NotFound = 6,
    Trouble = 7,
    NotExecutable = 126,
    CommandNotFound = 127,
}

impl Exit {
    const ALL: [Self; 10] = [
        Self::Done,
        Self::CriterionFailed,
        Self::BadInput,
        Self::Conflict,
        Self::NotGranted,
        Self::LeaseLost,
        Self::NotFound,
        Self::Trouble,
        Self::NotExecutable,
        Self::CommandNotFound,
    ];

    const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::CriterionFailed => {
                "a criterion failed, doctor found a danger, or sync left something that is not alike"
            }
            Self::BadInput => "bad usage or bad input; nothing was changed",
            Self::Conflict => "conflict: a precondition failed, or is missing; nothing was changed",
            Self::NotGranted => "the lock was not granted in time, or waiting for it would deadlock",
            Self::LeaseLost => "the lease is lost",
            Self::NotFound => "there is no such document, revision or lease",
            Self::Trouble => "trouble with an engine, a file or the network",
            Self::NotExecutable => "lock: the command cannot be executed",
            Self::CommandNotFound => "lock: the command is not found",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table, as `mutext --help` shows it.
pub(crate) fn table() -> String {
    let row = |exit: Exit| format!("  {:<5}  {}\n", exit.code(), exit.meaning());
    let rows: String = Exit::ALL.into_iter().map(row).collect();
    format!(
        "Exit status:\n{rows}  128+N  ended by signal N, as in 130 for Ctrl-C\n  \
         `mutext lock` passes the status of its command on.\n\n\
         Settings: a flag overrides the environment, which overrides the config file.\n\
         Errors go to standard error; with --json as {{\"error\": {{\"code\", \"exit\", \"message\", …}}}}."
    )
}
