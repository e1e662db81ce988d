//! Both ends of TLS in one process, and the files that it is made of.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::*;
use crate::base::thread::spawn;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

/// The files of a certificate, whose key is its owner's only.
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(crate) fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("mesophyll-tls-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        Self { folder }
    }

    pub(crate) fn of(&self, name: &str) -> CertificateFiles {
        let [certificate, key] =
            ["pem", "key"].map(|kind| self.folder.join(format!("used.{kind}")));
        fs::copy(format!("{DATA}/{name}.pem"), &certificate).expect("a copy");
        fs::copy(format!("{DATA}/{name}.key"), &key).expect("a copy");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode");
        CertificateFiles { certificate, key }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn ca(name: &str) -> PathBuf {
    PathBuf::from(format!("{DATA}/{name}.pem"))
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Both ends of a connection over TCP.
fn pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let client =
        TcpStream::connect(listener.local_addr().expect("its address")).expect("connected");
    let (server, _) = listener.accept().expect("a peer");
    (server.into(), client.into())
}

/// What each end comes to: the server's, and the client's for this host.
fn shake(
    server: TlsServer,
    client: &TlsClient,
    host: &str,
) -> (io::Result<Stream>, io::Result<Stream>) {
    let (theirs, ours) = pair();
    let accepting = spawn("accepts", move || server.accept(Arc::new(theirs), deadline()));
    let connected = client.connect(Arc::new(ours), host, deadline());
    (accepting.expect("a thread").join().expect("no panic"), connected)
}

fn server(name: &str, client_ca: Option<&str>) -> TlsServer {
    let files = Files::new(&format!("{name}-{}", client_ca.is_some()));
    TlsServer::new(files.of(name), client_ca.map(ca).as_deref()).expect("a server")
}

fn client(authority: &str) -> TlsClient {
    TlsClient::new(&ca(authority), None).expect("a client")
}

fn both() -> (Stream, Stream) {
    let (server, client) = shake(server("master", None), &client("authority"), "127.0.0.1");
    (server.expect("accepted"), client.expect("connected"))
}

#[test]
fn what_is_written_is_read_at_the_other_end() {
    let (server, client) = both();
    for (from, to) in [(&server, &client), (&client, &server)] {
        let (mut from, mut to) = (from, to);
        from.write_all(b"hello").expect("written");
        from.flush().expect("it has left");
        let mut got = [0; 5];
        to.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"hello");
    }
    assert!(!server.is_at_end(), "nothing is said unasked");
    (&client).write_all(b"the last").expect("written");
    client.shutdown(Shutdown::Write).expect("ended");
    let mut rest = String::new();
    (&server).read_to_string(&mut rest).expect("to the end");
    assert_eq!(rest, "the last");
}

#[test]
fn who_is_not_to_be_trusted_is_not() {
    for (certificate, authority, host, says) in [
        ("expired", "authority", "localhost", "expired"),
        ("elsewhere", "authority", "localhost", "not valid for the name"),
        ("untrusted", "authority", "localhost", "of no trusted authority"),
        ("master", "stranger", "localhost", "of no trusted authority"),
    ] {
        let (accepted, connected) = shake(server(certificate, None), &client(authority), host);
        let error = connected.expect_err(certificate);
        assert!(error.to_string().contains(says), "{certificate}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(accepted.is_err(), "it is told");
    }
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_one() {
    let asks = || server("master", Some("authority"));
    let (accepted, _) = shake(asks(), &client("authority"), "localhost");
    assert!(accepted.expect_err("none was shown").to_string().contains("certificate"));
    let files = Files::new("shows");
    let shows =
        |name: &str| TlsClient::new(&ca("authority"), Some(&files.of(name))).expect("a client");
    let (accepted, _) = shake(asks(), &shows("untrusted"), "localhost");
    assert!(accepted.is_err(), "another authority's");
    let (accepted, connected) = shake(asks(), &shows("worker-0"), "localhost");
    let shown = accepted.expect("accepted").peer_certificate().expect("it was shown");
    connected.expect("connected");
    assert!(names(&shown, "worker-0.mesophyll"));
    assert!(!names(&shown, "worker-1.mesophyll") && !names(&shown, "worker.mesophyll"));
    assert!(!names(b"none", "worker-0.mesophyll"));
}

#[test]
fn what_speaks_no_tls_is_refused_in_time() {
    let server = server("master", None);
    let (theirs, mut ours) = pair();
    ours.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    let error = server.accept(Arc::new(theirs), deadline()).expect_err("plain text");
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    let (theirs, _ours) = pair();
    let soon = Instant::now() + Duration::from_millis(50);
    let error = server.accept(Arc::new(theirs), soon).expect_err("nothing was said");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let (theirs, ours) = pair();
    drop(ours);
    assert!(server.accept(Arc::new(theirs), deadline()).is_err(), "it has gone");
}

/// Each side writes more than the sockets hold before it reads: a lock that were held in a system
/// call would stop both for ever.
#[test]
fn both_sides_write_while_neither_reads() {
    const BYTES: usize = 8 * 1024 * 1024;
    let (server, client) = both();
    let sides = [server, client].map(Arc::new);
    let mut threads = Vec::new();
    for (at, side) in sides.iter().enumerate() {
        let writes = side.clone();
        threads.push(spawn("writes", move || {
            let bytes: Vec<u8> = (0..BYTES).map(|byte| (byte % 251 + at) as u8).collect();
            (&*writes).write_all(&bytes).expect("written");
            while (&*writes).flush().is_err() {}
        }));
    }
    // The sockets are full, and nothing has been read.
    for side in &sides {
        let mut waited = [rustix::event::PollFd::new(&**side, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut waited, None).expect("something has come");
    }
    for (at, side) in sides.iter().enumerate() {
        let reads = side.clone();
        threads.push(spawn("reads", move || {
            let mut bytes = vec![0; BYTES];
            (&*reads).read_exact(&mut bytes).expect("read");
            let other = 1 - at;
            assert!(bytes.iter().enumerate().all(|(n, byte)| *byte == (n % 251 + other) as u8));
        }));
    }
    for thread in threads {
        thread.expect("a thread").join().expect("no panic");
    }
}

#[test]
fn what_finds_no_room_is_kept_and_nothing_is_said_twice() {
    let (server, client) = both();
    client.set_nonblocking(true).expect("its mode");
    let piece = vec![7_u8; 100_000];
    let mut sent = 0;
    let stuck = loop {
        match (&client).write(&piece) {
            Ok(taken) => sent += taken,
            Err(error) => break error,
        }
    };
    assert_eq!(stuck.kind(), ErrorKind::WouldBlock);
    assert_eq!((&client).flush().expect_err("no room").kind(), ErrorKind::WouldBlock);
    let reading = spawn("reads", move || {
        let mut got = vec![0; sent];
        (&server).read_exact(&mut got).expect("read");
        got.iter().all(|byte| *byte == 7)
    });
    client.set_nonblocking(false).expect("its mode");
    (&client).flush().or_else(|_| (&client).flush()).expect("it has left");
    assert!(reading.expect("a thread").join().expect("no panic"));
}

/// A client whose records are in the test's hand.
fn by_hand() -> (Stream, TcpStream, ClientConnection) {
    let (theirs, ours) = pair();
    let server = server("master", None);
    let accepting = spawn("accepts", move || server.accept(Arc::new(theirs), deadline()));
    let Stream::Tcp(mut socket) = ours else { unreachable!("it is over TCP") };
    let config = client("authority").config();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(config, name).expect("a session");
    while session.is_handshaking() || session.wants_write() {
        session.complete_io(&mut socket).expect("a handshake");
    }
    let accepted = accepting.expect("a thread").join().expect("no panic");
    (accepted.expect("accepted"), socket, session)
}

fn records(session: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut records).expect("encrypted");
    }
    records
}

/// A server's end, and what its peer is to send: a record with this text.
pub(crate) fn with_record(text: &[u8]) -> (Stream, TcpStream, Vec<u8>) {
    let (server, socket, mut session) = by_hand();
    session.writer().write_all(text).expect("taken");
    (server, socket, records(&mut session))
}

#[test]
fn a_reader_sees_its_clock_between_the_bytes_of_a_record() {
    let (server, mut socket, record) = with_record(b"hello");
    let (last, first) = record.split_last().expect("a record");
    server.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    for byte in first {
        socket.write_all(&[*byte]).expect("written");
        let error = (&server).read(&mut [0]).expect_err("no text yet");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
    let nothing = (&server).read(&mut [0]).expect_err("nothing came");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    socket.write_all(&[*last]).expect("written");
    assert_eq!((&server).read(&mut [0; 9]).expect("it is whole"), 5);
}

#[test]
fn an_end_that_was_not_said_is_a_cut() {
    let (server, mut socket, mut session) = by_hand();
    session.send_close_notify();
    socket.write_all(&records(&mut session)).expect("written");
    assert_eq!(((&server).read(&mut [0]).expect("the end"), server.is_cut()), (0, false));
    let (server, socket, _session) = by_hand();
    assert!(!server.is_cut());
    drop(socket);
    assert_eq!(((&server).read(&mut [0]).expect("an end"), server.is_cut()), (0, true));
}

#[test]
fn what_comes_behind_the_end_is_dropped() {
    let (server, mut socket, mut session) = by_hand();
    session.writer().write_all(b"the last").expect("taken");
    session.send_close_notify();
    let mut records = records(&mut session);
    records.extend([0x17; 9_000]);
    socket.write_all(&records).expect("written");
    let (done, ended) = mpsc::channel();
    let server = Arc::new(server);
    let reads = server.clone();
    let reading = spawn("reads", move || {
        let mut text = String::new();
        let _ = done.send((&*reads).read_to_string(&mut text).map(|_| text));
    });
    let Ok(read) = ended.recv_timeout(Duration::from_secs(10)) else {
        // It would be joined, and does not end.
        std::mem::forget(reading);
        panic!("what is behind the end keeps the reader for ever");
    };
    assert_eq!(read.expect("the end"), "the last");
    assert_eq!((&*server).read(&mut [0]).expect("the end again"), 0);
    (&*server).write_all(b"the answer").expect("this direction is open");
}

#[test]
fn shutting_it_down_frees_a_reader() {
    let (server, client) = both();
    let server = Arc::new(server);
    let reads = server.clone();
    let reading = spawn("reads", move || (&*reads).read(&mut [0]).unwrap_or(0));
    server.shutdown(Shutdown::Both).expect("ended");
    assert_eq!(reading.expect("a thread").join(), Some(0));
    drop(client);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = Files::new("named");
    let files = folder.of("master");
    let says = |files: &CertificateFiles, says: &str| {
        let error = TlsServer::new(files.clone(), None).expect_err(says).to_string();
        assert!(error.contains(says) && error.contains("used."), "{error}");
    };
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).expect("its mode");
    says(&files, "others can read this key");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("its mode");
    fs::copy(ca("worker").with_extension("key"), &files.key).expect("another's key");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("its mode");
    says(&files, "used.pem,");
    fs::write(&files.certificate, "nothing").expect("written");
    says(&files, "no certificate in PEM");
    fs::remove_file(&files.certificate).expect("removed");
    says(&files, "No such file");
    assert!("a.pem".parse::<CertificateFiles>().is_err());
    assert!(TlsClient::new(&files.key, None).is_err(), "a key is no authority");
}

#[test]
fn files_that_change_are_used_as_a_pair() {
    let folder = Files::new("pair");
    let server = TlsServer::new(folder.of("master"), None).expect("a server");
    let first = server.not_after();
    assert!(!server.reload().expect("nothing changed"));
    fs::copy(ca("renewed"), folder.folder.join("used.pem")).expect("the certificate alone");
    server.reload().expect_err("it is not the key's");
    assert_eq!(server.not_after(), first, "the one before is used on");
    folder.of("renewed");
    assert!(server.reload().expect("both"));
    assert!(server.not_after() < first, "the renewed one ends a year earlier");
}

#[test]
fn the_end_of_a_certificate_is_read_and_garbage_is_none() {
    let der = |name: &str| {
        let text = fs::read(ca(name)).expect("its text");
        use rustls::pki_types::pem::PemObject as _;
        CertificateDer::from_pem_slice(&text).expect("a certificate").to_vec()
    };
    // 2025-01-01 and 2125-01-01: either form of a time.
    assert_eq!(expiry::not_after(&der("expired")), Some(1_735_689_600));
    assert_eq!(expiry::not_after(&der("master")), Some(4_891_363_200));
    let master = der("master");
    for end in 0..master.len() {
        assert_eq!(expiry::not_after(&master[..end]), None);
    }
    for at in 0..master.len().min(300) {
        let mut broken = master.clone();
        broken[at] ^= 0xff;
        let _ = expiry::not_after(&broken);
    }
}

#[test]
fn an_authority_that_is_replaced_is_trusted_no_more() {
    let folder = Files::new("authorities");
    let trusted = folder.folder.join("ca.pem");
    fs::copy(ca("authority"), &trusted).expect("a copy");
    let server = TlsServer::new(folder.of("master"), Some(&trusted)).expect("a server");
    assert!(!server.reload().expect("nothing changed"));
    fs::copy(ca("stranger"), &trusted).expect("another authority");
    assert!(server.reload().expect("it is read"));
    let shows = Files::new("shows-withdrawn");
    let client = TlsClient::new(&ca("authority"), Some(&shows.of("worker-0"))).expect("a client");
    let (accepted, _) = shake(server, &client, "localhost");
    let error = accepted.expect_err("its authority was withdrawn").to_string();
    assert!(error.contains("of no trusted authority"), "{error}");
}

#[test]
fn a_pair_that_has_ended_replaces_none_that_has_not() {
    let folder = Files::new("ended");
    let server = TlsServer::new(folder.of("master"), None).expect("a server");
    let first = server.not_after();
    folder.of("expired");
    let error = server.reload().expect_err("it has ended").to_string();
    assert!(error.contains("has ended already"), "{error}");
    assert_eq!(server.not_after(), first);
    folder.of("renewed");
    assert!(server.reload().expect("another that has not"));
}

#[test]
fn a_pipe_is_not_waited_for() {
    let folder = Files::new("pipe");
    let files = folder.of("master");
    fs::remove_file(&files.key).expect("removed");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let (kind, at) = (rustix::fs::FileType::Fifo, rustix::fs::CWD);
    rustix::fs::mknodat(at, &files.key, kind, mode, 0).expect("a pipe");
    let error = TlsServer::new(files, None).expect_err("a pipe").to_string();
    assert!(error.contains("no plain file"), "{error}");
}

#[test]
fn a_client_uses_what_its_files_hold_when_it_connects() {
    let folder = Files::new("client-renewed");
    let trusted = folder.folder.join("ca.pem");
    fs::copy(ca("authority"), &trusted).expect("a copy");
    let files = folder.of("untrusted");
    let client = TlsClient::new(&trusted, Some(&files)).expect("a client");
    let before = client.not_after();
    let asks = || server("master", Some("authority"));
    let is_accepted = || shake(asks(), &client, "localhost").0.is_ok();
    assert!(!is_accepted(), "another authority's");
    folder.of("worker-0");
    assert!(is_accepted(), "it was renewed");
    assert!(!client.is_outdated());
    fs::remove_file(&files.key).expect("removed");
    assert!(is_accepted() && client.is_outdated(), "the one before is used on");
    folder.of("renewed");
    assert!(!client.is_outdated() && client.not_after() != before);
    fs::copy(ca("stranger"), &trusted).expect("another authority");
    let error = shake(asks(), &client, "localhost").1.expect_err("it is trusted no more");
    assert!(error.to_string().contains("of no trusted authority"), "{error}");
}
