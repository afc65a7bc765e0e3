//! `etcd://`: locks in etcd.

use std::sync::Arc;

use mutext_etcd::EtcdOptions;

use super::Opens;

pub(super) fn read(text: &str) -> Result<Arc<dyn Opens>, String> {
    Ok(Arc::new(EtcdOptions::parse(text)?))
}

locks_alone!(EtcdOptions, |_| "etcd", "etcd");
