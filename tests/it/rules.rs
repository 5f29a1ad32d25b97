//! The alerting rules, held by promtool.
