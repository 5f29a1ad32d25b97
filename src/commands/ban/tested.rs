//! Proof from inside: waits until no object is left that was not tested against the ban.
//!
//! Each object refers to the newest ban that it was tested against, and `ban.list` counts these
//! references. The objects that were not tested yet are those of all older bans together: bans
//! leave the list from its old end only. A fetch that is under way is not counted: its object will
//! refer to the newest ban without having been tested.
//!
//! Where an older ban on the request is on the list, the ban lurker tests objects without moving
//! their references beyond that one. But it marks a ban that it has tested all of them against as
//! completed.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::super::Exit;
use super::super::fleet::Progress;
use crate::admin::{AdminError, Client, Fault};
use crate::ban::Expression;
use crate::model::format_duration;
use crate::protocol::answer::{BanList, ListedBan};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is waited for, and for how long.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    /// The last ban that was sent: an object that was tested against it was tested against all.
    pub(super) last: Option<&'a Expression>,
    pub(super) within: Duration,
}

/// How it went at one node.
#[derive(Debug)]
pub(super) struct Tested {
    pub(super) end: TestedEnd,
    /// How many objects were not tested yet when it began.
    began_with: Option<u64>,
    took: Duration,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum TestedEnd {
    /// Every object that was in the cache was tested.
    All,
    /// Time was up, and so many were not.
    Left {
        /// How many.
        objects: u64,
        /// Whether the ban looks at requests: then only requests test it.
        by_request: bool,
        /// How long it was waited for.
        within: Duration,
    },
    /// The list was cut, at its old end: nobody knows.
    Cut,
    /// The list could not be had.
    Failed(AdminError),
    /// The cache process is another one: the ban is lost with what it was for.
    Restarted,
}

/// One look at the list.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Left(u64),
    Cut,
}

impl Wait<'_> {
    /// Waits until all is tested. Cancellation safe.
    pub(super) async fn run(&self, client: &Client, progress: &Progress) -> Tested {
        let begin = Instant::now();
        let mut mark = None;
        let mut began_with = None;
        let mut pause = FIRST_PAUSE;
        let by_request = self.last.is_some_and(Expression::is_request_ban);
        let end = loop {
            let list = match client.ban_list().await {
                Ok(list) => list,
                Err(error) => break TestedEnd::Failed(error),
            };
            let mark: &mut Mark = mark.get_or_insert_with(|| self.mark(&list));
            self.follow(mark, &list);
            let Look::Left(objects) = look(&list, mark.time) else { break TestedEnd::Cut };
            began_with = began_with.or(Some(objects));
            if objects == 0 || mark.is_worked_off(&list) {
                break TestedEnd::All;
            }
            progress.note(format!("{}: {objects} objects not tested yet", client.node()));
            if begin.elapsed() + pause > self.within {
                let within = self.within;
                break TestedEnd::Left { objects, by_request, within };
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        progress.note(String::new());
        Tested { end, began_with, took: begin.elapsed() }
    }

    /// The ban's entry, on a list read after it was taken: the newest one that says the same. When
    /// there is none, since varnishd prints some bans otherwise than they were written, the newest
    /// of all, which is no older.
    fn mark(&self, list: &BanList) -> Mark {
        let own = self.newest(list);
        let time = own.or(list.bans.first()).map_or(Duration::ZERO, |ban| ban.time);
        Mark { time, is_own: own.is_some() }
    }

    /// Goes over to an equal ban that came later: it completes ours at once, before any object was
    /// tested (the parameter `ban_dups`), and stands for it.
    fn follow(&self, mark: &mut Mark, list: &BanList) {
        if let Some(newest) = self.newest(list).filter(|_| mark.is_own) {
            mark.time = mark.time.max(newest.time);
        }
    }

    fn newest<'l>(&self, list: &'l BanList) -> Option<&'l ListedBan> {
        let spec = self.last.map(Expression::to_bytes)?;
        list.bans.iter().find(|ban| ban.spec == spec)
    }
}

/// The entry that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    time: Duration,
    /// Whether it is certainly that of the ban.
    is_own: bool,
}

impl Mark {
    /// Whether the ban lurker is through with it.
    fn is_worked_off(self, list: &BanList) -> bool {
        self.is_own && list.bans.iter().any(|ban| ban.time == self.time && ban.completed)
    }
}

fn look(list: &BanList, mark: Duration) -> Look {
    list.untested_since(mark).map_or(Look::Cut, Look::Left)
}

impl Tested {
    /// What is known when the wait was dropped at the limit of the whole.
    pub(super) fn cut_short(within: Duration) -> Self {
        let end = TestedEnd::Left { objects: 0, by_request: false, within };
        Self { end, began_with: None, took: within }
    }

    pub(super) fn exit(&self) -> Exit {
        match &self.end {
            TestedEnd::All => Exit::Done,
            TestedEnd::Left { .. } | TestedEnd::Cut => Exit::Unreachable,
            TestedEnd::Failed(error) if error.fault() == Fault::ChildNotRunning => Exit::CacheDown,
            TestedEnd::Failed(_) => Exit::Unreachable,
            TestedEnd::Restarted => Exit::CacheDown,
        }
    }

    pub(super) fn item(&self) -> TestedItem {
        TestedItem {
            result: match &self.end {
                TestedEnd::All => "tested",
                TestedEnd::Left { .. } => "untested",
                TestedEnd::Cut => "cut",
                TestedEnd::Failed(_) => "failed",
                TestedEnd::Restarted => "restarted",
            },
            left: match &self.end {
                TestedEnd::All => Some(0),
                TestedEnd::Left { objects, .. } => Some(*objects),
                TestedEnd::Cut | TestedEnd::Failed(_) | TestedEnd::Restarted => None,
            },
            began_with: self.began_with,
            seconds: self.took.as_secs_f64(),
            message: self.to_string(),
        }
    }
}

/// The same as a program reads it.
#[derive(Debug, Serialize)]
pub(super) struct TestedItem {
    result: &'static str,
    /// How many objects were not tested at the end.
    left: Option<u64>,
    /// How many were not when it began.
    began_with: Option<u64>,
    seconds: f64,
    message: String,
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            TestedEnd::All => {
                f.write_str("every object that was in the cache has been tested against the ban")
            }
            TestedEnd::Left { objects, by_request, within } => {
                let within = format_duration(*within);
                if self.began_with.is_none() {
                    return write!(f, "time was up before the list of bans was read to the end");
                }
                let were = if *objects == 1 { "object was" } else { "objects were" };
                write!(f, "{objects} {were} not tested within {within}")?;
                f.write_str(if *by_request {
                    ": a ban on the request is tested only by requests for each object; none of \
                     them is served untested"
                } else {
                    ": the ban lurker begins with a ban when it is ban_lurker_age old, 60 s unless \
                     changed (--within 2m); none of them is served untested"
                })
            }
            TestedEnd::Cut => f.write_str(
                "the list of bans is longer than cli_limit and was cut, at the end that counts: \
                 raise it with `purgewatch adm param.set cli_limit 4m`",
            ),
            TestedEnd::Failed(error) => write!(f, "the list of bans cannot be read: {error}"),
            TestedEnd::Restarted => f.write_str(
                "the cache process ended meanwhile: its whole cache is lost, and the ban too",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(bans: &[(u64, u64, &str)]) -> BanList {
        let ban = |&(time, references, spec): &(u64, u64, &str)| ListedBan {
            time: Duration::from_secs(time),
            references,
            completed: spec.is_empty(),
            spec: spec.into(),
        };
        BanList { bans: bans.iter().map(ban).collect(), complete: true }
    }

    fn mark(ban: &str, list: &BanList) -> u64 {
        let ban = crate::ban::parse(ban.as_bytes()).unwrap();
        Wait { last: Some(&ban), within: Duration::ZERO }.mark(list).time.as_secs()
    }

    #[test]
    fn a_ban_that_was_worked_off_is_done_and_one_that_a_later_one_stands_for_is_not() {
        let ban = crate::ban::parse(b"obj.status == 1").unwrap();
        let wait = Wait { last: Some(&ban), within: Duration::ZERO };
        let seen = list(&[(9, 0, "obj.status == 1"), (8, 2, "req.url == /a")]);
        let mut mark = wait.mark(&seen);
        assert!(!mark.is_worked_off(&seen));
        let worked_off = list(&[(9, 0, ""), (8, 2, "req.url == /a")]);
        wait.follow(&mut mark, &worked_off);
        assert!(mark.is_worked_off(&worked_off));
        let again = list(&[(11, 0, "obj.status == 1"), (9, 0, ""), (8, 2, "req.url == /a")]);
        wait.follow(&mut mark, &again);
        assert!(!mark.is_worked_off(&again));
        // Of an entry that may be somebody else's nothing follows.
        let ban = crate::ban::parse(b"obj.ttl > 7d").unwrap();
        let wait = Wait { last: Some(&ban), within: Duration::ZERO };
        assert!(!wait.mark(&worked_off).is_worked_off(&worked_off));
    }

    #[test]
    fn the_bans_own_entry_is_its_mark_and_else_the_newest() {
        let bans =
            list(&[(9, 0, "obj.status == 1"), (8, 2, "req.url == /a"), (7, 3, "req.url == /a")]);
        assert_eq!(mark("req.url == /a", &bans), 8);
        assert_eq!(mark("obj.ttl > 7d", &bans), 9);
    }

    #[test]
    fn what_refers_to_older_bans_is_not_tested() {
        let bans = list(&[(9, 1, "x"), (8, 2, "y"), (7, 3, ""), (6, 4, "")]);
        assert_eq!(look(&bans, Duration::from_secs(8)), Look::Left(7));
        assert_eq!(look(&bans, Duration::from_secs(6)), Look::Left(0));
        let cut = BanList { complete: false, ..bans };
        assert_eq!(look(&cut, Duration::from_secs(8)), Look::Cut);
    }
}
