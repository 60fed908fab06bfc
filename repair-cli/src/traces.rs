//! Sends the spans of runs to a receiver of OTLP over HTTP, if the usual environment variables name one. Nothing of it can fail a command: what is
//! not sent is counted, and said once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry};

/// How long the end of a command waits for the last spans to be sent, unless the environment lets a request take longer.
const LONGEST_END: Duration = Duration::from_secs(2);
/// How long sending some spans may take, unless the environment says otherwise. This is what the specification of OTLP says.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);
/// How many spans wait to be sent, unless the environment says otherwise. Each takes about half a kilobyte.
const MOST_WAITING: usize = 8_192;

/// What has become of spans.
#[derive(Debug, Default)]
struct Fate {
    ended: AtomicU64,
    sent: AtomicU64,
    /// Why the first ones that could not be sent were not.
    failure: Mutex<Option<String>>,
}

/// The spans of this process, on their way to the receiver.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    fate: Arc<Fate>,
    longest_end: Duration,
}

/// What sends spans, and what the log says of it once there is one.
#[derive(Default)]
pub(crate) struct Begun {
    /// What observes spans, and what ends it; `None` if nothing is sent.
    pub(crate) sending: Option<(Box<dyn Layer<Registry> + Send + Sync>, Traces)>,
    /// What of the environment is not followed. No value is in it: headers and addresses hold keys.
    pub(crate) warnings: Vec<String>,
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The variable of traces, or that of all signals. Returns its name too.
fn of_traces(rest: &str) -> Option<(String, String)> {
    [format!("OTEL_EXPORTER_OTLP_TRACES_{rest}"), format!("OTEL_EXPORTER_OTLP_{rest}")]
        .into_iter()
        .find_map(|name| variable(&name).map(|value| (name, value)))
}

/// Begins as the environment says.
pub(crate) fn begin() -> Begun {
    let is = |name: &str, word: &str| variable(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word));
    let Some((endpoint, _)) = of_traces("ENDPOINT") else { return Begun::default() };
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Begun::default();
    }
    let mut warnings = Vec::new();
    if let Some((name, protocol)) = of_traces("PROTOCOL")
        && protocol.trim() != "http/protobuf"
    {
        warnings.push(format!("{name} is not followed: spans are sent by http/protobuf, and by no other protocol"));
    }
    if let Some((name, headers)) = of_traces("HEADERS") {
        let odd = headers.split(',').filter(|header| !header.trim().is_empty() && !header.contains('=')).count();
        if odd > 0 {
            warnings.push(format!("{name} has {odd} entries that are not NAME=VALUE, and that are left out"));
        }
    }
    let (mut wait, mut longest_end) = (LONGEST_REQUEST, LONGEST_END);
    if let Some((name, ms)) = of_traces("TIMEOUT") {
        match ms.trim().parse::<u64>() {
            Ok(ms) => {
                wait = Duration::from_millis(ms);
                longest_end = LONGEST_END.max(wait);
            }
            Err(_) => warnings.push(format!("{name} is no number of milliseconds, and is ignored")),
        }
    }
    match sending(wait, longest_end) {
        Ok(sending) => Begun { sending: Some(sending), warnings },
        // The error may repeat the value.
        Err(()) => {
            warnings.push(format!(
                "no spans are sent: {endpoint} cannot be used as an address, or OTEL_EXPORTER_OTLP_COMPRESSION asks for one"
            ));
            Begun { sending: None, warnings }
        }
    }
}

fn sending(wait: Duration, longest_end: Duration) -> Result<(Box<dyn Layer<Registry> + Send + Sync>, Traces), ()> {
    // A redirection could carry a key to another host.
    let client = reqwest::blocking::Client::builder().timeout(wait).redirect(reqwest::redirect::Policy::none()).build().map_err(drop)?;
    let exporter = Otlp::builder().with_http().with_http_client(client).with_protocol(Protocol::HttpBinary).with_timeout(wait);
    let fate = Arc::<Fate>::default();
    let exporter = Watched { inner: exporter.build().map_err(drop)?, fate: fate.clone() };
    let mut queue = BatchConfigBuilder::default();
    if variable("OTEL_BSP_MAX_QUEUE_SIZE").is_none() {
        queue = queue.with_max_queue_size(MOST_WAITING);
    }
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(queue.build()).build();
    let processor = Counted { inner: processor, fate: fate.clone() };
    let provider = SdkTracerProvider::builder().with_resource(resource()).with_span_processor(processor).build();
    let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_target(false);
    // What libraries do is no part of a run, and the one that sends spans would never end.
    let ours = Targets::new().with_default(LevelFilter::OFF).with_target("repair", LevelFilter::INFO);
    Ok((layer.with_filter(ours).boxed(), Traces { provider, fate, longest_end }))
}

/// Who sends the spans: as the environment says, else `repair`.
fn resource() -> Resource {
    let named = Resource::builder().build().get(&"service.name".into());
    let is_named = named.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if is_named { resource.build() } else { resource.with_service_name("repair").build() }
}

impl Traces {
    /// Sends what has not been sent, for a short while, and logs how many spans did not arrive.
    pub(crate) fn end(self) {
        let ended = self.provider.shutdown_with_timeout(self.longest_end);
        let (all, sent) = (self.fate.ended.load(Ordering::Relaxed), self.fate.sent.load(Ordering::Relaxed));
        if sent >= all {
            return;
        }
        let failure = self.fate.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let why = failure.unwrap_or_else(|| match ended {
            Err(_) => format!("the receiver did not answer within {} s", self.longest_end.as_secs()),
            Ok(()) => "they came faster than they could be sent; OTEL_BSP_MAX_QUEUE_SIZE is how many may wait".to_owned(),
        });
        tracing::warn!("{} of {all} spans did not reach the receiver that OTEL_EXPORTER_OTLP_ENDPOINT names: {why}", all - sent);
    }
}

/// Counts the spans that end.
#[derive(Debug)]
struct Counted {
    inner: BatchSpanProcessor,
    fate: Arc<Fate>,
}

impl SpanProcessor for Counted {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.fate.ended.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts the spans that are sent.
#[derive(Debug)]
struct Watched {
    inner: Otlp,
    fate: Arc<Fate>,
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let done = self.inner.export(batch).await;
        match &done {
            Ok(()) => drop(self.fate.sent.fetch_add(spans, Ordering::Relaxed)),
            Err(error) => {
                let why = match error {
                    OTelSdkError::InternalFailure(why) => why.clone(),
                    other => other.to_string(),
                };
                self.fate.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
            }
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
