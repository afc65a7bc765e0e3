//! What the experiment ran on, in facts that a reader can compare.

use std::path::Path;

/// The present moment, RFC 3339, in UTC to the second.
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// One fact a line: processor, cores, memory, kernel, the file system that stores lie on, and how fast it syncs.
pub fn describe(dir: &Path) -> Vec<String> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let mut facts = Vec::new();
    if let Some(model) = field(&read("/proc/cpuinfo"), "model name") {
        facts.push(format!("processor: {model}"));
    }
    if let Ok(cores) = std::thread::available_parallelism() {
        facts.push(format!("cores: {cores}"));
    }
    let memory = field(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    if let Some(kib) = memory {
        facts.push(format!("memory: {:.1} GiB", kib / (1024.0 * 1024.0)));
    }
    let system = rustix::system::uname();
    facts.push(format!(
        "system: {} {} {}",
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        system.machine().to_string_lossy()
    ));
    if let Some(name) = field(&read("/etc/os-release").replace('=', ":"), "PRETTY_NAME") {
        facts.push(format!("distribution: {}", name.trim_matches('"')));
    }
    facts.extend(file_system(dir, &read("/proc/mounts")));
    facts
}

fn file_system(dir: &Path, mounts: &str) -> Option<String> {
    let mut dir = dir.canonicalize().or_else(|_| std::env::current_dir()).ok()?;
    while !dir.exists() {
        dir.pop();
    }
    let on = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?)).filter(|(point, _)| dir.starts_with(point))
    });
    let (_, kind) = on.max_by_key(|(point, _)| point.len())?;
    Some(format!("file system of the stores: {kind}"))
}

/// Versions and settings of the engines that are built in, one line each, as far as they are used.
pub fn engines(documents: bool, locks: bool) -> Vec<String> {
    let sqlite = mutext::SQLITE_VERSION;
    let documents = documents.then(|| format!("embedded documents: SQLite {sqlite}, WAL, synchronous=FULL"));
    let locks = locks.then(|| format!("embedded locks: SQLite {sqlite}, WAL, synchronous=OFF, for one boot"));
    documents.into_iter().chain(locks).collect()
}
