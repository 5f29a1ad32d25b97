//! The same work on many nodes: many at a time, each by itself, results in a stable order.
//!
//! A node that is slow or dead holds one place and nothing else: the others are served meanwhile,
//! and there are as many places as the process may open files for. What is told of the nodes
//! comes in their own order, each as soon as it and all before it are done, whatever order they
//! were done in. Whoever reads that slowly holds up no node either.

mod progress;

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::output::Output;

pub(super) use progress::Progress;

/// No more nodes are served at a time, however many files may be open: each costs some 20 KiB of
/// memory, and a burst of connections fills the tables of the firewalls on the way.
const MOST_AT_A_TIME: usize = 1_024;

/// So many files are open besides those of the nodes, at most.
const OTHER_FILES: u64 = 16;

/// So many files a node needs at most at one time: its connection, or the sockets of a name lookup
/// before it, one for each of two name servers.
const FILES_OF_A_NODE: u64 = 2;

/// What is done on one node.
pub(super) trait Work {
    /// What is known of the node afterwards.
    type Report;

    /// Does it. Dropped where it stands when time is up.
    fn run(&mut self) -> impl Future<Output = ()>;

    /// What came of it, once: called after [`run`](Self::run) ended, or was ended by `end`. Gives
    /// up what the work holds open.
    fn report(&mut self, end: Option<End>) -> Self::Report;
}

/// What ended everything before its time.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The limit on the whole was reached.
    Limit(Duration),
    /// Somebody pressed Ctrl-C, the terminal is gone, or the process was asked to end.
    Interrupt,
}

/// How it went on all nodes.
#[derive(Debug)]
pub(super) struct Outcome<R> {
    /// One for each node, in the order of the nodes.
    pub(super) reports: Vec<R>,
    /// Whether Ctrl-C, SIGTERM or SIGHUP ended it.
    pub(super) interrupted: bool,
}

/// Does the work of every node within `limit`. `on_done` is told each report in the order of the
/// nodes, as early as that order allows, and every one of them also when the limit or a signal
/// ends the rest.
///
/// # Errors
/// When the runtime or the signal handler cannot be set up. Nothing was begun then.
pub(super) fn on_each<W: Work>(
    works: Vec<W>,
    limit: Duration,
    progress: &Progress,
    on_done: impl FnMut(&W::Report),
) -> io::Result<Outcome<W::Report>> {
    let at_a_time = at_a_time(works.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let interrupts = Interrupts::listen()?;
        let ended = run(works, at_a_time, limit, progress, interrupts, on_done).await;
        io::Result::Ok(ended)
    });
    // A name lookup that was given up may hang on in its thread: nobody waits for it.
    runtime.shutdown_background();
    outcome
}

async fn run<W: Work>(
    mut works: Vec<W>,
    at_a_time: usize,
    limit: Duration,
    progress: &Progress,
    mut interrupts: Interrupts,
    on_done: impl FnMut(&W::Report),
) -> Outcome<W::Report> {
    let start = Instant::now();
    let mut reports = InOrder::new(works.len(), on_done);
    let mut time_is_up = pin!(sleep(limit));
    let mut ticks = interval_at(start + progress.period(), progress.period());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = {
        let running = stream::iter(works.iter_mut().enumerate()).map(|(at, work)| async move {
            work.run().await;
            (at, work.report(None))
        });
        let mut running = pin!(running.buffer_unordered(at_a_time));
        loop {
            tokio::select! {
                biased;
                done = running.next() => match done {
                    Some((at, report)) => {
                        progress.done(at);
                        reports.settle(at, report);
                    }
                    None => break None,
                },
                () = interrupts.next() => break Some(End::Interrupt),
                () = &mut time_is_up => break Some(End::Limit(limit)),
                _ = ticks.tick(), if progress.is_shown() => progress.show(),
            }
        }
    };
    progress.clear();
    for (at, work) in works.iter_mut().enumerate() {
        if !reports.has(at) {
            reports.settle(at, work.report(end));
        }
    }
    let interrupted = matches!(end, Some(End::Interrupt));
    Outcome { reports: reports.settled.into_iter().flatten().collect(), interrupted }
}

/// Reports that come in any order and are told in that of the nodes.
struct InOrder<R, F> {
    settled: Vec<Option<R>>,
    /// The first one that was not told yet.
    next: usize,
    tell: F,
}

impl<R, F: FnMut(&R)> InOrder<R, F> {
    fn new(nodes: usize, tell: F) -> Self {
        Self { settled: (0..nodes).map(|_| None).collect(), next: 0, tell }
    }

    fn settle(&mut self, at: usize, report: R) {
        if let Some(place) = self.settled.get_mut(at) {
            *place = Some(report);
        }
        while let Some(Some(report)) = self.settled.get(self.next) {
            (self.tell)(report);
            self.next += 1;
        }
    }

    fn has(&self, at: usize) -> bool {
        self.settled.get(at).is_some_and(Option::is_some)
    }
}

/// Runs `work`, and writes each text that it hands over to `output` at once.
///
/// With several nodes a thread of its own writes: a reader that is slow, or a terminal that was
/// stopped with Ctrl-S, makes this function wait at its end, and no node before that.
pub(super) fn while_writing<T>(
    nodes: usize,
    output: &mut Output,
    progress: &Progress,
    work: impl FnOnce(&mut dyn FnMut(String)) -> T,
) -> T {
    let mut write = |text: String| {
        progress.aside(|| {
            output.text(text);
            output.flush();
        });
    };
    if nodes < 2 {
        // What one node has to say comes last: there is nothing to hold up any more.
        return work(&mut write);
    }
    thread::scope(|scope| {
        let (sender, texts) = mpsc::channel();
        scope.spawn(move || texts.into_iter().for_each(write));
        work(&mut |text| {
            // The other end is there until this one is dropped.
            let _ = sender.send(text);
        })
    })
}

/// How many of so many nodes are served at a time: all, as far as files may be opened for them.
/// Asks for more files where that is allowed: the usual soft limit of 1,024 is there for the sake
/// of select(2), which nothing here uses.
fn at_a_time(nodes: usize) -> usize {
    let wanted = nodes.clamp(1, MOST_AT_A_TIME);
    let needed = OTHER_FILES + FILES_OF_A_NODE * wanted as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut files = current.unwrap_or(u64::MAX);
    if files < needed {
        let most = maximum.map_or(needed, |maximum| maximum.min(needed));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).is_ok() {
            files = most;
        }
    }
    let possible = files.saturating_sub(OTHER_FILES) / FILES_OF_A_NODE;
    usize::try_from(possible).unwrap_or(usize::MAX).clamp(1, wanted)
}

/// Ctrl-C, the signal by which CI systems end a job, and the one that comes when a session on
/// another host breaks off.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where whoever started this wants it to go on (nohup(1)).
    hang_up: Option<Signal>,
}

impl Interrupts {
    /// Takes these signals over from now on.
    ///
    /// # Errors
    /// When the handlers cannot be set up.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if is_hang_up_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// One of them came. Cancellation safe.
    pub(super) async fn next(&mut self) {
        let Self { interrupt, terminate, hang_up } = self;
        let hang_up = async {
            match hang_up {
                Some(signal) => signal.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up => {}
        }
    }
}

/// Whether SIGHUP was set to be ignored: in the mask of the ignored signals (proc_pid_status(5)),
/// signal 1 is the lowest bit. Where that cannot be read, it was not.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|m| m & 1 != 0)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::*;
    use crate::model::NodeName;

    /// A node that answers after so many milliseconds, or never.
    struct Node {
        after: Option<u64>,
        at_a_time: Rc<Cell<(usize, usize)>>,
    }

    impl Work for Node {
        type Report = Option<u64>;

        async fn run(&mut self) {
            let (now, most) = self.at_a_time.get();
            self.at_a_time.set((now + 1, most.max(now + 1)));
            match self.after {
                Some(after) => sleep(Duration::from_millis(after)).await,
                None => pending().await,
            }
            let (now, most) = self.at_a_time.get();
            self.at_a_time.set((now - 1, most));
        }

        fn report(&mut self, end: Option<End>) -> Option<u64> {
            assert!(end.is_none() || self.after.is_none_or(|after| after >= 60_000));
            self.after.filter(|_| end.is_none())
        }
    }

    /// Runs nodes for a minute at most; what was told when, in milliseconds, how many were served
    /// at a time at most, and how long it took.
    fn told(nodes: &[Option<u64>], at_a_time: usize) -> (Vec<(Option<u64>, u64)>, usize, u64) {
        let count = Rc::new(Cell::new((0, 0)));
        let works: Vec<Node> =
            nodes.iter().map(|&after| Node { after, at_a_time: Rc::clone(&count) }).collect();
        let names = (0..nodes.len()).map(|n| NodeName::new(&format!("n{n}")).unwrap());
        let progress = Progress::new(names.collect(), "ban", "taken", nodes.len());
        let told = RefCell::new(Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let took = runtime.block_on(async {
            let start = Instant::now();
            let millis = || u64::try_from(start.elapsed().as_millis()).unwrap();
            let note = |report: &Option<u64>| told.borrow_mut().push((*report, millis()));
            let limit = Duration::from_secs(60);
            let interrupts = Interrupts::listen().unwrap();
            let outcome = run(works, at_a_time, limit, &progress, interrupts, note).await;
            assert!(!outcome.interrupted);
            let told: Vec<_> = told.borrow().iter().map(|&(report, _)| report).collect();
            assert_eq!(outcome.reports, told);
            millis()
        });
        (told.into_inner(), count.get().1, took)
    }

    #[test]
    fn each_is_told_in_its_order_as_early_as_that_allows() {
        let (told, most, took) = told(&[Some(30), Some(10), Some(50), Some(20)], 4);
        assert_eq!(told, [(Some(30), 30), (Some(10), 30), (Some(50), 50), (Some(20), 50)]);
        assert_eq!((most, took), (4, 50));
    }

    #[test]
    fn a_dead_node_holds_one_place_and_is_told_at_the_limit() {
        let (told, most, took) = told(&[Some(10), None, Some(10), Some(10), Some(10)], 2);
        let expected = [Some(10), None, Some(10), Some(10), Some(10)];
        assert_eq!(told.iter().map(|told| told.0).collect::<Vec<_>>(), expected);
        assert_eq!((most, took), (2, 60_000));
        assert_eq!(told[0].1, 10);
    }

    #[test]
    fn no_more_than_allowed_are_served_at_a_time() {
        let nodes = [Some(10); 100];
        let (told, most, took) = told(&nodes, 7);
        assert_eq!((told.len(), most), (100, 7));
        assert_eq!(took, 10 * 100_u64.div_ceil(7));
        assert_eq!(told_of_none(), 0);
    }

    fn told_of_none() -> usize {
        told(&[], 4).0.len()
    }

    #[test]
    fn there_are_places_for_all_nodes_where_files_may_be_opened() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert!(hard >= 1_024, "these tests need to open files");
        assert_eq!(at_a_time(0), 1);
        assert_eq!(at_a_time(1), 1);
        assert_eq!(at_a_time(200), 200);
        assert!(at_a_time(100_000) <= MOST_AT_A_TIME);
    }
}
