//! A password instead of IAM: a fixed one, or one from another secrets store, which rotates it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::source::{FetchFuture, FetchToken, Fetched, Provenance, Shared, TokenSource};
use super::{DEFAULT_REFRESH_TIMEOUT, check_refresh_timeout};
use crate::clock::{Clock, FOREVER, Moment};
use crate::credentials::BoxError;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::event::{Events, HandleAuthEvent, Stats};
use crate::runtime::{self, BlockingCalls, BlockingFailure};
use crate::token::{Schedule, Token};

/// A password to log in with instead of an IAM token; see
/// [`ManagerBuilder::password`](crate::ManagerBuilder::password).
///
/// A rotating password is cached like a token. The first login that needs it fetches it, once for all callers
/// that wait. It is refreshed in the background before it expires. If the source fails, the current password
/// serves until its expiry. If the server refuses it, it is fetched once more. Cheap to clone; clones share the
/// cache.
///
/// ```
/// use std::time::Duration;
/// use diesel_rds_iam::{Password, RotatingPassword};
/// # fn ask_vault() -> Result<(String, Duration), std::io::Error> {
/// #     Ok(("secret".to_owned(), Duration::from_secs(3600)))
/// # }
///
/// let password = Password::rotating(|| {
///     let (secret, lease) = ask_vault()?;
///     Ok(RotatingPassword::new(secret).lasts_for(lease))
/// });
/// ```
#[derive(Clone)]
pub struct Password(Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    Fixed(Arc<Token>),
    Rotating(TokenSource),
}

impl Password {
    /// A password that never changes or expires.
    pub fn fixed(password: impl Into<String>) -> Password {
        let secret = Zeroizing::new(password.into());
        let token = Token::everlasting(secret, Clock::default().now());
        Password(Kind::Fixed(Arc::new(token)))
    }

    /// A password that `fetch` returns, used until it expires or the server refuses it.
    ///
    /// `fetch` may block; it runs on a thread of its own. The text of its error becomes part of this crate's
    /// errors and logs, so it must not contain the password. The defaults of [`PasswordBuilder`] apply.
    pub fn rotating(
        fetch: impl Fn() -> Result<RotatingPassword, BoxError> + Send + Sync + 'static,
    ) -> Password {
        Password::builder(fetch).build_valid()
    }

    /// Returns a builder with more settings.
    pub fn builder(
        fetch: impl Fn() -> Result<RotatingPassword, BoxError> + Send + Sync + 'static,
    ) -> PasswordBuilder {
        PasswordBuilder {
            fetch: Arc::new(fetch),
            refresh_ahead: true,
            refresh_timeout: DEFAULT_REFRESH_TIMEOUT,
            clock: Clock::default(),
            handler: None,
        }
    }

    /// Returns the event counters. All are zero for a fixed password.
    pub fn stats(&self) -> Stats {
        self.events().stats()
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.0
    }

    pub(crate) fn clock(&self) -> Clock {
        match &self.0 {
            Kind::Fixed(_) => Clock::default(),
            Kind::Rotating(source) => source.shared().clock.clone(),
        }
    }

    pub(crate) fn events(&self) -> Events {
        match &self.0 {
            Kind::Fixed(_) => Events::default(),
            Kind::Rotating(source) => source.shared().events.clone(),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Fixed(_) => "Password::Fixed",
            Kind::Rotating(_) => "Password::Rotating",
        })
    }
}

/// A password, its user and its expiry, as the closure of [`Password::rotating`] returns it.
pub struct RotatingPassword {
    secret: Zeroizing<String>,
    user: Option<String>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    At(SystemTime),
    /// Counted from the call of the closure.
    After(Duration),
}

impl RotatingPassword {
    /// A password without a known expiry. It is used until the server refuses it.
    pub fn new(secret: impl Into<String>) -> RotatingPassword {
        RotatingPassword {
            secret: Zeroizing::new(secret.into()),
            user: None,
            end: None,
        }
    }

    /// Sets the database user to log in as. Default: that of the connection string, which must name one in any case.
    ///
    /// For stores that change the user together with the password: Vault's dynamic roles, or two alternating users in
    /// AWS Secrets Manager.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> RotatingPassword {
        self.user = Some(user.into());
        self
    }

    /// Sets when the server stops accepting it. It is used until a margin before that: a fifteenth of its
    /// remaining lifetime when it was fetched, at least 2 s and at most 60 s.
    #[must_use]
    pub fn expires_at(mut self, end: SystemTime) -> RotatingPassword {
        self.end = Some(End::At(end));
        self
    }

    /// Sets for how long the server accepts it, such as the duration of a lease, counted from the call of the
    /// closure. Otherwise as [`expires_at`](RotatingPassword::expires_at).
    #[must_use]
    pub fn lasts_for(mut self, span: Duration) -> RotatingPassword {
        self.end = Some(End::After(span));
        self
    }
}

impl fmt::Debug for RotatingPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotatingPassword")
            .field("user", &self.user)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Builds a rotating [`Password`].
#[must_use]
pub struct PasswordBuilder {
    fetch: Arc<Fetch>,
    refresh_ahead: bool,
    refresh_timeout: Duration,
    clock: Clock,
    handler: Option<Box<dyn HandleAuthEvent>>,
}

type Fetch = dyn Fn() -> Result<RotatingPassword, BoxError> + Send + Sync;

impl PasswordBuilder {
    /// Sets whether a password is refreshed in the background before it expires, at about 80 % of its usable
    /// lifetime. Default: true.
    pub fn refresh_ahead(mut self, ahead: bool) -> PasswordBuilder {
        self.refresh_ahead = ahead;
        self
    }

    /// Sets the time limit of a call of the closure, after which waiting callers get an error. Default: 4 s.
    /// Keep it below half of a pool's `connection_timeout`.
    ///
    /// A closure that takes longer cannot be stopped. It goes on, and the next refresh waits for its result
    /// instead of calling the closure again.
    pub fn refresh_timeout(mut self, timeout: Duration) -> PasswordBuilder {
        self.refresh_timeout = timeout.min(FOREVER);
        self
    }

    /// Sets the clock, for tests. Default: the machine's clocks.
    pub fn clock(mut self, clock: Clock) -> PasswordBuilder {
        self.clock = clock;
        self
    }

    /// Sets a handler that is called for every event of passwords, logins and connections. Default: none.
    pub fn event_handler(mut self, handler: impl HandleAuthEvent) -> PasswordBuilder {
        self.handler = Some(Box::new(handler));
        self
    }

    /// Checks the settings. Nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] for a timeout of zero.
    pub fn build(self) -> Result<Password, Error> {
        check_refresh_timeout(self.refresh_timeout)?;
        Ok(self.build_valid())
    }

    fn build_valid(self) -> Password {
        let fetch = AskUser {
            fetch: self.fetch,
            calls: BlockingCalls::new(),
            refresh_ahead: self.refresh_ahead,
            refresh_timeout: self.refresh_timeout,
            clock: self.clock.clone(),
        };
        let shared = Shared {
            clock: self.clock,
            events: Events::new(self.handler),
            refresh_timeout: self.refresh_timeout,
            runtime: Mutex::new(None),
        };
        let source = TokenSource::new(Arc::new(fetch), Arc::new(shared));
        Password(Kind::Rotating(source))
    }
}

impl fmt::Debug for PasswordBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordBuilder")
            .field("refresh_ahead", &self.refresh_ahead)
            .field("refresh_timeout", &self.refresh_timeout)
            .finish_non_exhaustive()
    }
}

struct AskUser {
    fetch: Arc<Fetch>,
    calls: BlockingCalls<(Moment, Result<RotatingPassword, BoxError>)>,
    refresh_ahead: bool,
    refresh_timeout: Duration,
    clock: Clock,
}

impl AskUser {
    async fn ask(&self) -> Fetched {
        let limit = self.refresh_timeout;
        let answer = runtime::attempt_within(limit, || async {
            let (clock, fetch) = (self.clock.clone(), self.fetch.clone());
            // A lease counts from when its call began, which may be before this fetch.
            let work = move || (clock.now(), fetch());
            let (asked, answer) = self.calls.call(work).await.map_err(no_answer)?;
            answer.map(|it| (asked, it)).map_err(refused)
        });
        let (asked, password) = answer.await.ok_or_else(|| timed_out(limit))??;
        if password.secret.is_empty() {
            return Err(Error::new(
                ErrorKind::CredentialsNotFound,
                "the source of the password returned an empty one; correct the closure or its source",
            ));
        }
        if let Some(user) = &password.user
            && (user.is_empty() || user.contains('\0'))
        {
            return Err(Error::configuration(
                "the source of the password returned a user that is empty or holds a zero byte; \
                 correct the closure",
            ));
        }
        let user = password.user.clone();
        Ok(self.token(password, asked)?.of_user(user))
    }

    fn token(&self, password: RotatingPassword, asked: Moment) -> Fetched {
        let RotatingPassword { secret, end, .. } = password;
        let life = end.map(|end| match end {
            End::At(end) => end.duration_since(asked.wall).unwrap_or_default(),
            End::After(span) => span,
        });
        let Some(life) = life.filter(|life| *life < FOREVER) else {
            return Ok(Token::everlasting(secret, asked));
        };
        let schedule = Schedule::new(self.refresh_ahead);
        let token = Token::new(secret, asked, life, None, schedule);
        if !token.is_usable_at(&self.clock.now()) {
            return Err(Error::new(
                ErrorKind::CredentialsExpired,
                "the source of the password returned one that has expired or expires within seconds; renew \
                 it there, or correct this machine's clock",
            ));
        }
        Ok(token)
    }
}

impl FetchToken for AskUser {
    fn fetch(self: Arc<Self>, _current: Option<Arc<Token>>) -> FetchFuture {
        Box::pin(async move { self.ask().await })
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        None
    }

    fn provenance(&self) -> Option<Provenance> {
        None
    }

    /// What a secrets store returns next is unknown.
    fn would_be_identical(&self, _token: &Token, _now: &Moment) -> bool {
        false
    }
}

fn timed_out(limit: Duration) -> Error {
    Error::new(
        ErrorKind::CredentialsTimeout,
        format!(
            "the source of the password did not answer within {limit:?}; check that it can be \
             reached, or raise refresh_timeout"
        ),
    )
}

fn no_answer(failure: BlockingFailure) -> Error {
    match failure {
        BlockingFailure::Panicked => Error::new(
            ErrorKind::Internal,
            "the closure that fetches the password panicked; the panic's message tells where",
        ),
        BlockingFailure::NoThread(cause) => Error::with_cause(
            ErrorKind::Internal,
            "cannot start a thread for the closure that fetches the password; raise the process's limit \
             of threads",
            cause,
        ),
    }
}

fn refused(cause: BoxError) -> Error {
    let message = "the source of the password failed; check that this process may ask it";
    Error::with_cause(ErrorKind::CredentialsRefused, message, cause)
}
