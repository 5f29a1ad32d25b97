//! The admin client against real varnishd processes and faulty peers.
