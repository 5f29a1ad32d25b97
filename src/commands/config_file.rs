//! `-c FILE`: the configuration that a command works on.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Exit;
use super::output::{complain, complain_verbatim, stderr_takes_colour};
use crate::config::{LoadError, Loaded, Report, load};

/// Where the configuration is when none is named.
const DEFAULT: &str = "/etc/purgewatch/purgewatch.toml";

/// The argument `-c`, for every command that works on a configuration.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration [default: /etc/purgewatch/purgewatch.toml]
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "PURGEWATCH_CONFIG")]
    named: Option<PathBuf>,
}

impl ConfigFile {
    /// The file that was named, on the command line or in the environment.
    #[must_use]
    pub fn named(&self) -> Option<&Path> {
        self.named.as_deref()
    }

    /// The file that was named, or else the usual one if it is there.
    #[must_use]
    pub fn named_or_present(&self) -> Option<&Path> {
        self.named().or_else(|| Some(Path::new(DEFAULT)).filter(|path| path.exists()))
    }

    /// The file that was named, or else the usual one.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.named().unwrap_or(Path::new(DEFAULT))
    }

    /// Loads it. Faults and warnings are shown on stderr.
    ///
    /// # Errors
    /// [`Exit::Usage`], when it has faults or cannot be read.
    pub fn load(&self) -> Result<Loaded, Exit> {
        match load(self.path()) {
            Ok(loaded) => {
                show(&loaded.warnings);
                Ok(loaded)
            }
            Err(fault) => {
                self.complain_of(&fault);
                Err(Exit::Usage)
            }
        }
    }

    /// Shows on stderr why it cannot be used.
    pub(super) fn complain_of(&self, fault: &LoadError) {
        match fault {
            LoadError::Faulty(report) => {
                show(report);
                let (errors, warnings) = report.counts();
                let warnings = match warnings {
                    0 => String::new(),
                    warnings => format!(", {}", counted(warnings, "warning")),
                };
                complain(format_args!("{}: {}{warnings}", report.file(), counted(errors, "error")));
            }
            fault @ (LoadError::Unreadable { .. } | LoadError::TooLarge { .. }) => {
                complain(fault);
                if self.named.is_none() {
                    complain(
                        "name a configuration with -c; `purgewatch config example` prints one",
                    );
                }
            }
        }
    }
}

fn show(report: &Report) {
    complain_verbatim(report.render(stderr_takes_colour()));
}

/// Says a number with its noun: `1 node`, `2 nodes`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
