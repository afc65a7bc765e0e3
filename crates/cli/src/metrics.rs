//! `--metrics`: what this process measures, for Prometheus, over HTTP while the command runs or in a file.
//!
//! Threads of their own do it, so that neither a busy command nor a slow reader is in the other's way.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use mutext::{Context, Prometheus};

use crate::config::variable;
use crate::error::CliError;
use crate::output::Output;

/// Names the address or the file. Commands under `mutext lock` do not inherit it: they would fight for it.
pub(crate) const VARIABLE: &str = "MUTEXT_METRICS";

/// How often the file is written, and the queue is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// How long one scrape may take from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest request that is read; a scrape has a few hundred bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Whether anybody wants metrics of this process.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Where metrics go.
#[derive(Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct MetricsArgs {
    /// Prometheus metrics: at http://ADDRESS/metrics while the command runs, or in FILE [env: MUTEXT_METRICS]
    #[arg(long, global = true, value_name = "ADDRESS|FILE")]
    metrics: Option<String>,
}

/// What was asked for, told apart.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Address(String),
    File(PathBuf),
}

impl Target {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Err("write the address alone, as in 127.0.0.1:9187; the path is always /metrics");
        }
        if text.contains('/') {
            return Ok(Self::File(PathBuf::from(text)));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err("it names no port; write one after the address, as in 127.0.0.1:9187");
        }
        match text.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                if host.is_empty() {
                    return Err("it names no address to listen at; write one, as in 127.0.0.1:9187");
                }
                match port.parse::<u16>() {
                    Ok(_) => Ok(Self::Address(text.to_owned())),
                    Err(_) => Err("its port is not one from 0 to 65535; write one, as in 127.0.0.1:9187"),
                }
            }
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err("write an address before the port, as in 127.0.0.1:9187, or a file's path, as in ./metrics.prom")
            }
            _ if text.is_empty() => Err("write an address, as in 127.0.0.1:9187, or a file's path"),
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

/// Metrics that somebody wants, until the command has ended.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    /// The file's writer: it ends, and writes a last time, when its sender is gone.
    writer: Option<(PathBuf, Sender<()>, JoinHandle<io::Result<()>>)>,
}

impl Exported {
    /// Begins to serve or to write, where that is asked for. Whatever is wrong with it is said before any work.
    pub(crate) fn start(args: &MetricsArgs) -> Result<Self, CliError> {
        let (origin, text) = match (&args.metrics, variable(VARIABLE)?) {
            (Some(text), _) => ("--metrics", text.clone()),
            (None, Some(text)) => (VARIABLE, text),
            (None, None) => return Ok(Self::default()),
        };
        let target = Target::parse(&text).map_err(|remedy| {
            CliError::input(format!("{origin} of {text:?} is neither an address nor a file: {remedy}"))
        })?;
        let prometheus = Prometheus::new();
        let exported = match target {
            Target::Address(address) => serve_at(origin, &address, &prometheus)?,
            Target::File(path) => write_to(origin, path, &prometheus)?,
        };
        prometheus.install().map_err(|error| CliError::input(error.to_string()))?;
        WANTED.store(true, Ordering::Relaxed);
        Ok(exported)
    }

    /// Writes the file a last time.
    pub(crate) fn finish(self, out: Output) {
        let Some((path, sender, writer)) = self.writer else { return };
        drop(sender);
        if let Ok(Err(error)) = writer.join() {
            let path = path.display();
            out.warn("metrics", &format!("the metrics could not be written to {path} at the end: {error}"));
        }
    }
}

/// Looks at the context's queue now and then, where metrics are wanted: what waits elsewhere is not measured here.
pub(crate) fn watch_queue(context: &Context) {
    if !WANTED.load(Ordering::Relaxed) {
        return;
    }
    let context = context.clone();
    tokio::spawn(async move {
        loop {
            if let Err(error) = context.measure_queue().await {
                tracing::debug!(%error, "the queue could not be measured");
            }
            tokio::time::sleep(EVERY).await;
        }
    });
}

fn trouble(what: String, remedy: &'static str) -> impl FnOnce(io::Error) -> CliError {
    move |source| CliError::Io { what, remedy, source }
}

fn thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, CliError> {
    let started = std::thread::Builder::new().name("mutext-metrics".to_owned()).spawn(run);
    started.map_err(trouble("the thread for metrics cannot be started".to_owned(), "allow more threads"))
}

// --- Over HTTP -----------------------------------------------------------------------------------------------------

fn serve_at(origin: &str, address: &str, prometheus: &Prometheus) -> Result<Exported, CliError> {
    let remedy = "name a free port of an address of this machine, as in 127.0.0.1:9187";
    let what = || format!("{origin} {address}: nothing can listen there");
    let listener = TcpListener::bind(address).map_err(trouble(what(), remedy))?;
    let bound = listener.local_addr().map_err(trouble(what(), remedy))?;
    tracing::info!("metrics are at http://{bound}/metrics");
    let prometheus = prometheus.clone();
    thread(move || serve(&listener, &prometheus))?;
    Ok(Exported::default())
}

/// One scrape after the other, for as long as the process lives.
fn serve(listener: &TcpListener, prometheus: &Prometheus) {
    for stream in listener.incoming() {
        match stream.and_then(|stream| answer(stream, prometheus)) {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(%error, "a scrape of the metrics failed");
                // Where there are no more files to open, asking again at once would be a busy loop.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn answer(mut stream: TcpStream, prometheus: &Prometheus) -> io::Result<()> {
    let request = read_head(&mut stream)?;
    let line = request.split("\r\n").next().unwrap_or_default();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let plain = "text/plain; charset=utf-8";
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", prometheus.text()),
        ("GET" | "HEAD", _) => ("404 Not Found", plain, "the metrics are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed\r\nAllow: GET, HEAD", plain, "only GET and HEAD are answered\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

/// Everything up to the empty line; a scrape has no more than that.
fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let until = Instant::now() + PATIENCE;
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || request.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => request.extend_from_slice(&buffer[..bytes]),
        }
    }
    Ok(String::from_utf8_lossy(&request).into_owned())
}

// --- In a file -----------------------------------------------------------------------------------------------------

fn write_to(origin: &str, path: PathBuf, prometheus: &Prometheus) -> Result<Exported, CliError> {
    let text = path.to_string_lossy();
    if path.is_dir() || path.file_name().is_none() || text.ends_with('/') {
        let dir = text.trim_end_matches('/');
        return Err(CliError::input(format!("{origin} {text} is a directory; name a file, as in {dir}/mutext.prom")));
    }
    let what = format!("{origin} {}: the file cannot be written", path.display());
    let remedy = "name a file in a directory that exists and that you may write to";
    write(&path, &prometheus.text()).map_err(trouble(what, remedy))?;
    let (sender, ended) = channel();
    let (prometheus, file) = (prometheus.clone(), path.clone());
    let writer = thread(move || keep_writing(&file, &prometheus, &ended))?;
    Ok(Exported { writer: Some((path, sender, writer)) })
}

/// Writes now and then, and a last time at the end.
fn keep_writing(path: &Path, prometheus: &Prometheus, ended: &Receiver<()>) -> io::Result<()> {
    let mut well = true;
    while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let outcome = write(path, &prometheus.text());
        if let Err(error) = outcome.as_ref()
            && well
        {
            tracing::warn!(%error, file = %path.display(), "the metrics cannot be written; trying again");
        }
        well = outcome.is_ok();
    }
    write(path, &prometheus.text())
}

/// Whoever reads the file finds it whole: it is written beside, and put in its place in one step.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A collector that reads *.prom leaves this one alone.
    let beside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It may not even be there; the error that counts is the one above.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_file_are_told_apart() {
        for address in ["127.0.0.1:9187", "localhost:0", "[::1]:9187"] {
            assert_eq!(Target::parse(address), Ok(Target::Address(address.to_owned())));
        }
        for file in ["metrics.prom", "./9187", "/var/lib/a:1", "a:b"] {
            assert_eq!(Target::parse(file), Ok(Target::File(PathBuf::from(file))));
        }
        for neither in ["", "9187", ":9187", "127.0.0.1", "127.0.0.1:99187", "http://127.0.0.1:9187/metrics"] {
            assert!(Target::parse(neither).is_err_and(|remedy| remedy.contains("127.0.0.1:9187")), "{neither}");
        }
    }
}
