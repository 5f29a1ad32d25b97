//! A constructor for each command that has a typed answer, or that a program needs.

use std::fmt;

use super::command::{Command, CommandError, Verb};

/// From that many bytes on, a VCL is sent as a here document.
const HERE_DOCUMENT_FROM: usize = 1_024;

/// Whether a VCL is kept ready for use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum VclState {
    /// As varnishd sees fit: warm when it is used, cold after a while without.
    #[default]
    Auto,
    /// Always ready.
    Warm,
    /// Not ready: its probes do not run and it takes little memory.
    Cold,
}

impl VclState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// What is to decide on the health of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetHealth {
    /// Its probe; without one it is healthy.
    Auto,
    /// It is healthy, whatever its probe says.
    Healthy,
    /// It is sick: nothing is fetched from it.
    Sick,
}

impl SetHealth {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Healthy => "healthy",
            Self::Sick => "sick",
        }
    }
}

impl fmt::Display for SetHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for VclState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Each of these takes what it needs and no more. Where an argument is a name or pattern from
/// outside, the error is [`CommandError`], for what would not arrive as it is; nothing is sent
/// then.
impl Command {
    /// `ban.list -j`: the bans in force, newest first, with the server's time.
    #[must_use]
    pub fn ban_list_json() -> Self {
        Self::with_json(Verb::BAN_LIST)
    }

    /// `backend.list -j`, with a pattern such as `boot.*`: without one, the active VCL's.
    ///
    /// # Errors
    /// [`CommandError`] for a pattern that the cache process would not get as it is.
    pub fn backend_list_json(pattern: Option<&str>) -> Result<Self, CommandError> {
        Self::handed_on("backend.list", ["-j"].into_iter().chain(pattern))
    }

    /// `backend.list`, for varnishd 6.0, which has no `-j` there.
    ///
    /// # Errors
    /// [`CommandError`] for a pattern that the cache process would not get as it is.
    pub fn backend_list(pattern: Option<&str>) -> Result<Self, CommandError> {
        Self::handed_on("backend.list", pattern)
    }

    /// `backend.set_health`, for all backends that `pattern` fits.
    ///
    /// # Errors
    /// [`CommandError`] for a pattern that the cache process would not get as it is.
    pub fn backend_set_health(pattern: &str, health: SetHealth) -> Result<Self, CommandError> {
        Self::handed_on("backend.set_health", [pattern, health.as_str()])
    }

    /// `param.show -j`: every parameter.
    #[must_use]
    pub fn param_show_json() -> Self {
        Self::with_json(Verb::PARAM_SHOW)
    }

    /// `param.show -j NAME`; `changed` in place of a name shows those that were set.
    ///
    /// # Errors
    /// [`CommandError`] for a name with a zero byte.
    pub fn param_show_one_json(name: &str) -> Result<Self, CommandError> {
        Self::new("param.show", ["-j", name])
    }

    /// `param.set NAME VALUE`.
    ///
    /// # Errors
    /// [`CommandError`] for a zero byte.
    pub fn param_set(name: &str, value: &str) -> Result<Self, CommandError> {
        Self::new("param.set", [name, value])
    }

    /// `param.reset NAME`: back to the default.
    ///
    /// # Errors
    /// [`CommandError`] for a zero byte.
    pub fn param_reset(name: &str) -> Result<Self, CommandError> {
        Self::new("param.reset", [name])
    }

    /// `panic.show`: the last panic; status 300 when there is none.
    #[must_use]
    pub fn panic_show() -> Self {
        Self::named(Verb::PANIC_SHOW)
    }

    /// `panic.clear`: forgets the last panic; status 300 when there is none.
    #[must_use]
    pub fn panic_clear() -> Self {
        Self::named(Verb::PANIC_CLEAR)
    }

    /// `vcl.list -j`.
    #[must_use]
    pub fn vcl_list_json() -> Self {
        Self::with_json(Verb::VCL_LIST)
    }

    /// `vcl.load NAME FILE STATE`: the file is read by varnishd, on its machine.
    ///
    /// # Errors
    /// [`CommandError`] for a zero byte.
    pub fn vcl_load(name: &str, file: &[u8], state: VclState) -> Result<Self, CommandError> {
        Self::new("vcl.load", [name.as_bytes(), file, state.as_str().as_bytes()])
    }

    /// `vcl.inline NAME TEXT STATE`.
    ///
    /// A long text goes as a here document ([`Command::with_text`]), which is half the size, and
    /// legible in varnishd's log; it has to be the last argument, so one that is to be warm or
    /// cold from the start has its text escaped, whatever its length.
    ///
    /// # Errors
    /// [`CommandError`] for a zero byte.
    pub fn vcl_inline(name: &str, vcl: &[u8], state: VclState) -> Result<Self, CommandError> {
        if state == VclState::Auto && vcl.len() >= HERE_DOCUMENT_FROM {
            return Self::with_text("vcl.inline", [name], vcl);
        }
        Self::new("vcl.inline", [name.as_bytes(), vcl, state.as_str().as_bytes()])
    }

    /// `vcl.use NAME`, of a VCL or label.
    ///
    /// # Errors
    /// [`CommandError`] for a zero byte.
    pub fn vcl_use(name: &str) -> Result<Self, CommandError> {
        Self::new("vcl.use", [name])
    }

    /// `vcl.discard NAME`; from 6.6 on a pattern too.
    ///
    /// # Errors
    /// [`CommandError`] for a zero byte.
    pub fn vcl_discard(name: &str) -> Result<Self, CommandError> {
        Self::new("vcl.discard", [name])
    }

    /// `vcl.label LABEL NAME`.
    ///
    /// # Errors
    /// [`CommandError`] for a zero byte.
    pub fn vcl_label(label: &str, name: &str) -> Result<Self, CommandError> {
        Self::new("vcl.label", [label, name])
    }

    /// `vcl.state NAME STATE`.
    ///
    /// # Errors
    /// [`CommandError`] for a zero byte.
    pub fn vcl_state(name: &str, state: VclState) -> Result<Self, CommandError> {
        Self::new("vcl.state", [name, state.as_str()])
    }

    /// `vcl.show NAME`: its text.
    ///
    /// # Errors
    /// [`CommandError`] for a name that the cache process would not get as it is.
    pub fn vcl_show(name: &str) -> Result<Self, CommandError> {
        Self::handed_on("vcl.show", [name])
    }

    /// `storage.list -j`.
    #[must_use]
    pub fn storage_list_json() -> Self {
        Self::with_json(Verb::STORAGE_LIST)
    }

    /// `start`: starts the cache process; status 300 when it is running.
    #[must_use]
    pub fn start() -> Self {
        Self::named(Verb::START)
    }

    /// `stop`: stops the cache process, and with it the cache is gone; status 300 when it is not
    /// running. From 8.0 on it waits for requests under way, without a limit.
    #[must_use]
    pub fn stop() -> Self {
        Self::named(Verb::STOP)
    }

    /// `help -j`: the commands that there are.
    #[must_use]
    pub fn help_json() -> Self {
        Self::with_json(Verb::HELP)
    }
}
