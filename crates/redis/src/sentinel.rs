//! Asking Sentinels which server is the primary.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mutext_contract::{EngineError, TroubleKind};
use mutext_reach::Host;
use redis::{AsyncConnectionConfig, FromRedisValue, Value};

use crate::options::{RedisOptions, Sentinels};
use crate::trouble;

/// The primary, as the Sentinel that answers first names it.
///
/// A Sentinel that lags may name the last one: it says of itself that it is a replica, or does not answer, and the
/// question is asked again.
pub(crate) async fn primary(options: &Arc<RedisOptions>, sentinels: &Sentinels) -> Result<Host, EngineError> {
    let mut asked: FuturesUnordered<_> = sentinels.hosts.iter().map(|host| ask(options, sentinels, host)).collect();
    let mut unknown = false;
    let mut trouble = None;
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(Some(host)) => return Ok(host),
            Ok(None) => unknown = true,
            Err(error) => trouble = Some(error),
        }
    }
    if unknown {
        let kind = TroubleKind::Misconfigured(format!("its Sentinels know no service named {:?}", sentinels.service));
        return Err(EngineError::new(options.to_string(), kind, "name the one of their `sentinel monitor` line"));
    }
    let nobody = || {
        let remedy = "see that the Sentinels run and can be reached from here";
        EngineError::new(options.to_string(), TroubleKind::Unavailable, remedy)
    };
    Err(trouble.unwrap_or_else(nobody))
}

async fn ask(options: &RedisOptions, sentinels: &Sentinels, host: &Host) -> Result<Option<Host>, EngineError> {
    let words = ["GET-MASTER-ADDR-BY-NAME", &sentinels.service];
    let value = question(options, sentinels, host, &words).await?;
    let named = Option::<(String, u16)>::from_redis_value(value).unwrap_or(None);
    Ok(named.map(|(name, port)| Host { name, port }))
}

/// Asks one Sentinel one thing, on a connection of its own: that is needed after a failover alone.
pub(crate) async fn question(
    options: &RedisOptions,
    sentinels: &Sentinels,
    host: &Host,
    words: &[&str],
) -> Result<Value, EngineError> {
    let at = options.sentinel_at(host, sentinels);
    let subject = format!("Sentinel {host}");
    let patience = options.connect_timeout();
    let explain = |error| trouble::explain(&subject, error);
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(Some(patience));
    let ask = async {
        let client = at.client()?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(explain)?;
        redis::cmd("SENTINEL").arg(words).query_async::<Value>(&mut connection).await.map_err(explain)
    };
    let answered = tokio::time::timeout(patience, ask).await;
    answered.unwrap_or_else(|_| Err(trouble::unanswered(&subject).with_effect(mutext_contract::Effect::None)))
}
