//! Where log lines go and how they look.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// The variable that overrides the configured level, in tracing's own notation, such as `info,slowpath=debug`.
const VARIABLE: &str = "RUST_LOG";

/// `RUST_LOG` is there and can't be understood.
#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is `{given}`: {source}; write for example RUST_LOG=info,slowpath=debug, or unset it")]
pub(crate) struct BadFilter {
    given: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Sends log lines to standard error from here on.
///
/// # Errors
/// `RUST_LOG` can't be understood.
pub(crate) fn start(config: LogConfig) -> Result<(), BadFilter> {
    let filter = filter(config, std::env::var(VARIABLE).ok())?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // The journal has a time of its own for each line.
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // Only the first call in a process has an effect; there is one.
    let _ = match config.format {
        LogFormat::Text if in_journal => registry.with(lines.with_ansi(false).without_time()).try_init(),
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(())
}

fn filter(config: LogConfig, variable: Option<String>) -> Result<EnvFilter, BadFilter> {
    match variable.filter(|given| !given.is_empty()) {
        Some(given) => EnvFilter::try_new(&given).map_err(|source| BadFilter { given, source }),
        None => Ok(EnvFilter::default().add_directive(config.level.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: LogConfig = LogConfig { format: LogFormat::Text, level: tracing::Level::INFO };

    #[test]
    fn the_level_of_the_file_holds_unless_the_variable_is_set() {
        assert_eq!(filter(CONFIG, None).unwrap().to_string(), "info");
        assert_eq!(filter(CONFIG, Some(String::new())).unwrap().to_string(), "info");
        let both = filter(CONFIG, Some("warn,slowpath=debug".to_owned())).unwrap().to_string();
        assert!(both.contains("slowpath=debug") && both.contains("warn"), "{both}");
    }

    #[test]
    fn a_variable_that_cannot_be_understood_is_quoted() {
        let message = filter(CONFIG, Some("slowpath=loud".to_owned())).unwrap_err().to_string();
        assert!(message.starts_with("RUST_LOG is `slowpath=loud`"), "{message}");
    }
}
