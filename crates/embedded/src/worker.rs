//! A thread that owns what must not be shared, and runs what others send it, in their order.
//!
//! A caller that goes away does not stop its job: what was sent happens, and the answer is dropped.

use std::fmt;
use std::sync::mpsc;

use mutext_contract::{Effect, EngineError, TroubleKind};
use tokio::sync::oneshot;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

pub(crate) struct Worker<S> {
    jobs: mpsc::Sender<Job<S>>,
    name: &'static str,
}

impl<S> fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<S: Send + 'static> Worker<S> {
    /// Starts the thread; it ends when the worker is dropped and its last job is done.
    pub(crate) fn start(name: &'static str, mut state: S) -> Result<Self, EngineError> {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let run = move || {
            while let Ok(job) = queue.recv() {
                job(&mut state);
            }
        };
        start_thread(name, run)?;
        Ok(Self { jobs, name })
    }

    /// Runs `job` on the thread. Dropping the future does not stop it.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (answer, answered) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| {
            // The caller may have gone: then nobody wants the answer.
            let _ = answer.send(job(state));
        });
        self.jobs.send(job).map_err(|_| stopped(self.name, Effect::None))?;
        answered.await.unwrap_or_else(|_| Err(stopped(self.name, Effect::Unknown)))
    }
}

/// A named thread, or what kept it from starting.
pub(crate) fn start_thread(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
        Ok(_) => Ok(()),
        Err(error) => {
            let kind = TroubleKind::Unavailable;
            Err(EngineError::new(format!("thread {name}"), kind, "allow more threads for this process")
                .caused_by(error))
        }
    }
}

/// The thread has gone: a bug of ours.
pub(crate) fn stopped(name: &'static str, effect: Effect) -> EngineError {
    let kind = TroubleKind::Failed("its thread stopped; please report this".to_owned());
    EngineError::new(name, kind, "open the store again").with_effect(effect)
}
