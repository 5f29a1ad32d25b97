//! Origins that want to be left alone, or are hard to reach.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{PATH, cacheable, config, never, stage};
use crate::support::daemon::{Daemon, endpoint, peers};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::Varnishd;

/// How often the daemon itself asked, and not Varnish on its behalf.
fn asked(origin: &Origin) -> usize {
    origin.requests().iter().filter(|request| request.header("x-varnish").is_none()).count()
}

#[test]
fn an_origin_that_asks_for_a_pause_is_left_alone() {
    let (origin, varnishd) = stage();
    origin.serve("/other/", cacheable("other"));
    let config = config(&origin, &varnishd) + &endpoint("other", "/other/", "");
    let daemon = Daemon::start(&config);
    daemon.wait_for_state("rec", "fresh");
    daemon.wait_for_state("other", "fresh");

    let refused = || origin.requests().iter().filter(|r| r.target == PATH).count();
    let before = refused();
    origin.serve(PATH, Response::status(429).header("Retry-After", "8"));
    daemon.wait("one more request", || refused() > before);
    // At most one more was under way. All endpoints of the origin are meant.
    let asked_before = asked(&origin) + 1;
    never(&daemon, &["stale"], Duration::from_secs(7));
    assert!(asked(&origin) <= asked_before, "{} after {asked_before}", asked(&origin));
    // The nodes are asked all the same, and not called down.
    assert_eq!(daemon.state("rec"), "origin_down");
    let probes = || daemon.metric("purgewatch_probes_total", &["\"rec\"", "result=\"ok\""]);
    assert!(probes() >= Some(5.0), "{:?}", probes());

    origin.serve(PATH, cacheable("one"));
    daemon.wait_for_state("rec", "fresh");
    daemon.wait_for_state("other", "fresh");
    assert!(asked(&origin) > asked_before);
}

#[test]
fn three_hundred_endpoints_keep_to_the_rate_of_their_origin() {
    const RATE: f64 = 20.0;
    const ENDPOINTS: usize = 300;
    let origin = Origin::start();
    let varnishd = Varnishd::in_front_of(origin.address);
    let times = Arc::new(Mutex::new(Vec::new()));
    let mut config = "[defaults]\ninterval = \"5s\"\ntimeout = \"5s\"\nmax_stale = \"60s\"\n"
        .to_owned()
        + &peers(&varnishd, origin.address).replace("max_rate = 1000", "max_rate = 20");
    for number in 0..ENDPOINTS {
        let path = format!("/{number}/");
        config.push_str(&endpoint(&format!("e{number}"), &path, ""));
        let times = Arc::clone(&times);
        origin.route(&path, move |request| {
            if request.header("x-varnish").is_none() {
                times.lock().unwrap().push(Instant::now());
            }
            cacheable("always the same")
        });
    }
    let daemon = Daemon::start(&config);
    // Nobody is passed over: at this rate a turn of all takes 15 s.
    let fresh = || {
        let metrics = daemon.metrics();
        let fresh = |line: &&str| {
            line.starts_with("purgewatch_endpoint_state{")
                && line.contains("state=\"fresh\"")
                && line.ends_with(" 1")
        };
        metrics.lines().filter(fresh).count()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while fresh() < ENDPOINTS {
        assert!(Instant::now() < deadline, "{} are fresh", fresh());
        std::thread::sleep(Duration::from_millis(250));
    }

    let times = times.lock().unwrap().clone();
    assert!(times.len() >= ENDPOINTS);
    // The requests of any span are those of the rate and a burst of a quarter of a second's
    // worth; a few may have been held up on the way to their time stamp.
    let span = Duration::from_secs(5);
    for (first, from) in times.iter().enumerate() {
        let within = times[first..].iter().take_while(|at| **at - *from < span).count();
        let allowed = RATE * 5.0 + RATE / 4.0 + 10.0;
        assert!(within as f64 <= allowed, "{within} requests in 5 s");
    }
    // The rate is also made use of.
    let all = times[times.len() - 1] - times[0];
    let rate = times.len() as f64 / all.as_secs_f64();
    assert!(rate > RATE / 2.0, "{rate} a second");
}

/// A name with two addresses, of which the first one drops every packet.
#[test]
fn a_dead_address_of_a_name_does_not_hide_the_live_one() {
    let (origin, varnishd) = stage();
    let dead = SocketAddr::new("::1".parse().unwrap(), origin.address.port());
    let _full = full_backlog(dead);
    let by_name = format!("http://localhost:{}", origin.address.port());
    let config = "[defaults]\ninterval = \"2s\"\ntimeout = \"2s\"\nmax_stale = \"3s\"\n".to_owned()
        + &peers(&varnishd, origin.address)
            .replace(&format!("http://{}", origin.address), &by_name)
        + &endpoint("rec", PATH, "");
    assert!(config.contains("localhost"));
    let daemon = Daemon::start(&config);
    daemon.wait_for_state("rec", "fresh");
    // A mismatch is confirmed over a connection of its own, which takes the same way.
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");
    varnishd.adm(&["ban", "req.url", "~", "."]);
    daemon.wait_for_state("rec", "fresh");
    assert!(!daemon.log().contains("origin_down"), "{}", daemon.log());
}

/// A listener that answers no SYN any more. Without IPv6 on the machine there is none, and the
/// address is as dead.
fn full_backlog(address: SocketAddr) -> Option<(TcpListener, Vec<TcpStream>)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).ok()?;
    socket.set_only_v6(true).ok()?;
    socket.bind(&address.into()).ok()?;
    socket.listen(0).unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        held.push(stream);
    }
    Some((socket.into(), held))
}
