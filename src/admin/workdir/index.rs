//! The index of Varnish's shared memory, as bytes.
//!
//! varnishd's manager lists the pieces of its shared memory in `_.vsm_mgt/_.index`, a text file:
//!
//! ```text
//! # 12942 1795476280
//! + _.Arg.ab2e303bc1696fd4 0 24 Arg -T
//! - _.Arg.ab2e303bc1696fd4 0 24 Arg -T
//! ```
//!
//! The first line has the manager's process id and when it started. The others add (`+`) or
//! retract (`-`) a piece: file, offset, length, class, and a name within the class. The file grows
//! at its end, and is replaced as a whole when too much of it was retracted. The layout is that of
//! vsm(7), the same from Varnish 6.0 on and in Vinyl Cache.
//!
//! Nothing here is trusted: the directory belongs to whoever the operator named.

use super::super::place::MOST_ADDRESSES;
use crate::model::HostPort;

/// So many pieces are kept. varnishd's manager has fewer than ten.
const MOST_PIECES: usize = 4_096;

/// What the index says, as far as the admin port is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    /// The manager's process id, in its own namespace; 0 when the line has none that can be one.
    pub(super) manager: u32,
    pieces: Vec<Piece>,
}

/// A piece of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its file, in the directory of the index: a plain name, no path.
    pub(super) file: String,
    /// Where it begins in the file, in bytes.
    pub(super) offset: usize,
    /// How long it is, in bytes, rounded up to a multiple of 8.
    pub(super) length: usize,
    class: String,
    name: String,
}

/// Why a text is no index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It does not begin with the manager's line. It is another file, or nothing was written yet.
    #[error("it does not begin with the manager's process id")]
    Header,
}

/// Why a piece has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// The index says that it lies beyond the end of its file.
    #[error("the index places it at bytes {offset} to {end}, beyond the {size} bytes of the file")]
    Beyond {
        /// Where it would begin.
        offset: usize,
        /// Where it would end.
        end: usize,
        /// How long the file is, or as much of it as is read.
        size: usize,
    },
}

impl Index {
    /// Reads an index. Lines that are no piece are passed over, as is a last line without its end:
    /// it is being written.
    ///
    /// # Errors
    /// [`IndexError`] when it is no index at all.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let end = bytes.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
        let whole = bytes.get(..end).unwrap_or_default();
        let mut index: Option<Self> = None;
        for line in whole.split(|&byte| byte == b'\n') {
            let Ok(line) = str::from_utf8(line) else { continue };
            match (line.split_at_checked(1), &mut index) {
                // A second one means that everything before it is over.
                (Some(("#", rest)), _) => {
                    if let Some(manager) = manager(rest) {
                        index = Some(Self { manager, pieces: Vec::new() });
                    }
                }
                (Some(("+", rest)), Some(index)) => {
                    if let Some(piece) = Piece::parse(rest)
                        && index.pieces.len() < MOST_PIECES
                    {
                        index.pieces.push(piece);
                    }
                }
                (Some(("-", rest)), Some(index)) => {
                    let gone = Piece::parse(rest);
                    let same = |known: &Piece| gone.as_ref() == Some(known);
                    if let Some(at) = index.pieces.iter().position(same) {
                        index.pieces.remove(at);
                    }
                }
                (_, None) => return Err(IndexError::Header),
                _ => {}
            }
        }
        index.ok_or(IndexError::Header)
    }

    /// The pieces that hold an argument of varnishd's command line, such as `-T`, in the order in
    /// which they were given.
    pub(super) fn arguments<'a>(&'a self, flag: &'a str) -> impl Iterator<Item = &'a Piece> {
        self.pieces.iter().filter(move |piece| piece.class == "Arg" && piece.name == flag)
    }
}

/// The process id of a header line; 0 for one that no process can have.
fn manager(text: &str) -> Option<u32> {
    let mut fields = text.split_ascii_whitespace();
    let number = |field: &str| field.bytes().all(|byte| byte.is_ascii_digit());
    let pid = fields.next().filter(|field| number(field))?;
    fields.next().filter(|field| number(field))?;
    Some(pid.parse().ok().filter(|&pid| i32::try_from(pid).is_ok()).unwrap_or(0))
}

impl Piece {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.strip_prefix(' ')?.splitn(5, ' ');
        let file = fields.next()?;
        let number = |field: Option<&str>| field?.parse::<usize>().ok();
        let (offset, length) = (number(fields.next())?, number(fields.next())?);
        let (class, name) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let plain = !file.is_empty()
            && file.len() <= 255
            && file != "."
            && file != ".."
            && !file.contains(['/', '\0']);
        plain.then(|| Self {
            file: file.to_owned(),
            offset,
            length,
            class: class.to_owned(),
            name: name.trim_end().to_owned(),
        })
    }

    /// Its value, out of the bytes of its file: what stands before the first NUL.
    ///
    /// # Errors
    /// [`PieceError`] when the file is shorter than the index says.
    pub(super) fn value<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], PieceError> {
        let end = self.offset.saturating_add(self.length);
        let piece = file.get(self.offset..end).ok_or(PieceError::Beyond {
            offset: self.offset,
            end,
            size: file.len(),
        })?;
        Ok(piece.split(|&byte| byte == 0).next().unwrap_or_default())
    }
}

/// The addresses in the value of a `-T`: one on each line, host and port with a blank between.
/// Lines that are none are passed over; at most 16 are returned, each once.
pub(super) fn addresses(value: &[u8]) -> Vec<HostPort> {
    let mut found: Vec<HostPort> = Vec::new();
    for line in value.split(|&byte| byte == b'\n') {
        let parsed = str::from_utf8(line).ok().and_then(|line| line.trim().parse().ok());
        if let Some(address) = parsed
            && found.len() < MOST_ADDRESSES
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    /// What varnishd 7.1.1 wrote.
    fn fixture(name: &str) -> Vec<u8> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/workdir");
        fs::read(root.join(name)).unwrap()
    }

    fn read(name: &str) -> Index {
        Index::parse(&fixture(&format!("{name}/_.vsm_mgt/_.index"))).unwrap()
    }

    fn values(name: &str, flag: &str) -> Vec<Vec<u8>> {
        let value = |piece: &Piece| {
            let file = fixture(&format!("{name}/_.vsm_mgt/{}", piece.file));
            piece.value(&file).unwrap().to_vec()
        };
        read(name).arguments(flag).map(value).collect()
    }

    fn written(values: &[Vec<u8>]) -> Vec<String> {
        values.iter().flat_map(|value| addresses(value)).map(|a| a.to_string()).collect()
    }

    #[test]
    fn what_a_real_varnishd_wrote() {
        assert_eq!(read("auto-secret").manager, 12_942);
        assert_eq!(written(&values("auto-secret", "-T")), ["127.0.0.1:43923"]);
        assert_eq!(values("auto-secret", "-S"), [b"/tmp/wd/a/_.secret"]);
        assert_eq!(
            written(&values("several-t", "-T")),
            ["0.0.0.0:21467", "[::]:21467", "127.0.0.1:21468"]
        );
        assert_eq!(values("several-t", "-S"), [b"/tmp/wd/sec"]);
        assert!(values("t-none", "-T").is_empty());
        assert!(values("s-none", "-S").is_empty());
    }

    #[test]
    fn retracted_pieces_are_gone() {
        let index = Index::parse(&fixture("retracted/_.index")).unwrap();
        let names: Vec<_> = index.pieces.iter().map(|piece| piece.name.as_str()).collect();
        for gone in ["VBE.v1.b1", "VBE.v2.b2", "VBE.v3.b3"] {
            assert!(!names.contains(&gone), "{gone}");
        }
        assert!(names.contains(&"VBE.v4.b4") && names.contains(&"MAIN"));
        let text = "# 7 8\n+ a 0 8 Arg -T\n+ b 0 8 Arg -T\n- a 0 8 Arg -T\n";
        let index = Index::parse(text.as_bytes()).unwrap();
        let files: Vec<_> = index.arguments("-T").map(|piece| piece.file.as_str()).collect();
        assert_eq!(files, ["b"]);
    }

    #[test]
    fn what_is_being_written_or_is_no_piece_is_passed_over() {
        let text = "# 7 8\n\n? what\n+\n+ \n+ a 0 Arg -T\n+ a -1 8 Arg -T\n+ ../x 0 8 Arg -T\n\
                    + .. 0 8 Arg -T\n+ b 99999999999999999999 8 Arg -T\n- z 0 8 Arg -T\n\
                    + c 0 8 Arg -T\n+ d 0 8 Arg -";
        let index = Index::parse(text.as_bytes()).unwrap();
        let files: Vec<_> = index.arguments("-T").map(|piece| piece.file.as_str()).collect();
        assert_eq!(files, ["c"]);
        let restarted = format!("{text}\n# 9 9\n+ e 0 8 Arg -T\n");
        let index = Index::parse(restarted.as_bytes()).unwrap();
        assert_eq!((index.manager, index.pieces.len()), (9, 1));
    }

    #[test]
    fn what_is_no_index_is_said() {
        for text in ["", "#", "# 1", "# 1 2", "+ a 0 8 Arg -T\n", "# x 2\n", "# -1 2\n", "\n"] {
            assert_eq!(Index::parse(text.as_bytes()), Err(IndexError::Header), "{text:?}");
        }
        assert_eq!(Index::parse(b"# 4294967296 2\n").unwrap().manager, 0, "no process has it");
    }

    #[test]
    fn a_piece_beyond_its_file_is_refused() {
        let piece = |offset, length| Piece {
            file: "a".to_owned(),
            offset,
            length,
            class: "Arg".to_owned(),
            name: "-T".to_owned(),
        };
        assert_eq!(piece(2, 4).value(b"..ab\0d").unwrap(), b"ab");
        assert_eq!(piece(0, 0).value(b"").unwrap(), b"");
        let beyond = |offset, end, size| Err(PieceError::Beyond { offset, end, size });
        assert_eq!(piece(4, 8).value(b"......"), beyond(4, 12, 6));
        assert_eq!(piece(usize::MAX, 8).value(b""), beyond(usize::MAX, usize::MAX, 0));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(index) = Index::parse(&bytes) {
                for piece in &index.pieces {
                    let _ = piece.value(&bytes);
                    prop_assert!(!piece.file.contains('/'));
                }
            }
            prop_assert!(addresses(&bytes).len() <= MOST_ADDRESSES);
        }

        #[test]
        fn no_index_panics(text in "(# [0-9]{1,12} [0-9]{1,3}\n|[+-] [ab./]{1,3} [0-9]{1,21} \
                                     [0-9]{1,3}( Arg)?( -[ST])?\n){0,12}") {
            if let Ok(index) = Index::parse(text.as_bytes()) {
                for piece in index.arguments("-T") {
                    let _ = piece.value(b"127.0.0.1 6082\n\0");
                }
            }
        }

        #[test]
        fn what_is_added_and_not_retracted_is_there(
            kept in prop::collection::vec(any::<bool>(), 1..20),
        ) {
            let mut text = "# 1 2\n".to_owned();
            for at in 0..kept.len() {
                text.push_str(&format!("+ f{at} 0 8 Arg -T\n"));
            }
            for (at, _) in kept.iter().enumerate().filter(|(_, kept)| !**kept) {
                text.push_str(&format!("- f{at} 0 8 Arg -T\n"));
            }
            let index = Index::parse(text.as_bytes()).unwrap();
            let left: Vec<_> = index.arguments("-T").map(|piece| piece.file.clone()).collect();
            let expected = kept.iter().enumerate().filter(|(_, kept)| **kept);
            let expected: Vec<_> = expected.map(|(at, _)| format!("f{at}")).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
