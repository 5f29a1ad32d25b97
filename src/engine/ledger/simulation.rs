//! Nodes that come, go and lie low, and a daemon that is killed: nothing that was accepted is lost.

mod stories;
mod varnish;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use varnish::{Path, Varnish};

const START: u64 = 1_700_000_000_000;

fn node(at: usize) -> NodeName {
    NodeName::new(&format!("n{at}")).unwrap()
}

fn ban(at: u8) -> BanText {
    BanText::new(&format!("obj.http.x == {at}")).unwrap()
}

fn miss(result: BanResult, reason: &str) -> Miss {
    Miss { result, reason: reason.to_owned() }
}

#[derive(Debug, Clone)]
enum Action {
    /// A command sends a ban to all nodes and tells the daemon.
    Command(u8),
    /// The daemon is handed one that nobody has sent yet.
    Handed(u8),
    /// An event brings one.
    Event(u8),
    Path(usize, u8),
    RestartWorker(usize),
    StopWorker(usize),
    StopManager(usize),
    Start(usize),
    LoseAnswer(usize, usize),
    Check(usize),
    Wait(u64),
    /// The daemon is killed, with all that it was about to do, and started again.
    Kill,
}

fn action() -> impl Strategy<Value = Action> {
    let at = 0..2_usize;
    prop_oneof![
        4 => (0..3_u8).prop_map(Action::Command),
        1 => (0..3_u8).prop_map(Action::Handed),
        6 => (0..3_u8).prop_map(Action::Event),
        3 => (at.clone(), 0..4_u8).prop_map(|(n, p)| Action::Path(n, p)),
        2 => at.clone().prop_map(Action::RestartWorker),
        1 => at.clone().prop_map(Action::StopWorker),
        1 => at.clone().prop_map(Action::StopManager),
        2 => at.clone().prop_map(Action::Start),
        2 => (at.clone(), 0..3_usize).prop_map(|(n, k)| Action::LoseAnswer(n, k)),
        3 => at.prop_map(Action::Check),
        4 => (1..90_u64).prop_map(Action::Wait),
        1 => Just(Action::Kill),
    ]
}

struct World {
    ledger: Ledger,
    limits: Limits,
    nodes: Vec<Varnish>,
    now: Timestamp,
    disk: BTreeMap<EntryId, Entry>,
    accepted: BTreeMap<EntryId, Entry>,
    news: Vec<News>,
    /// What each node was sent and answered with 200 since the daemon was started.
    sent: Vec<Vec<EntryId>>,
    /// Requests whose answers are under way.
    under_way: Vec<(NodeName, Request)>,
    /// What a node said of itself when it was asked, where that was not at the last moment.
    said: BTreeMap<NodeName, Result<Inspection, Miss>>,
    /// What came of a delivery, where that was not at the last moment.
    delivered: BTreeMap<NodeName, Vec<Result<(), Miss>>>,
    asked: usize,
    debounce: Duration,
    list_limit: usize,
    promises: Vec<Promise>,
}

/// A ban of an event that somebody waits for at a node.
#[derive(Debug, Clone)]
struct Promise {
    ban: BanText,
    at: usize,
    id: EntryId,
    /// How many bans the node had taken when it was issued.
    after: usize,
    end: Option<End>,
}

impl World {
    fn new(limits: Limits, persistent: bool) -> Self {
        let now = Timestamp::from_millis(START);
        let mut nodes = vec![Varnish::new(now), Varnish::new(now)];
        nodes[1].persistent = persistent;
        let mut world = Self {
            ledger: Ledger::new(limits, Vec::new(), 1, now),
            limits,
            nodes,
            now,
            disk: BTreeMap::new(),
            accepted: BTreeMap::new(),
            news: Vec::new(),
            sent: vec![Vec::new(), Vec::new()],
            under_way: Vec::new(),
            said: BTreeMap::new(),
            delivered: BTreeMap::new(),
            asked: 0,
            debounce: Duration::ZERO,
            list_limit: 0,
            promises: Vec::new(),
        };
        world.watch();
        world
    }

    fn watch(&mut self) {
        self.ledger.watch(&[node(0), node(1)], self.now);
        self.drain();
    }

    fn kill(&mut self) {
        self.under_way.clear();
        self.said.clear();
        self.delivered.clear();
        self.sent = vec![Vec::new(), Vec::new()];
        let stored = self.disk.values().cloned().collect();
        self.ledger = Ledger::new(self.limits, stored, 1, self.now);
        self.ledger.limit_ban_lists(self.list_limit);
        self.watch();
        // What was not acknowledged comes again.
        let again: Vec<_> = self.promises.extract_if(.., |promise| promise.end.is_none()).collect();
        for Promise { ban, at, .. } in again {
            self.promise(&ban, &[at]);
        }
    }

    /// An event brings a ban for these nodes.
    fn promise(&mut self, ban: &BanText, nodes: &[usize]) {
        let names: Vec<_> = nodes.iter().map(|at| node(*at)).collect();
        let ids = self.ledger.issue_event(ban, &names, self.debounce, self.now);
        for (name, id) in ids {
            let at = usize::from(name == node(1));
            let after = self.nodes[at].took.len();
            self.promises.push(Promise { ban: ban.clone(), at, id, after, end: None });
        }
        self.ledger.tick(self.now);
        self.drain();
        let stored: Vec<_> = self.disk.values().cloned().collect();
        self.accepted.extend(stored.into_iter().map(|entry| (entry.id, entry)));
    }

    fn ended(&mut self, id: EntryId, name: &NodeName, end: &End) {
        let waits = |p: &&mut Promise| p.id == id && node(p.at) == *name && p.end.is_none();
        for promise in self.promises.iter_mut().filter(waits) {
            if matches!(end, End::Taken(_)) {
                let later = &self.nodes[promise.at].took[promise.after..];
                assert!(later.contains(&promise.ban), "taken without a 200 since: {promise:?}");
            }
            promise.end = Some(end.clone());
        }
    }

    fn issue(&mut self, text: BanText, outcomes: [Option<Result<(), Miss>>; 2]) {
        let source = BanSource::Command;
        let nodes = outcomes.into_iter().enumerate().map(|(at, o)| (node(at), o)).collect();
        let id = self.ledger.issue(Issue { ban: text, source, nodes }, self.now);
        self.drain();
        if let Some(entry) = self.disk.get(&id) {
            self.accepted.insert(id, entry.clone());
        }
    }

    /// Stores what is to be stored, and notes what is to be asked.
    fn drain(&mut self) {
        while let Some(output) = self.ledger.poll_output() {
            match output {
                LedgerOutput::Record(LedgerRecord::Put { entry, first }) => {
                    let before = self.disk.insert(entry.id, entry);
                    assert_eq!(before.is_none(), first);
                }
                LedgerOutput::Record(LedgerRecord::Remove(id)) => {
                    assert!(self.disk.remove(&id).is_some());
                }
                LedgerOutput::News(news) => self.news.push(news),
                LedgerOutput::Ended { id, node, end } => self.ended(id, &node, &end),
                LedgerOutput::Request { node, request } => {
                    let is_count = |request: &Request| *request == Request::CountBans;
                    let same = |(other, asked): &&(NodeName, Request)| {
                        *other == node && is_count(asked) == is_count(&request)
                    };
                    assert!(self.under_way.iter().find(same).is_none(), "one at a time");
                    self.asked += 1;
                    if request == Request::Inspect && self.asked % 2 == 1 {
                        let said = self.nodes[usize::from(node == self::node(1))].inspect();
                        self.said.insert(node.clone(), said);
                    }
                    if let (Request::Deliver(bans), 1) = (&request, self.asked % 2) {
                        let varnish = &mut self.nodes[usize::from(node == self::node(1))];
                        self.delivered.insert(node.clone(), varnish.pipelined(bans));
                    }
                    self.under_way.push((node, request));
                }
            }
        }
    }

    fn answer_all(&mut self) {
        while !self.under_way.is_empty() {
            let (name, request) = self.under_way.remove(0);
            let at = usize::from(name == node(1));
            let varnish = &mut self.nodes[at];
            match request {
                Request::Inspect => {
                    let result = self.said.remove(&name).unwrap_or_else(|| varnish.inspect());
                    self.ledger.inspected(&name, result, self.now);
                }
                Request::CountBans => {
                    let listed = varnish.reach().ok().map(|()| varnish.listed);
                    self.ledger.counted(&name, listed, self.now);
                }
                Request::Deliver(bans) => {
                    let early = self.delivered.remove(&name);
                    let results = early.unwrap_or_else(|| varnish.pipelined(&bans));
                    let before: BTreeSet<_> = self.waiting(&name);
                    self.ledger.delivered(&name, results, self.now);
                    let after = self.waiting(&name);
                    let done = before.difference(&after).copied();
                    let took = |id: &EntryId| {
                        matches!(self.standing(*id, &name), Some(Standing::Taken { .. }))
                    };
                    let taken: Vec<_> = done.filter(took).collect();
                    self.sent[at].extend(taken);
                }
            }
            self.drain();
        }
    }

    fn waiting(&self, name: &NodeName) -> BTreeSet<EntryId> {
        let pending =
            |id: &EntryId| self.standing(*id, name).is_some_and(|standing| standing.is_pending());
        self.ledger.entries().map(|entry| entry.id).filter(pending).collect()
    }

    fn standing(&self, id: EntryId, name: &NodeName) -> Option<Standing> {
        self.ledger.entries().find(|entry| entry.id == id)?.nodes.get(name).cloned()
    }

    fn check(&mut self, at: usize) {
        let name = node(at);
        self.ledger.check_begins(&name);
        match self.nodes[at].reach() {
            Ok(()) => {
                let process = Some(self.nodes[at].process());
                self.ledger.check_passed(&name, process, self.now);
            }
            Err(miss) => self.ledger.check_failed(&name, &miss),
        }
        self.drain();
    }

    fn advance(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        self.answer_all();
        while let Some(due) = self.ledger.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.ledger.tick(self.now);
            self.drain();
            self.answer_all();
        }
        self.now = end;
    }

    fn act(&mut self, action: &Action) {
        self.now += Duration::from_millis(10);
        let now = self.now;
        match *action {
            Action::Command(at) => {
                let text = ban(at);
                let outcomes = [0, 1].map(|n| Some(self.nodes[n].ban(&text)));
                self.issue(text, outcomes);
            }
            Action::Handed(at) => self.issue(ban(at), [None, None]),
            Action::Event(at) => self.promise(&ban(at), &[0, 1]),
            Action::Path(at, path) => {
                let path =
                    [Path::Open, Path::Open, Path::Dropped, Path::Refused][usize::from(path)];
                self.nodes[at].path = path;
            }
            Action::RestartWorker(at) => {
                let varnish = &mut self.nodes[at];
                if varnish.manager_runs {
                    varnish.worker = Some((varnish.pid(), now));
                }
            }
            Action::StopWorker(at) => self.nodes[at].worker = None,
            Action::StopManager(at) => {
                self.nodes[at].worker = None;
                self.nodes[at].manager_runs = false;
            }
            Action::Start(at) => {
                let varnish = &mut self.nodes[at];
                if !varnish.manager_runs {
                    varnish.manager = varnish.pid();
                    varnish.manager_runs = true;
                }
                if varnish.worker.is_none() {
                    varnish.worker = Some((varnish.pid(), now));
                }
            }
            Action::LoseAnswer(at, after) => self.nodes[at].loses = Some(after),
            Action::Check(at) => self.check(at),
            Action::Wait(seconds) => self.advance(seconds),
            Action::Kill => self.kill(),
        }
        self.judge();
    }

    /// What holds at any time.
    fn judge(&self) {
        for entry in self.ledger.entries() {
            assert_eq!(self.disk.get(&entry.id), Some(entry), "what is known is stored");
            for (at, varnish) in self.nodes.iter().enumerate() {
                match entry.nodes.get(&node(at)) {
                    Some(Standing::Taken { .. }) => {
                        assert!(
                            varnish.took.contains(&entry.ban),
                            "taken without a 200: {entry:?}"
                        );
                    }
                    Some(Standing::Void { .. }) if entry.source == BanSource::Event => {
                        panic!("somebody waits for it: {entry:?}");
                    }
                    Some(Standing::Void { because: Needless::Restarted, .. }) => {
                        let later = varnish.worker.is_none_or(|(_, since)| since >= entry.issued);
                        assert!(later && !varnish.persistent, "needed all the same: {entry:?}");
                    }
                    Some(Standing::Void { because: Needless::Repeated, .. }) => {
                        let later = |other: &Entry| other.id > entry.id && other.ban == entry.ban;
                        let all = || self.ledger.entries().chain(self.accepted.values());
                        assert!(all().any(later), "never repeated: {entry:?}");
                    }
                    Some(Standing::Rejected { .. }) => assert!(varnish.rejects.is_some()),
                    Some(Standing::Pending(_)) | None => {}
                }
            }
        }
        for sent in &self.sent {
            // What follows an equal one too closely lets others go first.
            let sorted = sent.is_sorted() || self.debounce > Duration::ZERO;
            assert!(sorted, "in the order issued: {sent:?}");
            let once: BTreeSet<_> = sent.iter().collect();
            assert_eq!(once.len(), sent.len(), "sent again after a 200");
        }
    }

    /// Everything is up again; time passes.
    fn recover(&mut self) {
        for at in 0..2 {
            self.nodes[at].path = Path::Open;
            self.nodes[at].loses = None;
            self.act(&Action::Start(at));
        }
        self.advance(200);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever happens, each ban that was accepted is taken, void, rejected, or said to be
    /// dropped; each node gets its bans in order, and none again that it certainly took.
    #[test]
    fn nothing_that_was_accepted_is_lost(
        actions in prop::collection::vec(action(), 1..60),
        small in any::<bool>(),
        persistent in any::<bool>(),
        debounce in prop_oneof![Just(0_u64), Just(100), Just(5_000)],
        list_limit in prop_oneof![Just(0_usize), Just(10)],
    ) {
        let entries = if small { 4 } else { 1_000 };
        let mut world = World::new(Limits { entries, ..Limits::default() }, persistent);
        world.debounce = Duration::from_millis(debounce);
        world.list_limit = list_limit;
        world.nodes[1].listed = 11;
        world.ledger.limit_ban_lists(list_limit);
        for action in &actions {
            world.act(action);
        }
        world.recover();
        world.judge();
        prop_assert!(world.ledger.entries().all(Entry::is_settled), "{:?}", world.disk);
        prop_assert!(world.promises.iter().all(|promise| promise.end.is_some()), "left waiting");
        prop_assert!(world.ledger.backlogs().all(|(_, backlog)| backlog.pending == 0));
        let told = world.news.iter().filter(|news| matches!(news, News::Dropped { .. })).count();
        let pending_when_gone = world.accepted.values()
            .filter(|entry| !world.disk.contains_key(&entry.id) && !entry.is_settled());
        if told == 0 {
            // What is gone had been settled before: with room enough, nothing goes.
            prop_assert!(small || pending_when_gone.count() == 0);
        }
        prop_assert!(world.disk.len() <= entries);
    }
}
