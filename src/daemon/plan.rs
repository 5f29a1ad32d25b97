//! From the configuration to the engine's plan.

use std::sync::Arc;

use super::{canary, pointer, remedy};
use crate::config::{Config, Endpoint};
use crate::engine::{NodePlan, OriginPlan, Plan, WatchPlan};
use crate::verdict::Target;

/// What the configuration asks to be watched.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    let origins = config.origins.iter();
    let nodes = config.nodes.iter();
    Plan {
        origins: origins
            .map(|origin| OriginPlan { name: origin.name.clone(), max_rate: origin.max_rate })
            .chain(pointer::origins(config))
            .collect(),
        nodes: nodes
            .map(|node| NodePlan {
                name: node.name.clone(),
                admin_interval: node.admin.as_ref().map(|admin| admin.interval),
                canary: canary::plan(config, node),
            })
            .collect(),
        watches: config.endpoints.iter().flat_map(watch_plans).collect(),
        pointers: pointer::plans(config),
        remedy_max_rate: config.daemon.remedy_max_rate,
        ban_list_limit: config.daemon.ban_list_limit.unwrap_or(0),
        once: false,
        explain: true,
    }
}

/// One watch for each variant of an endpoint.
pub fn watch_plans(endpoint: &Endpoint) -> impl Iterator<Item = WatchPlan> {
    let remedy = remedy::ban(endpoint).map(Arc::new);
    endpoint.variants.iter().map(move |variant| WatchPlan {
        endpoint: endpoint.name.clone(),
        variant: variant.name.clone(),
        target: Arc::new(Target {
            url: endpoint.url.clone(),
            headers: variant.headers.clone(),
            compare: endpoint.compare.clone(),
            ignore: endpoint.ignore.clone(),
            body_limit: endpoint.body_limit,
            timeout: endpoint.timeout,
        }),
        origin: endpoint.origin.clone(),
        nodes: endpoint.nodes.clone(),
        interval: endpoint.interval,
        max_stale: endpoint.max_stale,
        remedy: remedy.clone(),
    })
}
