//! Counters for operators. Labels have few values: kinds, codes, routes; never names or ids.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::feed::{SinkReport, State};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatementLabels {
    kind: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// What the server counts.
pub(super) struct Metrics {
    registry: Registry,
    statements: Family<StatementLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
    size: Gauge,
    cosigned: Gauge,
    projected: Gauge,
    streams: Gauge,
    learns: Gauge,
    snapshot: Gauge,
    feed: FeedMetrics,
}

/// What the gauges say at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    /// Entries in the log.
    pub(super) size: u64,
    /// Of them under a quorum of witnesses.
    pub(super) cosigned: u64,
    /// Of them in the lists.
    pub(super) projected: u64,
    /// Open streams.
    pub(super) streams: usize,
    /// Whether it learns what other servers commit.
    pub(super) learns: bool,
    /// When the newest policy snapshot that enough have signed ends, in seconds since 1970.
    pub(super) snapshot_ends: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabels {
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkStateLabels {
    sink: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkErrorLabels {
    sink: String,
    error: &'static str,
}

/// What sinks are heard of. Their names are few: they stand in a file of the operator's.
#[derive(Default)]
struct FeedMetrics {
    lag: Family<SinkLabels, Gauge>,
    state: Family<SinkStateLabels, Gauge>,
    deliveries: Family<SinkLabels, Counter>,
    failures: Family<SinkErrorLabels, Counter>,
}

impl FeedMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "feed_lag_entries",
            "Entries that a sink was not told of yet, at the server that feeds it",
            self.lag.clone(),
        );
        registry.register(
            "feed_state",
            "1 for what a sink does: starting, standby, feeding, retrying, disabled",
            self.state.clone(),
        );
        registry.register(
            "feed_deliveries",
            "Messages that a sink has taken from this server",
            self.deliveries.clone(),
        );
        registry.register(
            "feed_failures",
            "Deliveries that failed, by what was wrong",
            self.failures.clone(),
        );
    }

    fn set(&self, report: &SinkReport, size: u64) {
        let sink = || report.name.to_string();
        let labels = SinkLabels { sink: sink() };
        match report.next {
            Some(next) => {
                let lag = i64::try_from(size.saturating_sub(next)).unwrap_or(i64::MAX);
                self.lag.get_or_create(&labels).set(lag);
            }
            None => {
                self.lag.remove(&labels);
            }
        }
        for state in State::ALL {
            let labels = SinkStateLabels {
                sink: sink(),
                state: state.as_str(),
            };
            let is = i64::from(state == report.state);
            self.state.get_or_create(&labels).set(is);
        }
        let counted = |counter: &Counter, now: u64| {
            counter.inc_by(now.saturating_sub(counter.get()));
        };
        counted(&self.deliveries.get_or_create(&labels), report.delivered);
        for (error, times) in &report.failures {
            let labels = SinkErrorLabels {
                sink: sink(),
                error,
            };
            counted(&self.failures.get_or_create(&labels), *times);
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Response times from 1 ms to about 4 s.
const SMALLEST_SECONDS: f64 = 0.001;
const BUCKETS: u16 = 13;

impl Metrics {
    pub(super) fn new() -> Self {
        let this = Self {
            registry: Registry::with_prefix("countersign"),
            statements: Family::default(),
            requests: Family::default(),
            seconds: Histogram::new(exponential_buckets(SMALLEST_SECONDS, 2.0, BUCKETS)),
            size: Gauge::default(),
            cosigned: Gauge::default(),
            projected: Gauge::default(),
            streams: Gauge::default(),
            learns: Gauge::default(),
            snapshot: Gauge::default(),
            feed: FeedMetrics::default(),
        };
        this.register()
    }

    fn register(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "statements",
            "Statements received, by kind and by what became of them",
            self.statements.clone(),
        );
        registry.register(
            "http_requests",
            "HTTP requests answered, by route and status",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "http_response",
            "Time to the head of a response",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register("log_entries", "Entries in the log", self.size.clone());
        registry.register(
            "cosigned_entries",
            "Entries under the newest checkpoint that a quorum of witnesses has signed; 0 without a witness policy",
            self.cosigned.clone(),
        );
        registry.register(
            "projected_entries",
            "Entries that the projections contain",
            self.projected.clone(),
        );
        registry.register(
            "open_streams",
            "Server-sent event streams that are open",
            self.streams.clone(),
        );
        registry.register(
            "learns",
            "1 while this server learns what other servers commit; 0 when it has stopped or cannot keep it, and has ended its streams",
            self.learns.clone(),
        );
        registry.register(
            "snapshot_end_timestamp_seconds",
            "When the newest policy snapshot that enough administrators have signed ends; 0 when there was none",
            self.snapshot.clone(),
        );
        self.feed.register(registry);
        self
    }

    pub(super) fn statement(&self, kind: &str, code: &str) {
        let labels = StatementLabels {
            kind: kind.to_owned(),
            code: code.to_owned(),
        };
        self.statements.get_or_create(&labels).inc();
    }

    pub(super) fn request(&self, route: &str, status: u16, seconds: f64) {
        let labels = RequestLabels {
            route: route.to_owned(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
        self.seconds.observe(seconds);
    }

    /// What a sink does, in a log of so many entries.
    pub(super) fn sink(&self, report: &SinkReport, size: u64) {
        self.feed.set(report, size);
    }

    /// All of it as Prometheus reads it.
    pub(super) fn text(&self, levels: Levels) -> String {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.size.set(number(levels.size));
        self.cosigned.set(number(levels.cosigned));
        self.projected.set(number(levels.projected));
        self.streams.set(number(levels.streams as u64));
        self.learns.set(i64::from(levels.learns));
        self.snapshot.set(number(levels.snapshot_ends));
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics could not be written");
        }
        text
    }
}
