//! Every way to log in that AWS's tools know, each by a profile or an environment as people have them, against a server on loopback that
//! answers for STS, IAM Identity Center, Sign-In, the metadata of a machine and that of a container. No account is needed.
//!
//! The server puts into each key's name how it was obtained: `role-by-static` is the key of a role that the key `static` assumed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use aws_credential_types::provider::ProvideCredentials as _;
use aws_types::os_shim_internal::Env;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Connection, loader};

const LATER: &str = "2099-01-01T00:00:00Z";
const EARLIER: &str = "2020-01-01T00:00:00Z";

/// The key pair of an example in the SDK's documentation: Sign-In wants requests for new tokens signed by the device.
const DEVICE: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIFDZHUzOG1Pzq+6F0mjMlOSp1syN9LRPBuHMoCFXTcXhoAoGCCqGSM49
AwEHoUQDQgAE9qhj+KtcdHj1kVgwxWWWw++tqoh7H7UHs7oXh8jBbgF47rrYGC+t
djiIaHK3dBvvdE7MGj5HsepzLm3Kj91bqA==
-----END EC PRIVATE KEY-----
";

#[derive(Debug, Default)]
struct Request {
    /// Method and path, without the query.
    target: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whose key signed it.
    fn signer(&self) -> &str {
        let after = self.header("authorization").split_once("Credential=").map_or("", |(_, after)| after);
        after.split_once('/').map_or("", |(key, _)| key)
    }

    async fn read(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|&read| read > 0)?;
        let (method, rest) = line.split_once(' ')?;
        let target = rest.split(' ').next()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self { target: format!("{method} {path}"), query: query.to_owned(), ..Self::default() };
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = vec![0; request.header("content-length").parse().unwrap_or(0)];
        stream.read_exact(&mut body).await.ok()?;
        request.body = String::from_utf8(body).ok()?;
        Some(request)
    }
}

/// A key as the metadata of machines and containers has it.
fn of_metadata(key: &str) -> String {
    json!({ "Code": "Success", "AccessKeyId": key, "SecretAccessKey": "secret", "Token": "token", "Expiration": LATER }).to_string()
}

/// A key as STS has it.
fn of_sts(action: &str, key: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
         <Expiration>{LATER}</Expiration></Credentials></{action}Result></{action}Response>"
    )
}

/// What AWS answers; nothing if it refuses.
fn answer(request: &Request) -> Option<String> {
    let has = |field: &str| request.body.split('&').any(|pair| pair == field);
    let body = || serde_json::from_str::<Value>(&request.body).unwrap_or_default();
    match request.target.as_str() {
        "POST /" if has("Action=AssumeRole") && !request.signer().is_empty() => {
            Some(of_sts("AssumeRole", &format!("role-by-{}", request.signer())))
        }
        "POST /" if has("Action=AssumeRoleWithWebIdentity") && has("WebIdentityToken=identity") => {
            Some(of_sts("AssumeRoleWithWebIdentity", "web-identity"))
        }
        "GET /federation/credentials" if request.query.contains("role_name=reader") => {
            let key = format!("sso-{}", request.header("x-amz-sso_bearer_token"));
            let credentials =
                json!({ "accessKeyId": key, "secretAccessKey": "secret", "sessionToken": "token", "expiration": 4_070_908_800_000_i64 });
            Some(json!({ "roleCredentials": credentials }).to_string())
        }
        "POST /token" if body()["refreshToken"] == "again" => {
            Some(json!({ "accessToken": "renewed", "expiresIn": 28_800, "tokenType": "Bearer" }).to_string())
        }
        "POST /v1/token" if body()["refreshToken"] == "again" && !request.header("dpop").is_empty() => {
            let key = json!({ "accessKeyId": "login-renewed", "secretAccessKey": "secret", "sessionToken": "token" });
            Some(json!({ "accessToken": key, "tokenType": "aws_sigv4", "expiresIn": 900, "refreshToken": "again" }).to_string())
        }
        "PUT /latest/api/token" => Some("metadata-token".to_owned()),
        target if target.starts_with("GET /latest/") && request.header("x-aws-ec2-metadata-token") == "metadata-token" => {
            match target.strip_prefix("GET /latest/meta-data/iam/security-credentials/")? {
                "" => Some("role-of-machine".to_owned()),
                "role-of-machine" => Some(of_metadata("machine")),
                _ => None,
            }
        }
        "GET /container" if request.header("authorization") == "container-token" => Some(of_metadata("container")),
        _ => None,
    }
}

async fn serve(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = Request::read(&mut stream).await {
        let (status, body) = answer(&request).map_or(("403 Forbidden", "{}".to_owned()), |body| ("200 OK", body));
        let kind = if body.starts_with('<') { "text/xml" } else { "application/json" };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nx-aws-ec2-metadata-token-ttl-seconds: 600\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// AWS, and the home of somebody who uses it.
struct Somebody {
    home: tempfile::TempDir,
    endpoint: String,
}

impl Somebody {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        let somebody = Self { home: tempfile::tempdir().unwrap(), endpoint };
        let home = somebody.home.path();
        somebody.write(".aws/config", &CONFIG.replace("HOME", home.to_str().unwrap()));
        somebody.write("identity", "identity");
        let printed = json!({ "Version": 1, "AccessKeyId": "process", "SecretAccessKey": "secret" });
        somebody.write("log-in", &format!("echo '{printed}'\n"));
        somebody
    }

    fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What `aws sso login` leaves behind. The file is named for SHA-1 of what it is of.
    fn log_in_to_identity_center(&self, sha1: &str, expires: &str) {
        let token = json!({
            "accessToken": "given", "expiresAt": expires, "refreshToken": "again", "clientId": "client", "clientSecret": "secret",
            "registrationExpiresAt": LATER, "region": "us-east-1", "startUrl": "https://example.awsapps.com/start"
        });
        self.write(format!(".aws/sso/cache/{sha1}.json"), &token.to_string());
    }

    /// What `aws login` leaves behind. The file is named for SHA-256 of the session.
    fn log_in_to_console(&self, expires: &str) {
        let key = json!({
            "accessKeyId": "login", "secretAccessKey": "secret", "sessionToken": "token", "accountId": "123456789012", "expiresAt": expires
        });
        let token = json!({
            "accessToken": key, "tokenType": "aws_sigv4", "refreshToken": "again", "clientId": "arn:aws:signin:::devtools/same-device",
            "dpopKey": DEVICE
        });
        let file = "10cabd19777b6651ac57333b55c7c10a1242b1c2337f40e674926d7324698347.json";
        self.write(format!(".aws/login/cache/{file}"), &token.to_string());
    }

    /// The key that a connection signs with, in an environment with these variables and no others of AWS.
    async fn key(&self, variables: &[(&str, &str)]) -> String {
        let mut environment = vec![
            ("HOME", self.home.path().to_str().unwrap()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &self.endpoint),
        ];
        environment.extend(variables);
        let connection = Connection::load(loader(None).env(Env::from_slice(&environment))).await.unwrap();
        let provider = connection.config.credentials_provider().unwrap();
        match provider.provide_credentials().await {
            Ok(credentials) => credentials.access_key_id().to_owned(),
            Err(error) => {
                panic!("{variables:?}: {}", aws_smithy_types::error::display::DisplayErrorContext(&error))
            }
        }
    }

    async fn key_of_profile(&self, profile: &str) -> String {
        self.key(&[("AWS_PROFILE", profile)]).await
    }
}

const CONFIG: &str = "\
[profile static]
aws_access_key_id = static
aws_secret_access_key = secret

[profile role]
role_arn = arn:aws:iam::123456789012:role/reader
source_profile = static
external_id = outside

[profile role-of-role]
role_arn = arn:aws:iam::123456789012:role/writer
source_profile = role

[profile role-of-machine]
role_arn = arn:aws:iam::123456789012:role/reader
credential_source = Ec2InstanceMetadata

[profile role-of-container]
role_arn = arn:aws:iam::123456789012:role/reader
credential_source = EcsContainer

[profile web-identity]
role_arn = arn:aws:iam::123456789012:role/reader
web_identity_token_file = HOME/identity

[profile process]
credential_process = sh HOME/log-in

[profile sso]
sso_session = my-sso
sso_account_id = 123456789012
sso_role_name = reader

[sso-session my-sso]
sso_region = us-east-1
sso_start_url = https://example.awsapps.com/start
sso_registration_scopes = sso:account:access

[profile sso-without-session]
sso_region = us-east-1
sso_start_url = https://example.awsapps.com/start
sso_account_id = 123456789012
sso_role_name = reader

[profile role-of-sso]
role_arn = arn:aws:iam::123456789012:role/writer
source_profile = sso

[profile login]
login_session = arn:aws:iam::123456789012:user/Admin
";

/// SHA-1 of `my-sso`.
const OF_SESSION: &str = "0ad374308c5a4e22f723adf10145eafad7c4031c";
/// SHA-1 of `https://example.awsapps.com/start`.
const OF_START_URL: &str = "e8be5486177c5b5392bd9aa76563515b29358e6e";

#[tokio::test]
async fn keys_of_the_environment_and_of_a_profile() {
    let somebody = Somebody::new().await;
    let keys = [("AWS_ACCESS_KEY_ID", "environment"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    assert_eq!(somebody.key(&keys).await, "environment");
    assert_eq!(somebody.key_of_profile("static").await, "static");
}

#[tokio::test]
async fn roles_that_a_profile_assumes() {
    let somebody = Somebody::new().await;
    assert_eq!(somebody.key_of_profile("role").await, "role-by-static");
    assert_eq!(somebody.key_of_profile("role-of-role").await, "role-by-role-by-static");
}

#[tokio::test]
async fn a_web_identity() {
    let somebody = Somebody::new().await;
    assert_eq!(somebody.key_of_profile("web-identity").await, "web-identity");
    let file = somebody.home.path().join("identity");
    let variables = [("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()), ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")];
    assert_eq!(somebody.key(&variables).await, "web-identity");
}

#[tokio::test]
async fn a_process() {
    assert_eq!(Somebody::new().await.key_of_profile("process").await, "process");
}

#[tokio::test]
async fn identity_center() {
    let somebody = Somebody::new().await;
    somebody.log_in_to_identity_center(OF_SESSION, LATER);
    somebody.log_in_to_identity_center(OF_START_URL, LATER);
    assert_eq!(somebody.key_of_profile("sso").await, "sso-given");
    assert_eq!(somebody.key_of_profile("sso-without-session").await, "sso-given");
    assert_eq!(somebody.key_of_profile("role-of-sso").await, "role-by-sso-given");
    somebody.log_in_to_identity_center(OF_SESSION, EARLIER);
    assert_eq!(somebody.key_of_profile("sso").await, "sso-renewed");
}

#[tokio::test]
async fn a_session_of_the_console() {
    let somebody = Somebody::new().await;
    somebody.log_in_to_console(LATER);
    assert_eq!(somebody.key_of_profile("login").await, "login");
    somebody.log_in_to_console(EARLIER);
    assert_eq!(somebody.key_of_profile("login").await, "login-renewed");
}

#[tokio::test]
async fn the_role_of_a_machine() {
    let somebody = Somebody::new().await;
    assert_eq!(somebody.key(&[]).await, "machine");
    assert_eq!(somebody.key_of_profile("role-of-machine").await, "role-by-machine");
}

#[tokio::test]
async fn the_role_of_a_container() {
    let somebody = Somebody::new().await;
    let uri = format!("{}/container", somebody.endpoint);
    let container = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")];
    assert_eq!(somebody.key(&container).await, "container");
    let with_profile = [&container[..], &[("AWS_PROFILE", "role-of-container")]].concat();
    assert_eq!(somebody.key(&with_profile).await, "role-by-container");
}
