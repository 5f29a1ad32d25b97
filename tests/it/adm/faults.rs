//! Peers that go away, say nothing, or answer somebody else.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{command, ended, ours};
use crate::support::faulty::{Conversation, Faulty};

/// Replies to commands have no text here.
const DONE: &[u8] = b"200 0       \n\n";

/// As many commands as are under way at a time.
const WINDOW: usize = 128;

fn start(peer: &Faulty, arguments: &[&str]) -> Child {
    let address = peer.address.to_string();
    command(ours()).args(["adm", "-T", &address]).args(arguments).spawn().unwrap()
}

fn run(peer: &Faulty, arguments: &[&str], input: &str) -> Output {
    let mut process = start(peer, arguments);
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    process.wait_with_output().unwrap()
}

fn statuses(count: usize) -> String {
    (1..=count).map(|n| format!("vcl.list {n}\n")).collect()
}

/// Greets, answers three commands, reads as many as can be under way, and goes.
fn goes_after_three(peer: &mut Conversation) {
    peer.greet();
    for _ in 0..3 {
        peer.line();
        peer.say(DONE);
    }
    for _ in 0..WINDOW {
        peer.line();
    }
}

#[test]
fn a_connection_lost_in_a_batch_leaves_no_doubt_which_lines_are_in_doubt() {
    let peer = Faulty::start(goes_after_three);
    let (status, out, err) = ended(&run(&peer, &[], &statuses(300)));
    assert_eq!((status, out.as_str()), (Some(2), "\n\n\n"), "{err}");
    assert!(err.contains("3 commands were answered"), "{err}");
    let unknown: Vec<_> =
        err.lines().filter(|line| line.contains("unknown whether it was carried out:")).collect();
    assert_eq!(unknown.len(), WINDOW, "{err}");
    assert!(unknown[0].ends_with("line 4: vcl.list 4"), "{}", unknown[0]);
    assert!(unknown[WINDOW - 1].ends_with("line 131: vcl.list 131"), "{}", unknown[WINDOW - 1]);
    assert!(err.contains("not sent: line 132 and what follows"), "{err}");
}

#[test]
fn what_is_in_doubt_is_sent_again_on_request() {
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    let peer = Faulty::start(move |peer| {
        if seen.fetch_add(1, Ordering::SeqCst) == 0 {
            return goes_after_three(peer);
        }
        peer.greet();
        for n in 4.. {
            let line = peer.line();
            if line.is_empty() {
                return;
            }
            assert_eq!(line, format!("vcl.list {n}\n"));
            peer.say(DONE);
        }
    });
    let (status, out, err) = ended(&run(&peer, &["--retries", "1"], &statuses(300)));
    assert_eq!((status, out), (Some(0), "\n".repeat(300)), "{err}");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[test]
fn no_answer_is_no_success() {
    let peer = Faulty::start(|peer| {
        peer.greet();
        peer.wait_for_the_end();
    });
    let (status, out, err) = ended(&run(&peer, &["-t", "0.3", "status"], ""));
    assert_eq!((status, out.as_str()), (Some(2), ""));
    assert!(err.contains("300ms") && err.contains("unknown"), "{err}");
}

#[test]
fn the_limit_holds_before_the_command_as_well() {
    let peer = Faulty::start(Conversation::wait_for_the_end);
    let start = std::time::Instant::now();
    let (status, out, err) = ended(&run(&peer, &["-t", "0.3", "status"], ""));
    assert_eq!((status, out.as_str()), (Some(2), ""));
    assert!(err.contains("greeting"), "{err}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn an_answer_of_another_command_is_no_success() {
    let peer = Faulty::answering(b"200 19      \nPONG 1795476271 1.0\n");
    let (status, out, err) = ended(&run(&peer, &["ban", "obj.http.x", "==", "y"], ""));
    assert_eq!((status, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.contains("another command"), "{err}");
}

#[test]
fn what_is_no_varnish_is_rejected() {
    let peer = Faulty::start(|peer| {
        peer.say(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
        peer.wait_for_the_end();
    });
    let (status, _, err) = ended(&run(&peer, &["ping"], ""));
    assert_eq!(status, Some(2));
    assert!(err.starts_with("Rejected 400\nCLI communication error (hdr)\n"), "{err}");
}

#[test]
fn an_interrupt_says_what_is_open() {
    let peer = Faulty::start(|peer| {
        peer.greet();
        for _ in 0..2 {
            peer.line();
            peer.say(DONE);
        }
        peer.wait_for_the_end();
    });
    let mut process = start(&peer, &[]);
    process.stdin.take().unwrap().write_all(statuses(3).as_bytes()).unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    for _ in 0..2 {
        stdout.read_line(&mut String::new()).unwrap();
    }
    let pid = process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut err = String::new();
    process.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(130), "{err}");
    assert!(err.contains("2 commands were answered"), "{err}");
    assert!(err.contains("line 3: vcl.list 3"), "{err}");
}
