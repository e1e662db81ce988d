//! What scripts log, on a link.

use log::Level;
use mesophyll::base::limits::SCRIPT_LINE_MAX_BYTES;
use mesophyll::feeds::{FeedFilter, FeedNews, FeedReader, FeedStart, Feeds};
use mesophyll::runtime::TenantDb;
use mesophyll::wire::message::ScriptLine;

use super::*;

fn server(workers: usize) -> (Arc<Feeds>, ServerConfig) {
    let feeds = Arc::new(Feeds::default());
    let config = ServerConfig { feeds: feeds.clone(), ..ServerConfig::new(workers) };
    (feeds, ServerConfig { heartbeat_interval: DEADLINE, ..config })
}

/// The next line, without its tenant and time; or how many are lost.
fn next(reader: &mut FeedReader) -> String {
    match reader.next(Instant::now() + DEADLINE) {
        FeedNews::Event(item) => item.lines.split_once("\"level\":").expect("a line").1.to_owned(),
        FeedNews::Gap(_, Some(lost)) => format!("lost {lost}"),
        FeedNews::Gap(_, None) => "lost some".to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_that_logs_for_others_loses_its_link() {
    let (feeds, config) = server(2);
    let master = Master::with(config);
    let mut reader = feeds.read_log(FeedFilter::default(), FeedStart::Kept);
    let (own, others) = (TenantId::Guild(2 << 22), TenantId::Guild(3 << 22));
    let mut peer = master.raw_peer();
    let line = |tenant, level: &str, text: &str| ScriptLine {
        tenant,
        level: level.to_owned(),
        text: text.to_owned(),
    };
    let mut log = |lines: &[ScriptLine]| {
        let message = ClientMessage::ScriptLog(lines.to_vec());
        peer.send(Message::binary(message.encode())).expect("sent");
    };
    let long = "x".repeat(SCRIPT_LINE_MAX_BYTES);
    log(&[
        line(own, "warn", "a\n\"b\""),
        line(own, "loud", &long),
        line(own, "info", &(long.clone() + "x")),
    ]);
    // Of a line that is lost a reader hears with the next one.
    log(&[line(own, "info", "kept")]);
    let mut all: Vec<String> = (0..4).map(|_| next(&mut reader)).collect();
    all.sort();
    let said = |level: &str, text: &str| format!("\"{level}\",\"text\":\"{text}\"}}\n\n");
    let lines = [
        said("info", "kept"),
        said("info", &long),
        said("warn", "a\\n\\\"b\\\""),
        "lost 1".to_owned(),
    ];
    assert_eq!(all, lines);
    // The link ends for it, with what it may have had to say still.
    log(&[line(others, "info", "not kept")]);
    assert_eq!(next(&mut reader), "lost some");
    assert_eq!(master.wait_disconnected(), CloseCause::ClosedByUs(close_code::PROTOCOL));
    let figures = feeds.log_figures();
    assert_eq!((figures.published, figures.excess), (3, 1));
    assert_eq!(feeds.figures().published, 0, "nothing was published");
}

#[test]
fn a_link_that_breaks_leaves_a_gap_and_one_that_closes_none() {
    let (feeds, config) = server(1);
    let master = Master::with(config);
    let mut lines = feeds.read_log(FeedFilter::default(), FeedStart::Now);
    let mut events = feeds.read(FeedFilter::default(), None);
    let mut peer = master.raw_peer();
    peer.close(None).expect("sent");
    assert_eq!(master.wait_disconnected(), CloseCause::ClosedByPeer(1005));
    for reader in [&mut lines, &mut events] {
        assert!(matches!(reader.next(Instant::now()), FeedNews::Quiet), "all has come");
    }
    drop(master.raw_peer());
    assert!(matches!(master.wait_disconnected(), CloseCause::Broken(_)));
    for reader in [&mut lines, &mut events] {
        let next = reader.next(Instant::now() + DEADLINE);
        assert!(matches!(next, FeedNews::Gap(None, None)), "{next:?}");
    }
}

#[test]
fn lines_wait_for_a_link_and_are_there_before_an_answer() {
    let (feeds, config) = server(1);
    let master = Master::with(config);
    let outbox = Outbox::default();
    let db = WorkerDb::mesophyll(MesophyllDbClient::new("127.0.0.1:9", 0, "t"), outbox.clone());
    db.log(TENANT, Some((Level::Info, "early".to_owned())));
    let _worker = Worker::with_outbox(&master, outbox);
    let conn = master.wait_ready();
    let mut reader = feeds.read_log(FeedFilter::default(), FeedStart::Kept);
    assert!(next(&mut reader).contains("early"));
    for number in 0..100 {
        db.log(TENANT, Some((Level::Info, format!("line {number}"))));
        dispatch(&conn, "E").expect("an answer");
        assert_eq!(feeds.log_figures().published, number + 2, "all are there");
    }
}
