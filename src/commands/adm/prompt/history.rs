//! The commands of earlier sessions.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::protocol::{Script, Verb};

/// So many commands are kept.
pub(super) const MOST: usize = 1_000;

/// The longest command that is kept, in bytes. A whole VCL belongs into a file.
const LONGEST: usize = 8 * 1024;

/// No more of the file is read, in bytes from its end.
const READ: u64 = 1 << 20;

/// Only its owner may read or write it.
const MODE: u32 = 0o600;

/// Whether a command may be kept: not the answer to a challenge, and nothing that begins with a
/// blank, which is how whoever types says that it is not to be kept.
pub(super) fn is_kept(text: &str) -> bool {
    if text.len() > LONGEST || text.starts_with(|c: char| c.is_whitespace()) {
        return false;
    }
    let mut requests = Script::new();
    requests.push(text.as_bytes());
    requests.finish();
    let is_auth = |request: &crate::protocol::Request| request.verb() == Some(&Verb::AUTH);
    // An incomplete or misspelt one is no less secret.
    let looks_so = |line: &str| {
        let line = line.trim_start_matches(|c: char| !c.is_alphanumeric());
        line.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("auth"))
    };
    !text.trim().is_empty()
        && !requests.flatten().any(|one| is_auth(&one))
        && !text.lines().any(looks_so)
}

/// The file that holds the history: one command a line, oldest first.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
}

impl History {
    /// Where the history belongs (XDG Base Directory Specification, `XDG_STATE_HOME`); `None`
    /// without a home.
    pub(super) fn usual_path() -> Option<PathBuf> {
        let directory = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let state = directory("XDG_STATE_HOME")
            .or_else(|| directory("HOME").map(|home| home.join(".local/state")))?;
        Some(state.join("purgewatch/adm_history"))
    }

    /// Opens or makes it; with what it holds, oldest first.
    ///
    /// # Errors
    /// When it can be neither read nor written.
    pub(super) fn open(path: PathBuf) -> io::Result<(Self, Vec<String>)> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut file = open(&path)?;
        let length = file.metadata()?.len();
        let (kept, whole) = read(&mut file, length)?;
        let history = Self { path };
        if !whole {
            history.write_anew(&kept)?;
        }
        Ok((history, kept))
    }

    /// Adds a command, which has to be one that [`is_kept`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn add(&self, text: &str) -> io::Result<()> {
        // In one write, so that the lines of several sessions do not mix.
        open(&self.path)?.write_all(as_line(text).as_bytes())
    }

    /// Puts a file with only these commands in its place.
    fn write_anew(&self, kept: &[String]) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        let text: String = kept.iter().map(|text| as_line(text)).collect();
        file.write_all(text.as_bytes())?;
        file.persist(&self.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_link = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(MODE);
    options.custom_flags(no_link.bits().cast_signed());
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other(format!("{} is no regular file", path.display())));
    }
    if metadata.permissions().mode() & 0o777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

/// The last commands in the file, and whether these are all that is in it.
fn read(file: &mut File, length: u64) -> io::Result<(Vec<String>, bool)> {
    let from = length.saturating_sub(READ);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(READ).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may be the end of one.
    let lines: Vec<&str> = text.lines().skip(usize::from(from > 0)).collect();
    let mut kept: Vec<String> =
        lines.iter().map(|line| from_line(line)).filter(|text| is_kept(text)).collect();
    kept.drain(..kept.len().saturating_sub(MOST));
    // Written anew only now and then, not for each line too many.
    let whole = from == 0 && lines.len() < kept.len() + MOST / 2;
    Ok((kept, whole))
}

fn as_line(text: &str) -> String {
    let text = text.trim_end().replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
    text + "\n"
}

fn from_line(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match (c, c == '\\') {
            (_, true) => match rest.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some(other) => text.push(other),
                None => text.push('\\'),
            },
            (c, false) => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    #[test]
    fn secrets_and_what_begins_with_a_blank_are_not_kept() {
        for text in ["ping", "vcl.use boot", "help auth", "vcl.inline a << X\nvcl 4.1;\nX"] {
            assert!(is_kept(text), "{text:?}");
        }
        for text in [
            "auth 0123",
            "auth",
            "AUTH 0123",
            "\"auth\" 0123",
            "\\x61uth 0123",
            "\"au\\164h\" 0123",
            "-auth 0123",
            "ping\nauth 0123",
            "auth 0123 << X",
            " ping",
            "\tping",
            "",
            "\n",
        ] {
            assert!(!is_kept(text), "{text:?}");
        }
        assert!(!is_kept(&"x".repeat(LONGEST + 1)));
    }

    #[test]
    fn a_command_of_several_lines_is_one_line_of_the_file() {
        let text = "vcl.inline a << X\nset x = \"a\\nb\";\nX";
        let line = as_line(text);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(from_line(line.trim_end()), text);
    }

    #[test]
    fn it_is_private_bounded_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/purgewatch/adm_history");
        let (history, kept) = History::open(path.clone()).unwrap();
        assert!(kept.is_empty());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        for n in 0..2 * MOST {
            history.add(&format!("ping {n}")).unwrap();
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let (_, kept) = History::open(path.clone()).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(kept.len(), MOST);
        assert_eq!(kept.last().map(String::as_str), Some("ping 1999"));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), MOST);
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (link, file) = (directory.path().join("link"), directory.path().join("file"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(History::open(link).is_err());
    }
}
