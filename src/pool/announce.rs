//! The log line of a pool that is built.

use std::time::Duration;

use crate::backend::Backend;
use crate::endpoint::Endpoint;
use crate::manager::RdsConnectionManager;
use crate::token;

/// Logs the one line that a working pool adds to a production log. Region and credentials are known in full
/// once a token was signed, which `build` waits for.
pub(super) fn announce<C: Backend>(
    manager: &RdsConnectionManager<C>,
    max_size: u32,
    max_lifetime: Option<Duration>,
) {
    let endpoint = manager.endpoint();
    let provenance = manager.provenance();
    let token_lifetime = provenance.as_ref().map(|it| it.token_lifetime);
    tracing::info!(
        host = endpoint.map(Endpoint::host),
        user = endpoint.map(Endpoint::user),
        region = provenance.as_ref().and_then(|it| it.region.as_deref()),
        credentials = provenance.as_ref().map(|it| it.credentials.as_str()),
        token_lifetime = token_lifetime.map(tracing::field::debug),
        margin = token_lifetime.map(token::margin).map(tracing::field::debug),
        sslmode = manager.parameter("sslmode"),
        max_size,
        max_lifetime = max_lifetime.map(tracing::field::debug),
        "pool built"
    );
    let sslmode = manager.parameter("sslmode");
    if endpoint.is_some() && sslmode == Some("require") && manager.roots().is_none() {
        tracing::warn!(
            host = endpoint.map(Endpoint::host),
            user = endpoint.map(Endpoint::user),
            "sslmode=require does not verify the server that gets the token"
        );
    }
}
