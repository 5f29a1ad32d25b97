//! One command on several nodes.

use super::{command, ended, ours};
use crate::support::varnish::{Options, Varnishd, free_port};

fn configuration(dir: &std::path::Path, nodes: &[(&str, String, &std::path::Path)]) -> String {
    use std::fmt::Write as _;
    let mut toml = String::from("[[origin]]\nname = \"app\"\naddress = \"http://127.0.0.1:9\"\n");
    for (port, (name, admin, secret)) in (1..).zip(nodes) {
        let secret = secret.display();
        write!(
            toml,
            "[[node]]\nname = \"{name}\"\nhttp = \"http://127.0.0.1:{port}\"\nadmin = \"{admin}\"\n\
             secret_file = \"{secret}\"\n"
        )
        .unwrap();
    }
    toml.push_str("[[endpoint]]\nname = \"e\"\nurl = \"http://h/\"\norigin = \"app\"\n");
    let path = dir.join("purgewatch.toml");
    std::fs::write(&path, toml).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_node_is_asked_and_one_that_is_dead_stops_nobody() {
    let (first, last) = (Varnishd::start(Options::default()), Varnishd::start(Options::default()));
    let nodes = [
        ("first", first.admin.to_string(), first.secret_file()),
        ("dead", free_port("127.0.0.1").to_string(), first.secret_file()),
        ("last", last.admin.to_string(), last.secret_file()),
    ];
    let config = configuration(first.dir(), &nodes);
    let run = |arguments: &[&str]| {
        let all = [&["adm", "-c", &config], arguments].concat();
        ended(&command(ours()).args(all).output().unwrap())
    };
    let (status, out, err) = run(&["status"]);
    assert_eq!(status, Some(2), "{err}");
    assert_eq!(out, "first: Child in state running\nlast: Child in state running\n");
    assert!(err.starts_with("purgewatch: dead: connecting:"), "{err}");

    let (status, out, err) = run(&["--node", "last", "--node", "first", "vcl.use", "none"]);
    assert_eq!((status, out.lines().count()), (Some(1), 2), "{out}{err}");
    assert_eq!(err.matches("Command failed with error code 106").count(), 2, "{err}");

    let (status, out, _) = run(&["--output", "jsonl", "status"]);
    assert_eq!(status, Some(2));
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = lines.iter().map(|line| line["node"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "dead", "last"]);
    assert_eq!(lines[0]["body"], "Child in state running");
    assert_eq!((&lines[0]["done"], &lines[1]["done"]), (&true.into(), &false.into()));
    assert_eq!(lines[1]["reason"], "refused");

    let (status, out, _) = run(&["--node", "last", "--output", "json", "ping"]);
    assert_eq!(status, Some(0));
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["nodes"][0]["status"], 200);

    let (status, _, err) = run(&[]);
    assert_eq!(status, Some(1));
    assert!(err.contains("take one command"), "{err}");
}

#[test]
fn a_varnishd_that_dials_in_is_waited_for() {
    let address = free_port("127.0.0.1").to_string();
    let arguments = vec!["-M".to_owned(), address.clone()];
    let varnishd = Varnishd::start(Options { arguments, ..Options::default() });
    let output = command(ours())
        .args(["adm", "--listen", &address, "-S"])
        .arg(varnishd.secret_file())
        .arg("status")
        .output()
        .unwrap();
    assert_eq!(ended(&output), (Some(0), "Child in state running\n".to_owned(), String::new()));
}
