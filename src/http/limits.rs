//! How often one client may call: a bucket of tokens each, and the headers that tell what is left.
//!
//! It owns the rates and the memory of them, which is bounded. It must not judge what a request is
//! about.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use countersign_protocol::event::DeniedWhat;
use countersign_protocol::hash::KeyId;

use super::app::App;
use super::auth;
use super::error::ApiError;

/// A rate: so many at once, and so many a second in the long run.
#[derive(Debug, Clone, Copy)]
struct Rate {
    name: &'static str,
    burst: u32,
    per_second: u32,
}

/// Sign-ins of one address: a site of 500 agents may come back at once, two calls each, and the
/// table of used challenges cannot be filled from one place.
const SIGN_IN: Rate = Rate {
    name: "sign-in",
    burst: 1_000,
    per_second: 20,
};

/// Calls at the door of one address: more than an agent makes that delivers a long journal, each
/// call a batch; signatures that are checked for nobody stay a few percent of one processor.
const DOOR: Rate = Rate {
    name: "door",
    burst: 5_000,
    per_second: 500,
};

/// Calls with a session of one key: an agent asks for a proof or two for each run.
const SESSION: Rate = Rate {
    name: "session",
    burst: 2_000,
    per_second: 200,
};

/// Calls for the entries of many commands, of one key: each may read and prove some thousand entries, and
/// stands for up to 200 calls for one.
const STREAMS: Rate = Rate {
    name: "streams",
    burst: 200,
    per_second: 20,
};

/// Checkpoints and tiles for one address, which anybody may read: a monitor that begins with a
/// million entries reads four thousand tiles, and each is one query.
const TILES: Rate = Rate {
    name: "tiles",
    burst: 2_000,
    per_second: 200,
};

/// Long texts for one address, which anybody may read and nobody often: what the interface is, and the
/// numbers for those who watch. Several programs that ask once a second are let in.
const OPEN: Rate = Rate {
    name: "open",
    burst: 100,
    per_second: 10,
};

/// Clients that are remembered for one rate, some 5 MiB: whoever comes when all of them are busy
/// shares one more bucket.
const REMEMBERED: usize = 64 * 1024;

/// Buckets that are full again are looked for at most this often: it walks through all of them.
const SWEEP: Duration = Duration::from_secs(1);

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Where a caller is: an IPv4 address, or the 64 bits of IPv6 that one customer has all of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source(u64);

impl Source {
    pub(super) const fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // No IPv6 network begins with 32 zero bits and goes on with an address.
            IpAddr::V4(address) => Self(address.to_bits() as u64),
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64;
                Self(network as u64)
            }
        }
    }
}

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Source(Source),
    Key(KeyId),
    /// Everybody for whom there was no room.
    Others,
}

/// What a bucket says to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    /// How long until a call is let in; nothing when this one is.
    wait: Option<Duration>,
    /// Calls that are left at this moment.
    left: u64,
    /// Until all of them are there again.
    full_in: Duration,
}

/// The buckets of one rate. Of each only the moment is kept at which it is full again.
#[derive(Debug)]
struct Buckets {
    rate: Rate,
    room: usize,
    state: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    full_at: HashMap<Subject, Instant>,
    swept: Option<Instant>,
}

impl Buckets {
    fn new(rate: Rate, room: usize) -> Self {
        Self {
            rate,
            room,
            state: Mutex::default(),
        }
    }

    fn take(&self, subject: Subject, now: Instant) -> Answer {
        let mut shelf = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let subject = shelf.place(subject, self.room, now);
        let each = Duration::from_secs(1) / self.rate.per_second;
        let whole = each * self.rate.burst;
        let full_at = shelf.full_at.get(&subject).copied().unwrap_or(now).max(now);
        let after = full_at + each;
        let owed = after.duration_since(now);
        if owed > whole {
            return Answer {
                wait: Some(owed.saturating_sub(whole)),
                left: 0,
                full_in: full_at.duration_since(now),
            };
        }
        shelf.full_at.insert(subject, after);
        let left = whole.saturating_sub(owed).as_nanos() / each.as_nanos().max(1);
        Answer {
            wait: None,
            left: u64::try_from(left).unwrap_or(u64::MAX),
            full_in: owed,
        }
    }
}

impl Shelf {
    /// The bucket that a subject has or gets. One that is full again is as good as none.
    fn place(&mut self, subject: Subject, room: usize, now: Instant) -> Subject {
        if self.full_at.contains_key(&subject) || self.full_at.len() < room {
            return subject;
        }
        let due = |swept: Instant| now.saturating_duration_since(swept) >= SWEEP;
        if self.swept.is_none_or(due) {
            self.swept = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() < room {
            subject
        } else {
            Subject::Others
        }
    }
}

/// All rates of a server.
#[derive(Debug)]
pub(super) struct Limits {
    sign_in: Buckets,
    door: Buckets,
    session: Buckets,
    streams: Buckets,
    tiles: Buckets,
    open: Buckets,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self {
            sign_in: Buckets::new(SIGN_IN, REMEMBERED),
            door: Buckets::new(DOOR, REMEMBERED),
            session: Buckets::new(SESSION, REMEMBERED),
            streams: Buckets::new(STREAMS, REMEMBERED),
            tiles: Buckets::new(TILES, REMEMBERED),
            open: Buckets::new(OPEN, REMEMBERED),
        }
    }
}

/// Lets a request in while its caller has tokens, and says what is left.
pub(super) async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some((buckets, subject)) = bucket(&app, &request) else {
        return next.run(request).await;
    };
    let answer = buckets.take(subject, Instant::now());
    let mut response = match answer.wait {
        None => next.run(request).await,
        Some(wait) => {
            let now = app.clock.now();
            app.denials.count(DeniedWhat::RateLimit, None, None, now);
            too_many(wait)
        }
    };
    tell(response.headers_mut(), buckets.rate, &answer);
    response
}

/// The bucket that a request takes from; none for what is open to everybody and costs nothing.
fn bucket<'a>(app: &'a App, request: &Request) -> Option<(&'a Buckets, Subject)> {
    let source = || Subject::Source(Source::of(address(app, request)));
    let path = request.extensions().get::<MatchedPath>()?;
    match path.as_str() {
        "/v1/sessions" | "/v1/sessions/challenge" => Some((&app.limits.sign_in, source())),
        "/v1/statements" | "/v1/statements/batch" => Some((&app.limits.door, source())),
        "/checkpoint" | "/tile/{level}/{*rest}" => Some((&app.limits.tiles, source())),
        "/openapi.json" | "/metrics" => Some((&app.limits.open, source())),
        "/v1/commands/entries" => {
            let key = auth::key_of_session(app, request.headers()).map(Subject::Key);
            Some((&app.limits.streams, key.unwrap_or_else(source)))
        }
        // Whose API token it is says only the log: until then a caller is where it comes from.
        _other if auth::has_token(request.headers()) => Some((&app.limits.door, source())),
        _other => {
            let key = auth::key_of_session(app, request.headers())?;
            Some((&app.limits.session, Subject::Key(key)))
        }
    }
}

/// Where the caller is. A proxy adds the address that it sees to the end of a list; what stands
/// before it, and the list of a server without a proxy, is whatever the caller wrote.
fn address(app: &App, request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.map_or(IpAddr::from([0; 4]), |peer| peer.0);
    let forwarded = || {
        let last = request
            .headers()
            .get_all(FORWARDED_FOR)
            .iter()
            .next_back()?;
        let hop = last.to_str().ok()?.rsplit(',').next()?.trim();
        let with_port = || hop.parse().ok().map(|at: std::net::SocketAddr| at.ip());
        hop.parse().ok().or_else(with_port)
    };
    if app.behind_proxy {
        forwarded().unwrap_or(peer)
    } else {
        peer
    }
}

fn too_many(wait: Duration) -> Response {
    let seconds = whole_seconds(wait);
    let mut response = ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limited",
        "too many calls of this kind from this caller; this one was not looked at",
    )
    .hint("wait for as many seconds as Retry-After says, then send the same again")
    .into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// `RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers.
fn tell(headers: &mut HeaderMap, rate: Rate, answer: &Answer) {
    let Rate {
        name,
        burst,
        per_second,
    } = rate;
    let window = burst.div_ceil(per_second);
    let (left, full) = (answer.left, whole_seconds(answer.full_in));
    let texts = [
        (
            RATE_LIMIT_POLICY,
            format!("\"{name}\";q={burst};w={window}"),
        ),
        (RATE_LIMIT, format!("\"{name}\";r={left};t={full}")),
    ];
    for (header, text) in texts {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header, value);
        }
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Rate = Rate {
        name: "slow",
        burst: 3,
        per_second: 2,
    };

    fn source(last: u8) -> Subject {
        Subject::Source(Source::of([192, 0, 2, last].into()))
    }

    #[test]
    fn a_burst_is_let_in_and_then_so_many_a_second() {
        let (buckets, start) = (Buckets::new(SLOW, 8), Instant::now());
        let left = [2, 1, 0].map(Some);
        for left in left {
            let answer = buckets.take(source(1), start);
            assert_eq!((answer.wait, Some(answer.left)), (None, left));
        }
        let refused = buckets.take(source(1), start);
        assert_eq!(refused.wait, Some(Duration::from_millis(500)));
        assert_eq!(buckets.take(source(2), start).wait, None, "another caller");
        let later = start + Duration::from_millis(500);
        assert_eq!(buckets.take(source(1), later).wait, None);
        assert!(buckets.take(source(1), later).wait.is_some());
        let much_later = start + Duration::from_secs(60);
        assert_eq!(buckets.take(source(1), much_later).left, 2);
    }

    #[test]
    fn a_refused_call_does_not_lengthen_the_wait() {
        let (buckets, start) = (Buckets::new(SLOW, 8), Instant::now());
        for _each in 0..100 {
            buckets.take(source(1), start);
        }
        let later = start + Duration::from_millis(500);
        assert_eq!(buckets.take(source(1), later).wait, None);
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_memory_and_shares_a_bucket() {
        let (buckets, start) = (Buckets::new(SLOW, 8), Instant::now());
        let refused = (0..=255)
            .filter(|last| buckets.take(source(*last), start).wait.is_some())
            .count();
        assert_eq!(refused, 256 - 8 - 3);
        assert_eq!(buckets.state.lock().unwrap().full_at.len(), 9);
        // Those that are known go on, and room comes back.
        assert_eq!(buckets.take(source(0), start).wait, None);
        let later = start + Duration::from_secs(60);
        assert_eq!(buckets.take(source(77), later).left, 2);
        assert_eq!(buckets.state.lock().unwrap().full_at.len(), 1);
    }

    #[test]
    fn one_customer_of_ipv6_is_one_caller() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
