//! `purgewatch ban` against real varnishd processes.
