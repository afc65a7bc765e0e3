//! The way to the server that has a context: the only one, the primary that Sentinels name, or a node of a cluster.

use std::sync::Arc;

use mutext_contract::{ContextName, Deadline, EngineError};
use redis::RedisError;

use crate::cluster::Cluster;
use crate::keys::Keys;
use crate::link::{Link, Links, Live};
use crate::options::RedisOptions;

/// From one runtime, to wherever a context lies.
#[derive(Clone)]
pub(crate) enum Way {
    /// All contexts lie on one server.
    One(Arc<Link>),
    /// Each context lies on a node.
    Cluster(Arc<Cluster>),
}

impl Way {
    /// As [`Link::call`], on the server that has the context.
    pub(crate) async fn call<'a, T, F, A>(
        &self,
        context: &ContextName,
        deadline: Deadline,
        ask: F,
    ) -> Result<T, EngineError>
    where
        F: FnMut(Arc<Live>, bool) -> A,
        A: Future<Output = Result<T, RedisError>> + 'a,
    {
        match self {
            Self::One(link) => link.call(deadline, ask).await,
            Self::Cluster(cluster) => cluster.call(context, deadline, ask).await,
        }
    }
}

/// The server, or all of a cluster, for all runtimes of this process.
pub(crate) struct Servers {
    links: Links,
    cluster: Option<Arc<Cluster>>,
}

impl Servers {
    pub(crate) fn new(options: &Arc<RedisOptions>, keys: &Arc<Keys>) -> Self {
        let cluster = |hosts| Arc::new(Cluster::new(Arc::clone(options), Arc::clone(keys), hosts));
        let cluster = options.cluster_hosts().map(cluster);
        Self { links: Links::new(Arc::clone(options), Arc::clone(keys)), cluster }
    }

    /// From the runtime that this is called on.
    pub(crate) fn way(&self) -> Result<Way, EngineError> {
        match &self.cluster {
            Some(cluster) => Ok(Way::Cluster(Arc::clone(cluster))),
            None => self.links.here().map(Way::One),
        }
    }

    pub(crate) fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.clone()
    }
}
