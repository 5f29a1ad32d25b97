//! What survives a restart, and what a damaged file does.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use purgewatch::clock::Clock;
use purgewatch::engine::{
    BanSource, BanText, Entry, EntryId, HistoryRecord, LedgerRecord, PendingBan, Record, Restored,
    Standing, VerdictRecord,
};
use purgewatch::model::{EndpointName, Mark, NodeName, Timestamp, VariantName, Version};
use purgewatch::store::{FILE_NAME, Fault, Problem, Store};
use purgewatch::verdict::{HistoryParts, Mismatch, Seen, State, Verdict};
use rusqlite::Connection;

const LIMIT: Duration = Duration::from_secs(10);

fn version(tag: &str) -> Version {
    Version { status: 200, mark: Mark::Etag(tag.into()) }
}

fn history(endpoint: &str, now: Timestamp) -> Record {
    let ago = |seconds| now.earlier_by(Duration::from_secs(seconds));
    let seen = |tag: &str, superseded| Seen {
        version: version(tag),
        first_seen: ago(900),
        last_seen: ago(310),
        superseded,
    };
    Record::History(HistoryRecord {
        endpoint: EndpointName::new(endpoint).unwrap(),
        variant: VariantName::default(),
        definition: 0xfeed_f00d_dead_beef,
        parts: HistoryParts {
            seen: vec![seen("v1", Some(ago(300))), seen("v2", None)],
            returns: vec![ago(800)],
        },
    })
}

/// A verdict that has been stale for five minutes.
fn alarm(endpoint: &str, node: &str, now: Timestamp) -> Record {
    let ago = |seconds| now.earlier_by(Duration::from_secs(seconds));
    Record::Verdict(VerdictRecord {
        endpoint: EndpointName::new(endpoint).unwrap(),
        variant: VariantName::default(),
        node: NodeName::new(node).unwrap(),
        definition: 0xfeed_f00d_dead_beef,
        verdict: Verdict {
            state: State::Stale,
            since: ago(240),
            stale_since: Some(ago(300)),
            mismatch: Some(Mismatch { since: ago(290), version: version("v1"), changes: 0 }),
            last_probe: Some(ago(1)),
            last_fresh: Some(ago(320)),
            failures: 0,
        },
        recorded: now,
    })
}

fn alarms(count: usize, now: Timestamp) -> Vec<Record> {
    let endpoint = |n: usize| format!("endpoint-{n:05}");
    (0..count).flat_map(|n| [history(&endpoint(n), now), alarm(&endpoint(n), "a", now)]).collect()
}

/// The stored alarms, by endpoint number.
fn numbers(restored: &Restored) -> Vec<usize> {
    let mut numbers: Vec<usize> = restored
        .verdicts
        .iter()
        .map(|v| v.endpoint.as_str().trim_start_matches("endpoint-").parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

async fn fill(directory: &Path, records: Vec<Record>) {
    let (store, _, problems) = Store::open(directory, Clock::start());
    assert_eq!(problems, [], "a fresh directory is no problem");
    store.save(records);
    store.close(LIMIT).await.unwrap();
}

fn faults(problems: &[Problem]) -> Vec<Fault> {
    problems.iter().filter_map(|p| p.fault().map(|(fault, _)| fault)).collect()
}

fn errors(store: &Store, fault: Fault) -> u64 {
    let place = Fault::ALL.iter().position(|f| *f == fault).unwrap();
    store.health().errors[place]
}

/// Waits until storing works again, and says what was told meanwhile.
async fn wait_until_up(store: &Store) -> Vec<Problem> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !store.health().up {
        assert!(Instant::now() < deadline, "{:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.problems()
}

#[tokio::test]
async fn everything_comes_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let now = Clock::start().now();
    let records = vec![history("api", now), alarm("api", "a", now), alarm("api", "b", now)];
    fill(dir.path(), records.clone()).await;

    let (store, restored, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!(problems, []);
    let again: Vec<Record> = restored.histories.into_iter().map(Record::History).collect();
    let again: Vec<Record> =
        again.into_iter().chain(restored.verdicts.into_iter().map(Record::Verdict)).collect();
    let close = |a: Timestamp, b: Timestamp| a.since(b).max(b.since(a)) < Duration::from_secs(1);
    let (Record::Verdict(was), Record::Verdict(is)) = (&records[1], &again[1]) else { panic!() };
    assert!(close(was.verdict.stale_since.unwrap(), is.verdict.stale_since.unwrap()));
    assert!(close(was.recorded, is.recorded));
    assert_eq!(again.len(), 3);

    // The later record of a name replaces the earlier one; what is forgotten is gone.
    let Record::Verdict(mut fresh) = records[1].clone() else { panic!() };
    fresh.verdict = Verdict::unknown(now);
    store.save(vec![Record::Verdict(fresh)]);
    store.save(vec![history("gone", now), alarm("gone", "a", now)]);
    store.flush(LIMIT).await.unwrap();
    let (endpoint, variant) = (EndpointName::new("gone").unwrap(), VariantName::default());
    store.save(vec![Record::Forget { endpoint, variant }]);
    assert!(store.health().last_write.is_some());
    store.close(LIMIT).await.unwrap();
    let (_store, restored, _) = Store::open(dir.path(), Clock::start());
    let states: Vec<State> = restored.verdicts.iter().map(|v| v.verdict.state).collect();
    assert_eq!(states, [State::Unknown, State::Stale]);
    assert_eq!(restored.histories.len(), 1);
    let mode = fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else's business");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    for round in 1..=5 {
        let rubbish = format!("this is no database, round {round}").repeat(500);
        fs::write(&path, &rubbish).unwrap();
        let (store, restored, problems) = Store::open(dir.path(), Clock::start());
        assert_eq!(restored, Restored::default());
        let kept_as = dir.path().join(format!("{FILE_NAME}.corrupt-{round}"));
        let [Problem::MovedAside { fault: Fault::Corrupt, kept_as: told, .. }] = &problems[..]
        else {
            panic!("{problems:?}")
        };
        assert_eq!(told, &kept_as);
        assert_eq!(fs::read_to_string(&kept_as).unwrap(), rubbish, "kept as it was");
        assert_eq!(errors(&store, Fault::Corrupt), 1);
        store.save(alarms(1, Clock::start().now()));
        store.close(LIMIT).await.unwrap();
    }
    let kept: Vec<bool> =
        (1..=5).map(|n| dir.path().join(format!("{FILE_NAME}.corrupt-{n}")).exists()).collect();
    assert_eq!(kept, [false, false, true, true, true], "three are kept");
    let (_store, restored, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!((numbers(&restored), problems), (vec![0], vec![]));
}

#[tokio::test]
async fn other_files_of_that_name_are_put_aside() {
    let foreign = tempfile::tempdir().unwrap();
    let other = Connection::open(foreign.path().join(FILE_NAME)).unwrap();
    other.execute_batch("CREATE TABLE verdict (a); INSERT INTO verdict VALUES (1);").unwrap();
    drop(other);
    let (_store, restored, problems) = Store::open(foreign.path(), Clock::start());
    assert_eq!((restored, faults(&problems)), (Restored::default(), vec![Fault::Foreign]));
    let kept = Connection::open(foreign.path().join(format!("{FILE_NAME}.corrupt-1"))).unwrap();
    let rows: i64 = kept.query_row("SELECT count(*) FROM verdict", [], |r| r.get(0)).unwrap();
    assert_eq!(rows, 1, "untouched");

    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join(FILE_NAME)).unwrap();
    let (store, _, problems) = Store::open(directory.path(), Clock::start());
    assert_eq!(faults(&problems), [Fault::Unreadable]);
    assert!(directory.path().join(format!("{FILE_NAME}.corrupt-1")).is_dir());
    store.save(alarms(1, Clock::start().now()));
    store.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_file_of_the_first_layout_keeps_its_records_and_gets_a_ledger() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), alarms(3, Clock::start().now())).await;
    let earlier = Connection::open(dir.path().join(FILE_NAME)).unwrap();
    earlier.execute_batch("DROP TABLE ledger; DROP TABLE hour; PRAGMA user_version = 1;").unwrap();
    drop(earlier);
    let (store, restored, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!((numbers(&restored), problems), (vec![0, 1, 2], vec![]));
    let entry = ban(7, Clock::start().now());
    let (tell, told) = std::sync::mpsc::channel();
    let record = LedgerRecord::Put { entry: entry.clone(), first: true };
    store.save_durably(vec![Record::Ledger(record)], move |stored| tell.send(stored).unwrap());
    assert!(told.recv_timeout(LIMIT).unwrap());
    store.close(LIMIT).await.unwrap();
    let (store, restored, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!((numbers(&restored), problems), (vec![0, 1, 2], vec![]));
    assert_eq!(restored.ledger.len(), 1);
    // Times move with the clock of each opening, by a millisecond at most: names and kinds stay.
    let kinds = |entry: &Entry| {
        let kind = |standing: &_| std::mem::discriminant(standing);
        entry
            .nodes
            .iter()
            .map(|(node, standing)| (node.clone(), kind(standing)))
            .collect::<Vec<_>>()
    };
    assert_eq!(restored.ledger[0].id, entry.id);
    assert_eq!(kinds(&restored.ledger[0]), kinds(&entry));
    store.save(vec![Record::Ledger(LedgerRecord::Remove(entry.id))]);
    store.close(LIMIT).await.unwrap();
    assert_eq!(Store::open(dir.path(), Clock::start()).1.ledger, []);
}

/// What is told is on the disk: a copy of the files, as a process that was killed leaves them, has
/// it.
#[tokio::test]
async fn a_ban_is_stored_before_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let (store, _, _) = Store::open(dir.path(), clock);
    for number in 1..=50 {
        let (tell, told) = std::sync::mpsc::channel();
        let copy = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().to_owned(), copy.path().to_owned());
        let entry = ban(number, clock.now());
        let record = Record::Ledger(LedgerRecord::Put { entry, first: true });
        store.save_durably(vec![record], move |stored| {
            // At this very moment.
            for file in fs::read_dir(&from).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
            tell.send(stored).unwrap();
        });
        assert!(told.recv_timeout(LIMIT).unwrap());
        let (_copy, restored, _) = Store::open(copy.path(), clock);
        let numbers: Vec<u64> = restored.ledger.iter().map(|entry| entry.id.number()).collect();
        assert_eq!(numbers, (1..=number).collect::<Vec<_>>());
    }
    // Where it cannot be stored, that is said, at once and not in the end.
    fs::remove_dir_all(dir.path()).unwrap();
    fs::write(dir.path(), b"in the way").unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let record = LedgerRecord::Put { entry: ban(51, clock.now()), first: true };
    store.save_durably(vec![Record::Ledger(record)], move |stored| tell.send(stored).unwrap());
    assert!(!told.recv_timeout(LIMIT).unwrap());
    fs::remove_file(dir.path()).unwrap();
    fs::create_dir(dir.path()).unwrap();
    store.close(LIMIT).await.unwrap();
    let (_store, restored, _) = Store::open(dir.path(), clock);
    assert_eq!(restored.ledger.len(), 51, "it was tried again");
}

/// A ban that waits for one node and was taken by another.
fn ban(number: u64, now: Timestamp) -> Entry {
    let node = |name: &str| NodeName::new(name).unwrap();
    Entry {
        id: EntryId::new(number),
        ban: BanText::new("obj.http.x == 1").unwrap(),
        source: BanSource::Event,
        issued: now,
        nodes: [
            (node("a"), Standing::Pending(PendingBan::default())),
            (node("b"), Standing::Rejected { at: Timestamp::EPOCH, reason: "rejected".into() }),
        ]
        .into(),
    }
}

#[tokio::test]
async fn a_later_layout_is_kept_and_what_is_known_of_it_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), alarms(3, Clock::start().now())).await;
    let later = Connection::open(dir.path().join(FILE_NAME)).unwrap();
    later
        .execute_batch("ALTER TABLE verdict ADD COLUMN mood TEXT; PRAGMA user_version = 999;")
        .unwrap();
    drop(later);
    let (store, restored, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!(faults(&problems), [Fault::NewerSchema]);
    assert_eq!(numbers(&restored), [0, 1, 2]);
    store.close(LIMIT).await.unwrap();
    // What was taken over is in the new file, too.
    let (_store, restored, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!((numbers(&restored), problems), (vec![0, 1, 2], vec![]));
    assert!(dir.path().join(format!("{FILE_NAME}.corrupt-1")).exists());
}

#[tokio::test]
async fn a_damaged_page_costs_the_alarms_on_it_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    fill(dir.path(), alarms(400, Clock::start().now())).await;
    let whole = fs::read(&path).unwrap();
    let (page, pages) = (4_096, whole.len() / 4_096);
    assert!(pages > 40, "{pages}");
    let mut complete = 0;
    for broken in 1..pages {
        fs::write(&path, &whole).unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start((broken * page) as u64)).unwrap();
        file.write_all(&[0xa5; 4_096]).unwrap();
        drop(file);
        let (store, restored, problems) = Store::open(dir.path(), Clock::start());
        assert!(faults(&problems).contains(&Fault::Corrupt), "page {broken}: {problems:?}");
        assert!(store.health().up, "page {broken}");
        store.close(LIMIT).await.unwrap();
        // A table's root or inner pages lead to all of it; those are few.
        let (_store, again, problems) = Store::open(dir.path(), Clock::start());
        assert_eq!(problems, [], "page {broken}: the new file is sound");
        assert_eq!(numbers(&again), numbers(&restored), "page {broken}");
        if restored.verdicts.len() >= 360 {
            complete += 1;
        }
        for kept in fs::read_dir(dir.path()).unwrap() {
            fs::remove_file(kept.unwrap().path()).unwrap();
        }
    }
    assert!(complete >= pages - 5, "only {complete} of {pages} pages were survived");
}

#[tokio::test]
async fn a_file_cut_short_gives_back_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    fill(dir.path(), alarms(400, Clock::start().now())).await;
    let whole = fs::read(&path).unwrap();
    let mut found = Vec::new();
    for tenths in [9, 5, 1] {
        fs::write(&path, &whole[..whole.len() * tenths / 10 / 512 * 512]).unwrap();
        let (store, restored, problems) = Store::open(dir.path(), Clock::start());
        assert!(faults(&problems).contains(&Fault::Corrupt), "{tenths}: {problems:?}");
        found.push(restored.verdicts.len());
        store.close(LIMIT).await.unwrap();
        fs::remove_file(&path).unwrap();
    }
    assert!(found[0] > 300 && found[1] > 100, "{found:?}");
    // Nothing but the first bytes, and nothing at all (a file that a full disk left behind).
    fs::write(&path, &whole[..100]).unwrap();
    let (store, _, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!(faults(&problems), [Fault::Corrupt]);
    store.close(LIMIT).await.unwrap();
    fs::write(&path, "").unwrap();
    let (_store, _, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!(problems, []);
}

#[tokio::test]
async fn random_damage_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    fill(dir.path(), alarms(100, Clock::start().now())).await;
    let whole = fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..150 {
        let mut damaged = whole.clone();
        for _ in 0..random.usize(1..200) {
            let at = random.usize(..damaged.len());
            damaged[at] = random.u8(..);
        }
        fs::write(&path, &damaged).unwrap();
        let (store, restored, _) = Store::open(dir.path(), Clock::start());
        assert!(store.health().up, "round {round}");
        assert!(restored.verdicts.len() <= 110, "round {round}: more than there was");
        store.save(alarms(100, Clock::start().now()));
        store.flush(LIMIT).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        store.close(LIMIT).await.unwrap();
        let (_store, restored, problems) = Store::open(dir.path(), Clock::start());
        assert!(restored.verdicts.len() >= 100, "round {round}: {problems:?}");
        for kept in fs::read_dir(dir.path()).unwrap() {
            fs::remove_file(kept.unwrap().path()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_in_use_is_started_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    // More than is kept in memory.
    let count = 8_000;
    fill(dir.path(), alarms(count, Clock::start().now())).await;
    let clock = Clock::start();
    let (store, _, problems) = Store::open(dir.path(), clock);
    assert_eq!(problems, []);
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    file.seek(SeekFrom::Start(8 * 4_096)).unwrap();
    file.write_all(&vec![0x5a; length - 16 * 4_096]).unwrap();
    drop(file);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut told = Vec::new();
    for n in (0..count).step_by(97).cycle() {
        if told.iter().any(|problem| matches!(problem, Problem::Recovered { .. })) {
            break;
        }
        assert!(Instant::now() < deadline, "{told:?}");
        store.save(vec![alarm(&format!("endpoint-{n:05}"), "a", clock.now())]);
        let _ = store.flush(Duration::from_millis(200)).await;
        told.extend(store.problems());
    }
    assert!(matches!(told[0], Problem::NotStored { fault: Fault::Corrupt, .. }), "{told:?}");
    let aside =
        |problem: &Problem| matches!(problem, Problem::MovedAside { fault: Fault::Corrupt, .. });
    assert!(told.iter().any(aside), "{told:?}");
    store.save(alarms(count, clock.now()));
    store.close(LIMIT).await.unwrap();
    let (_store, restored, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!((numbers(&restored), problems), ((0..count).collect(), vec![]));
}

#[tokio::test]
async fn a_file_that_is_removed_while_it_is_in_use_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let (store, _, _) = Store::open(dir.path(), clock);
    store.save(alarms(20, clock.now()));
    store.flush(LIMIT).await.unwrap();
    for file in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    store.save(vec![alarm("endpoint-00020", "a", clock.now())]);
    store.flush(LIMIT).await.unwrap();
    assert!(matches!(&store.problems()[..], [Problem::Vanished { restored: 40, .. }]));
    assert_eq!(errors(&store, Fault::Vanished), 1);
    store.close(LIMIT).await.unwrap();
    let (_store, restored, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!((numbers(&restored), problems), ((0..=20).collect(), vec![]));
}

#[tokio::test]
async fn ten_thousand_endpoints_are_stored_in_little_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let (store, _, _) = Store::open(dir.path(), clock);
    for round in 0..3 {
        let records = alarms(10_000, clock.now());
        let start = Instant::now();
        store.save(records);
        let handed_over = start.elapsed();
        store.flush(LIMIT).await.unwrap();
        let (written, limit) = (start.elapsed(), Duration::from_millis(500));
        assert!(handed_over < limit, "round {round}: the caller waited {handed_over:?}");
        assert!(written < LIMIT, "round {round}: {written:?}");
        show(&format!("20,000 records: handed over in {handed_over:?}, {written:?} in all"));
    }
    store.close(LIMIT).await.unwrap();
    let start = Instant::now();
    let (_store, restored, _) = Store::open(dir.path(), clock);
    assert_eq!(restored.verdicts.len(), 10_000);
    show(&format!("read again in {:?}", start.elapsed()));
}

fn show(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[tokio::test]
async fn a_clock_set_back_while_down_makes_nothing_less_stale() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), alarms(2, Clock::start().now())).await;
    // As if the file had been written by a clock two hours ahead.
    let file = Connection::open(dir.path().join(FILE_NAME)).unwrap();
    file.execute_batch(
        "UPDATE verdict SET since = since + 7200000, stale_since = stale_since + 7200000,
             mismatch_since = mismatch_since + 7200000, last_probe = last_probe + 7200000,
             last_fresh = last_fresh + 7200000, recorded = recorded + 7200000
         WHERE endpoint = 'endpoint-00001'",
    )
    .unwrap();
    drop(file);
    for run in 0..3 {
        let clock = Clock::start();
        let (store, restored, problems) = Store::open(dir.path(), clock);
        let now = clock.now();
        for record in &restored.verdicts {
            let verdict = &record.verdict;
            let staleness = verdict.staleness(now).unwrap().as_secs();
            assert!((300..310).contains(&staleness), "run {run}, {record:?}");
            for time in [Some(verdict.since), verdict.last_probe, Some(record.recorded)] {
                assert!(time.unwrap() <= now);
            }
        }
        let told = matches!(&problems[..], [Problem::ClockSetBack { by, .. }]
            if (7_190..=7_200).contains(&by.as_secs()));
        assert_eq!(told, run == 0, "{problems:?}");
        store.close(LIMIT).await.unwrap();
    }
}

/// A small file system of its own, unmounted when dropped.
struct Tmpfs {
    dir: tempfile::TempDir,
}

impl Tmpfs {
    fn mount(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", dir.path().to_str().unwrap()]);
        Self { dir }
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", &["-o", &options, self.path().to_str().unwrap()]);
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Fills what is left of it, to the last byte.
    fn fill_up(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4_096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.dir.path().to_str().unwrap()]).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} (needs root): {said}");
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_fits_into_memory() {
    let disk = Tmpfs::mount("size=1m");
    let clock = Clock::start();
    let (store, _, problems) = Store::open(disk.path(), clock);
    assert_eq!(problems, []);
    store.save(alarms(5, clock.now()));
    store.flush(LIMIT).await.unwrap();
    assert!(store.health().up);

    let ballast = disk.fill_up();
    for _ in 0..20 {
        store.save(alarms(400, clock.now()));
    }
    let left = store.flush(Duration::from_millis(700)).await.unwrap_err();
    assert_eq!(left.pending, 800, "the latest of each, once");
    let health = store.health();
    assert!(!health.up && errors(&store, Fault::Full) >= 1, "{health:?}");
    assert_eq!(faults(&store.problems()), [Fault::Full], "told once, however often it is tried");

    fs::remove_file(ballast).unwrap();
    let told = wait_until_up(&store).await;
    assert!(matches!(&told[..], [Problem::Recovered { .. }]), "{told:?}");
    store.close(LIMIT).await.unwrap();
    let (_store, restored, problems) = Store::open(disk.path(), Clock::start());
    assert_eq!((restored.verdicts.len(), problems), (400, vec![]));
}

#[tokio::test]
async fn a_disk_that_is_full_from_the_start_still_gives_back_what_it_holds() {
    let disk = Tmpfs::mount("size=1m");
    fill(disk.path(), alarms(50, Clock::start().now())).await;
    let ballast = disk.fill_up();
    let clock = Clock::start();
    let (store, restored, _) = Store::open(disk.path(), clock);
    assert_eq!(restored.verdicts.len(), 50);
    store.save(alarms(60, clock.now()));
    assert!(store.flush(Duration::from_millis(500)).await.is_err());
    assert!(!store.health().up);
    fs::remove_file(ballast).unwrap();
    wait_until_up(&store).await;
    store.close(LIMIT).await.unwrap();
    let (_store, restored, _) = Store::open(disk.path(), Clock::start());
    assert_eq!(restored.verdicts.len(), 60);

    let empty = Tmpfs::mount("size=64k");
    let ballast = empty.fill_up();
    let (store, _, problems) = Store::open(empty.path(), clock);
    assert_eq!(faults(&problems), [Fault::Full]);
    store.save(alarms(5, clock.now()));
    fs::remove_file(ballast).unwrap();
    empty.remount("size=4m");
    wait_until_up(&store).await;
    store.close(LIMIT).await.unwrap();
    let (_store, restored, _) = Store::open(empty.path(), Clock::start());
    assert_eq!(restored.verdicts.len(), 5);
}

#[tokio::test]
async fn a_read_only_disk_gives_back_what_it_holds_even_after_a_kill() {
    let disk = Tmpfs::mount("size=8m");
    let mut writer = Other::start("writes", disk.path());
    writer.wait_for("stored 200");
    writer.kill();
    let log = disk.path().join(format!("{FILE_NAME}-wal"));
    assert!(fs::metadata(log).unwrap().len() > 0, "the last alarms are in the log alone");
    disk.remount("ro");
    let (store, restored, problems) = Store::open(disk.path(), Clock::start());
    assert_eq!(faults(&problems), [Fault::ReadOnly]);
    assert!(restored.verdicts.len() >= 200, "{}", restored.verdicts.len());
    assert!(!store.health().up);
    store.save(vec![alarm("endpoint-99999", "a", Clock::start().now())]);
    disk.remount("rw");
    wait_until_up(&store).await;
    store.close(LIMIT).await.unwrap();
    let (_store, again, _) = Store::open(disk.path(), Clock::start());
    assert_eq!(again.verdicts.len(), restored.verdicts.len() + 1);
}

#[tokio::test]
async fn a_missing_directory_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("made");
    let (store, _, problems) = Store::open(&one, Clock::start());
    assert_eq!(problems, [], "the last part is made");
    store.close(LIMIT).await.unwrap();
    assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o700);

    let two = dir.path().join("not/there");
    let (store, _, problems) = Store::open(&two, Clock::start());
    assert_eq!(faults(&problems), [Fault::MissingDirectory]);
    store.save(alarms(3, Clock::start().now()));
    fs::create_dir(dir.path().join("not")).unwrap();
    wait_until_up(&store).await;
    store.close(LIMIT).await.unwrap();
    let (_store, restored, _) = Store::open(&two, Clock::start());
    assert_eq!(numbers(&restored), [0, 1, 2]);
}

#[tokio::test]
async fn a_user_without_rights_is_told_and_not_stopped() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fill(dir.path(), alarms(7, Clock::start().now())).await;
    let path = dir.path().join(FILE_NAME);

    // The directory is root's: nothing can be made there, nor moved. The file can be read.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(opened_by_nobody(dir.path()), "found 7 [Permission] up false");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(opened_by_nobody(dir.path()), "found 0 [Permission] up false");

    // The directory can be written to: the file is put aside, and read if it can be.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(opened_by_nobody(dir.path()), "found 0 [Unreadable] up true");
    fs::rename(dir.path().join(format!("{FILE_NAME}.corrupt-1")), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(opened_by_nobody(dir.path()), "found 7 [Unreadable] up true");
}

fn opened_by_nobody(directory: &Path) -> String {
    let mut other = Other::start_as_nobody("opens", directory);
    other.wait_for("found")
}

#[tokio::test]
async fn a_second_daemon_keeps_off_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Other::start("holds", dir.path());
    first.wait_for("stored 20");
    let (store, _, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!(faults(&problems), [Fault::InUse]);
    assert!(dir.path().join(FILE_NAME).exists(), "a file in use is not put aside");
    store.save(vec![alarm("endpoint-77777", "a", Clock::start().now())]);
    first.kill();
    wait_until_up(&store).await;
    store.close(LIMIT).await.unwrap();
    let (_store, restored, problems) = Store::open(dir.path(), Clock::start());
    assert_eq!(problems, []);
    assert!(restored.verdicts.len() == 21 && numbers(&restored).contains(&77_777));
}

#[tokio::test]
async fn what_was_stored_survives_a_kill_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut stored = 0;
    for round in 0..8_u32 {
        let mut writer = Other::start("writes", dir.path());
        writer.wait_for("stored");
        std::thread::sleep(Duration::from_millis(u64::from(round * 37 % 150)));
        let lines = writer.kill();
        let last =
            lines.iter().rev().find_map(|l| l.strip_prefix("stored ")?.parse::<usize>().ok());
        stored = stored.max(last.unwrap_or(0));
        let (store, restored, problems) = Store::open(dir.path(), Clock::start());
        assert_eq!(problems, [], "round {round}");
        let found = numbers(&restored);
        assert!(found.len() >= stored, "round {round}: {} of {stored}", found.len());
        assert_eq!(found, (0..found.len()).collect::<Vec<_>>(), "without a gap");
        drop(store);
    }
    assert!(stored > 0);
}

/// This test program, started once more to do something with a store in a process of its own.
struct Other {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    lines: Vec<String>,
}

impl Other {
    fn start(role: &str, directory: &Path) -> Self {
        Self::spawn(Command::new(std::env::current_exe().unwrap()), role, directory)
    }

    fn start_as_nobody(role: &str, directory: &Path) -> Self {
        // The test program may lie where nobody may not look: it is run from a copy.
        let copy = directory.join("program");
        if !copy.exists() {
            fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(copy);
        Self::spawn(command, role, directory)
    }

    fn spawn(mut command: Command, role: &str, directory: &Path) -> Self {
        let mut process = command
            .args(["--exact", "store::in_another_process", "--ignored", "--nocapture"])
            .env("PURGEWATCH_TEST_ROLE", role)
            .env("PURGEWATCH_TEST_DIRECTORY", directory)
            .current_dir("/")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output, lines: Vec::new() }
    }

    /// Reads on until a line that starts with `text`.
    fn wait_for(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended without {text:?}: {:?}", self.lines);
            self.lines.push(line.trim().to_owned());
            if line.starts_with(text) {
                return line.trim().to_owned();
            }
        }
    }

    /// Kills it, and returns every whole line that it printed.
    fn kill(&mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        self.lines.extend(whole.lines().map(str::to_owned));
        self.lines.clone()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test of its own: what the tests above start as another process.
#[tokio::test]
#[ignore = "runs as another process of the tests above"]
async fn in_another_process() {
    let Ok(role) = std::env::var("PURGEWATCH_TEST_ROLE") else { return };
    let directory = PathBuf::from(std::env::var("PURGEWATCH_TEST_DIRECTORY").unwrap());
    let clock = Clock::start();
    let (store, restored, problems) = Store::open(&directory, clock);
    if role == "opens" {
        store.save(alarms(1, clock.now()));
        let _ = store.flush(Duration::from_secs(1)).await;
        let (faults, up) = (faults(&problems), store.health().up);
        let _ = store.close(Duration::from_millis(500)).await;
        tell(&format!("\nfound {} {faults:?} up {up}", restored.verdicts.len()));
        return;
    }
    // A line break first: the test harness has begun a line of its own.
    tell("");
    for count in (restored.verdicts.len() + 1)..100_000 {
        let endpoint = format!("endpoint-{:05}", count - 1);
        store.save(vec![alarm(&endpoint, "a", clock.now()), history(&endpoint, clock.now())]);
        if count % 20 == 0 {
            store.flush(LIMIT).await.unwrap();
            tell(&format!("stored {count}"));
            if role == "holds" {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        }
    }
}

fn tell(line: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "{line}").and_then(|()| output.flush()).unwrap();
}
