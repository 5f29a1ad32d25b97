//! The benchmarks: one binary, so that the crate is linked with all its optimizations once.
//!
//! `tests/bench/run` runs all of them in turn, `tests/bench/run ban scrape` those two. Each takes
//! our figure and a peer's in the same run, on the same machine and against the same servers, and
//! prints them with their ratio. A missed target is printed and is no failure: it can be the
//! machine's. What fails is a benchmark that cannot measure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark that panics has failed, and what it prints is its result"
)]

mod adm;
mod ban;
mod daemon;
mod event;
mod fleet;
mod probe;
mod scrape;
mod support;

const ALL: [(&str, fn()); 7] = [
    ("ban", ban::run),
    ("adm", adm::run),
    ("fleet", fleet::run),
    ("probe", probe::run),
    ("scrape", scrape::run),
    ("daemon", daemon::run),
    ("event", event::run),
];

fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    for word in &wanted {
        let names = ALL.map(|(name, _)| name).join(", ");
        assert!(
            names.split(", ").any(|name| name == word),
            "no benchmark {word}; there are {names}"
        );
    }
    support::build_what_ships();
    for (name, run) in ALL {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            println!("== {name}");
            run();
        }
    }
}
