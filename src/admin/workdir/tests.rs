//! Work directories as files, without a varnishd.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/workdir").join(name)
}

fn written(instance: &Instance) -> Vec<String> {
    instance.addresses.iter().map(ToString::to_string).collect()
}

/// A work directory with these files in `_.vsm_mgt`.
fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("_.vsm_mgt");
    fs::create_dir(&inner).unwrap();
    for (name, text) in files {
        fs::write(inner.join(name), text).unwrap();
    }
    dir
}

fn error_of(dir: &Path) -> WorkdirError {
    Workdir::new(dir).find().unwrap_err()
}

#[test]
fn what_a_real_varnishd_wrote_is_found() {
    let found = Workdir::new(fixture("auto-secret")).find().unwrap();
    assert_eq!((written(&found), found.manager), (vec!["127.0.0.1:43923".to_owned()], 12_942));
    assert_eq!(found.secret.file(), Some(Path::new("/tmp/wd/a/_.secret")));
    let found = Workdir::new(fixture("several-t")).find().unwrap();
    assert_eq!(written(&found), ["0.0.0.0:21467", "[::]:21467", "127.0.0.1:21468"]);
    let found = Workdir::new(fixture("s-none")).find().unwrap();
    assert!(matches!(found.secret, SecretSource::None));
    let error = error_of(&fixture("t-none"));
    assert_eq!(error.label(), "workdir_no_admin_port");
    assert!(error.to_string().ends_with("started with -T none"), "{error}");
}

#[test]
fn what_is_not_there_is_said_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    assert_eq!(error_of(&absent), WorkdirError::Missing { tried: vec![absent.clone()] });
    assert_eq!(error_of(dir.path()), WorkdirError::NoIndex { dir: dir.path().to_owned() });
    assert!(!Workdir::new(dir.path()).is_there());
    let error = Workdir::new("no-such-instance").find().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/var/lib/varnish/no-such-instance, /var/run/no-such"), "{text}");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(error_of(&file).label(), "workdir_missing");
}

#[test]
fn a_hostile_directory_is_refused() {
    let unreadable = |files: &[(&str, &str)]| match error_of(dir_with(files).path()) {
        WorkdirError::Unreadable { path, reason } => {
            format!("{}: {reason}", path.file_name().unwrap().display())
        }
        other => panic!("{other:?}"),
    };
    let said = unreadable(&[("_.index", "\u{1b}[2J")]);
    assert_eq!(said, "_.index: it does not begin with the manager's process id");
    let said = unreadable(&[("_.index", "# 1 2\n+ a 0 8 Arg -T\n")]);
    assert_eq!(said, "a: the index names it and it is not there");
    let index = ("_.index", "# 1 2\n+ a 4096 8 Arg -T\n");
    let said = unreadable(&[index, ("a", "127.0.0.1 1\n")]);
    assert!(
        said.starts_with("a: the index places it at bytes 4096 to 4104, beyond the 12"),
        "{said}"
    );
    let index = ("_.index", "# 1 2\n+ a 0 8 Arg -T\n");
    assert_eq!(unreadable(&[index, ("a", "\0\0\0\0\0\0\0\0")]), "a: it holds no address");
    let long = "#".repeat(INDEX_LIMIT + 1);
    assert_eq!(unreadable(&[("_.index", &long)]), "_.index: it has more than 1048576 bytes");

    let dir = dir_with(&[]);
    symlink("/dev/zero", dir.path().join(INDEX)).unwrap();
    let text = error_of(dir.path()).to_string();
    assert!(text.ends_with("it is no regular file"), "{text}");
    let dir = dir_with(&[("a", "")]);
    fs::create_dir(dir.path().join(INDEX)).unwrap();
    assert!(error_of(dir.path()).to_string().ends_with("it is no regular file"));
}

#[test]
fn a_pipe_does_not_block() {
    let dir = dir_with(&[]);
    let pipe = dir.path().join(INDEX);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(error_of(dir.path()).to_string().ends_with("it is no regular file"));
}

#[test]
fn whether_the_manager_is_gone_is_a_hint() {
    let own = std::process::id();
    // No process has an id beyond the kernel's own limit (proc(5), pid_max).
    for (pid, gone) in [(own, false), (1, false), (0, false), (4_194_305, true)] {
        let index = format!("# {pid} 2\n+ a 0 16 Arg -T\n");
        let dir = dir_with(&[("_.index", &index), ("a", "127.0.0.1 60827\n")]);
        assert_eq!(Workdir::new(dir.path()).find().unwrap().manager_is_gone, gone, "{pid}");
        let unasked = Workdir::new(dir.path()).without_manager_check();
        assert!(!unasked.find().unwrap().manager_is_gone);
    }
}

#[test]
fn names_lead_below_the_state_directories() {
    let shown = |workdir: Workdir| -> Vec<String> {
        workdir.candidates.iter().map(|dir| dir.display().to_string()).collect()
    };
    assert_eq!(shown(Workdir::new("/a/b")), ["/a/b"]);
    assert_eq!(shown(Workdir::new("x"))[..2], ["/var/lib/varnish/x", "/var/run/x"]);
    assert_eq!(shown(Workdir::of_default_instance(["/a".into()])), ["/a"]);
    let default = shown(Workdir::of_default_instance([]));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(default[0], "/var/lib/varnish/varnishd");
    assert!(default.contains(&format!("/var/lib/varnish/{host}")));
    assert!(default.contains(&"/var/lib/vinyl-cache/vinyld".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_varnishd_that_is_starting_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let workdir = Workdir::new(dir.path().join("n"));
    let mut looks = 0;
    let error = workdir.wait(Duration::from_secs(1), || looks += 1).await.unwrap_err();
    assert_eq!((error.label(), looks), ("workdir_missing", 4));
    let mut looks = 0;
    let appear = || {
        looks += 1;
        if looks == 2 {
            fs::create_dir_all(dir.path().join("n/_.vsm_mgt")).unwrap();
            fs::write(dir.path().join("n/_.vsm_mgt/a"), "127.0.0.1 1\n\0\0\0\0").unwrap();
            fs::write(dir.path().join("n").join(INDEX), "# 1 2\n+ a 0 16 Arg -T\n").unwrap();
        }
    };
    let found = workdir.wait(Duration::from_secs(1), appear).await.unwrap();
    assert_eq!((written(&found), looks), (vec!["127.0.0.1:1".to_owned()], 2));
    // What cannot become better is not waited for.
    let mut looks = 0;
    let hostile = Workdir::new(fixture("t-none"));
    hostile.wait(Duration::from_secs(60), || looks += 1).await.unwrap_err();
    assert_eq!(looks, 0);
}
