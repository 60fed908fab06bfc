//! Messages as mail to a server by others, over TLS in both ways, with certificates of our own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use repair_connect::Options;
use repair_connect::notify::receiver;
use repair_core::plugin::{Clock as _, Message, SystemClock};
use repair_core::workflow::{MailAddress, MailSecurity, MailServer, Receiver};
use serde_json::{Value, json};

const USER: &str = "mailer@example.org";
const PASSWORD: &str = "s3cr3tOfTheMailbox that nobody sees";

/// `aiosmtpd`: it wants a login, and prints its port and then each letter as a line of JSON.
const SERVER: &str = r#"
import json, ssl, sys, time
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

how, user, password = sys.argv[1:4]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("server.pem", "server.key")

def login(server, session, envelope, mechanism, data):
    fits = data.login.decode() == user and data.password.decode() == password
    return AuthResult(success=fits, handled=False)

class Handler:
    async def handle_DATA(self, server, session, envelope):
        letter = envelope.content.decode()
        print(json.dumps({"from": envelope.mail_from, "to": envelope.rcpt_tos, "letter": letter, "over_tls": session.ssl is not None or how == "tls"}), flush=True)
        return "250 taken"

class Server(Controller):
    def factory(self):
        # It takes only STARTTLS for TLS, and where there was none, it offers no login by itself.
        more = {"tls_context": context, "require_starttls": True} if how == "starttls" else {"auth_require_tls": False}
        return SMTP(self.handler, authenticator=login, auth_required=True, **more)

# Its own check that it is ready would ask at port 0.
controller = Server(Handler(), hostname="127.0.0.1", port=0, ssl_context=context if how == "tls" else None)
controller._trigger_server = controller._factory_invoked.set
controller.smtpd = controller
controller.start()
print(controller.server.sockets[0].getsockname()[1], flush=True)
while True:
    time.sleep(1)
"#;

struct Server {
    child: Child,
    port: u16,
    lines: BufReader<std::process::ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(folder: &Path, how: &str) -> Self {
        let python = std::env::var_os("REPAIR_TEST_PYTHON").unwrap_or_else(|| "python3".into());
        let mut command = Command::new(python);
        command.arg("-c").arg(SERVER).args([how, USER, PASSWORD]).current_dir(folder).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        let port = port.trim().parse().unwrap_or_else(|error| panic!("the server did not start: {error}"));
        Self { child, port, lines }
    }

    fn letter(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate of it for a server on this machine; and another authority.
fn certificates(folder: &Path) {
    for authority in ["ours", "theirs"] {
        let (key, pem, name) = (format!("{authority}.key"), format!("{authority}.pem"), format!("/CN={authority}"));
        openssl(
            folder,
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &pem,
                "-days",
                "2",
                "-subj",
                &name,
            ],
        );
    }
    openssl(
        folder,
        &[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
            "-subj",
            "/CN=server",
        ],
    );
    std::fs::write(folder.join("server.ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
        .unwrap();
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ours.pem",
            "-CAkey",
            "ours.key",
            "-CAcreateserial",
            "-out",
            "server.pem",
            "-days",
            "2",
            "-extfile",
            "server.ext",
        ],
    );
}

/// Sends a letter as the environment says, which a process has as a whole.
#[tokio::test]
#[ignore = "run by the test below, as a process of its own"]
async fn one_letter() {
    let said = |name: &str| std::env::var(name).unwrap();
    let security = if said("MAIL_HOW") == "tls" { MailSecurity::Tls } else { MailSecurity::StartTls };
    let server =
        MailServer::new("127.0.0.1", security).at_port(said("MAIL_PORT").parse().unwrap()).with_login("MAIL_USER", "MAIL_PASSWORD");
    let address = |text: &str| MailAddress::read(text).unwrap();
    let to =
        Receiver::Email { to: vec![address("ops@example.org"), address("team@example.org")], from: address("repair@example.org"), server };
    let message =
        Message::new("run.7.failed.ops", "[repair] nightly: failed", "run `run` failed", json!({ "what": "failed" }), SystemClock.now());
    match receiver(&to, &Options::default()).unwrap().deliver(&message).await {
        Ok(()) => println!("it was taken"),
        Err(error) => println!("{}: {} {error:?}", error.kind().as_str(), error.full()),
    }
}

#[test]
#[ignore = "needs openssl, and Python with aiosmtpd; REPAIR_TEST_PYTHON names another than python3"]
fn a_server_of_others_takes_our_mail_over_tls_and_nobody_else_gets_it() {
    for how in ["tls", "starttls"] {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let mut server = Server::start(folder.path(), how);
        let sent = |authority: &str, password: &str| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--ignored", "--exact", "--nocapture", "mail_tls::one_letter"]);
            command.env("SSL_CERT_FILE", folder.path().join(authority)).env_remove("SSL_CERT_DIR");
            command.env("MAIL_HOW", how).env("MAIL_PORT", server.port.to_string()).env("MAIL_USER", USER).env("MAIL_PASSWORD", password);
            let output = command.output().unwrap();
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(!said.contains("s3cr3t") && !said.contains(USER), "{how}: it is shown: {said}");
            said
        };
        // Somebody for whom nobody vouches that we trust, and a login that is wrong.
        let said = sent("theirs.pem", PASSWORD);
        assert!(said.contains("denied: mail server 127.0.0.1:") && said.contains("certificate"), "{how}: {said}");
        let said = sent("ours.pem", "s3cr3t of somebody else");
        assert!(said.contains("denied: mail server 127.0.0.1:") && said.contains("535"), "{how}: {said}");
        let said = sent("ours.pem", PASSWORD);
        assert!(said.contains("it was taken"), "{how}: {said}");
        // It is the first that arrived.
        let letter = server.letter();
        assert_eq!((&letter["from"], &letter["over_tls"]), (&"repair@example.org".into(), &true.into()), "{how}");
        assert_eq!(letter["to"], json!(["ops@example.org", "team@example.org"]));
        let text = letter["letter"].as_str().unwrap();
        assert!(text.contains("Subject: [repair] nightly: failed\r\n") && text.contains("run `run` failed"), "{text}");
    }
}
