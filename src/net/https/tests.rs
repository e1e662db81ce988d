//! An answer that lasts as long as its connection, whole and cut off.

use std::net::TcpListener;

use super::*;
use crate::base::thread::spawn;
use crate::net::stream::tls::TlsServer;
use crate::net::stream::tls::tests::{Files, ca};
use ureq::unversioned::resolver::DefaultResolver;

/// The body of an answer that lasts as long as its connection, whose server says so or is cut
/// off.
fn body(is_cut: bool) -> Result<String, Error> {
    let files = Files::new(&format!("https-{is_cut}"));
    let server = TlsServer::new(files.of("master"), None).expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let answering = spawn("answers", move || {
        let (socket, _) = listener.accept().expect("a peer");
        let under = socket.try_clone().expect("a descriptor");
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut stream = server.accept(Arc::new(socket.into()), deadline).expect("TLS");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            request.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf").expect("sent");
        stream.flush().expect("it has left");
        let ended =
            if is_cut { under.shutdown(Shutdown::Both) } else { stream.shutdown(Shutdown::Both) };
        ended.expect("ended");
    });
    let tls = TlsClient::new(&ca("authority"), None).expect("a client");
    let config = Agent::config_builder().proxy(None).build();
    let agent = agent(config, Some(tls), DefaultResolver::default());
    let answer = agent.get(format!("http://{address}/")).call();
    let read = answer.and_then(|mut answer| answer.body_mut().read_to_string());
    assert!(answering.expect("a thread").join().is_some(), "no panic");
    read
}

#[test]
fn an_answer_that_is_cut_off_is_no_whole_one() {
    assert_eq!(body(false).expect("it is whole"), "half");
    let error = body(true).expect_err("the rest is missing").to_string();
    assert!(error.contains("cut off"), "{error}");
}
