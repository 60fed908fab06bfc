//! Programs on this machine are served, web pages are not.
#![allow(clippy::unwrap_used, reason = "a test that fails, panics")]

use aws_sandbox::{Condition, Metadata, Options, Sandbox};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DELETE: &str = "<Delete><Object><Key>kept</Key></Object></Delete>";

/// The status of a request with these headers that deletes an object, and whether the object is still there.
async fn deleting(sandbox: &Sandbox, headers: &str) -> (u16, bool) {
    sandbox.store().put("lake", "kept", "x".into(), Condition::Always, Metadata::default()).unwrap();
    let address = sandbox.endpoint().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let headers = headers.replace("HERE", &address);
    let request = format!("POST /lake?delete HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{DELETE}", DELETE.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, sandbox.store().get("lake", "kept").is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_can_neither_change_nor_read_anything() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.store().create_bucket("lake").unwrap();
    for headers in [
        "Host: HERE\r\nOrigin: https://example.com\r\n",
        "Host: HERE\r\nOrigin: null\r\n",
        "Host: HERE\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: HERE\r\nSec-Fetch-Site: same-site\r\nOrigin: http://localhost:3000\r\n",
        // A name that a page controls, and that resolves to this machine.
        "Host: rebound.example.com\r\nOrigin: http://rebound.example.com\r\nSec-Fetch-Site: same-origin\r\n",
        "Host: rebound.example.com\r\n",
        "Host: rebound.example.com\r\nX-Amz-Target: AmazonAthena.ListWorkGroups\r\n",
        "",
    ] {
        assert_eq!(deleting(&sandbox, headers).await, (403, true), "{headers}");
    }
    assert_eq!(sandbox.faults().log(), [], "nothing was served");
    for headers in ["Host: HERE\r\n", "Host: localhost:1\r\n", "Host: HERE\r\nSec-Fetch-Site: none\r\n"] {
        assert_eq!(deleting(&sandbox, headers).await, (200, false), "{headers}");
    }
}
