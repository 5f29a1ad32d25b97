//! The file: opening it, finding out whether it is sound, and putting it aside when it is not.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, FileControl, OpenFlags};

use super::rows::{self, APPLICATION, LAYOUT, Read};
use super::{Fault, Problem};
use crate::engine::Restored;

/// The name of the file in the state directory.
pub const FILE_NAME: &str = "purgewatch.db";

/// How many files that could not be used are kept.
const KEPT: usize = 3;

/// How long another process may take to let go of the file: a daemon that is being replaced.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of opening the file.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// The connection, holding the file for itself; `None` where nothing can be stored now.
    pub(super) connection: Option<Connection>,
    /// What was stored, in times of the wall clock.
    pub(super) found: Restored,
    /// Whether the file is a new one that lacks what was found elsewhere.
    pub(super) rewrite: bool,
    pub(super) problems: Vec<Problem>,
}

/// Why there is no connection.
struct Refusal {
    fault: Fault,
    detail: String,
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self { fault: Fault::of(&error), detail: error.to_string() }
    }
}

/// Opens the file in `directory`, whatever state it is in. With a `suspicion`, which is what was
/// wrong when it was last written to, it is put aside without another look: not every damage shows
/// when a file is opened.
pub(super) fn open(directory: &Path, suspicion: Option<(Fault, String)>) -> Opened {
    let path = directory.join(FILE_NAME);
    if let Some((fault, detail)) = suspicion {
        return start_anew(directory, path, &Refusal { fault, detail });
    }
    let refusal = match connect(directory, &path) {
        Ok(connection) => {
            let mut read = rows::read(&connection);
            match read.error.take() {
                None => {
                    let problems = skipped(&path, &read);
                    let connection = Some(connection);
                    return Opened { connection, found: read.found, rewrite: false, problems };
                }
                Some(error) => Refusal::from(error),
            }
        }
        Err(refusal) => refusal,
    };
    if !refusal.fault.is_of_the_file() {
        let read = match refusal.fault {
            Fault::InUse | Fault::MissingDirectory => Read::default(),
            _ => read_untouched(&path),
        };
        let mut problems = skipped(&path, &read);
        let Refusal { fault, detail } = refusal;
        problems.push(Problem::NotStored { path, fault, detail });
        return Opened { connection: None, found: read.found, rewrite: true, problems };
    }
    start_anew(directory, path, &refusal)
}

/// Puts the file aside and starts a new one, with what can be read of the old one.
fn start_anew(directory: &Path, path: PathBuf, refusal: &Refusal) -> Opened {
    let kept_as = match put_aside(directory) {
        Ok(kept_as) => kept_as,
        Err(error) => {
            let read = read_untouched(&path);
            let fault = fault_of(error.kind());
            let detail = format!("{}, and it cannot be moved: {error}", refusal.detail);
            let problems = vec![Problem::NotStored { path, fault, detail }];
            return Opened { connection: None, found: read.found, rewrite: true, problems };
        }
    };
    // A database of another program may have tables of the same names.
    let read = match refusal.fault {
        Fault::Foreign => Read::default(),
        _ => read_untouched(&kept_as),
    };
    let mut problems = skipped(&kept_as, &read);
    let restored = rows::count(&read.found);
    let fault = refusal.fault;
    problems.push(Problem::MovedAside { path: path.clone(), fault, kept_as, restored });
    let connection = match connect(directory, &path) {
        Ok(connection) => Some(connection),
        Err(Refusal { fault, detail }) => {
            problems.push(Problem::NotStored { path, fault, detail });
            None
        }
    };
    Opened { connection, found: read.found, rewrite: true, problems }
}

/// Opens a sound file, or makes a new one, and holds it.
fn connect(directory: &Path, path: &Path) -> Result<Connection, Refusal> {
    prepare(directory, path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // Held by one process, the file needs no shared memory, which not every file system offers,
    // and a second daemon is told to stay away.
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE;")?;
    let number = |pragma: &str| {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0))
    };
    let (application, layout) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_new = tables == 0 && application == 0 && layout == 0;
    if !is_new && application != APPLICATION {
        let detail = format!("its application id is {application:#x}, not {APPLICATION:#x}");
        return Err(Refusal { fault: Fault::Foreign, detail });
    }
    if !is_new && layout > LAYOUT {
        let detail = format!("its layout is {layout}, this release knows {LAYOUT}");
        return Err(Refusal { fault: Fault::NewerSchema, detail });
    }
    if !is_new {
        // The whole check, not the quick one: a name that is damaged in a table and sound in its
        // index would be updated again and again and never be read.
        let verdict: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Refusal { fault: Fault::Corrupt, detail: verdict });
        }
    }
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = 4194304;
         PRAGMA cache_size = -2048;
         PRAGMA temp_store = MEMORY;",
    )?;
    if is_new {
        rows::create(&connection)?;
    } else {
        // Takes the lock, and shows now whether the file may be written to.
        connection.execute_batch("BEGIN IMMEDIATE; COMMIT;")?;
        if layout < LAYOUT {
            rows::migrate(&connection, layout)?;
        }
    }
    Ok(connection)
}

/// Whether the file that is open has lost its name: it was removed, renamed or replaced.
pub(super) fn has_moved(connection: &Connection) -> bool {
    let mut moved = 0;
    let asked = connection.file_control(Some(c"main"), FileControl::HasMoved(&mut moved));
    asked.is_ok() && moved != 0
}

/// Makes the directory (its last part only) and an empty file where there is none, for the owner
/// alone. Done here and not by SQLite, whose one error for all of it does not say what is wrong.
fn prepare(directory: &Path, path: &Path) -> Result<(), Refusal> {
    let refuse = |fault, error: &std::io::Error| Err(Refusal { fault, detail: error.to_string() });
    if let Err(error) = fs::metadata(directory) {
        if error.kind() != ErrorKind::NotFound {
            return refuse(fault_of(error.kind()), &error);
        }
        if let Err(error) = fs::DirBuilder::new().mode(0o700).create(directory) {
            let fault = match error.kind() {
                ErrorKind::NotFound => Fault::MissingDirectory,
                kind => fault_of(kind),
            };
            return refuse(fault, &error);
        }
    }
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let detail = "it is not a regular file".to_owned();
            return Err(Refusal { fault: Fault::Unreadable, detail });
        }
        Ok(_) => {}
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return refuse(fault_of(error.kind()), &error);
        }
        Err(_) => {
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            if let Err(error) = options.open(path) {
                return refuse(fault_of(error.kind()), &error);
            }
            // The name of the file has to survive a loss of power like what is in it. A file
            // system that cannot do that is no reason not to use it.
            let _ = fs::File::open(directory).and_then(|directory| directory.sync_all());
        }
    }
    match fs::OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            refuse(Fault::Unreadable, &error)
        }
        Err(error) => refuse(fault_of(error.kind()), &error),
        Ok(_) => Ok(()),
    }
}

fn fault_of(kind: ErrorKind) -> Fault {
    match kind {
        ErrorKind::PermissionDenied => Fault::Permission,
        ErrorKind::ReadOnlyFilesystem => Fault::ReadOnly,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Fault::Full,
        ErrorKind::NotADirectory => Fault::MissingDirectory,
        _ => Fault::Io,
    }
}

/// Reads what can be read of a file that may not be written to or is damaged, and leaves it as it
/// is: from a copy, because even reading may want to write beside it.
fn read_untouched(path: &Path) -> Read {
    let log = beside(path, "-wal");
    let has_log = fs::metadata(&log).is_ok_and(|found| found.len() > 0);
    let Ok(copies) = has_log.then(|| Copies::make(path, &log)).transpose() else {
        // No place for a copy: the part that was not moved into the file yet is out of reach.
        return read_as_it_is(path);
    };
    match &copies {
        Some(copies) => open_and_read(&copies.0.join(FILE_NAME), OpenFlags::SQLITE_OPEN_READ_WRITE),
        None => read_as_it_is(path),
    }
}

/// A directory with copies of a file and its log, removed when dropped.
struct Copies(PathBuf);

impl Copies {
    fn make(path: &Path, log: &Path) -> std::io::Result<Self> {
        let name = format!("purgewatch-{}-{}", std::process::id(), crate::clock::random_seed());
        let copies = Self(std::env::temp_dir().join(name));
        fs::DirBuilder::new().mode(0o700).create(&copies.0)?;
        let target = copies.0.join(FILE_NAME);
        fs::copy(path, &target)?;
        fs::copy(log, beside(&target, "-wal"))?;
        Ok(copies)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads the file alone, without its log (<https://www.sqlite.org/uri.html>, `immutable`).
fn read_as_it_is(path: &Path) -> Read {
    let Some(text) = path.to_str() else { return Read::default() };
    let mut uri = String::from("file:");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02x}"));
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    open_and_read(Path::new(&uri), flags)
}

fn open_and_read(path: &Path, flags: OpenFlags) -> Read {
    match Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX) {
        Ok(connection) => {
            // Nothing is written to the schema; this makes SQLite go on where the file is shorter
            // than its header says, and where a part of the schema cannot be understood.
            let _ = connection
                .execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA writable_schema = ON;");
            rows::read(&connection)
        }
        Err(error) => Read { error: Some(error), ..Read::default() },
    }
}

/// Renames the file, with what belongs to it, to `NAME.corrupt-N`, and removes the oldest of such
/// files. The log keeps its place beside it, so that `sqlite3` still opens both.
fn put_aside(directory: &Path) -> std::io::Result<PathBuf> {
    let mut kept = kept_aside(directory)?;
    let number = kept.last().map_or(1, |(number, _)| number.saturating_add(1));
    let target = directory.join(format!("{FILE_NAME}.corrupt-{number}"));
    let path = directory.join(FILE_NAME);
    fs::rename(&path, &target)?;
    for ending in ["-wal", "-journal"] {
        let _ = fs::rename(beside(&path, ending), beside(&target, ending));
    }
    let _ = fs::remove_file(beside(&path, "-shm"));
    kept.push((number, target.clone()));
    let excess = kept.len().saturating_sub(KEPT);
    for (_, old) in kept.drain(..excess) {
        let _ = if old.is_dir() { fs::remove_dir(&old) } else { fs::remove_file(&old) };
        for ending in ["-wal", "-journal"] {
            let _ = fs::remove_file(beside(&old, ending));
        }
    }
    Ok(target)
}

/// The files put aside earlier, the oldest first.
fn kept_aside(directory: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(FILE_NAME)?.strip_prefix(".corrupt-")?.parse().ok());
        kept.extend(number.map(|number| (number, entry.path())));
    }
    kept.sort();
    Ok(kept)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn skipped(path: &Path, read: &Read) -> Vec<Problem> {
    let count = read.skipped;
    if count == 0 { Vec::new() } else { vec![Problem::RowsSkipped { path: path.into(), count }] }
}
