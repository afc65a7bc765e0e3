//! What the library says while it works: its warnings always, more of it with `--verbose`, all on standard error.

use std::fmt::{self, Write};

use clap::{ArgAction, Args};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::config::variable;
use crate::error::CliError;
use crate::output::Output;

const OWN: &str = "MUTEXT_LOG";
const COMMON: &str = "RUST_LOG";

/// How much is said.
#[derive(Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct LogArgs {
    /// Say what happens on standard error; -vv every step [env: MUTEXT_LOG or RUST_LOG, as in mutext=debug,warn]
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

/// From now on whatever the library says goes to `out`.
pub(crate) fn start(args: &LogArgs, out: Output) -> Result<(), CliError> {
    let layer = Lines { out }.with_filter(filter(args.verbose, out)?);
    // Only a second call could fail, and the first one's layer does as well.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    Ok(())
}

fn filter(verbose: u8, out: Output) -> Result<Targets, CliError> {
    let from = |level: LevelFilter| Targets::new().with_default(level);
    match verbose {
        0 => {}
        1 => return Ok(from(LevelFilter::INFO)),
        2 => return Ok(from(LevelFilter::DEBUG)),
        _ => return Ok(from(LevelFilter::TRACE)),
    }
    if let Some(text) = variable(OWN)? {
        return text.parse().map_err(|error| {
            let remedy = "write a level, as in info, or targets with levels, as in mutext=debug,warn";
            CliError::input(format!("{OWN} of {text:?} is not a filter ({error}); {remedy}"))
        });
    }
    let Some(text) = variable(COMMON)? else { return Ok(from(LevelFilter::WARN)) };
    // It is meant for other programs as well, which understand more than this one.
    Ok(text.parse().unwrap_or_else(|error| {
        out.warn(
            "log",
            &format!("{COMMON} of {text:?} is not a filter that mutext knows ({error}); {OWN} overrides it"),
        );
        from(LevelFilter::WARN)
    }))
}

/// One line for each event.
struct Lines {
    out: Output,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let text = text.whole();
        if *metadata.level() <= Level::WARN {
            self.out.warn("log", &text);
        } else {
            self.out.note(&metadata.level().as_str().to_lowercase(), metadata.target(), &text);
        }
    }
}

/// An event's message, and its fields behind it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn whole(self) -> String {
        if self.fields.is_empty() { self.message } else { format!("{} ({})", self.message, self.fields) }
    }

    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let separator = if self.fields.is_empty() { "" } else { ", " };
        // Writing to a text does not fail.
        let _ = match field.name() {
            "message" => self.message.write_fmt(value),
            name => write!(self.fields, "{separator}{name} {value}"),
        };
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }
}
