//! From the configuration's pointers to the engine's.

use std::sync::Arc;

use crate::config::{Config, Pointer, ServerAddress};
use crate::engine::{OriginPlan, PointerPlan};
use crate::model::OriginName;
use crate::verdict::{Compare, Target};

/// The most requests a second that are sent to where a pointer is kept.
const MAX_RATE: f64 = 10.0;

/// The longest body that a pointer is looked for in: one that is all of it, or a JSON document.
const LONGEST_BODY: u64 = 64 * 1_024;
const LONGEST_DOCUMENT: u64 = 1_024 * 1_024;

/// Where a pointer is read that is not served as its URLs are: at the address in its own URL.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Store {
    /// What it goes by among the origins.
    pub(super) name: OriginName,
    pub(super) address: ServerAddress,
}

/// The stores of all pointers that are read from one.
pub(super) fn stores(config: &Config) -> impl Iterator<Item = Store> {
    let pointers = config.pointers.iter().enumerate();
    pointers.filter_map(|(number, pointer)| store(config, number, pointer))
}

/// The origins that they are for the engine.
pub(super) fn origins(config: &Config) -> impl Iterator<Item = OriginPlan> {
    stores(config).map(|store| OriginPlan { name: store.name, max_rate: MAX_RATE })
}

/// All pointers, as the engine takes them.
pub(super) fn plans(config: &Config) -> Vec<PointerPlan> {
    let pointers = config.pointers.iter().enumerate();
    pointers.map(|(number, pointer)| plan(config, number, pointer)).collect()
}

fn plan(config: &Config, number: usize, pointer: &Pointer) -> PointerPlan {
    let store = store(config, number, pointer);
    let json = pointer.json.as_ref().map(|pointer| pointer.as_str().to_owned());
    let longest = if json.is_some() { LONGEST_DOCUMENT } else { LONGEST_BODY };
    let followed = Target {
        url: pointer.url.clone(),
        // What lets us read the store is no concern of the caches.
        headers: if store.is_some() { Vec::new() } else { pointer.headers.clone() },
        compare: pointer.compare.clone(),
        ignore: pointer.ignore.clone(),
        body_limit: pointer.body_limit,
        timeout: pointer.timeout,
    };
    let target = Target {
        headers: pointer.headers.clone(),
        compare: Compare::Value(json),
        ignore: Vec::new(),
        body_limit: pointer.body_limit.min(longest),
        ..followed.clone()
    };
    let nodes = if store.is_some() { Vec::new() } else { pointer.nodes.clone() };
    PointerPlan {
        name: pointer.name.clone(),
        target: Arc::new(target),
        origin: store.map_or_else(|| pointer.origin.clone(), |store| store.name),
        nodes,
        urls: pointer.endpoints.clone(),
        followed: Arc::new(followed),
        followed_origin: pointer.origin.clone(),
        followed_nodes: pointer.nodes.clone(),
        interval: pointer.interval,
        max_stale: pointer.max_stale,
        grace: pointer.grace,
    }
}

fn store(config: &Config, number: usize, pointer: &Pointer) -> Option<Store> {
    if pointer.through_nodes {
        return None;
    }
    let name = free_name(config, number, pointer)?;
    let (scheme, address) = (pointer.url.scheme(), pointer.url.address().clone());
    Some(Store { name, address: ServerAddress { scheme, address } })
}

/// A name that says whose store it is, and that no configured origin has.
fn free_name(config: &Config, number: usize, pointer: &Pointer) -> Option<OriginName> {
    let usual = [format!("pointer:{}", pointer.name)].into_iter();
    let others = (0..).map(|more| format!("store:{number}.{more}"));
    let mut names = usual.chain(others).filter_map(|text| OriginName::new(&text).ok());
    names.find(|name| config.origin(name).is_none())
}
