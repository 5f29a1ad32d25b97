//! `wait --pointer`: until a pointer names a version, and all of that version is there.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{Arguments, SHORTEST_PAUSE};
use crate::clock::{Clock, random_seed};
use crate::commands::Exit;
use crate::commands::check::{Detail, pointer_exit, show};
use crate::commands::output::{Format, Output, Untrusted, complain};
use crate::commands::subject::Subject;
use crate::daemon::{Driver, Peers, plan};
use crate::engine::{Engine, PointerSnapshot, PointerState, Restored, Snapshot};
use crate::model::{PointerValue, format_duration};
use crate::systemd::Credentials;
use crate::verdict::ProbeResult;

pub(super) fn run(arguments: &Arguments, name: &str) -> Exit {
    let text = arguments.value.as_deref().unwrap_or_default();
    let wanted = match PointerValue::new(text) {
        Ok(value) => value,
        Err(fault) => {
            complain(format_args!("--value {}: {fault}", Untrusted(text)));
            return Exit::Usage;
        }
    };
    let subject = match Subject::of_pointer(&arguments.subjects, name) {
        Ok(subject) => subject,
        Err(exit) => return exit,
    };
    let waited = super::block_on(wait(&subject, arguments, &wanted));
    let (snapshot, took) = match waited {
        Ok(waited) => waited,
        Err(exit) => return exit,
    };
    let Some(pointer) = snapshot.pointers.first() else { return Exit::Unreachable };
    let no_cache = no_cache(&snapshot);
    let is_there = is_there(pointer, &wanted) && !no_cache;
    let mut output = Output::stdout();
    show(&mut output, arguments.output, &subject, &snapshot, Detail::Findings(&[]));
    if is_there && arguments.output == Format::Human {
        output.line(format_args!("{name} leads to {wanted} everywhere after {took}"));
    }
    if no_cache {
        complain("a node is no cache: that it agrees with the origin proves nothing");
    } else if !is_there {
        match &pointer.value {
            Some(value) if *value != wanted => complain(format_args!(
                "the pointer {name} still names {value} and not {wanted} after {took}"
            )),
            _ => complain(format_args!("{wanted} was not there everywhere within {took}")),
        }
    }
    output.finish(match (is_there, no_cache) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Unreachable,
        (false, false) => pointer_exit(pointer, Some(&wanted)),
    })
}

async fn wait(
    subject: &Subject,
    arguments: &Arguments,
    wanted: &PointerValue,
) -> Result<(Snapshot, String), Exit> {
    let clock = Clock::start();
    let peers =
        Peers::new(&subject.config, &Peers::default(), &Credentials::from_environment(), clock)
            .map_err(|error| {
                complain(&error);
                Exit::Secret
            })?;
    let mut plan = plan(&subject.config);
    plan.explain = false;
    for pointer in &mut plan.pointers {
        pointer.interval = arguments.every.max(SHORTEST_PAUSE);
    }
    let start = clock.now();
    let engine = Engine::new(plan, Restored::default(), &[], random_seed(), start);
    let mut driver = Driver::new(engine, Arc::new(peers), clock, None);
    let deadline = Instant::from_std(clock.instant_of(start + arguments.within));
    loop {
        let is_over = timeout_at(deadline, driver.next()).await.is_err();
        let snapshot = driver.snapshot();
        let is_there = snapshot.pointers.iter().all(|pointer| is_there(pointer, wanted));
        // A server that is no cache will not become one.
        if is_there || is_over || no_cache(&snapshot) {
            let took = clock.now().since(start).as_millis();
            let took = std::time::Duration::from_millis(u64::try_from(took).unwrap_or(u64::MAX));
            return Ok((snapshot, format_duration(took)));
        }
    }
}

fn is_there(pointer: &PointerSnapshot, wanted: &PointerValue) -> bool {
    pointer.state == PointerState::Good && pointer.value.as_ref() == Some(wanted)
}

/// Whether a node's answer shows no sign of Varnish.
fn no_cache(snapshot: &Snapshot) -> bool {
    snapshot.targets.iter().any(|target| target.probes_with(ProbeResult::NotACache) > 0)
}
