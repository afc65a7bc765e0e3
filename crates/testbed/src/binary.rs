//! Finding programs, and saying what to install where they are missing.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TestbedError;

/// The first directory that has all of `programs`: in PATH, else below `elsewhere`, newest first.
pub(crate) fn directory_with(programs: &[&str], elsewhere: &[(&str, &str)]) -> Option<PathBuf> {
    let has_all = |dir: &Path| programs.iter().all(|program| dir.join(program).is_file());
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    if let Some(dir) = env::split_paths(&path).find(|dir| has_all(dir)) {
        return Some(dir);
    }
    elsewhere.iter().find_map(|(parent, below)| {
        let mut versions: Vec<PathBuf> = fs::read_dir(parent).ok()?.flatten().map(|entry| entry.path()).collect();
        // Versions are numbers: 9 comes before 15.
        versions.sort_by_key(|dir| dir.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
        versions.into_iter().rev().map(|version| version.join(below)).find(|dir| has_all(dir))
    })
}

/// What `command` prints; its failure with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String, TestbedError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(TestbedError::system(format!("starting {name}")))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let said = format!("{} {}", said(&output.stdout), said(&output.stderr)).trim().to_owned();
    Err(TestbedError::Command { command: format!("{name} {}", arguments.join(" ")), said })
}
