//! Fetches against real varnishd processes and faulty HTTP peers.

mod answers;
mod bodies;
mod connections;
mod faults;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use purgewatch::clock::Clock;
use purgewatch::model::{HostPort, Scheme, Version};
use purgewatch::probe::{Destination, Options};
use purgewatch::verdict::{
    Answer, Compare, Condition, Failure, FetchRequest, Observation, Outcome, Target,
};
use sha2::{Digest, Sha256};

/// A destination at this address, without TLS.
fn destination(address: SocketAddr) -> Destination {
    destination_with(address, Options::default())
}

fn destination_with(address: SocketAddr, options: Options) -> Destination {
    let address = HostPort::new(&address.ip().to_string(), address.port()).unwrap();
    Destination::new(Scheme::Http, address, options, Clock::start())
}

/// What to fetch: `http://rec.example.com` with this path, compared by body.
fn target(path: &str) -> Target {
    Target {
        url: format!("http://rec.example.com{path}").parse().unwrap(),
        headers: Vec::new(),
        compare: Compare::Body,
        ignore: Vec::new(),
        body_limit: 1 << 20,
        timeout: Duration::from_secs(10),
    }
}

/// A target with this rule.
fn by(compare: Compare, path: &str) -> Target {
    Target { compare, ..target(path) }
}

fn with_header(mut target: Target, name: &'static str, value: &'static str) -> Target {
    target.headers.push((name.parse().unwrap(), value.parse().unwrap()));
    target
}

fn request(target: &Target) -> FetchRequest {
    FetchRequest::new(Arc::new(target.clone()))
}

async fn fetch(destination: &Destination, target: &Target) -> Observation {
    destination.fetch(&request(target)).await
}

/// Fetches what has to be answered.
async fn answer(destination: &Destination, target: &Target) -> Answer {
    answered(fetch(destination, target).await)
}

fn answered(observation: Observation) -> Answer {
    match observation.outcome {
        Outcome::Answer(answer) => *answer,
        Outcome::Failed(failure) => panic!("the fetch failed: {failure}"),
    }
}

/// Fetches what has to fail.
async fn failure(destination: &Destination, target: &Target) -> Failure {
    failed(&fetch(destination, target).await)
}

fn failed(observation: &Observation) -> Failure {
    match &observation.outcome {
        Outcome::Failed(failure) => *failure,
        Outcome::Answer(answer) => panic!("the fetch was answered: {answer:?}"),
    }
}

/// Waits until something is so, which has to be soon.
async fn eventually(holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not come about");
}

/// The version of 200 with this body.
fn version_of(body: impl AsRef<[u8]>) -> Version {
    format!("200 body:{}", hex::encode(Sha256::digest(body))).parse().unwrap()
}

/// The condition that asks whether this answer still holds.
fn condition(answer: &Answer) -> Option<Condition> {
    let version = answer.version.clone().unwrap();
    Some(Condition { validators: answer.validators.clone(), version })
}
