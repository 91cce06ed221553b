//! The members of a cluster as servers to log in at.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::server::{Login, Server};
use crate::backend::Backend;
use crate::cluster::{Cluster, ClusterMember, Place, Source};
use crate::endpoint::ConnectionString;
use crate::error::{Error, ErrorKind};

pub(super) struct Members<C: Backend> {
    pub(super) cluster: Cluster,
    /// The settings to log in at the cluster's name, for each pass.
    targets: Vec<ConnectionString>,
    login: Login<C>,
    servers: Mutex<Servers<C>>,
}

/// By host name and pass.
type Servers<C> = HashMap<(String, u8), Arc<Server<C>>>;

impl<C: Backend> Members<C> {
    pub(super) fn new(cluster: Cluster, targets: Vec<ConnectionString>, login: Login<C>) -> Self {
        Members {
            cluster,
            targets,
            login,
            servers: Mutex::default(),
        }
    }

    /// Returns the server of member `id`; `None` if it is not among those that are `listed` now.
    pub(super) fn server(
        &self,
        listed: &[ClusterMember],
        id: &str,
        pass: u8,
    ) -> Result<Option<Arc<Server<C>>>, Error> {
        let mut servers = self.servers.lock();
        servers.retain(|(host, _), _| listed.iter().any(|member| member.host == *host));
        let Some(member) = listed.iter().find(|member| *member.id == *id) else {
            return Ok(None);
        };
        let key = (member.host.clone(), pass);
        if let Some(server) = servers.get(&key) {
            return Ok(Some(server.clone()));
        }
        let Some(target) = self.targets.get(usize::from(pass)) else {
            return Ok(None);
        };
        let server = Arc::new(self.login.server(&target.at_member(&member.host))?);
        servers.insert(key, server.clone());
        Ok(Some(server))
    }

    /// Reads the members over a new connection to `place`, if that is due. Returns the id of its server, if known.
    ///
    /// # Errors
    ///
    /// If the connection broke over it.
    pub(super) fn read_over(
        &self,
        connection: &mut C::Connection,
        place: &Place,
        now: Instant,
    ) -> Result<Option<Arc<str>>, Error> {
        let known = match place {
            Place::Member(id) => Some(id.clone()),
            Place::Name => None,
        };
        let Some(mut source) = self.cluster.take_due_read(now) else {
            return Ok(known);
        };
        if source == Source::Unknown {
            let line = C::lines(connection, source.query());
            let line = line.as_ref().map(|lines| lines.first().map(String::as_str));
            source = match line {
                Ok(line) => Source::from_line(line.unwrap_or_default())
                    .unwrap_or_else(|reason| self.give_up(&reason)),
                Err(_) if C::is_broken(connection) => return Err(broken()),
                Err(error) => self.give_up(error),
            };
            self.cluster.set_source(source);
        }
        if source == Source::None {
            return Ok(None);
        }
        match C::lines(connection, source.query()) {
            Ok(lines) => Ok(self.cluster.learn(place, &lines).or(known)),
            Err(_) if C::is_broken(connection) => Err(broken()),
            Err(error) => {
                tracing::debug!(%error, "the members of the cluster were not read");
                // A right that was revoked shows at the next read.
                self.cluster.set_source(Source::Unknown);
                Ok(known)
            }
        }
    }

    fn give_up(&self, reason: &dyn std::fmt::Display) -> Source {
        tracing::info!(
            %reason,
            "the members of the cluster cannot be read, so connections follow its DNS name alone"
        );
        Source::None
    }
}

fn broken() -> Error {
    Error::new(
        ErrorKind::Network,
        "the connection broke while the members of the cluster were read; see the server's log",
    )
}
