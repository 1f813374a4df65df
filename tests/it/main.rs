//! End-to-end tests: the built program against real stores, as a user runs it.
//!
//! Each store is a real process (`dragonfly`, `valkey-server` or `redis-server` on PATH) or an embedded
//! folder. Every wait is a bounded poll; nothing depends on how fast the machine is.

mod access;
mod bench;
mod clients;
mod cluster;
mod cluster_dragonfly;
mod dataset;
mod engine;
mod faults;
mod flow;
mod formats;
mod http;
mod inspect;
mod lines;
mod load;
mod masters;
mod memory;
mod network;
mod openapi;
mod outputs;
mod proxy;
mod replay;
mod requests;
mod secure;
mod seed;
mod serve;
mod server;
mod settings;
mod shards;
mod stub;
mod study;
mod support;
mod tls;
mod tls_server;
mod unix;
mod upstash;
mod verdicts;
mod watch;
mod wire;
