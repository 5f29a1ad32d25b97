//! Peers that are not there, not HTTP, not honest or not done.

use std::net::TcpListener;
use std::time::Duration;

use purgewatch::clock::Clock;
use purgewatch::model::{HostPort, Scheme};
use purgewatch::probe::{Destination, Options};
use purgewatch::verdict::{Compare, Failure, Phase, Target};

use super::{
    answer, by, destination, destination_with, eventually, failed, failure, fetch, target,
};
use crate::support::origin::{Origin, Response, Step, gzip};
use crate::support::varnish::free_port;

/// A target that gives up soon.
fn hasty(path: &str) -> Target {
    Target { timeout: Duration::from_millis(200), ..target(path) }
}

async fn failure_of_bytes(bytes: impl AsRef<[u8]>) -> Failure {
    let origin = Origin::start();
    origin.serve("/a", Response::raw(bytes));
    failure(&destination(origin.address), &target("/a")).await
}

#[tokio::test]
async fn nobody_listens() {
    let truth = destination(free_port("127.0.0.1"));
    assert_eq!(failure(&truth, &target("/a")).await, Failure::Refused);
}

#[tokio::test]
async fn the_name_does_not_resolve() {
    let address = HostPort::new("no-such-host.invalid", 80).unwrap();
    let node = Destination::new(Scheme::Http, address, Options::default(), Clock::start());
    assert_eq!(failure(&node, &target("/a")).await, Failure::Resolve);
}

#[tokio::test]
async fn packets_are_dropped() {
    // A listener with a full backlog answers no further SYN.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&free_port("127.0.0.1").into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let _filling: Vec<_> = (0..3)
        .map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)))
        .collect();
    let node = destination(address);
    assert_eq!(failure(&node, &hasty("/a")).await, Failure::Timeout(Phase::Connect));
}

#[tokio::test]
async fn a_peer_accepts_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = destination(listener.local_addr().unwrap());
    let observation = fetch(&node, &hasty("/a")).await;
    assert_eq!(failed(&observation), Failure::Timeout(Phase::FirstByte));
    assert!(observation.phases.first_byte >= Some(Duration::from_millis(150)));
    let took = observation.finished.since(observation.started);
    assert!(took >= Duration::from_millis(199) && took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn the_first_byte_is_late() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("x").after(Duration::from_secs(30)));
    let truth = destination(origin.address);
    assert_eq!(failure(&truth, &hasty("/a")).await, Failure::Timeout(Phase::FirstByte));
}

#[tokio::test]
async fn the_body_drips() {
    let origin = Origin::start();
    let mut steps = vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec())];
    for _ in 0..1_000 {
        steps.extend([Step::Send(b"x".to_vec()), Step::Pause(Duration::from_millis(20))]);
    }
    origin.serve("/a", Response::script(steps));
    let truth = destination(origin.address);
    assert_eq!(failure(&truth, &hasty("/a")).await, Failure::Timeout(Phase::Body));
}

#[tokio::test]
async fn the_head_drips_within_the_limit() {
    let origin = Origin::start();
    let answer_bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Varnish: 1\r\n\r\nhi";
    let steps = answer_bytes
        .iter()
        .flat_map(|&byte| [Step::Send(vec![byte]), Step::Pause(Duration::from_millis(1))]);
    origin.serve("/a", Response::script(steps));
    let got = answer(&destination(origin.address), &target("/a")).await;
    assert_eq!(got.version, Ok(super::version_of("hi")));
}

#[tokio::test]
async fn a_body_without_an_end() {
    let origin = Origin::start();
    let chunk = [b"400\r\n".to_vec(), vec![b'x'; 1_024], b"\r\n".to_vec()].concat();
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = [Step::Send(head.into()), Step::Endless(chunk)];
    origin.serve("/chunked", Response::script(chunked));
    let closing = [Step::Send("HTTP/1.1 200 OK\r\n\r\n".into()), Step::Endless(vec![b'x'; 4_096])];
    origin.serve("/closing", Response::script(closing));
    let declared = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n";
    let declared = [Step::Send(declared.into()), Step::Endless(vec![b'x'; 4_096])];
    origin.serve("/declared", Response::script(declared));
    let truth = destination(origin.address);
    for path in ["/chunked", "/closing", "/declared"] {
        for compare in [Compare::Body, Compare::Etag, Compare::Json("/v".into())] {
            let target = by(compare, path);
            assert_eq!(failure(&truth, &target).await, Failure::BodyTooLarge, "{path}");
        }
    }
    // Such a connection is not kept.
    eventually(|| origin.open_connections() == 0).await;
}

#[tokio::test]
async fn the_connection_ends_in_the_middle() {
    for bytes in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 100\r\n\r\n\x1f",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
    ] {
        assert_eq!(failure_of_bytes(bytes).await, Failure::Closed, "{bytes:?}");
    }
    // The packed body is complete, the answer that it came in is not.
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n";
    let packed = gzip(b"content");
    let size = format!("{:x}\r\n", packed.len());
    let cut = [head.as_bytes(), size.as_bytes(), &packed, b"\r\n"].concat();
    assert_eq!(failure_of_bytes(cut).await, Failure::Closed);
}

#[tokio::test]
async fn what_comes_is_not_http() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        "220 mail.example.com ESMTP\r\n",
        "107 59      \nabcdefghijklmnopqrstuvwxyzabcdef\n\nAuthentication required.\n",
        "<html>no head</html>",
        "HTTP/3.7 200 OK\r\n\r\n",
        "HTTP/1.1 two OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        assert_eq!(failure_of_bytes(bytes).await, Failure::NotHttp, "{bytes:?}");
    }
}

#[tokio::test]
async fn the_peer_speaks_first_and_it_is_not_http() {
    let origin = Origin::start();
    origin.greet("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
    for _ in 0..20 {
        assert_eq!(failure(&destination(origin.address), &target("/a")).await, Failure::NotHttp);
    }
}

#[tokio::test]
async fn a_head_has_a_limit() {
    let origin = Origin::start();
    let options = Options { head_limit: 16 * 1_024, ..Options::default() };
    let truth = destination_with(origin.address, options);
    let long = |size: usize| Response::ok("x").header("X-Long", &"y".repeat(size));
    origin.serve("/a", long(15_000));
    answer(&truth, &target("/a")).await;
    origin.serve("/a", long(17_000));
    assert_eq!(failure(&truth, &target("/a")).await, Failure::NotHttp);
    let endless = [Step::Send("HTTP/1.1 200 OK\r\n".into()), Step::Endless(b"X: y\r\n".to_vec())];
    origin.serve("/a", Response::script(endless));
    assert_eq!(failure(&truth, &target("/a")).await, Failure::NotHttp);
    let endless = [Step::Endless(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())];
    origin.serve("/a", Response::script(endless));
    assert_eq!(failure(&truth, &hasty("/a")).await, Failure::Timeout(Phase::FirstByte));
}

#[tokio::test]
async fn a_head_has_a_limited_number_of_lines() {
    let origin = Origin::start();
    let lines = |number: usize| {
        (0..number).fold(Response::ok("x"), |response, n| response.header(&format!("X-{n}"), "y"))
    };
    let truth = destination(origin.address);
    origin.serve("/a", lines(90));
    answer(&truth, &target("/a")).await;
    origin.serve("/a", lines(1_000));
    assert_eq!(failure(&truth, &target("/a")).await, Failure::NotHttp);
}

#[tokio::test]
async fn an_answer_with_more_than_it_declares_is_not_reused() {
    let origin = Origin::start();
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    origin.serve("/a", Response::script([Step::Send(surplus.into()), Step::Hang]));
    origin.serve("/b", Response::ok("good"));
    let truth = destination(origin.address);
    assert_eq!(answer(&truth, &target("/a")).await.version, Ok(super::version_of("hi")));
    assert_eq!(answer(&truth, &target("/b")).await.version, Ok(super::version_of("good")));
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for() {
    let origin = Origin::start();
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    origin.serve("/a", Response::script([Step::Send(upgrade.into()), Step::Hang]));
    origin.serve("/b", Response::ok("good"));
    let truth = destination(origin.address);
    let got = answer(&truth, &target("/a")).await;
    assert_eq!((got.status, got.version.is_err()), (101, true));
    assert_eq!(answer(&truth, &target("/b")).await.version, Ok(super::version_of("good")));
}
