//! A worker's database client on connections that die, masters that are not there and answers that
//! make no sense.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use mesophyll::base::error::DbError;
use mesophyll::protocol::MesophyllDbClient;
use mesophyll::store::DbOptions;
use mesophyll::wire::data::{GlobalKeyValueOp, Scopes, TenantId};

use crate::support::db::{Kept, Typed, open, serve, text};
use crate::support::process::own_port;
use crate::support::{DEADLINE, TempDir};

const TENANT: TenantId = TenantId::Guild(1);
const TOKEN: &str = "VerySecretTokenOfSixtyFourCharactersVerySecretTokenOfSixtyFourCh";

/// What a scripted master does with a request.
#[derive(Clone)]
enum Does {
    Answers(Vec<u8>),
    /// Answers and closes the connection.
    AnswersAndDies(Vec<u8>),
    /// Closes the connection without a word.
    Dies,
    /// Never answers; ends when the client's connection does.
    Hangs,
}

fn ok(body: &[u8]) -> Does {
    Does::Answers(
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body]
            .concat(),
    )
}

fn status(status: &str, headers: &str, body: &str) -> Does {
    Does::Answers(
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
            .into_bytes(),
    )
}

/// A master that follows a script: one entry a request, whichever connection it comes on. Then it
/// is gone.
struct Script {
    client: MesophyllDbClient,
    /// The request lines, as they come in.
    requests: Receiver<String>,
    master: Option<std::thread::JoinHandle<()>>,
}

impl Script {
    fn new(does: impl Into<Vec<Does>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client =
            MesophyllDbClient::new(&listener.local_addr().expect("bound").to_string(), 3, TOKEN);
        let (request_tx, requests) = mpsc::channel();
        let mut does = does.into().into_iter().peekable();
        let master = std::thread::spawn(move || {
            while does.peek().is_some() {
                let (socket, _) = listener.accept().expect("a connection");
                socket.set_read_timeout(Some(DEADLINE)).expect("set");
                let mut reader = BufReader::new(socket.try_clone().expect("cloned"));
                while let Some(request) = read_request(&mut reader) {
                    request_tx.send(request).expect("the test listens");
                    let goes_on = obey(
                        &does.next().expect("no more requests than scripted"),
                        &socket,
                        &mut reader,
                    );
                    if !goes_on || does.peek().is_none() {
                        break;
                    }
                }
            }
        });
        Self { client, requests, master: Some(master) }
    }

    /// How many requests the master saw in all.
    fn finish(mut self) -> usize {
        let master = self.master.take().expect("not joined yet");
        master.join().expect("the script was followed");
        self.requests.iter().count()
    }
}

fn obey(does: &Does, mut socket: &TcpStream, reader: &mut impl Read) -> bool {
    match does {
        Does::Answers(bytes) => socket.write_all(bytes).is_ok(),
        Does::AnswersAndDies(bytes) => {
            let _ = socket.write_all(bytes);
            false
        }
        Does::Dies => false,
        Does::Hangs => {
            let _ = reader.read(&mut [0]);
            false
        }
    }
}

/// Reads one request and gives its first line; nothing when the peer closed.
fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        lines.push(line);
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(lines.swap_remove(0))
}

fn get(client: &MesophyllDbClient) -> Result<(), DbError> {
    client.kv_get(TENANT, Scopes::new(["s"]), "k").map(drop)
}

fn set(client: &MesophyllDbClient) -> Result<(), DbError> {
    client.kv_set(TENANT, Scopes::new(["s"]), "k".to_owned(), text("v"))
}

fn publish(client: &MesophyllDbClient) -> Result<(), DbError> {
    let op = GlobalKeyValueOp::Delete { key: "key".to_owned(), version: 1, scope: "s".to_owned() };
    client.global_kv(TENANT, op)
}

#[test]
fn requests_name_the_worker_and_the_tenant() {
    let script = Script::new([ok(b"\xc0"), ok(b"\x80")]);
    assert_eq!(get(&script.client), Ok(()));
    assert_eq!(script.client.tenant_states().map(|states| states.len()), Ok(0));
    let requests: Vec<String> = script.requests.iter().take(2).collect();
    assert_eq!(
        requests[0],
        format!("POST /db/kv?id=3&token={TOKEN}&tenant_type=guild&tenant_id=1 HTTP/1.1")
    );
    assert_eq!(requests[1], format!("GET /db/tenant-states?id=3&token={TOKEN} HTTP/1.1"));
}

#[test]
fn a_request_leaves_in_one_piece() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let client =
        MesophyllDbClient::new(&listener.local_addr().expect("bound").to_string(), 3, TOKEN);
    let asking = std::thread::spawn(move || set(&client));
    let (mut socket, _) = listener.accept().expect("a connection");
    let mut piece = [0; 4096];
    // What was sent by one call over loopback comes by one call.
    let got = socket.read(&mut piece).expect("a request");
    let (head, body) = piece[..got]
        .split_at(piece.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4);
    assert!(
        String::from_utf8_lossy(head).contains(&format!("content-length: {}\r\n", body.len())),
        "{body:?}"
    );
    assert!(!body.is_empty());
    socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("answered");
    assert_eq!(asking.join().expect("answered"), Ok(()));
}

#[test]
fn a_master_may_be_known_by_name() {
    let folder = TempDir::new();
    let db = open(Kept::InMemory, folder.path(), DbOptions::default());
    let server = serve(&db, 1);
    let client =
        MesophyllDbClient::new(&format!("localhost:{}", server.local_addr().port()), 0, TOKEN);
    for _ in 0..3 {
        set(&client).expect("set");
    }
    assert_eq!(server.stats().accepted, 1);
    server.shutdown(Instant::now() + DEADLINE);
}

#[test]
fn requests_share_a_connection() {
    let folder = TempDir::new();
    let db = open(Kept::InMemory, folder.path(), DbOptions::default());
    let server = serve(&db, 1);
    let client = MesophyllDbClient::new(&server.local_addr().to_string(), 0, TOKEN);
    for _ in 0..20 {
        set(&client).expect("set");
        get(&client).expect("got");
        client.tenant_states().expect("listed");
    }
    assert_eq!(server.stats().accepted, 1);
    server.shutdown(Instant::now() + DEADLINE);
}

#[test]
fn what_may_be_repeated_is_tried_again_when_its_connection_died() {
    let script = Script::new([ok(b"\xc0"), Does::Dies, ok(b"\xc0")]);
    assert_eq!(get(&script.client), Ok(()));
    assert_eq!(get(&script.client), Ok(()), "the second connection answers");
    assert_eq!(script.finish(), 3);

    let script = Script::new([Does::Dies, ok(b"")]);
    assert_eq!(set(&script.client), Ok(()));
    assert_eq!(script.finish(), 2);
}

#[test]
fn what_died_twice_is_given_up() {
    let script = Script::new([Does::Dies, Does::Dies]);
    assert!(matches!(get(&script.client), Err(DbError::Unavailable(_))));
    assert_eq!(script.finish(), 2);

    let script = Script::new([Does::Dies, Does::Dies]);
    assert!(matches!(set(&script.client), Err(DbError::OutcomeUnknown(_))));
    assert_eq!(script.finish(), 2);
}

#[test]
fn what_must_not_be_repeated_is_sent_once() {
    let script = Script::new([Does::Dies]);
    assert!(matches!(publish(&script.client), Err(DbError::OutcomeUnknown(_))));
    assert_eq!(script.finish(), 1);
}

#[test]
fn a_refusal_of_the_second_attempt_says_nothing_about_the_first() {
    let busy = status("503 Service Unavailable", "Mesophyll-Error: busy\r\n", "full\n");
    let script = Script::new([Does::Dies, busy.clone()]);
    assert!(matches!(set(&script.client), Err(DbError::OutcomeUnknown(_))));
    let script = Script::new([busy]);
    assert_eq!(set(&script.client), Err(DbError::Busy("full".to_owned())));
    // The master dies under the first attempt, and is not there for the second.
    let script = Script::new([Does::Dies]);
    assert!(matches!(set(&script.client), Err(DbError::OutcomeUnknown(_))));
}

#[test]
fn a_master_that_is_not_there_is_unavailable() {
    let address = format!("127.0.0.1:{}", own_port());
    for client in [
        MesophyllDbClient::new(&address, 0, TOKEN),
        MesophyllDbClient::new("not an address", 0, TOKEN),
    ] {
        for result in [get(&client), set(&client), publish(&client)] {
            assert!(matches!(result, Err(DbError::Unavailable(_))), "{result:?}");
        }
    }
}

#[test]
fn an_answer_cut_short_is_no_answer() {
    let cut = Does::AnswersAndDies(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\xc0".to_vec());
    let script = Script::new([cut.clone(), cut.clone()]);
    assert!(matches!(get(&script.client), Err(DbError::Unavailable(_))));
    assert_eq!(script.finish(), 2);
    let script = Script::new([cut, ok(b"\xc0")]);
    assert_eq!(get(&script.client), Ok(()));
}

#[test]
fn an_answer_that_makes_no_sense_is_an_internal_error() {
    let script = Script::new([ok(b"\x93")]);
    assert!(matches!(get(&script.client), Err(DbError::Internal(_))));
    let script = Script::new([Does::Answers(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())]);
    assert!(matches!(get(&script.client), Err(DbError::Internal(_))));
    let script = Script::new([Does::Answers(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())]);
    assert!(matches!(set(&script.client), Err(DbError::OutcomeUnknown(_))));
}

#[test]
fn an_answer_that_is_too_large_is_not_taken_in() {
    let endless = vec![0; 18 * 1024 * 1024];
    let script = Script::new([ok(&endless)]);
    assert!(matches!(get(&script.client), Err(DbError::Internal(_))));
}

#[test]
fn closing_frees_who_waits() {
    let script = Script::new([Does::Hangs]);
    let client = script.client.clone();
    let waiting = std::thread::spawn(move || get(&client));
    script.requests.recv_timeout(DEADLINE).expect("the request is under way");
    script.client.close();
    assert!(matches!(waiting.join().expect("freed"), Err(DbError::Unavailable(_))));
    assert!(
        matches!(get(&script.client), Err(DbError::Unavailable(_))),
        "and nothing later goes out"
    );
}

#[test]
fn neither_an_error_nor_debug_shows_the_token() {
    let client = MesophyllDbClient::new("nobody.invalid:1", 0, TOKEN);
    let error = get(&client).expect_err("nobody is there");
    let leaky = status("500 Internal Server Error", "", "line one\r\nline two\n");
    let script = Script::new([leaky]);
    let answer = get(&script.client).expect_err("an error");
    for text in
        [format!("{client:?}"), format!("{error:?} {error}"), format!("{answer:?} {answer}")]
    {
        assert!(!text.contains("VerySecret") && !text.contains("line two"), "{text}");
    }
}
