//! The daemon against real varnishd processes.
