//! A master whose internal API is flooded by callers that are slow in every way there is: it goes
//! on answering the others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::support::DEADLINE;
use crate::support::binary::{Master, get, token};
use crate::support::process::{descriptors, eventually};

/// Connections of each kind: a thousand in all.
const OF_EACH: usize = 250;

/// In which way a caller is slow.
#[derive(Clone, Copy, PartialEq)]
enum Slow {
    /// It says nothing.
    Silent,
    /// It never ends its head.
    Head,
    /// It never ends its body.
    Body,
    /// It asks for what takes long, and waits.
    Waits,
}

fn begin(api: SocketAddr, slow: Slow) -> TcpStream {
    let mut stream = TcpStream::connect(api).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let body = r#"{"name":"WAIT","data":{"seconds":25,"mark":0}}"#;
    let head = format!(
        "POST /i/dispatch-event/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Internal {}\r\nContent-Length: {}\r\n\r\n",
        token(7),
        body.len()
    );
    let sent = match slow {
        Slow::Silent => "",
        Slow::Head => &head[..head.len() - 2],
        Slow::Body => &format!("{head}{}", &body[..10]),
        Slow::Waits => &format!("{head}{body}"),
    };
    // One that was closed to make room for the next is no longer written to.
    let _ = stream.write_all(sent.as_bytes());
    stream
}

/// What has come back on a connection without waiting for it: nothing, a status, or its end.
fn answered(stream: &mut TcpStream) -> Option<u16> {
    stream.set_nonblocking(true).expect("a socket");
    let mut head = [0; 12];
    let read = stream.read(&mut head).ok()?;
    Some(std::str::from_utf8(&head[..read]).ok()?.get(9..12)?.parse().expect("a status"))
}

#[test]
fn slow_connections_leave_others_their_answers() {
    // Room for the sockets of both ends: the master inherits the limit, and ours come on top of
    // those of the other tests.
    descriptors();
    let master = Master::start(&[]);
    master.wait_ready();
    let mut slow = Vec::new();
    for number in 0..OF_EACH {
        for kind in [Slow::Silent, Slow::Head, Slow::Body, Slow::Waits] {
            slow.push((kind, begin(master.api(), kind)));
        }
        // While they come.
        if number % 25 == 0 {
            assert_eq!(get(master.api(), "/livez").0, 200);
        }
    }
    for _ in 0..20 {
        assert_eq!(get(master.api(), "/livez").0, 200);
        assert_eq!(get(master.api(), "/readyz").0, 200);
    }
    // The flood took place: so many of the callers wait for their tenant that the next are told to
    // come again.
    let busy = eventually("a caller is told that the API is busy", || {
        let busy = slow.iter_mut().filter(|(kind, _)| *kind == Slow::Waits);
        Some(
            busy.filter_map(|(_, stream)| answered(stream)).filter(|status| *status == 503).count(),
        )
        .filter(|n| *n > 0)
    });
    assert!(busy < OF_EACH, "all {OF_EACH} were refused");
    drop(slow);
    eventually("somebody else is served again", || {
        (master.dispatch("guild/2", "ECHO", "1").0 == 200).then_some(())
    });
    // A graceful stop would wait for those that wait; one more signal does not, unless it comes so
    // soon that it counts as the same.
    let Master { mut running, folder: _folder, .. } = master;
    eventually("the master has ended", || {
        running.signal(Signal::TERM);
        running.has_ended().then_some(())
    });
    running.wait().expect(0, "stopping at once");
}
