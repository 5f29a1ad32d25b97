//! Commands whose replies are read as types.

use super::{AdminError, Client, Kind, Stage};
use crate::protocol::answer::{
    Answer, AnswerError, BackendList, BanList, ChildState, Help, Panic, Parameter, Parameters,
    Pids, Pong, Storages, VclList,
};
use crate::protocol::{Command, CommandError, Excerpt, SetHealth, Status, VclState, Verb};

/// Questions. Each is one command, asked in JSON where that tells more than text does.
///
/// All of them are cancellation safe, and wait for the reply for [`Options::reply`] or as long as
/// [`Client::patient`] says. An argument that cannot be sent is [`Kind::Unsendable`]; whatever is
/// varnishd's own refusal is [`Kind::Rejected`], with all that it said in [`AdminError::words`].
/// A list that was cut at `cli_limit` says so in its field `complete`; raise that parameter to get
/// it whole, `client.set_param("cli_limit", "4m")`, and mind [`Options::body_limit`]. The
/// parameter is the same for everybody who talks to that varnishd.
///
/// [`Options::reply`]: super::Options::reply
/// [`Options::body_limit`]: super::Options::body_limit
impl Client {
    /// Sends one command that has to succeed, and reads its reply as an `A`.
    ///
    /// # Errors
    /// [`AdminError`] as of [`Client::run`]; [`Kind::ForeignReply`] for a reply that repeats
    /// another command, [`Kind::Unreadable`] for one that says nothing of what was asked.
    pub async fn ask<A: Answer>(&self, command: Command) -> Result<A, AdminError> {
        let stage = Stage::Command(command.verb().clone());
        let reply = self.run(command.clone()).await?;
        A::read(&reply, &command).map_err(|error| {
            let kind = match error {
                AnswerError::Foreign { .. } => {
                    Kind::ForeignReply { status: reply.status, body: reply.body }
                }
                error => Kind::Unreadable(error),
            };
            self.error(stage, kind)
        })
    }

    /// The server's time; the manager answers, also without a cache process.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn time(&self) -> Result<Pong, AdminError> {
        self.ask(Command::ping()).await
    }

    /// The state of the cache process. Right after it died it still is
    /// [`Running`](ChildState::Running), until the manager notices.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn child_state(&self) -> Result<ChildState, AdminError> {
        self.ask(Command::status()).await
    }

    /// The process ids of manager and cache process. When the latter changed, the cache was lost,
    /// and its bans with it.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn pids(&self) -> Result<Pids, AdminError> {
        self.ask(Command::pid()).await
    }

    /// The bans in force, newest first. A list with an expression that varnishd cannot put in JSON
    /// (a quotation mark in a header's name) is asked for again as text.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::ChildNotRunning`] when there is no cache process.
    pub async fn ban_list(&self) -> Result<BanList, AdminError> {
        match self.ask(Command::ban_list_json()).await {
            Err(AdminError { kind: Kind::Unreadable(AnswerError::Malformed { .. }), .. }) => {
                self.ask(Command::ban_list()).await
            }
            result => result,
        }
    }

    /// The backends and their health: those of the active VCL, or those that `pattern` fits, such
    /// as `*.*` for all. varnishd 6.0, which has no JSON for it, is asked for text.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::ChildNotRunning`] when there is no cache process.
    pub async fn backends(&self, pattern: Option<&str>) -> Result<BackendList, AdminError> {
        let json = self.sendable("backend.list", Command::backend_list_json(pattern))?;
        match self.ask(json).await {
            Err(AdminError {
                kind: Kind::Rejected { status: Status::UNIMPLEMENTED, .. }, ..
            }) => {
                let text = self.sendable("backend.list", Command::backend_list(pattern))?;
                self.ask(text).await
            }
            result => result,
        }
    }

    /// Sets what decides on the health of the backends that `pattern` fits.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] when no backend fits.
    pub async fn set_health(&self, pattern: &str, health: SetHealth) -> Result<(), AdminError> {
        let verb = "backend.set_health";
        self.tell(verb, Command::backend_set_health(pattern, health)).await.map(drop)
    }

    /// One parameter.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] for a name that varnishd does not know.
    pub async fn param(&self, name: &str) -> Result<Parameter, AdminError> {
        let command = self.sendable("param.show", Command::param_show_one_json(name))?;
        let Parameters { mut parameters, .. } = self.ask(command).await?;
        let found = parameters.iter().position(|parameter| parameter.name == name);
        found.map(|at| parameters.swap_remove(at)).ok_or_else(|| {
            let missing = AnswerError::Cut { expected: "the parameter" };
            self.error(Stage::Command(Verb::PARAM_SHOW), Kind::Unreadable(missing))
        })
    }

    /// All parameters. They nearly fill the default `cli_limit` of 48 KiB: see to `complete`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn params(&self) -> Result<Parameters, AdminError> {
        self.ask(Command::param_show_json()).await
    }

    /// Sets a parameter, such as `cli_limit` to `1m`. Returns what varnishd says to it: as a rule
    /// nothing, otherwise when the new value begins to count.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] for a value or a name that varnishd does not take.
    pub async fn set_param(&self, name: &str, value: &str) -> Result<String, AdminError> {
        self.tell("param.set", Command::param_set(name, value)).await
    }

    /// Sets a parameter to its default. Returns what varnishd says to it, as a rule nothing.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] for a name that varnishd does not know.
    pub async fn reset_param(&self, name: &str) -> Result<String, AdminError> {
        self.tell("param.reset", Command::param_reset(name)).await
    }

    /// The last panic of the cache process; `None` when there was none, or it was cleared.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn panic(&self) -> Result<Option<Panic>, AdminError> {
        match self.ask(Command::panic_show()).await {
            Err(error) if is_cannot(&error) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Forgets the last panic; whether there was one.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn clear_panic(&self) -> Result<bool, AdminError> {
        match self.run(Command::panic_clear()).await {
            Err(error) if is_cannot(&error) => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// The VCLs and labels.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn vcls(&self) -> Result<VclList, AdminError> {
        self.ask(Command::vcl_list_json()).await
    }

    /// Compiles the VCL in `file`, a path on varnishd's machine, and names it `name`. Returns what
    /// the compiler says although it is content, as a rule nothing.
    ///
    /// Compiling takes a second and up, and holds up every other command to that varnishd: give it
    /// time with [`Client::patient`]. One that timed out may be loaded all the same.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] with the compiler's messages in [`AdminError::words`].
    pub async fn load_vcl(
        &self,
        name: &str,
        file: &[u8],
        state: VclState,
    ) -> Result<String, AdminError> {
        self.tell("vcl.load", Command::vcl_load(name, file, state)).await
    }

    /// Compiles `vcl` and names it `name`; otherwise as [`Client::load_vcl`].
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] with the compiler's messages in [`AdminError::words`].
    pub async fn inline_vcl(
        &self,
        name: &str,
        vcl: &[u8],
        state: VclState,
    ) -> Result<String, AdminError> {
        self.tell("vcl.inline", Command::vcl_inline(name, vcl, state)).await
    }

    /// Makes the VCL or label `name` the active one: new requests begin in it.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] for a name that there is not.
    pub async fn use_vcl(&self, name: &str) -> Result<(), AdminError> {
        self.tell("vcl.use", Command::vcl_use(name)).await.map(drop)
    }

    /// Discards the VCL or label `name`. It goes once nothing uses it any more.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] for the active one, one with labels, and a name that
    /// there is not.
    pub async fn discard_vcl(&self, name: &str) -> Result<(), AdminError> {
        self.tell("vcl.discard", Command::vcl_discard(name)).await.map(drop)
    }

    /// Makes `label` stand for the VCL `name`, whether or not it stood for another before.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] for a name that there is not.
    pub async fn label_vcl(&self, label: &str, name: &str) -> Result<(), AdminError> {
        self.tell("vcl.label", Command::vcl_label(label, name)).await.map(drop)
    }

    /// Says whether the VCL `name` is to be kept ready.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] for the active one, which cannot be cold.
    pub async fn set_vcl_state(&self, name: &str, state: VclState) -> Result<(), AdminError> {
        self.tell("vcl.state", Command::vcl_state(name, state)).await.map(drop)
    }

    /// The storages.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn storages(&self) -> Result<Storages, AdminError> {
        self.ask(Command::storage_list_json()).await
    }

    /// Starts the cache process, and returns when it runs; whether it was not running before.
    ///
    /// # Errors
    /// [`AdminError`]; [`Kind::Rejected`] when it does not start.
    pub async fn start_child(&self) -> Result<bool, AdminError> {
        self.bring_to(Command::start(), &ChildState::Running).await
    }

    /// Stops the cache process: the cache is gone then. Whether it was running before. From
    /// varnishd 8.0 on it waits for the requests under way, however long they take.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn stop_child(&self) -> Result<bool, AdminError> {
        self.bring_to(Command::stop(), &ChildState::Stopped).await
    }

    /// The commands that this varnishd has. Without a cache process its own are missing.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn help(&self) -> Result<Help, AdminError> {
        self.ask(Command::help_json()).await
    }

    /// `false` when varnishd refuses because the cache process is as wanted already.
    async fn bring_to(&self, command: Command, state: &ChildState) -> Result<bool, AdminError> {
        match self.run(command).await {
            Err(error) if is_cannot(&error) && self.child_state().await? == *state => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// Sends what has to succeed; what varnishd says to it, safe for a terminal.
    async fn tell(
        &self,
        verb: &str,
        command: Result<Command, CommandError>,
    ) -> Result<String, AdminError> {
        let reply = self.run(self.sendable(verb, command)?).await?;
        Ok(Excerpt::new(&reply.body, usize::MAX).lines().to_string())
    }

    fn sendable(
        &self,
        verb: &str,
        command: Result<Command, CommandError>,
    ) -> Result<Command, AdminError> {
        command.map_err(|error| {
            let verb = Verb::new(verb).unwrap_or(Verb::UNREADABLE);
            self.error(Stage::Command(verb), Kind::Unsendable(error))
        })
    }
}

/// Status 300: not as things stand.
fn is_cannot(error: &AdminError) -> bool {
    matches!(error.kind, Kind::Rejected { status: Status::CANNOT, .. })
}
