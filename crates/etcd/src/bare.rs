//! The client's bare calls, for measuring what the locks cost above them. No part of the interface.

#![allow(missing_docs, reason = "for our own benchmark alone")]

use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{Deadline, EngineError};

use crate::link::Link;
use crate::options::EtcdOptions;
use crate::wire::{
    CREATED, Compare, EQUAL, LEASE_GRANT, LEASE_REVOKE, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, Request,
    RequestOp, TXN, Target, TxnRequest,
};

/// One way to a cluster, driven by the runtime that opened it.
#[expect(missing_debug_implementations, reason = "for our own benchmark alone")]
pub struct Bare(Link);

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

impl Bare {
    pub fn open(options: EtcdOptions) -> Result<Self, EngineError> {
        Ok(Self(Link::new(Arc::new(options), tokio::runtime::Handle::current())?))
    }

    /// An etcd lease.
    pub async fn grant(&self, seconds: i64) -> Result<i64, EngineError> {
        Ok(self.0.call(&LEASE_GRANT, LeaseGrantRequest { ttl: seconds }, soon()).await?.answer.id)
    }

    /// Puts a key that is not there, bound to a lease; whether it was not there.
    pub async fn create(&self, key: &str, value: &str, lease: i64) -> Result<bool, EngineError> {
        let key = key.as_bytes().to_vec();
        let with = Some(Target::Created(0));
        let compare = Compare { result: EQUAL, target: CREATED, key: key.clone(), with, range_end: Vec::new() };
        let put = Request::Put(PutRequest { key, value: value.as_bytes().to_vec(), lease });
        let step =
            TxnRequest { compare: vec![compare], success: vec![RequestOp { request: Some(put) }], failure: Vec::new() };
        Ok(self.0.call(&TXN, step, soon()).await?.answer.succeeded)
    }

    /// Ends a lease, and all that is bound to it.
    pub async fn revoke(&self, lease: i64) -> Result<(), EngineError> {
        self.0.call(&LEASE_REVOKE, LeaseRevokeRequest { id: lease }, soon()).await.map(drop)
    }
}
