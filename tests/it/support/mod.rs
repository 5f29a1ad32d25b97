//! Real servers and faulty peers for the tests. Each starts on a free loopback port, lives in a
//! temporary directory, and is gone when its value is dropped.

#![allow(dead_code, reason = "each test uses some of it")]

pub mod daemon;
pub mod faulty;
pub mod fleet;
pub mod origin;
pub mod prometheus;
pub mod redis;
pub mod relay;
pub mod varnish;
pub mod witness;
