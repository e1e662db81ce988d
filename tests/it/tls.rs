//! Both ports over TLS: workers and callers that may use them, and what may not.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesophyll::net::stream::tls::{self, TlsClient};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{Finished, Master, Running, TEMPLATES, mesophyll, run, token};
use crate::support::process::eventually;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

const WORKER_TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Longer than a process takes the same signal for an echo.
const ECHO: Duration = Duration::from_millis(100);

fn ca(name: &str) -> String {
    format!("{DATA}/{name}.pem")
}

/// `CERT,KEY` of this certificate, under another name in this folder.
fn certificate_as(folder: &Path, name: &str, used: &str) -> String {
    let [certificate, key]: [PathBuf; 2] =
        ["pem", "key"].map(|kind| folder.join(format!("{used}.{kind}")));
    fs::copy(ca(name), &certificate).expect("a copy");
    fs::copy(format!("{DATA}/{name}.key"), &key).expect("a copy");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode");
    format!("{},{}", certificate.display(), key.display())
}

/// A master with TLS on both ports, whose one worker is not its own and needs a certificate.
struct SecureMaster {
    master: Master,
    folder: PathBuf,
}

impl SecureMaster {
    fn start() -> Self {
        let folder = TempDir::new();
        let at = folder.path().to_owned();
        let files = certificate_as(&at, "master", "master");
        let tokens = at.join("tokens.json");
        fs::write(&tokens, json!({"0": WORKER_TOKEN}).to_string()).expect("written");
        fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).expect("its mode");
        let (tokens, ca) = (tokens.display().to_string(), ca("authority"));
        let options = ["--external-workers", "--workers", "1", "--worker-tokens", &tokens];
        let tls = ["--listen-tls", &files, "--api-tls", &files, "--tls-ca", &ca];
        let certs = ["--worker-certs", "require", "--store", "memory:"];
        let master = Master::start_in(folder, &[&options[..], &tls, &certs].concat());
        assert_eq!(
            (&master.ready["listen_tls"], &master.ready["api_tls"]),
            (&json!(true), &json!(true))
        );
        Self { master, folder: at }
    }

    fn worker(&self, authority: &str, certificate: &str) -> Running {
        let files = certificate_as(&self.folder, certificate, &format!("of-{certificate}"));
        self.worker_with(&["--tls-ca", &ca(authority), "--tls-cert", &files])
    }

    fn worker_with(&self, tls: &[&str]) -> Running {
        let master = format!("tls:{}", self.master.listen());
        let options = ["worker", "--id", "0", "--workers", "1", "--master", &master];
        let more = ["--templates", TEMPLATES, "--default-events", "*", "--log", "debug"];
        let mut command = mesophyll(&[&options[..], &more, tls].concat());
        command.env("MESOPHYLL_CLIENT_TOKEN", WORKER_TOKEN);
        Running::start(command)
    }

    fn ask(&self, authority: &str, args: &[&str]) -> Finished {
        let (api, ca) = (format!("tls:{}", self.master.api()), ca(authority));
        let mut command = mesophyll(&[args, &["--api", &api, "--tls-ca", &ca]].concat());
        command.env("MESOPHYLL_INTERNAL_TOKEN", token(7));
        Running::start(command).wait()
    }

    fn dispatch(&self, name: &str, data: &str) -> Value {
        let done = self.ask("authority", &["dispatch", "guild:4194304", name, data]);
        assert_eq!(done.code(), 0, "{done:?}");
        done.json()[0].clone()
    }

    fn wait_ready(&self) {
        eventually("the worker is ready", || {
            let listed = self.ask("authority", &["workers", "--json"]);
            listed.stdout.concat().contains("\"ready\"").then_some(())
        });
    }
}

#[test]
fn a_worker_and_callers_reach_a_master_over_tls() {
    let secure = SecureMaster::start();
    let worker = secure.worker("authority", "worker-0");
    secure.wait_ready();
    assert_eq!(secure.dispatch("ECHO", r#"{"x":[1,"é"]}"#), json!({"x": [1, "é"]}));
    // Over the database client too, and with more than one record.
    assert_eq!(secure.dispatch("COUNT", "null"), 1);
    let big = secure.dispatch("BIG", r#"{"bytes":2000000}"#);
    assert_eq!(big.as_str().map(str::len), Some(2_000_000));
    // A worker that dies is missed, and another one finds its way; any worker's certificate does.
    worker.signal(Signal::KILL);
    worker.wait();
    let worker = secure.worker("authority", "worker");
    secure.wait_ready();
    assert_eq!(secure.dispatch("COUNT", "null"), 2);
    drop(worker);
    assert_eq!(secure.master.stop().0.code(), 0);
}

#[test]
fn a_worker_that_is_not_to_be_trusted_gets_no_events() {
    let secure = SecureMaster::start();
    for (authority, certificate, says) in [
        ("authority", "elsewhere", "names neither worker-0.mesophyll nor worker.mesophyll"),
        ("stranger", "worker-0", "of no trusted authority"),
        ("authority", "untrusted", "master"),
    ] {
        let worker = secure.worker(authority, certificate);
        worker.wait_stderr(says);
        worker.signal(Signal::KILL);
        worker.wait();
    }
    let bare = secure.worker_with(&["--tls-ca", &ca("authority")]);
    bare.wait_stderr("master tls:");
    bare.signal(Signal::KILL);
    bare.wait();
    let listed = secure.ask("authority", &["workers", "--json"]);
    assert!(!listed.stdout.concat().contains("\"ready\""), "{listed:?}");
    assert_eq!(secure.master.stop().0.code(), 0);
}

#[test]
fn what_speaks_no_tls_disturbs_nobody() {
    let secure = SecureMaster::start();
    let _worker = secure.worker("authority", "worker-0");
    secure.wait_ready();
    let stranger = secure.ask("stranger", &["workers"]);
    assert_ne!(stranger.code(), 0);
    assert!(stranger.stderr.contains("of no trusted authority"), "{stranger:?}");
    let without = run(&["workers", "--api", "tls:127.0.0.1:1"]);
    without.expect(2, "--tls-ca");
    for port in [secure.master.listen(), secure.master.api()] {
        // Plain text gets no plain answer.
        let mut plain = TcpStream::connect(port).expect("it listens");
        plain.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        plain.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
        // Handshakes that do not get on, more than there are places, do not keep others out.
        let stalled: Vec<TcpStream> = (0..400)
            .map(|_| {
                let mut socket = TcpStream::connect(port).expect("it listens");
                socket.write_all(&[22, 3, 1, 2, 0, 1]).expect("half a hello");
                socket
            })
            .collect();
        assert_eq!(secure.dispatch("ECHO", "1"), 1);
        drop(stalled);
    }
    assert_eq!(secure.master.stop().0.code(), 0);
}

#[test]
fn a_certificate_is_renewed_without_a_break() {
    let secure = SecureMaster::start();
    let worker = secure.worker("authority", "worker-0");
    secure.wait_ready();
    let connect = || {
        let client = TlsClient::new(Path::new(&ca("authority")), None).expect("a client");
        let socket = TcpStream::connect(secure.master.api()).expect("it listens");
        let deadline = Instant::now() + Duration::from_secs(30);
        client.connect(Arc::new(socket.into()), "localhost", deadline).expect("connected")
    };
    // The renewed one is not for this name.
    let is_first = || {
        let shown = connect().peer_certificate().expect("one is shown");
        tls::names(&shown, "master.mesophyll")
    };
    assert!(is_first());
    let mut before = connect();
    // Half of a pair is not used.
    fs::copy(ca("renewed"), secure.folder.join("master.pem")).expect("the certificate");
    secure.master.running.signal(Signal::HUP);
    secure.master.running.wait_stderr("the certificate before is used on");
    assert!(is_first());
    // The workers are restarted as well: this one is to be started by the test.
    assert_eq!(worker.wait().code(), 0);
    let worker = secure.worker("authority", "worker-0");
    secure.master.running.wait_stderr("the rolling restart is done");
    certificate_as(&secure.folder, "renewed", "master");
    // A signal right after its like is taken for an echo of it.
    let since = Instant::now();
    eventually("the second signal is no echo", || (since.elapsed() > ECHO).then_some(()));
    secure.master.running.signal(Signal::HUP);
    secure.master.running.wait_stderr("api: the certificate was read anew");
    assert!(!is_first());
    assert_eq!(worker.wait().code(), 0);
    let _worker = secure.worker("authority", "worker-0");
    secure.wait_ready();
    assert_eq!(secure.dispatch("ECHO", "1"), 1);
    // A connection that was there stands.
    before.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    let mut answer = [0; 12];
    before.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(secure.master.stop().0.code(), 0);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let folder = TempDir::new();
    let files = certificate_as(folder.path(), "master", "master");
    let key = folder.path().join("master.key");
    for (args, code, says) in [
        (&["master", "--listen-tls", "a.pem"][..], 2, "CERT,KEY"),
        (&["master", "--worker-certs", "require"], 2, "--listen-tls and --tls-ca"),
        (&["master", "--worker-certs", "all"], 2, "require or none"),
        (&["master", "--check-config", "--listen-tls", "a.pem,b.pem"], 3, "a.pem: No such file"),
    ] {
        run(args).expect(code, says);
    }
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).expect("its mode");
    let check = ["master", "--check-config", "--store", "memory:", "--listen-tls", &files];
    run(&check).expect(3, "others can read this key");
}

#[test]
fn a_worker_shows_the_certificate_that_its_files_hold() {
    let secure = SecureMaster::start();
    let files = certificate_as(&secure.folder, "untrusted", "shown");
    let tls = ["--sandbox", "off", "--tls-ca", &ca("authority"), "--tls-cert", &files];
    let worker = secure.worker_with(&tls);
    worker.wait_stderr("master tls:");
    certificate_as(&secure.folder, "worker-0", "shown");
    secure.wait_ready();
    // Its database client has another connection.
    assert_eq!(secure.dispatch("COUNT", "null"), 1);
    drop(worker);
    assert_eq!(secure.master.stop().0.code(), 0);
}
