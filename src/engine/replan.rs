//! Going over to another plan: what both watch goes on, with all that is known of it.

use std::time::Duration;

use super::admin::Node;
use super::budget::Budget;
use super::schedule::Grid;
use super::watch::Watch;
use super::{Engine, HourRecord, Output, Plan, Record, Restored};
use crate::model::{EndpointName, Timestamp, VariantName};
use crate::verdict::OriginHistory;

impl Engine {
    pub(super) fn replan(&mut self, plan: Plan, now: Timestamp) {
        self.once = plan.once;
        // Places may have moved: what is under way is let go, and asked again soon.
        self.pending.clear();
        self.timers.clear();
        self.inquiries.start_over(plan.explain);
        self.replan_origins(&plan, now);
        self.replan_nodes(&plan, now);
        self.remedies.replan(&plan);
        self.canaries.replan(if plan.once { &[] } else { &plan.nodes }, now);
        let with_admin = plan.nodes.iter().filter(|node| node.admin_interval.is_some());
        let with_admin: Vec<_> = with_admin.map(|node| node.name.clone()).collect();
        self.ledger.limit_ban_lists(plan.ban_list_limit);
        self.ledger.watch(&with_admin, now);
        let mut gone = std::mem::take(&mut self.names);
        let mut old: Vec<_> = std::mem::take(&mut self.watches).into_iter().map(Some).collect();
        let count = plan.watches.len();
        for watch_plan in plan.watches {
            let names = (watch_plan.endpoint.clone(), watch_plan.variant.clone());
            let kept = gone
                .remove(&names)
                .and_then(|at| old.get_mut(at).and_then(Option::take))
                .filter(|watch| watch.definition == watch_plan.definition());
            let watch = match kept {
                Some(mut watch) => {
                    if watch.plan.interval != watch_plan.interval {
                        watch.grid = self.new_grid(watch_plan.interval, now);
                    }
                    watch.replan(watch_plan, now);
                    watch.due = watch.due.min(watch.grid.next(now, 0.0));
                    watch
                }
                None => {
                    let grid = self.new_grid(watch_plan.interval, now);
                    let mut watch = Watch::new(watch_plan, grid, now);
                    watch.due = if plan.once { now } else { grid.first(now, count) };
                    watch
                }
            };
            let mut watch = watch;
            let due = watch.due.max(now);
            watch.hurry.plan(due);
            self.names.insert(names, self.watches.len());
            self.watches.push(watch);
            self.set_round_timer(self.watches.len() - 1, due);
        }
        for (endpoint, variant) in gone.into_keys() {
            self.outputs.push_back(Output::Record(Record::Forget { endpoint, variant }));
        }
        self.replan_invalidations(now);
    }

    fn new_grid(&mut self, interval: Duration, now: Timestamp) -> Grid {
        self.grids = self.grids.wrapping_add(1);
        Grid::new(self.grids, interval, now)
    }

    fn replan_origins(&mut self, plan: &Plan, now: Timestamp) {
        let mut old = std::mem::take(&mut self.origins);
        for origin in &plan.origins {
            let mut budget =
                old.remove(&origin.name).unwrap_or_else(|| Budget::new(origin.max_rate, now));
            budget.set_rate(origin.max_rate);
            budget.waiting.clear();
            budget.timer_set = false;
            self.origins.insert(origin.name.clone(), budget);
        }
    }

    fn replan_nodes(&mut self, plan: &Plan, now: Timestamp) {
        let mut old = std::mem::take(&mut self.nodes);
        for node_plan in &plan.nodes {
            let kept = old
                .remove(&node_plan.name)
                .filter(|node| node.interval.is_some() == node_plan.admin_interval.is_some());
            let mut node = kept.unwrap_or_else(|| {
                let name = node_plan.name.clone();
                Node::new(name, node_plan.admin_interval, self.admin_reasons, now)
            });
            node.interval = node_plan.admin_interval;
            node.in_flight = false;
            node.due = now;
            let name = node.name.clone();
            self.nodes.insert(name.clone(), node);
            if node_plan.admin_interval.is_some() && !plan.once {
                self.set_admin_timer(&name, now);
            }
        }
    }

    pub(super) fn restore(&mut self, restored: Restored, now: Timestamp) {
        self.restore_hours(&restored.hours, now);
        for record in restored.histories {
            let Some(watch) = self.watch_named(record.endpoint, record.variant) else { continue };
            if watch.definition == record.definition {
                watch.history = OriginHistory::restore(record.parts);
            }
        }
        for record in restored.verdicts {
            let Some(watch) = self.watch_named(record.endpoint, record.variant) else { continue };
            if watch.definition != record.definition {
                continue;
            }
            if let Some(place) = watch.places.iter_mut().find(|p| p.node == record.node) {
                place.verdict = record.verdict;
                place.verdict.since = place.verdict.since.min(now);
            }
        }
    }

    fn restore_hours(&mut self, hours: &[HourRecord], now: Timestamp) {
        for record in hours {
            if let Some(node) = self.nodes.get_mut(&record.node) {
                node.consistency.restore(record, now);
            }
        }
    }

    fn watch_named(&mut self, endpoint: EndpointName, variant: VariantName) -> Option<&mut Watch> {
        let at = *self.names.get(&(endpoint, variant))?;
        self.watches.get_mut(at)
    }
}
