//! Fetches against real varnishd processes and faulty HTTP peers.
