//! A sandbox on a port of one's choice, until the program is ended: `cargo run -p repair-aws-sandbox --example serve -- 9000`.
//!
//! Any client of AWS works with it: `aws --endpoint-url http://127.0.0.1:9000 s3 mb s3://lake`. Credentials can be anything.

use std::error::Error;
use std::io::Write as _;

use repair_aws_sandbox::{Options, Sandbox};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    let sandbox = Sandbox::start(Options::default().port(port)).await?;
    writeln!(std::io::stdout(), "{}", sandbox.endpoint())?;
    std::future::pending::<()>().await;
    Ok(())
}
