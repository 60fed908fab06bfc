//! A hostile page can read nothing and start nothing.

use repair_serve::{Options, Server};

use crate::world::{World, workflow};

const PATHS: [&str; 13] = [
    "/",
    "/workflows/nightly",
    "/plans/x",
    "/lakes/0/runs/x",
    "/lakes/0/runs/x/report",
    "/api/runs",
    "/api/status",
    "/tables",
    "/api/schedules",
    "/events",
    "/metrics",
    "/healthz",
    "/no-such-page",
];

#[tokio::test]
async fn a_page_of_another_name_reads_nothing() {
    let world = World::new(&[("nightly.yaml", &workflow("nightly", ""))], |options| options).await;
    for path in PATHS {
        for host in ["evil.example", "evil.example:4600", "127.0.0.1.evil.example"] {
            let answer = world.ask("GET", path, &[("host", host)], "").await;
            assert_eq!(answer.status, 421, "{path} for {host}");
            assert!(!answer.body.contains("nightly"));
        }
    }
    // What is answered may be used by pages of this origin only.
    let answer = world.get("/").await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    for (header, value) in [
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.headers.get(header).map(String::as_str), Some(value), "{header}");
    }
    assert!(answer.headers["content-security-policy"].contains("default-src 'none'"));
    world.end().await;
}

#[tokio::test]
async fn a_hostile_page_starts_and_cancels_nothing() {
    let world = World::new(&[("nightly.yaml", &workflow("nightly", ""))], |options| options).await;
    let actions =
        ["/workflows/nightly/run", "/workflows/nightly/plan", "/plans/x/apply", "/lakes/0/runs/x/cancel", "/lakes/0/runs/x/approve"];
    let own = format!("http://{}", world.address);
    for path in actions {
        // A form of another page; a page that guesses; one without an origin; a request without a secret.
        for headers in [vec![("origin", "http://evil.example")], vec![("origin", "null")], vec![], vec![("origin", own.as_str())]] {
            for body in ["", "secret=guess", "secret="] {
                let answer = world.ask("POST", path, &headers, body).await;
                assert_eq!(answer.status, 403, "{path} {headers:?} {body}");
            }
        }
        // Links and pictures do nothing.
        assert!(matches!(world.get(path).await.status, 404 | 405), "{path}");
    }
    assert!(!world.path().join("lake/.repair/journal.db").exists(), "nothing has run");
    world.end().await;
}

#[tokio::test]
async fn without_the_token_nothing_is_served() {
    let token = "a token of some length";
    let world = World::new(&[("nightly.yaml", &workflow("nightly", ""))], |options| options.with_token(token.to_owned())).await;
    for path in PATHS {
        for headers in [vec![], vec![("authorization", "Bearer wrong")], vec![("authorization", "Basic YW55Ondyb25n")]] {
            let answer = world.ask("GET", path, &headers, "").await;
            assert_eq!(answer.status, 401, "{path}");
            assert!(!answer.body.contains("nightly") && !answer.body.contains(token));
        }
    }
    let bearer = format!("Bearer {token}");
    assert_eq!(world.ask("GET", "/healthz", &[("authorization", &bearer)], "").await.status, 200);
    // A program with the token needs no page.
    let answer = world.ask("POST", "/workflows/nightly/run", &[("authorization", &bearer)], "").await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    world.end().await;
}

#[tokio::test]
async fn off_loopback_there_is_no_server_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let everywhere =
        |token: Option<&str>| Options::new(folder.path()).at("0.0.0.0:0".parse().unwrap()).with_token(token.map(str::to_owned));
    for token in [None, Some("short")] {
        let error = Server::bind(everywhere(token)).await.err().expect("refused");
        assert!(error.full().contains("token"), "{}", error.full());
    }
}

#[tokio::test]
async fn only_allowed_programs_run() {
    let own = |run: &str| format!("workflow: nightly\nkind: dag\nsteps:\n  ask: {{ task: command, with: {{ run: [{run}] }} }}\n");
    let world = World::new(&[("nightly.yaml", &own("'true'"))], |options| options).await;
    let page = world.until("/", "may not be run here").await;
    assert!(page.contains("its operator allows no program"));
    world.end().await;
    let world = World::new(&[("nightly.yaml", &own("'true'"))], |options| options.allow(&["true".to_owned()])).await;
    world.until("/workflows/nightly", "Run now").await;
    let run = world.post("/workflows/nightly/run", &[]).await;
    world.until(run.location(), "succeeded").await;
    world.end().await;
}
