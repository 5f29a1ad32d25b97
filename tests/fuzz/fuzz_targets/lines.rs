//! What splits into words is spelt anew and splits into the same words; a command is one line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purgewatch::protocol::{Command, split};

fuzz_target!(|line: &[u8]| {
    let Ok(command) = Command::parse(line) else { return };
    let (end, written) = command.as_line().split_last().unwrap();
    assert_eq!(*end, b'\n');
    assert!(written.iter().all(|b| (0x20..0x7f).contains(b)));
    let (meant, read) = (split(line).unwrap(), split(written).unwrap());
    assert_eq!(meant[1..], read[1..]);
});
