//! One listener for all services: finds the service and operation of a request, applies faults, and has it served. It must not know
//! what an operation does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::http::{request, response};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::ACCOUNT;
use crate::athena::Athena;
use crate::catalog::Catalog;
use crate::faults::{Fault, Faults, Served, Service};
use crate::glue::Glue;
use crate::s3::{self, S3};
use crate::sns::{self, Sns};
use crate::sql::QueryError;
use crate::store::Store;

/// S3 accepts 5 GiB in one request; here bodies are held in memory, and no test needs more than this.
pub const BODY_LIMIT_BYTES: usize = 256 * 1_024 * 1_024;

/// Options of a sandbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The port on 127.0.0.1; 0 lets the system choose a free one.
    pub port: u16,
    /// The region of the buckets.
    pub region: String,
    /// The URL of a Trino server that runs queries, instead of running them in process. Its catalogs must be dynamic: the sandbox creates
    /// one that reads from itself, so a Trino serves one sandbox at a time, the last that was started.
    pub trino: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 0, region: "us-east-1".to_owned(), trino: None }
    }
}

impl Options {
    /// Sets the port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Runs queries on the Trino at this URL.
    #[must_use]
    pub fn trino(self, url: impl Into<String>) -> Self {
        Self { trino: Some(url.into()), ..self }
    }
}

/// An error answer of Athena or Glue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsError {
    /// The HTTP status.
    pub status: u16,
    /// The error's name, such as `ThrottlingException`.
    pub kind: String,
    /// The message.
    pub message: String,
    /// Further members, such as `AthenaErrorCode`. Boxed, to keep results small.
    pub extra: Box<Map<String, Value>>,
}

impl AwsError {
    /// An error of the caller, 400.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: 400, kind: kind.into(), message: message.into(), extra: Box::default() }
    }

    /// The answer for an operation that is not supported.
    pub fn unknown_operation(operation: &str) -> Self {
        Self::new("UnknownOperationException", format!("the sandbox does not serve {operation}"))
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(member.to_owned(), value.into());
        self
    }

    /// Sets a status other than 400.
    #[must_use]
    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for AwsError {}

/// S3, Athena, Glue and SNS at one address on loopback. It ends when it is dropped, with everything in it.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
    store: Store,
    catalog: Catalog,
    faults: Faults,
    athena: Athena,
    sns: Sns,
    listener: JoinHandle<Infallible>,
}

impl Sandbox {
    /// Starts listening. When it returns, requests are answered.
    pub async fn start(options: Options) -> io::Result<Self> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let at = |error: io::Error| io::Error::new(error.kind(), format!("can't listen on {wanted}: {error}"));
        let listener = TcpListener::bind(wanted).await.map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        let (store, catalog, faults) = (Store::new(), Catalog::default(), Faults::new());
        let athena = Athena::new(&store, &catalog, &faults, options.trino.as_deref());
        let sns = Sns::default();
        let services = Services {
            sns: sns.clone(),
            s3: S3::new(store.clone(), &options.region),
            athena: athena.clone(),
            glue: Glue::new(&catalog),
            faults: faults.clone(),
            region: options.region,
        };
        let listener = tokio::spawn(listen(listener, services));
        let sandbox = Self { address, store, catalog, faults, athena, sns, listener };
        sandbox.athena.attach(&sandbox.endpoint()).await.map_err(io::Error::other)?;
        Ok(sandbox)
    }

    /// The address for SDKs, for all services: `http://127.0.0.1:port`. S3 needs path-style addressing.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The databases and tables.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The topics, and what was published to them.
    pub fn sns(&self) -> &Sns {
        &self.sns
    }

    /// Its faults, and its log of requests.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Runs a statement at once, outside any workgroup, to fill a sandbox.
    ///
    /// # Errors
    /// The error that Athena would return.
    pub async fn run(&self, database: Option<&str>, sql: &str) -> Result<(), QueryError> {
        self.athena.run(database, sql).await
    }

    /// Creates a workgroup whose results go to a place in S3.
    ///
    /// # Errors
    /// If there is already one of that name.
    pub fn create_workgroup(&self, name: &str, results: &str) -> Result<(), AwsError> {
        self.athena.create_workgroup(name, results)
    }

    /// Ends it and every connection, and waits until that is done.
    pub async fn stop(mut self) {
        self.listener.abort();
        // It was asked to end, so cancellation is the only error there can be.
        let _ = (&mut self.listener).await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[derive(Clone)]
struct Services {
    s3: S3,
    athena: Athena,
    glue: Glue,
    sns: Sns,
    faults: Faults,
    region: String,
}

async fn listen(listener: TcpListener, services: Services) -> Infallible {
    // Connections are in the set, so that they end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, services.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    // Probably out of file descriptors; asking again at once would spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, services: Services) {
    // Answers are small, and clients wait for them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection waits before it sends");
    }
    let service = hyper::service::service_fn(move |request| {
        let services = services.clone();
        async move { services.answer(request).await }
    });
    if let Err(error) = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Why a connection closes without an answer. Hyper closes it when a service returns an error.
#[derive(Debug)]
struct Dropped(String);

impl fmt::Display for Dropped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Dropped {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A request with its body, operation and resource.
struct Call {
    service: Service,
    operation: String,
    resource: String,
    /// The resource as policies name it.
    arn: String,
    head: request::Parts,
    body: Bytes,
}

impl Services {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
        let (head, body) = request.into_parts();
        if let Some(why) = crate::guard::refusal(&head) {
            tracing::warn!(why, "a request was refused");
            return Ok(refused(&head, &why));
        }
        let body = match Limited::new(body, BODY_LIMIT_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Ok(status_only(StatusCode::PAYLOAD_TOO_LARGE));
            }
            Err(error) => return Err(Dropped(format!("the request did not arrive: {error}"))),
        };
        let call = self.call(head, body);
        let fault = self.faults.take(call.service, &call.operation, &call.resource);
        let mut served = Served {
            service: call.service,
            operation: call.operation.clone(),
            resource: call.resource.clone(),
            status: 0,
            fault: fault.clone(),
        };
        tracing::debug!(service = ?call.service, operation = call.operation, resource = call.resource, ?fault, "request");
        let answer = self.answer_with(call, fault).await;
        served.status = answer.as_ref().map_or(0, |response| response.status().as_u16());
        self.faults.record(served);
        answer
    }

    fn call(&self, head: request::Parts, body: Bytes) -> Call {
        if is_of_sns(&head) {
            let form = form_of(&body);
            let text = |name: &str| form.get(name).cloned().unwrap_or_default();
            let topic = text("TopicArn");
            return Call { service: Service::Sns, operation: text("Action"), resource: topic.clone(), arn: topic, head, body };
        }
        let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).and_then(|target| target.rsplit_once('.'));
        let (service, operation) = match target {
            Some(("AmazonAthena", operation)) => (Service::Athena, operation.to_owned()),
            Some(("AWSGlue", operation)) => (Service::Glue, operation.to_owned()),
            _ => {
                let s3::Target { operation, bucket, key } = s3::target(&head);
                // A listing is an operation on the bucket, whatever its prefix.
                let of_bucket = key.is_empty() || operation.starts_with("List");
                let resource = if key.is_empty() { bucket.clone() } else { format!("{bucket}/{key}") };
                let arn = format!("arn:aws:s3:::{}", if of_bucket { &bucket } else { &resource });
                return Call { service: Service::S3, operation: operation.to_owned(), resource, arn, head, body };
            }
        };
        let input: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |member: &str| input.get(member).and_then(Value::as_str);
        let resource = ["QueryString", "QueryExecutionId", "TableName", "Name", "DatabaseName", "WorkGroup", "ResourceARN"]
            .into_iter()
            .find_map(text)
            .unwrap_or_default()
            .to_owned();
        let region = &self.region;
        let arn = match service {
            Service::Glue => match text("DatabaseName").or_else(|| text("Name")) {
                Some(database) => format!("arn:aws:glue:{region}:{ACCOUNT}:database/{database}"),
                None => format!("arn:aws:glue:{region}:{ACCOUNT}:catalog"),
            },
            _ => {
                let workgroup = text("WorkGroup").or_else(|| text("Name")).unwrap_or("primary");
                format!("arn:aws:athena:{region}:{ACCOUNT}:workgroup/{workgroup}")
            }
        };
        Call { service, operation, resource, arn, head, body }
    }

    async fn answer_with(&self, call: Call, fault: Option<Fault>) -> Result<Response<Body>, Dropped> {
        match fault {
            None | Some(Fault::BackToQueued | Fault::DelayQuery { .. } | Fault::FailQuery { .. }) => self.serve(call).await,
            Some(Fault::Delay { delay_ms }) => {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                self.serve(call).await
            }
            Some(Fault::DropBefore) => Err(Dropped("a fault dropped the connection before the request".to_owned())),
            Some(Fault::DropAfter) => {
                self.serve(call).await?;
                Err(Dropped("a fault dropped the connection after the request".to_owned()))
            }
            Some(Fault::Truncate { keep_bytes }) => truncate(self.serve(call).await?, keep_bytes).await,
            Some(fault) => Ok(refusal(&call, &fault)),
        }
    }

    async fn serve(&self, call: Call) -> Result<Response<Body>, Dropped> {
        if call.service == Service::S3 {
            let served = self.s3.serve(Request::from_parts(call.head, call.body)).await;
            return served.map_err(|error| Dropped(BoxError::from(error).to_string()));
        }
        if call.service == Service::Sns {
            return Ok(match self.sns.handle(&call.operation, &form_of(&call.body)) {
                Ok(xml) => xml_response(StatusCode::OK, xml),
                Err(error) => sns_error(&error),
            });
        }
        let input = match serde_json::from_slice(&call.body) {
            Ok(input) => input,
            Err(error) => return Ok(json_error(&AwsError::new("SerializationException", error.to_string()))),
        };
        let output = match call.service {
            Service::Glue => self.glue.handle(&call.operation, input).await,
            _ => self.athena.handle(&call.operation, input).await,
        };
        Ok(match output {
            Ok(output) => json_response(StatusCode::OK, &output),
            Err(error) => json_error(&error),
        })
    }
}

/// Whether a request is for SNS: its signature is for that service. S3's forms are signed for another, or not in a header.
fn is_of_sns(head: &request::Parts) -> bool {
    let signed_for =
        |text: &str| text.split("Credential=").nth(1).and_then(|scope| scope.split('/').nth(3)).is_some_and(|service| service == "sns");
    head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).is_some_and(signed_for)
}

/// The fields of a form.
fn form_of(body: &Bytes) -> BTreeMap<String, String> {
    form_urlencoded::parse(body).into_owned().collect()
}

/// The answer for a request that is not served, in the words of the service that it is for.
fn refused(head: &request::Parts, why: &str) -> Response<Body> {
    if is_of_sns(head) {
        return sns_error(&AwsError::new("AuthorizationError", why).status(403));
    }
    if head.headers.contains_key("x-amz-target") {
        return json_error(&AwsError::new("AccessDeniedException", why).status(403));
    }
    s3::error(403, "AccessDenied", why)
}

fn status_only(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    response
}

fn xml_response(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}

fn sns_error(error: &AwsError) -> Response<Body> {
    xml_response(StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST), sns::error_xml(error))
}

fn json_error(error: &AwsError) -> Response<Body> {
    let mut body = json!({ "__type": error.kind, "Message": error.message, "message": error.message });
    if let Some(body) = body.as_object_mut() {
        body.extend((*error.extra).clone());
    }
    json_response(StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST), &body)
}

/// The answer for a fault, in the service's words.
fn refusal(call: &Call, fault: &Fault) -> Response<Body> {
    let action = match call.service {
        Service::S3 => s3::action(&call.operation),
        service => format!("{}:{}", service.prefix(), call.operation),
    };
    let denied = || {
        format!(
            "User: arn:aws:sts::{ACCOUNT}:assumed-role/sandbox/session is not authorized to perform: {action} on resource: {} because \
             no identity-based policy allows the {action} action",
            match call.service {
                Service::S3 => format!("\"{}\"", call.arn),
                _ => call.arn.clone(),
            }
        )
    };
    if call.service == Service::S3 {
        let (status, code, message) = match fault {
            Fault::AccessDenied => (403, "AccessDenied", denied()),
            Fault::ExpiredToken => (400, "ExpiredToken", "The provided token has expired.".to_owned()),
            Fault::Internal => (500, "InternalError", "We encountered an internal error. Please try again.".to_owned()),
            Fault::Conflict => (
                409,
                "ConditionalRequestConflict",
                "The conditional request cannot succeed due to a conflicting operation against this resource.".to_owned(),
            ),
            _ => (503, "SlowDown", "Please reduce your request rate.".to_owned()),
        };
        return s3::error(status, code, &message);
    }
    if call.service == Service::Sns {
        return sns_error(&match fault {
            Fault::AccessDenied => AwsError::new("AuthorizationError", denied()).status(403),
            Fault::ExpiredToken => AwsError::new("ExpiredToken", "The security token included in the request is expired").status(403),
            Fault::Internal => AwsError::new("InternalFailure", "An internal service error occurred").status(500),
            _ => AwsError::new("Throttling", "Rate exceeded"),
        });
    }
    json_error(&match (fault, call.service) {
        (Fault::AccessDenied, _) => AwsError::new("AccessDeniedException", denied()),
        (Fault::ExpiredToken, _) => AwsError::new("ExpiredTokenException", "The security token included in the request is expired"),
        (Fault::Internal, Service::Glue) => AwsError::new("InternalServiceException", "An internal service error occurred.").status(500),
        (Fault::Internal, _) => AwsError::new("InternalServerException", "Internal server error").status(500),
        (Fault::TooManyRequests, Service::Athena) => AwsError::new(
            "TooManyRequestsException",
            "You have exceeded the limit for the number of queries you can run concurrently. Reduce the number of concurrent queries \
             submitted by this account.",
        )
        .with("Reason", "CONCURRENT_QUERY_LIMIT_EXCEEDED"),
        _ => AwsError::new("ThrottlingException", "Rate exceeded"),
    })
}

/// The head of the answer, and only the first bytes of its body.
async fn truncate(response: Response<Body>, keep_bytes: usize) -> Result<Response<Body>, Dropped> {
    let (mut head, body): (response::Parts, Body) = response.into_parts();
    let bytes = body.collect().await.map_err(|error| Dropped(error.to_string()))?.to_bytes();
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let kept = bytes.slice(..keep_bytes.min(bytes.len()));
    let first = futures::stream::once(async move { Ok(Frame::data(kept)) });
    let end = futures::stream::once(async {
        // The bytes must be sent before the connection ends: hyper flushes when a body is pending.
        tokio::task::yield_now().await;
        Err(BoxError::from("a fault truncated the body"))
    });
    Ok(Response::from_parts(head, StreamBody::new(first.chain(end)).boxed_unsync()))
}
