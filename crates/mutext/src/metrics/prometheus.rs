//! A recorder that keeps what is measured in this process, and tells it in Prometheus' text format.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The upper ends of the buckets of whatever is in seconds: from 50 µs to a minute.
const SECONDS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];
/// The upper ends of the buckets of whatever is counted.
const COUNTS: [f64; 10] = [0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 55.0, 144.0];

/// How often samples are put into their buckets; a recorder that nobody asks would keep every one of them.
const UPKEEP: Duration = Duration::from_secs(5);

/// What is measured in this process, as Prometheus text.
///
/// Install it before [`Mutext::open`](crate::Mutext::open): numbers go to the recorder that was there when the
/// engines were opened. A program that has a recorder of its own for the `metrics` facade needs none of this.
///
/// ```
/// let prometheus = mutext::Prometheus::new();
/// prometheus.install()?;
/// // ... open, lock, update ...
/// let text: String = prometheus.text();
/// # Ok::<(), mutext::RecorderInstalled>(())
/// ```
#[derive(Clone)]
pub struct Prometheus {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

/// This process has a recorder for the `metrics` facade already; it stays, and gets the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this process has a recorder of metrics already: read the numbers from that one")]
pub struct RecorderInstalled;

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prometheus").finish_non_exhaustive()
    }
}

impl Default for Prometheus {
    fn default() -> Self {
        Self::new()
    }
}

impl Prometheus {
    /// A recorder with nothing in it.
    pub fn new() -> Self {
        let in_seconds = Matcher::Suffix("_seconds".to_owned());
        // Only an empty list is refused, and these two are not.
        let builder = PrometheusBuilder::new().set_buckets(&COUNTS).unwrap_or_default();
        let builder = builder.set_buckets_for_metric(in_seconds, &SECONDS).unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        Self { recorder: Arc::new(recorder), handle }
    }

    /// Makes it this process's recorder: once, and for as long as the process lives.
    pub fn install(&self) -> Result<(), RecorderInstalled> {
        ::metrics::set_global_recorder(Arc::clone(&self.recorder)).map_err(|_| RecorderInstalled)?;
        let handle = self.handle.clone();
        let upkeep = move || {
            loop {
                std::thread::sleep(UPKEEP);
                handle.run_upkeep();
            }
        };
        // Without the thread, samples are sorted whenever the text is asked for.
        let _ = std::thread::Builder::new().name("mutext-upkeep".to_owned()).spawn(upkeep);
        Ok(())
    }

    /// The recorder itself, for a program that installs it beside others or for one thread only.
    pub fn recorder(&self) -> Arc<impl ::metrics::Recorder + Send + Sync + 'static> {
        Arc::clone(&self.recorder)
    }

    /// Everything measured so far, in Prometheus' text format, version 0.0.4.
    pub fn text(&self) -> String {
        self.handle.render()
    }
}
