//! The HTTP API: `/v1`, its document, health and metrics.
//!
//! A request arrives as [`incoming::Incoming`], strictly read; whatever concerns one run goes
//! through [`owner`], which answers here or passes the request on to the instance that owns the
//! run's partition; the answer is a [`view`] or a [`problem::Problem`]. The handlers are grouped
//! as the routes are: [`runs`], [`list`], [`events`] (history and live streams), [`definitions`],
//! [`tasks`] (long polls and answers of agents), [`rules`] (their figures), [`cluster`] (instances, health, metrics). The
//! runtime is seen through [`door`] alone; [`openapi`] holds the document; [`connections`] bounds
//! what clients may hold of the listener. As long as no broker answers, [`waiting`] stands in for
//! all of it.

pub mod cluster;
pub mod connections;
pub mod definitions;
pub mod door;
pub mod events;
pub mod incoming;
pub mod list;
pub mod openapi;
pub mod owner;
pub mod problem;
pub mod rules;
pub mod runs;
pub mod tasks;
pub mod view;
pub mod waiting;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::connections::ConnectionLimits;
use self::door::Runs;
use self::problem::Problem;
use crate::agents::Pumps;
use crate::runtime::definitions::Registry;
use crate::runtime::membership::Membership;

/// Limits and names of the API.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Of the JSON of an input or output, in bytes; the engine's own limit, checked before
    /// anything is written.
    pub max_payload_bytes: usize,
    /// How long a request for a run waits for the run's partition to have an owner.
    pub owner_patience: Duration,
    /// Streams of server-sent events at one time.
    pub max_streams: usize,
    /// How many connections, and how long each part of an exchange may take.
    pub connections: ConnectionLimits,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            max_payload_bytes: 256 << 10,
            owner_patience: Duration::from_secs(8),
            max_streams: 256,
            connections: ConnectionLimits::default(),
        }
    }
}

/// Renders the metrics in the text format of Prometheus.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Everything that the handlers need. Cloning is cheap.
#[derive(Clone)]
pub struct Api(Arc<Rooms>);

struct Rooms {
    settings: ApiSettings,
    runs: Arc<dyn Runs>,
    definitions: Arc<Registry>,
    membership: Arc<Membership>,
    pumps: Arc<Pumps>,
    render_metrics: RenderMetrics,
    http: reqwest::Client,
    streams: Arc<tokio::sync::Semaphore>,
    closing: CancellationToken,
}

impl Api {
    /// Puts the API together; nothing listens yet. Fails only where no HTTP client can be made
    /// (the system's TLS cannot be set up).
    pub fn new(
        settings: ApiSettings,
        runs: Arc<dyn Runs>,
        definitions: Arc<Registry>,
        membership: Arc<Membership>,
        pumps: Arc<Pumps>,
        render_metrics: RenderMetrics,
    ) -> Result<Self, reqwest::Error> {
        // Shorter than the other instances keep a silent connection, so that none is used just as
        // it closes.
        let keep = settings.connections.idle_timeout / 2;
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .pool_idle_timeout(keep)
            .no_proxy()
            .build()?;
        let streams = Arc::new(tokio::sync::Semaphore::new(settings.max_streams));
        let closing = CancellationToken::new();
        Ok(Self(Arc::new(Rooms {
            settings,
            runs,
            definitions,
            membership,
            pumps,
            render_metrics,
            http,
            streams,
            closing,
        })))
    }

    pub fn settings(&self) -> &ApiSettings {
        &self.0.settings
    }

    fn runs(&self) -> &dyn Runs {
        self.0.runs.as_ref()
    }

    fn definitions(&self) -> &Registry {
        &self.0.definitions
    }

    fn membership(&self) -> &Membership {
        &self.0.membership
    }

    fn pumps(&self) -> &Arc<Pumps> {
        &self.0.pumps
    }

    /// Is cancelled when the server shuts down: long polls and streams end then.
    fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    /// Serves until `stop` is cancelled; then long polls and streams end, requests under way are
    /// finished, at most for `grace`.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken, grace: Duration) {
        let closing = self.0.closing.clone();
        let limits = self.settings().connections;
        let served = connections::serve(listener, router(self), limits, closing.clone(), grace);
        let stopping = async {
            stop.cancelled().await;
            closing.cancel();
        };
        let (finished, ()) = tokio::join!(served, stopping);
        if !finished {
            tracing::warn!("requests were still under way when the server closed");
        }
    }
}

/// One route: the path as the router matches it, what answers there, and the paths and methods
/// under which the document describes it.
struct Route {
    path: &'static str,
    answers: MethodRouter<Api>,
    documented: &'static [(&'static str, &'static [&'static str])],
}

/// Every route. A verb after a colon is part of the last segment, which axum cannot match on: the
/// handlers split it off.
fn routes() -> Vec<Route> {
    let route = |path, answers, documented| Route {
        path,
        answers,
        documented,
    };
    vec![
        route(
            "/v1/runs",
            get(list::list).post(runs::start),
            &[("/v1/runs", &["get", "post"])],
        ),
        route(
            "/v1/runs/{run}",
            get(runs::show).post(runs::verb),
            &[
                ("/v1/runs/{id}", &["get"]),
                ("/v1/runs/{id}:pause", &["post"]),
                ("/v1/runs/{id}:resume", &["post"]),
                ("/v1/runs/{id}:cancel", &["post"]),
                ("/v1/runs/{id}:signal", &["post"]),
            ],
        ),
        route(
            "/v1/runs/{run}/events",
            get(events::history),
            &[("/v1/runs/{id}/events", &["get"])],
        ),
        route(
            "/v1/definitions/{kind}",
            get(definitions::list),
            &[("/v1/definitions/{kind}", &["get"])],
        ),
        route(
            "/v1/definitions/{kind}/{name}",
            get(definitions::show)
                .put(definitions::apply)
                .delete(definitions::delete),
            &[("/v1/definitions/{kind}/{name}", &["delete", "get", "put"])],
        ),
        route(
            "/v1/rules/stats",
            get(rules::stats),
            &[("/v1/rules/stats", &["get"])],
        ),
        route(
            "/v1/agents/{agent}/{verb}",
            post(tasks::poll),
            &[("/v1/agents/{agent}/tasks:poll", &["post"])],
        ),
        route(
            "/v1/tasks/{task}",
            post(tasks::answer),
            &[
                ("/v1/tasks/{task_id}:complete", &["post"]),
                ("/v1/tasks/{task_id}:fail", &["post"]),
                ("/v1/tasks/{task_id}:progress", &["post"]),
                ("/v1/tasks/{task_id}:heartbeat", &["post"]),
            ],
        ),
        route("/v1/events", get(events::live), &[("/v1/events", &["get"])]),
        route(
            "/v1/cluster",
            get(cluster::cluster),
            &[("/v1/cluster", &["get"])],
        ),
        route(
            "/openapi.json",
            get(openapi::document),
            &[("/openapi.json", &["get"])],
        ),
        route("/livez", get(cluster::livez), &[("/livez", &["get"])]),
        route("/readyz", get(cluster::readyz), &[("/readyz", &["get"])]),
        route("/metrics", get(cluster::metrics), &[("/metrics", &["get"])]),
    ]
}

/// Paths and methods as the document has them, in no particular order.
pub fn documented_routes() -> Vec<(&'static str, &'static [&'static str])> {
    routes()
        .iter()
        .flat_map(|route| route.documented)
        .copied()
        .collect()
}

/// The router of all routes.
pub fn router(api: Api) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, route| {
            router.route(route.path, route.answers)
        })
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(name_the_instance))
        .with_state(api)
}

async fn no_route(uri: Uri) -> Problem {
    Problem::not_found(format!(
        "there is no route {}; /openapi.json names them all",
        uri.path()
    ))
}

async fn no_method(method: Method, uri: Uri) -> Problem {
    Problem::wrong_method(None, format!("{} does not take {method}", uri.path()))
}

/// Writes problems out: only here is the request's target known.
async fn name_the_instance(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let mut told = problem.respond(&uri);
    // What the router said beside the problem (`Allow`) stays.
    for (name, value) in response.headers() {
        if name != axum::http::header::CONTENT_LENGTH {
            told.headers_mut()
                .entry(name)
                .or_insert_with(|| value.clone());
        }
    }
    told
}
