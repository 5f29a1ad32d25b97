//! Asks the server for what helps typing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::known::{Known, Subject};
use crate::admin::Client;
use crate::protocol::Command;
use crate::protocol::answer::{Answer, BackendList, Help, Parameters, VclList};

/// Nobody who presses a key waits longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for one subject. What cannot be learnt in time stays as it was.
pub(super) async fn learn(client: &Client, known: &Mutex<Known>, subject: Subject) {
    let _ = timeout(PATIENCE, ask(client, known, subject)).await;
}

async fn ask(client: &Client, known: &Mutex<Known>, subject: Subject) {
    let every = Some("*.*");
    let put = || known.lock().unwrap_or_else(PoisonError::into_inner);
    match subject {
        Subject::Commands => {
            let asked = [Some(Command::help_json()), line("help")];
            if let Some(help) = first::<Help>(client, asked).await {
                put().commands = help.commands;
            }
        }
        Subject::Vcls => {
            let asked = [Some(Command::vcl_list_json()), line("vcl.list")];
            if let Some(list) = first::<VclList>(client, asked).await {
                put().vcls = list.vcls;
            }
        }
        Subject::Parameters => {
            let json = first::<Parameters>(client, [Some(Command::param_show_json()), None]).await;
            let list = match json {
                Some(list) if list.complete => Some(list),
                // In JSON they hardly fit into the default `cli_limit`; in text they do.
                _ => first(client, [line("param.show"), None]).await,
            };
            if let Some(list) = list {
                put().parameters = list.parameters;
            }
        }
        Subject::Backends => {
            let asked = [Command::backend_list_json(every).ok(), Command::backend_list(every).ok()];
            if let Some(list) = first::<BackendList>(client, asked).await {
                put().backends = list.backends.into_iter().map(|backend| backend.name).collect();
            }
        }
    }
}

fn line(text: &str) -> Option<Command> {
    Command::parse(text.as_bytes()).ok()
}

/// What the first of the commands says that is answered as it should be. Versions differ in what
/// they have in JSON.
async fn first<A: Answer>(client: &Client, commands: [Option<Command>; 2]) -> Option<A> {
    for command in commands.into_iter().flatten() {
        let reply = client.request(command.clone()).await.ok()?;
        if let Ok(answer) = A::read(&reply, &command) {
            return Some(answer);
        }
    }
    None
}
