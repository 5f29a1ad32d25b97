//! `/`: a page for people, with what is wrong at the top. No script, and nothing from elsewhere.

mod escaped;
mod events;
mod nodes;
mod pointers;
mod targets;

use std::fmt::{self, Write};
use std::time::Duration;

use self::escaped::Escaped;
use super::events::SubscriptionState;
use super::metrics::Health;
use crate::engine::{NodeSnapshot, Snapshot};
use crate::model::{Timestamp, format_duration};
use crate::verdict::State;

/// More rows than this are for programs: the API has them all.
const ROWS: usize = 500;

pub(super) const STYLE: &str = "\
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 1.5rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; }
td { overflow-wrap: break-word; }
.table { overflow-x: auto; }
.name, .time { white-space: nowrap; }
.more td { border-top: 0; padding: 0 .6rem .5rem 1.6rem; overflow-wrap: anywhere; }
.more ul { margin: .1rem 0; padding-left: 1.2rem; }
tr:has(+ .more) td, .more:has(+ .more) td { border-bottom: 0; }
.state { font-weight: 600; }
td.state { white-space: nowrap; }
.stale, .down, .broken, .split, .unreadable { color: #c62828; }
.lagging, .unverifiable, .cache_down, .origin_down { color: #b26a00; }
.fresh, .up, .good { color: #2e7d32; }
.unknown { color: #777; }
.note { color: #777; }
";

/// The order of the rows: what needs a person first.
const fn urgency(state: State) -> u8 {
    match state {
        State::Stale => 0,
        State::CacheDown => 1,
        State::OriginDown => 2,
        State::Lagging => 3,
        State::Unverifiable => 4,
        State::Unknown => 5,
        State::Fresh => 6,
    }
}

/// Writes the page. `offset` is how far the wall clock is ahead of the snapshot's.
pub(super) fn render(
    snapshot: &Snapshot,
    health: Health,
    subscriptions: &[SubscriptionState],
    offset: i64,
) -> String {
    let mut page = String::with_capacity(16 * 1024);
    // Writing to a string cannot fail.
    let _ = write_page(&mut page, snapshot, health, subscriptions, offset);
    page
}

fn write_page(
    page: &mut String,
    snapshot: &Snapshot,
    health: Health,
    subscriptions: &[SubscriptionState],
    offset: i64,
) -> fmt::Result {
    let taken = snapshot.taken.shifted(offset);
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"refresh\" content=\"15\">\n\
         <title>{}purgewatch</title>\n<link rel=\"stylesheet\" href=\"/style.css\">\n\
         <h1>purgewatch</h1>\n",
        Alarm(snapshot)
    )?;
    write_summary(page, snapshot, health, subscriptions)?;
    nodes::write(page, snapshot, offset)?;
    events::write(page, subscriptions, snapshot.taken)?;
    pointers::write(page, snapshot)?;
    targets::write(page, snapshot)?;
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        page,
        "<p class=\"note\">as of {} · purgewatch {version} · <a href=\"/metrics\">metrics</a> · \
         <a href=\"/api/v1/status\">status as JSON</a></p>\n</html>",
        WallClock(taken)
    )
}

/// What a tab among others has to show: how many things are wrong.
struct Alarm<'s>(&'s Snapshot);

impl fmt::Display for Alarm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stale = self.0.targets.iter().filter(|target| target.state == State::Stale).count();
        let is_blocked = |node: &&NodeSnapshot| {
            node.admin.as_ref().is_some_and(|admin| admin.up == Some(false))
                || node.canary.as_ref().is_some_and(|canary| canary.up == Some(false))
        };
        let blocked = self.0.nodes.iter().filter(is_blocked).count();
        let broken = self.0.pointers.iter().filter(|pointer| pointer.state.is_alarm()).count();
        match stale + blocked + broken {
            0 => Ok(()),
            wrong => write!(f, "({wrong}) "),
        }
    }
}

/// `2026-11-24 07:03:11 UTC`
struct WallClock(Timestamp);

impl fmt::Display for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(at) => write!(f, "{} UTC", at.strftime("%F %T")),
            Err(_) => f.write_str("no time that there is"),
        }
    }
}

fn write_summary(
    page: &mut String,
    snapshot: &Snapshot,
    health: Health,
    subscriptions: &[SubscriptionState],
) -> fmt::Result {
    let mut counts: Vec<(State, usize)> = State::ALL
        .into_iter()
        .map(|state| (state, snapshot.targets.iter().filter(|t| t.state == state).count()))
        .filter(|(_, count)| *count > 0)
        .collect();
    counts.sort_by_key(|(state, _)| urgency(*state));
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let endpoints = counted(snapshot.endpoints, "endpoint");
    write!(page, "<p>{endpoints} at {}:", counted(snapshot.nodes.len(), "node"))?;
    for (place, (state, count)) in counts.into_iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let label = state.label();
        write!(page, "{comma} <span class=\"state {label}\">{count} {label}</span>")?;
    }
    page.push('.');
    // All may be fresh while bans do not work: that has to stand beside it.
    let number =
        |is_so: fn(&NodeSnapshot) -> bool| snapshot.nodes.iter().filter(|n| is_so(n)).count();
    let blocked = number(|node| node.admin.as_ref().is_some_and(|a| a.up == Some(false)));
    let failed = number(|node| node.canary.as_ref().is_some_and(|c| c.up == Some(false)));
    let waiting: usize = snapshot.nodes.iter().map(|node| node.pending_bans).sum();
    if blocked > 0 {
        let nodes = counted(blocked, "node");
        write!(page, " <span class=\"state down\">Bans cannot reach {nodes}.</span>")?;
    }
    if failed > 0 {
        let nodes = counted(failed, "node");
        write!(page, " <span class=\"state down\">Bans do not work at {nodes}.</span>")?;
    }
    let unread = subscriptions.iter().filter(|state| state.up == Some(false)).count();
    if unread > 0 {
        let sources = counted(unread, "subscription");
        write!(page, " <span class=\"state down\">No events come from {sources}.</span>")?;
    }
    if waiting > 0 {
        let bans = counted(waiting, "ban");
        write!(page, " <span class=\"state lagging\">Waiting for nodes: {bans}.</span>")?;
    }
    if health.reload_failed {
        page.push_str(
            " <span class=\"state lagging\">The last new configuration was refused.</span>",
        );
    }
    if health.store_failed {
        page.push_str(" <span class=\"state lagging\">The state cannot be stored.</span>");
    }
    page.push_str("</p>\n");
    Ok(())
}

/// `3m 5s ago`, on the snapshot's line of time.
fn ago(taken: Timestamp, at: Timestamp) -> String {
    format!("{} ago", lasting(taken, at))
}

/// `3m 5s`
fn lasting(taken: Timestamp, since: Timestamp) -> String {
    format_duration(whole_seconds(taken.since(since)))
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// A row of its own below another one, for what is too long for a cell.
fn write_more(page: &mut String, columns: usize, what: &str, text: &str) -> fmt::Result {
    if text.is_empty() {
        return Ok(());
    }
    writeln!(page, "<tr class=\"more\"><td colspan=\"{columns}\">{what}{}", Escaped(text))
}
