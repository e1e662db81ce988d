//! What tenants publish, on a link.

use mesophyll::base::error::DbError;
use mesophyll::base::limits::WORKER_SAYS;
use mesophyll::feeds::{FeedFilter, FeedNews, Feeds};
use mesophyll::runtime::TenantDb;

use super::*;

/// The lines of the next event of a reader of all tenants.
fn next_lines(reader: &mut mesophyll::feeds::FeedReader) -> String {
    match reader.next(Instant::now() + DEADLINE) {
        FeedNews::Event(item) => item.lines.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_that_publishes_for_others_loses_its_link() {
    let feeds = Arc::new(Feeds::default());
    let config =
        ServerConfig { heartbeat_interval: DEADLINE, feeds: feeds.clone(), ..ServerConfig::new(2) };
    let master = Master::with(config);
    let mut reader = feeds.read(FeedFilter::default(), None);
    let (own, others) = (TenantId::Guild(2 << 22), TenantId::Guild(3 << 22));
    let mut peer = master.raw_peer();
    let mut publish = |from, topic: &str| {
        let (topic, data) = (topic.to_owned(), EncodedJson::null());
        let message = ClientMessage::PublishFeed { from, topic, data };
        peer.send(Message::binary(message.encode())).expect("sent");
    };
    publish(own, "line\nbreak");
    publish(own, "score");
    assert!(
        next_lines(&mut reader).starts_with("event: score\ndata: {\"tenant\":\"guild:8388608\",")
    );
    publish(others, "score");
    assert_eq!(master.wait_disconnected(), CloseCause::ClosedByUs(close_code::PROTOCOL));
    let figures = feeds.figures();
    assert_eq!((figures.published, figures.refused), (1, 1), "the other tenant's is none at all");
}

#[test]
fn a_worker_that_says_too_much_loses_it_and_readers_are_told() {
    let feeds = Arc::new(Feeds::default());
    let config =
        ServerConfig { heartbeat_interval: DEADLINE, feeds: feeds.clone(), ..ServerConfig::new(2) };
    let master = Master::with(config);
    let mut reader = feeds.read(FeedFilter::default(), None);
    let all = 3 * u64::from(WORKER_SAYS.1);
    let mut peer = master.raw_peer();
    for number in 0..all {
        // Of as many tenants, each of which is far from a bound of its own.
        let from = TenantId::Guild((2 * number) << 22);
        let (topic, data) = ("n".to_owned(), EncodedJson::null());
        let message = ClientMessage::PublishFeed { from, topic, data };
        peer.write(Message::binary(message.encode())).expect("sent");
    }
    peer.flush().expect("sent");
    let (mut got, mut lost) = (0, 0);
    while got + lost < all {
        match reader.next(Instant::now() + DEADLINE) {
            FeedNews::Gap(_, count) => lost += count.expect("a number"),
            FeedNews::Event(_) => got += 1,
            other => panic!("{other:?} after {got} and {lost}"),
        }
    }
    let figures = feeds.figures();
    assert_eq!((figures.published + figures.excess, figures.lost), (all, lost));
    assert!(figures.excess > 0 && figures.published >= all / 3, "{figures:?}");
    let wrongs = master.server.links()[0].counters.wrongs();
    assert!(wrongs.contains(&("excess", figures.excess)), "{wrongs:?}");
}

#[test]
fn what_a_worker_publishes_reaches_its_master() {
    let feeds = Arc::new(Feeds::default());
    let config =
        ServerConfig { heartbeat_interval: DEADLINE, feeds: feeds.clone(), ..ServerConfig::new(1) };
    let master = Master::with(config);
    let outbox = Outbox::default();
    let client = MesophyllDbClient::new("127.0.0.1:9", 0, "t");
    let db = WorkerDb::mesophyll(client, outbox.clone());
    let publish = |topic: &str| db.publish(TENANT, topic.to_owned(), EncodedJson::null());
    assert!(matches!(publish("early"), Err(DbError::Unavailable(_))));
    let worker = Worker::with_outbox(&master, outbox);
    master.wait_ready();
    let mut reader = feeds.read(FeedFilter::default(), None);
    assert_eq!(publish("score"), Ok(()));
    assert!(next_lines(&mut reader).contains("event: score\n"));
    assert!(matches!(publish("no topic"), Err(DbError::Refused(_))));
    drop(worker);
    assert!(matches!(publish("late"), Err(DbError::Unavailable(_))));
}
