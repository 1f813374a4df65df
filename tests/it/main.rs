//! End-to-end tests: the built program against real stores, as a user runs it.
//!
//! Each store is a real process (`dragonfly`, `valkey-server` or `redis-server` on PATH) or an embedded
//! folder. Every wait is a bounded poll; nothing depends on how fast the machine is.

mod bench;
mod clients;
mod cluster;
mod faults;
mod flow;
mod http;
mod inspect;
mod load;
mod network;
mod openapi;
mod secure;
mod seed;
mod serve;
mod settings;
mod shards;
mod support;
