//! Bodies in every form that HTTP gives them.

use std::time::Duration;

use async_compression::tokio::write::{
    BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
};
use purgewatch::verdict::{Compare, Failure, Target};
use tokio::io::AsyncWriteExt;

use super::{answer, by, destination, failure, target, version_of, with_header};
use crate::support::origin::{Origin, Response, Step, gzip};
use crate::support::varnish::Varnishd;

fn text() -> String {
    (0..2_000).map(|n| format!("line {n}\n")).collect()
}

#[tokio::test]
async fn packed_and_plain_are_the_same_version() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok(text()).gzip());
    let varnishd = Varnishd::in_front_of(origin.address);
    let node = destination(varnishd.http);
    let plain = with_header(target("/a"), "accept-encoding", "identity");
    for target in [target("/a"), plain] {
        let answer = answer(&node, &target).await;
        assert_eq!(answer.version, Ok(version_of(text())));
        assert_eq!(answer.body_bytes, text().len() as u64);
    }
}

#[tokio::test]
async fn every_framing_gives_the_same_version() {
    let origin = Origin::start();
    origin.serve("/length", Response::ok(text()));
    origin.serve("/chunked", Response::ok(text()).chunked());
    origin.serve("/closed", Response::ok(text()).until_closed());
    let old = format!("HTTP/1.0 200 OK\r\n\r\n{}", text());
    origin.serve("/old", Response::raw(old));
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let early = format!("{early}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    origin.serve("/early", Response::raw(early));
    let trailers =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nX: y\r\n\r\n";
    origin.serve("/trailers", Response::raw(trailers));
    let truth = destination(origin.address);
    for path in ["/length", "/chunked", "/closed", "/old"] {
        let version = answer(&truth, &target(path)).await.version;
        assert_eq!(version, Ok(version_of(text())), "{path}");
    }
    for path in ["/early", "/trailers"] {
        let version = answer(&truth, &target(path)).await.version;
        assert_eq!(version, Ok(version_of("hi")), "{path}");
    }
    let varnishd = Varnishd::in_front_of(origin.address);
    let node = destination(varnishd.http);
    for path in ["/chunked", "/closed"] {
        let version = answer(&node, &target(path)).await.version;
        assert_eq!(version, Ok(version_of(text())), "{path} through varnishd");
    }
}

async fn packed_by(coding: &str, bytes: &[u8]) -> Vec<u8> {
    macro_rules! pack {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(bytes).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match coding {
        "gzip" => pack!(GzipEncoder),
        "zlib" => pack!(ZlibEncoder),
        "bare" => pack!(DeflateEncoder),
        "br" => pack!(BrotliEncoder),
        "zstd" => pack!(ZstdEncoder),
        other => panic!("no coding {other}"),
    }
}

fn coded(coding: &str, body: impl AsRef<[u8]>) -> Response {
    Response::ok(body).header("Content-Encoding", coding)
}

#[tokio::test]
async fn every_coding_is_undone() {
    let origin = Origin::start();
    let plain = text();
    let bytes = plain.as_bytes();
    for (path, name, packer) in [
        ("/gzip", "gzip", "gzip"),
        ("/x-gzip", "x-gzip", "gzip"),
        ("/zlib", "deflate", "zlib"),
        ("/bare", "deflate", "bare"),
        ("/br", "br", "br"),
        ("/zstd", "zstd", "zstd"),
    ] {
        origin.serve(path, coded(name, packed_by(packer, bytes).await));
    }
    let twice = packed_by("br", &packed_by("gzip", bytes).await).await;
    origin.serve("/twice", coded("gzip, br", &twice));
    let (first, second) = bytes.split_at(5_000);
    origin.serve("/members", coded("gzip", [gzip(first), gzip(second)].concat()).chunked());
    let truth = destination(origin.address);
    for path in ["/gzip", "/x-gzip", "/zlib", "/bare", "/br", "/zstd", "/twice", "/members"] {
        let answer = answer(&truth, &target(path)).await;
        assert_eq!(answer.version, Ok(version_of(&plain)), "{path}");
        assert_eq!(answer.body_bytes, plain.len() as u64, "{path}");
    }
    assert_eq!(origin.connections(), 1, "each body was read to its end");
}

#[tokio::test]
async fn a_body_may_come_in_any_pieces() {
    let origin = Origin::start();
    let truth = destination(origin.address);
    let mut random = fastrand::Rng::with_seed(3);
    for (name, packer) in
        [("gzip", "gzip"), ("deflate", "zlib"), ("deflate", "bare"), ("br", "br"), ("zstd", "zstd")]
    {
        let packed = packed_by(packer, text().as_bytes()).await;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: ";
        let mut steps = vec![Step::Send(format!("{head}{name}\r\n\r\n").into_bytes())];
        let (mut rest, mut size) = (&packed[..], 1);
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(size.min(rest.len()));
            let chunk = [format!("{:X}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            steps.extend([Step::Send(chunk), Step::Pause(Duration::from_micros(200))]);
            (rest, size) = (more, random.usize(1..400));
        }
        steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        origin.serve("/a", Response::script(steps));
        let version = answer(&truth, &target("/a")).await.version;
        assert_eq!(version, Ok(version_of(text())), "{packer}");
    }
}

#[tokio::test]
async fn an_empty_body_is_empty_under_every_coding() {
    let origin = Origin::start();
    let truth = destination(origin.address);
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, br"] {
        origin.serve("/a", coded(coding, ""));
        assert_eq!(answer(&truth, &target("/a")).await.version, Ok(version_of("")), "{coding}");
    }
}

#[tokio::test]
async fn what_does_not_decode_is_no_version() {
    let origin = Origin::start();
    let truth = destination(origin.address);
    let packed = gzip(text().as_bytes());
    let zlib = packed_by("zlib", text().as_bytes()).await;
    let mut damaged = packed.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let mut wrong_sum = packed.clone();
    let sum = wrong_sum.len() - 6;
    wrong_sum[sum] ^= 1;
    for (why, response) in [
        ("plain text", coded("gzip", "plain text")),
        ("damaged", coded("gzip", damaged)),
        ("checksum", coded("gzip", wrong_sum)),
        ("cut short", coded("gzip", &packed[..packed.len() / 2])),
        ("rubbish behind", coded("gzip", [&packed[..], b"rubbish"].concat())),
        ("rubbish behind", coded("deflate", [&zlib[..], b"rubbish"].concat())),
        ("another coding", coded("br", &packed)),
        ("another coding", coded("zstd", &packed)),
        ("unknown", coded("compress", &packed)),
        ("too many", coded("gzip, gzip, gzip, gzip, gzip", &packed)),
    ] {
        origin.serve("/a", response);
        assert_eq!(failure(&truth, &target("/a")).await, Failure::Encoding, "{why}");
    }
}

#[tokio::test]
async fn a_body_that_nobody_looks_into_is_not_decoded() {
    let origin = Origin::start();
    origin.serve("/a", coded("compress", "packed").header("ETag", "\"v1\""));
    let truth = destination(origin.address);
    let version = answer(&truth, &by(Compare::Etag, "/a")).await.version;
    assert_eq!(version.unwrap().to_string(), "200 etag:v1");
}

#[tokio::test]
async fn the_limit_is_on_the_decoded_size() {
    let origin = Origin::start();
    let truth = destination(origin.address);
    let limited = Target { body_limit: 10_000, ..target("/a") };
    origin.serve("/a", Response::ok("x".repeat(10_000)));
    assert_eq!(answer(&truth, &limited).await.body_bytes, 10_000);
    origin.serve("/a", Response::ok("x".repeat(10_000)).gzip());
    assert_eq!(answer(&truth, &limited).await.body_bytes, 10_000);
    for long in [
        Response::ok("x".repeat(10_001)),
        Response::ok("x".repeat(10_001)).chunked(),
        Response::ok("x".repeat(10_001)).until_closed(),
        Response::ok("x".repeat(10_001)).gzip(),
        Response::status(500).header("X", "y").with_body("x".repeat(10_001)),
    ] {
        origin.serve("/a", long);
        assert_eq!(failure(&truth, &limited).await, Failure::BodyTooLarge);
    }
}

#[tokio::test]
async fn a_bomb_does_no_harm() {
    let origin = Origin::start();
    let truth = destination(origin.address);
    // A gibibyte of zeros in a megabyte, and a thousand times less of that in two layers.
    let layer = gzip(&vec![0; 1 << 20]);
    let bomb = layer.repeat(1_024);
    assert!(bomb.len() < 2 << 20);
    origin.serve("/a", coded("gzip", &bomb));
    let limited = Target { body_limit: 4 << 20, ..target("/a") };
    assert_eq!(failure(&truth, &limited).await, Failure::BodyTooLarge);
    origin.serve("/a", coded("gzip, gzip", gzip(&bomb)));
    assert_eq!(failure(&truth, &limited).await, Failure::BodyTooLarge);
    // Members that hold nothing decode to nothing, for as long as they come.
    let nothing = gzip(b"").repeat(1_000);
    origin.serve("/a", coded("gzip", &nothing));
    let limited = Target { body_limit: 1_000, ..target("/a") };
    assert_eq!(failure(&truth, &limited).await, Failure::BodyTooLarge);
    // A window of 128 MiB is asked for in the header of a frame.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 0x01, 0x00, 0x00];
    origin.serve("/a", coded("zstd", frame));
    assert_eq!(failure(&truth, &target("/a")).await, Failure::Encoding);
}
