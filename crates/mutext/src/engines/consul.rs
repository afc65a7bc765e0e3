//! `consul://`: locks in Consul.

use std::sync::Arc;

use mutext_consul::ConsulOptions;

use super::Opens;

pub(super) fn read(text: &str) -> Result<Arc<dyn Opens>, String> {
    Ok(Arc::new(ConsulOptions::parse(text)?))
}

locks_alone!(ConsulOptions, |_| "consul", "Consul");
