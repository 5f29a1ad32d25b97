//! What cannot work is said in words that lead on.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use purgewatch::ingest::{IngestError, LABELS, Publisher, RedisOptions, Topic};
use purgewatch::ingest::{Subscriber, SubscriberOptions};
use purgewatch::model::{HostPort, Secret};
use purgewatch::net::tls::TlsClient;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::{Following, add, options};
use crate::support::redis::{PASSWORD, Redis};

async fn refusal(options: RedisOptions) -> IngestError {
    let error = Publisher::connect(options).await.expect_err("it connects");
    assert!(LABELS.contains(&error.label()), "{}", error.label());
    assert!(!format!("{error} {error:?}").contains(PASSWORD));
    error
}

#[tokio::test]
async fn wrong_and_missing_passwords() {
    let redis = Redis::start_forgetful();
    let wrong = RedisOptions { password: Some(Secret::new(b"wrong".to_vec())), ..redis.options() };
    let error = refusal(wrong).await;
    assert_eq!(error.label(), "wrong_password");
    assert!(error.to_string().contains("refuses the user or the password"), "{error}");
    let none = RedisOptions { password: None, ..redis.options() };
    let error = refusal(none).await;
    assert_eq!(error.label(), "password_required");
    assert!(error.to_string().contains("name the file"), "{error}");
    let bytes = RedisOptions { password: Some(Secret::new(vec![0xff])), ..redis.options() };
    assert_eq!(refusal(bytes).await.label(), "password_not_text");
    let user = RedisOptions { username: Some("nobody".to_owned()), ..redis.options() };
    assert_eq!(refusal(user).await.label(), "wrong_password");
    // One who has a password for a server that wants none is let in, as by redis-cli.
    let open = Redis::start_open(&[]);
    let password = Some(Secret::new(b"unneeded".to_vec()));
    Publisher::connect(RedisOptions { password, ..open.options() }).await.unwrap();
}

/// The reader says it, again and again, and works as soon as it is set right.
#[tokio::test]
async fn a_password_that_is_set_right_later_works() {
    let redis = Redis::start_forgetful();
    redis.cli(&["CONFIG", "SET", "requirepass", "another"]);
    let mut following = Following::start(&redis, options("first"));
    for _ in 0..2 {
        assert_eq!(following.down().await.label(), "wrong_password");
    }
    let right = format!("AUTH another\nCONFIG SET requirepass \"{PASSWORD}\"\n");
    redis.cli_lines(&right);
    following.up_again().await;
}

#[tokio::test]
async fn users_without_permission() {
    let redis = Redis::start_forgetful();
    let acl = ["ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-xadd"];
    redis.cli(&acl);
    let reader = RedisOptions {
        username: Some("reader".to_owned()),
        password: Some(Secret::new(b"secret".to_vec())),
        ..redis.options()
    };
    let mut publisher = Publisher::connect(reader).await.unwrap();
    let error = publisher.publish("s", &[(b"a", b"b")], 10).await.unwrap_err();
    assert_eq!(error.label(), "not_permitted");
    assert!(error.to_string().contains("XADD: the ACL user may not"), "{error}");
    // The connection is still good.
    assert!(publisher.followers("s").await.unwrap().is_empty());
}

#[tokio::test]
async fn cluster_sentinel_and_replica() {
    let cluster = Redis::start_with(&["--cluster-enabled", "yes"]);
    let error = refusal(cluster.options()).await;
    assert_eq!(error.label(), "cluster");
    assert!(error.to_string().contains("a node of a Redis Cluster"), "{error}");
    // Pub/Sub works there.
    let topics = vec![Topic::Channel("c".to_owned())];
    let options = SubscriberOptions::new(topics, purgewatch::clock::Clock::start());
    let mut subscriber = Subscriber::start(cluster.options(), options);
    let first = subscriber.next().await.unwrap();
    assert!(matches!(first, purgewatch::ingest::PubSubNews::Gap { .. }), "{first:?}");

    let watched = ["--sentinel", "--sentinel", "monitor", "m", "127.0.0.1", "1", "1"];
    let sentinel = Redis::start_with(&watched);
    let error = refusal(sentinel.options()).await;
    assert_eq!(error.label(), "sentinel");
    assert!(error.to_string().contains("name the Redis server"), "{error}");

    let master = Redis::start_open(&[]);
    let port = master.port.to_string();
    let replica = Redis::start_open(&["--replicaof", "127.0.0.1", &port]);
    let error = refusal(replica.options()).await;
    assert_eq!(error.label(), "replica");
    assert!(error.to_string().contains("name the master"), "{error}");
}

#[tokio::test]
async fn keys_that_hold_something_else() {
    let redis = Redis::start_forgetful();
    redis.cli(&["SET", "invalidations", "text"]);
    let mut following = Following::start(&redis, options("first"));
    assert_eq!(following.down().await.label(), "wrong_type");
    redis.cli(&["DEL", "invalidations"]);
    following.up_again().await;
}

#[tokio::test]
async fn answers_that_cannot_be_written_do_not_hold_up_acknowledgements() {
    let redis = Redis::start_forgetful();
    redis.cli(&["SET", "invalidations:replies", "text"]);
    let mut following = Following::new_group(&redis).await;
    let id = add(&redis, "a");
    assert_eq!(following.entry().await.id, id);
    following.handle.confirm(b"{}".to_vec()).unwrap();
    following.handle.finish([id]);
    following.written().await;
    let purgewatch::ingest::StreamNews::Refused(error) = following.news().await else {
        panic!("not said")
    };
    assert_eq!(error.label(), "wrong_type");
    assert_eq!(super::pending(&redis), 0);
}

/// A peer that answers every connection with `answer`, and then says nothing.
fn peer(answer: &'static [u8]) -> HostPort {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(answer);
            held.push(stream);
        }
    });
    HostPort::new("127.0.0.1", port).unwrap()
}

#[tokio::test]
async fn peers_that_are_no_redis() {
    let to = |address| RedisOptions {
        connect_timeout: Duration::from_millis(500),
        ..RedisOptions::new(address)
    };
    let error = refusal(to(peer(b"HTTP/1.1 400 Bad Request\r\n\r\n"))).await;
    assert_eq!(error.label(), "not_redis");
    assert!(error.to_string().contains("another service's port"), "{error}");
    let error = refusal(to(peer(b""))).await;
    assert_eq!(error.label(), "reply_timeout");
    assert!(error.to_string().contains("no answer within 500ms"), "{error}");
    let old = b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n";
    assert_eq!(refusal(to(peer(old))).await.label(), "too_old");
    // Lengths that nobody has the memory for.
    for hostile in [&b"*2000000000\r\n"[..], b"$900000000000\r\n", b"%999999999999999999\r\n"] {
        let error = refusal(to(peer(hostile))).await;
        assert!(["reply_timeout", "not_redis", "closed"].contains(&error.label()), "{error}");
    }
    let nowhere = HostPort::new("127.0.0.1", 1).unwrap();
    let error = refusal(to(nowhere)).await;
    assert_eq!(error.label(), "refused");
    assert!(error.may_pass());
}

#[tokio::test]
async fn tls_by_the_operators_own_authority() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca = write("ca.pem", authority.pem());
    let cert = write("cert.pem", server.pem());
    let key = write("key.pem", server_key.serialize_pem());
    let redis = Redis::start_with(&[
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-cert-file",
        cert.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-ca-cert-file",
        ca.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ]);
    let with =
        |ca| RedisOptions { tls: Some(Arc::new(TlsClient::without_alpn(ca))), ..redis.options() };
    let mut publisher = Publisher::connect(with(Some(ca.clone()))).await.unwrap();
    let id = publisher.publish("s", &[(b"a", b"b")], 10).await.unwrap();
    assert!(id.milliseconds > 0);

    let unknown = refusal(with(None)).await;
    assert_eq!(unknown.label(), "tls");
    let mut other_name = with(Some(ca));
    other_name.address = HostPort::new("localhost", redis.port).unwrap();
    assert_eq!(refusal(other_name).await.label(), "tls");
    // Without TLS to a port with it.
    let plain = refusal(redis.options()).await;
    assert!(["not_redis", "closed"].contains(&plain.label()), "{plain}");
}
