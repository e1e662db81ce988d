//! Feeds and their readers, without a connection.

use std::time::{Duration, Instant};

use super::*;
use crate::base::limits::{FEED_QUEUE_EVENTS, FEED_REPLAY_STEP, FEED_RING_EVENTS};
use crate::wire::json::event_data_from_json;

const RED: TenantId = TenantId::Guild(1);
const BLUE: TenantId = TenantId::User(2 << 22);
const GREEN: TenantId = TenantId::Guild(3 << 22);

fn publish(feeds: &Feeds, tenant: TenantId, topic: &str, data: impl ToString) {
    let data = event_data_from_json(data.to_string().as_bytes()).expect("JSON");
    feeds.publish(tenant, topic, &data).expect("it is taken");
}

fn wanted(tenants: &[TenantId], topics: &[&str]) -> FeedFilter {
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    FeedFilter {
        tenants: (!tenants.is_empty()).then(|| tenants.iter().copied().collect()),
        topics: Some(topics).filter(|topics: &std::collections::HashSet<_>| !topics.is_empty()),
    }
}

/// What is there for a reader: `topic data`, `gap TENANT N`, `moved TENANT`, `over`.
fn news(reader: &mut FeedReader) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        told.push(match reader.next(Instant::now()) {
            FeedNews::Event(item) => {
                let data = item.lines.split_once("\"data\":").expect("it has data").1;
                format!("{} {}", item.topic, data.trim_end().trim_end_matches('}'))
            }
            FeedNews::Gap(tenant, lost) => {
                let tenant = tenant.map_or("all".to_owned(), |tenant| tenant.to_string());
                format!("gap {tenant} {}", lost.map_or("some".to_owned(), |lost| lost.to_string()))
            }
            FeedNews::Moved(tenant) => format!("moved {tenant}"),
            FeedNews::Quiet => return told,
            FeedNews::Over => {
                told.push("over".to_owned());
                return told;
            }
        });
    }
}

fn at(reader: &FeedReader, behind: u64) -> Option<Positions> {
    let Position { incarnation, number } = reader.start();
    Positions::parse(&format!("{incarnation}:{}", number + behind))
}

#[test]
fn a_reader_gets_what_it_wants_from_then_on() {
    let feeds = Arc::new(Feeds::default());
    publish(&feeds, RED, "score", 0);
    let mut reader = feeds.read(wanted(&[RED], &["score"]), None);
    let mut all = feeds.read(wanted(&[], &[]), None);
    publish(&feeds, RED, "score", 1);
    publish(&feeds, RED, "other", 2);
    publish(&feeds, BLUE, "score", 3);
    assert_eq!(news(&mut reader), ["score 1"]);
    assert_eq!(news(&mut all), ["score 1", "other 2", "score 3"]);
    assert_eq!(feeds.figures().readers, 2);
    drop(all);
    assert_eq!((feeds.figures().readers, feeds.figures().published), (1, 4));
}

#[test]
fn what_is_no_topic_or_too_large_is_refused() {
    let feeds = Feeds::default();
    let null = EncodedJson::null();
    let long = "x".repeat(FEED_TOPIC_MAX_BYTES + 1);
    for topic in ["", "a b", "a\nb", "a,b", "é", "gap", "moved", "open", "error", &long] {
        let error = feeds.publish(RED, topic, &null).expect_err(topic);
        assert!(matches!(error, DbError::Refused(_)), "{topic}");
    }
    feeds.publish(RED, &long[1..], &null).expect("the longest");
    let text = |bytes| format!("\"{}\"", "x".repeat(bytes));
    let data = |bytes| event_data_from_json(text(bytes).as_bytes()).expect("JSON");
    feeds.publish(RED, "x", &data(FEED_DATA_MAX_BYTES - 3)).expect("the largest");
    feeds.publish(RED, "x", &data(FEED_DATA_MAX_BYTES - 2)).expect_err("too large");
    assert_eq!(feeds.figures().refused, 11);
}

#[test]
fn a_reader_that_comes_back_misses_nothing_that_is_kept() {
    let feeds = Arc::new(Feeds::default());
    let first = feeds.read(wanted(&[RED, BLUE], &[]), None);
    let count = 2 * FEED_RING_EVENTS.min(2 * FEED_REPLAY_STEP);
    for number in 0..count {
        publish(&feeds, if number % 2 == 0 { RED } else { BLUE }, "n", number);
    }
    let expected: Vec<_> = (3..count).map(|number| format!("n {number}")).collect();
    let mut again = feeds.read(wanted(&[RED, BLUE], &[]), at(&first, 3).as_ref());
    assert_eq!(news(&mut again), expected);
    publish(&feeds, RED, "n", "\"live\"");
    assert_eq!(news(&mut again), ["n \"live\""]);
    // The first two of one of them have gone.
    publish(&feeds, RED, "n", 0);
    let late = |topics: &[&str]| {
        let mut late = feeds.read(wanted(&[RED, BLUE], topics), at(&first, 0).as_ref());
        news(&mut late).remove(0)
    };
    assert_eq!((late(&[]), late(&["n"])), ("gap guild:1 2".into(), "gap guild:1 some".into()));
    let mut all = feeds.read(wanted(&[], &[]), at(&first, 1).as_ref());
    assert_eq!(news(&mut all)[..2], ["gap all 1", "n 1"]);
}

#[test]
fn who_publishes_too_much_loses_it_and_readers_are_told() {
    let feeds = Arc::new(Feeds::default());
    let mut reader = feeds.read(wanted(&[RED], &["n"]), None);
    let (_, burst) = FEED_TAKEN;
    let null = EncodedJson::null();
    let mut taken = 0;
    while feeds.publish(RED, "n", &null).is_ok() {
        taken += 1;
        assert_eq!(news(&mut reader), ["n null"]);
    }
    assert!((burst..10 * burst).contains(&taken), "{taken}");
    assert_eq!(news(&mut reader), ["gap guild:1 1"]);
    feeds.lose(RED, "other");
    assert_eq!(news(&mut reader), [""; 0], "it is of no topic that it wants");
    let mut again = feeds.read(wanted(&[RED], &[]), at(&reader, u64::from(taken)).as_ref());
    assert_eq!(news(&mut again), ["gap guild:1 2"]);
    publish(&feeds, BLUE, "n", 1);
    assert_eq!(feeds.figures().excess, 2, "others have rates of their own");
}

#[test]
fn what_goes_while_a_reader_replays_is_counted() {
    let feeds = Arc::new(Feeds::default());
    let first = feeds.read(wanted(&[RED], &[]), None);
    for number in 0..FEED_RING_EVENTS {
        publish(&feeds, RED, "n", number);
    }
    let mut again = feeds.read(wanted(&[RED], &[]), at(&first, 1).as_ref());
    publish(&feeds, RED, "n", 1000);
    publish(&feeds, RED, "n", 1001);
    let told = news(&mut again);
    assert_eq!(told[0], "gap guild:1 1", "the second; it had the first");
    assert_eq!(told[1], "n 2");
    assert_eq!(told[told.len() - 1], "n 1001");
}

#[test]
fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
    let feeds = Arc::new(Feeds::default());
    let mut slow = feeds.read(wanted(&[RED, BLUE, GREEN], &[]), None);
    for number in 0..FEED_QUEUE_EVENTS + 10 {
        let late = if number < FEED_QUEUE_EVENTS / 2 { RED } else { GREEN };
        publish(&feeds, if number < 4 { BLUE } else { late }, "n", number);
    }
    let told = news(&mut slow);
    assert_eq!(told[..3], ["gap guild:1 6", "gap user:8388608 4", "n 10"]);
    assert_eq!(told.len(), 2 + FEED_QUEUE_EVENTS);
    assert_eq!(feeds.figures().lost, 10);
    // The same by bytes.
    let large = format!("\"{}\"", "x".repeat(FEED_DATA_MAX_BYTES - 100));
    for _ in 0..300 {
        publish(&feeds, RED, "n", &large);
    }
    let told = news(&mut slow);
    assert!(told[0].starts_with("gap guild:1 ") && told.len() > 200, "{} {}", told[0], told.len());
}

#[test]
fn of_another_run_or_a_shard_that_was_away_some_is_missing() {
    let feeds = Arc::new(Feeds::default());
    let other = Positions::parse("00000000000000aa:5");
    assert_eq!(news(&mut feeds.read(wanted(&[RED], &[]), other.as_ref())), ["gap guild:1 some"]);
    assert_eq!(news(&mut feeds.read(wanted(&[], &[]), other.as_ref())), ["gap all some"]);
    let mut reader = feeds.read(wanted(&[RED, BLUE], &[]), None);
    feeds.leave(&[Shard::of(RED)].into_iter().collect());
    assert_eq!(news(&mut reader), ["moved guild:1"]);
    let mut again = feeds.read(wanted(&[RED, BLUE], &[]), at(&reader, 0).as_ref());
    assert_eq!(news(&mut again), ["gap guild:1 some"]);
    // And of one that comes for the first time.
    let reader = feeds.read(wanted(&[BLUE], &[]), None);
    feeds.take(&[Shard::of(BLUE)].into_iter().collect());
    publish(&feeds, BLUE, "n", 1);
    let mut again = feeds.read(wanted(&[BLUE], &[]), at(&reader, 0).as_ref());
    assert_eq!(news(&mut again), ["gap user:8388608 some", "n 1"]);
}

#[test]
fn where_a_link_broke_some_may_be_missing() {
    let feeds = Arc::new(Feeds::default());
    publish(&feeds, RED, "n", 1);
    publish(&feeds, BLUE, "n", 1);
    let mut readers = [&[RED, GREEN][..], &[BLUE], &[]].map(|of| feeds.read(wanted(of, &[]), None));
    let mut log = feeds.read_log(wanted(&[RED], &[]), FeedStart::Now);
    feeds.doubt(&|tenant| tenant == RED);
    publish(&feeds, RED, "n", 2);
    let told = readers.each_mut().map(news);
    assert_eq!(told, [&["gap guild:1 some", "n 2"][..], &[], &["gap all some", "n 2"]]);
    assert_eq!(news(&mut log), ["gap guild:1 some"]);
    // And those that were away.
    let again = |reader: usize, of: &[TenantId]| {
        news(&mut feeds.read(wanted(of, &[]), at(&readers[reader], 0).as_ref()))
    };
    assert_eq!(again(0, &[RED]), ["gap guild:1 some", "n 2"]);
    assert_eq!(again(1, &[BLUE]), [""; 0], "of this one all is kept");
}

#[test]
fn the_end_comes_behind_what_waits_and_wakes_a_reader() {
    let feeds = Arc::new(Feeds::default());
    let mut reader = feeds.read(wanted(&[RED], &[]), None);
    publish(&feeds, RED, "n", 1);
    feeds.end();
    publish(&feeds, RED, "n", 2);
    assert_eq!(news(&mut reader), ["n 1", "over"], "what comes later is not waited for");
    assert_eq!(news(&mut feeds.read(wanted(&[RED], &[]), None)), ["over"]);
    let feeds = Arc::new(Feeds::default());
    let mut reader = feeds.read(wanted(&[RED], &[]), None);
    let waits = std::thread::spawn(move || reader.next(Instant::now() + Duration::from_secs(60)));
    feeds.end();
    assert!(matches!(waits.join().expect("no panic"), FeedNews::Over));
}
