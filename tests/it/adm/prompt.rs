//! The prompt, on a pseudo-terminal, at a real varnishd.

mod terminal;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use self::terminal::Terminal;
use super::ours;
use crate::support::varnish::{Options, Varnishd, free_port};

fn varnishd() -> Varnishd {
    let vcl = "backend default none;".to_owned();
    Varnishd::start(Options { vcl: Some(vcl), ..Options::default() })
}

/// `purgewatch adm` at a prompt.
fn prompt(varnishd: &Varnishd, arguments: &[&str], environment: &[(&str, &str)]) -> Terminal {
    let mut words = vec!["adm".to_owned(), "-T".to_owned(), varnishd.admin.to_string()];
    words.extend(["-S".to_owned(), varnishd.secret_file().display().to_string()]);
    words.extend(arguments.iter().map(ToString::to_string));
    let state = varnishd.dir().join("state");
    let mut environment = environment.to_vec();
    environment.push(("XDG_STATE_HOME", state.to_str().unwrap()));
    Terminal::start(ours(), &words, &environment)
}

#[test]
fn a_session() {
    let mut varnishd = varnishd();
    let mut terminal = prompt(&varnishd, &[], &[]);
    terminal.expect("200\n-----------------------------\nVarnish Cache CLI 1.0\n");
    terminal.expect("varnish> ");
    terminal.enter("ping");
    terminal.expect("200\nPONG ");
    terminal.enter("nonsense");
    terminal.expect("101\n");
    terminal.expect("Unknown request.");

    terminal.enter("vcl.inline typed << EOF");
    terminal.expect("> ");
    terminal.enter("vcl 4.1;");
    terminal.enter("backend default none;");
    terminal.enter("EOF");
    terminal.expect("200\n");
    assert!(varnishd.adm(&["vcl.list"]).contains("typed"));

    // Completed by what the server has now.
    varnishd.adm(&["vcl.inline", "completed_by_tab", "vcl\\x204.1;backend\\x20b\\x20none;"]);
    terminal.send("vcl.use compl\t");
    terminal.expect("eted_by_tab");
    terminal.enter("");
    terminal.expect("200\nVCL 'completed_by_tab' now active");
    let list = varnishd.adm(&["vcl.list"]);
    assert!(list.lines().any(|line| line.starts_with("active") && line.contains("completed")));

    varnishd.stop();
    terminal.expect("purgewatch: the connection was lost; ");
    terminal.expect("varnish> ");
    terminal.send("pin");
    varnishd.start_again();
    terminal.expect("purgewatch: the connection is back to varnish-");
    // The line that was being typed is still there.
    terminal.enter("g");
    terminal.expect("200\nPONG ");

    terminal.enter("status -j");
    terminal.expect("200\n[\n  2,\n  [\"status\", \"-j\"],\n");
    terminal.enter("help");
    terminal.expect("ban.list [-j]                         List the active bans.");
    terminal.enter("quit");
    terminal.expect("500\nClosing CLI connection\n");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn a_command_that_takes_long_is_waited_for_or_given_up() {
    let varnishd = varnishd();
    let mut terminal = prompt(&varnishd, &["-t", "60"], &[]);
    terminal.expect("varnish> ");
    // The cache process has to answer, and is stopped.
    let worker = pid(&varnishd, "Worker:");
    kill_process(worker, Signal::STOP).unwrap();
    terminal.enter("ban.list");
    terminal.expect("waiting for the answer to ban.list");
    terminal.send("\x03");
    terminal.expect("ban.list: given up; whether it was carried out is unknown");
    terminal.expect("varnish> ");
    kill_process(worker, Signal::CONT).unwrap();
    // Its answer is nobody else's.
    terminal.enter("ping");
    terminal.expect("200\nPONG ");
    terminal.expect("varnish> ");
    terminal.send("nonsense");
    terminal.expect("nonsense");
    terminal.send("\x03");
    terminal.expect("varnish> ");
    terminal.send("\x04");
    assert_eq!(terminal.ends(), Some(0));
}

/// The process of which `pid` says so.
fn pid(varnishd: &Varnishd, name: &str) -> Pid {
    let pids = varnishd.adm(&["pid"]);
    let number = pids.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    Pid::from_raw(number.trim().parse().unwrap()).unwrap()
}

#[test]
fn what_is_known_of_a_command_without_an_answer_is_said() {
    let mut varnishd = varnishd();
    let mut terminal = prompt(&varnishd, &["-t", "2"], &[]);
    terminal.expect("varnish> ");
    let (master, worker) = (pid(&varnishd, "Master:"), pid(&varnishd, "Worker:"));
    kill_process(worker, Signal::STOP).unwrap();
    terminal.enter("ban obj.status == 1");
    terminal.expect("waiting for the answer to ban");
    terminal.expect(": ban: no reply within 2s: ");
    terminal.expect("; whether it was carried out is unknown");
    kill_process(worker, Signal::CONT).unwrap();
    terminal.enter("ping");
    terminal.expect("200\nPONG ");

    kill_process(worker, Signal::STOP).unwrap();
    terminal.enter("ban obj.status == 2");
    terminal.expect("waiting for the answer to ban");
    kill_process(master, Signal::KILL).unwrap();
    terminal.expect(": ban: the ");
    terminal.expect("; whether it was carried out is unknown");
    kill_process(worker, Signal::CONT).unwrap();
    while test_kill_process(worker).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    varnishd.start_again();
    terminal.expect("the connection is back to varnish-");
    terminal.enter("ban.list");
    terminal.expect("200\nPresent bans:\n");
    terminal.expect("varnish> ");
    assert!(!varnishd.adm(&["ban.list"]).contains("obj.status"), "nothing is sent again");
    terminal.send("\x04");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn the_terminal_is_left_as_it_was() {
    let varnishd = varnishd();
    let mut terminal = prompt(&varnishd, &[], &[]);
    terminal.expect("varnish> ");
    assert!(!terminal.edits_lines());
    terminal.enter("quit");
    assert_eq!(terminal.ends(), Some(0));
    assert!(terminal.edits_lines());

    let mut terminal = prompt(&varnishd, &[], &[]);
    terminal.expect("varnish> ");
    terminal.terminate();
    assert_eq!(terminal.ends(), Some(130));
    assert!(terminal.edits_lines());
}

#[test]
fn the_history_is_private_and_keeps_no_secret() {
    let varnishd = varnishd();
    let mut terminal = prompt(&varnishd, &[], &[]);
    terminal.expect("varnish> ");
    for (line, expected) in [
        ("ping 1", "PONG"),
        (" ping 2", "PONG"),
        ("auth 0123456789", "varnish> "),
        ("status", "Child in state"),
    ] {
        terminal.enter(line);
        terminal.expect(expected);
    }
    terminal.expect("varnish> ");
    terminal.enter("exit");
    assert_eq!(terminal.ends(), Some(0));
    let file = varnishd.dir().join("state/purgewatch/adm_history");
    let kept = fs::read_to_string(&file).unwrap();
    assert_eq!(kept, "ping 1\nstatus\nexit\n");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let mut terminal = prompt(&varnishd, &[], &[]);
    terminal.expect("varnish> ");
    // Twice up, past `exit`.
    terminal.send("\x1b[A\x1b[A\r");
    terminal.expect("200\nChild in state running");
    terminal.send("\x04");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn a_plain_terminal_gets_plain_text() {
    let varnishd = varnishd();
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let mut terminal = prompt(&varnishd, &[], &[environment]);
        terminal.expect("varnish> ");
        terminal.enter("nonsense");
        terminal.expect("101\n");
        terminal.expect("varnish> ");
        terminal.enter("quit");
        terminal.expect("500\n");
        assert_eq!(terminal.ends(), Some(0), "{environment:?}");
        let raw = terminal.raw();
        assert!(!raw.contains("\x1b[2m") && !raw.contains("\x1b[1;"), "{raw:?}");
    }
}

#[test]
fn without_a_first_connection_there_is_no_prompt() {
    let nobody = free_port("127.0.0.1").to_string();
    let words = ["adm", "-T", &nobody, "-S", "none"].map(str::to_owned);
    let mut terminal = Terminal::start(ours(), &words, &[]);
    terminal.expect("Connection failed (");
    assert_eq!(terminal.ends(), Some(2));
    assert!(!terminal.raw().contains("varnish> "));
}

/// With -p, and when the result goes elsewhere, there is nobody to prompt.
#[test]
fn a_program_is_not_prompted() {
    let varnishd = varnishd();
    let mut terminal = prompt(&varnishd, &["-p"], &[]);
    terminal.enter("ping");
    terminal.expect("200 ");
    terminal.send("\x04");
    assert_eq!(terminal.ends(), Some(0));
    assert!(!terminal.raw().contains("varnish> "));
}
