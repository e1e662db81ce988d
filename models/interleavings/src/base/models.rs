//! Permits, throttles, rates, places for an answer, and threads on demand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::AnswerSender;
use super::on_demand_threads::OnDemandThreads;
use super::primitives::atomic::{AtomicUsize, Ordering};
use super::primitives::once_in;
use super::rates::Rates;
use super::sync::{CountedPermit, Lock, Signal};
use super::throttle::Throttle;
use crate::check::{Model, far, spawn};

pub fn models() -> Vec<Model> {
    vec![
        Model { name: "permits", run: permits, is_tiny: true },
        Model { name: "throttle", run: throttle, is_tiny: true },
        Model { name: "rates", run: rates, is_tiny: false },
        Model { name: "answer", run: answer, is_tiny: true },
        Model { name: "threads on demand", run: threads_on_demand, is_tiny: false },
    ]
}

/// Never more are held than may be, and all come back.
fn permits() {
    let (taken, held) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (taken, held) = (taken.clone(), held.clone());
            spawn(move || {
                if let Some(permit) = CountedPermit::take(&taken, 1) {
                    assert_eq!(held.fetch_add(1, Ordering::SeqCst), 0, "one too many");
                    held.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("an end"));
    assert!(CountedPermit::take(&taken, 1).is_some(), "all are back");
}

/// Of what comes at one moment all is counted, and one is logged.
fn throttle() {
    let (throttle, now) = (Arc::new(Throttle::default()), Instant::now());
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let throttle = throttle.clone();
            spawn(move || throttle.record(now).is_some())
        })
        .collect();
    let logged = threads.into_iter().filter_map(|thread| thread.join().ok());
    assert_eq!(logged.filter(|is_logged| *is_logged).count(), 1);
    assert_eq!(throttle.count(), 2);
}

/// One never gets more than its burst and what it gave back; of its refusals one is news.
fn rates() {
    const BURST: u32 = 2;
    let (rates, now) = (Arc::new(Rates::new((1, BURST))), Instant::now());
    let news = Arc::<AtomicUsize>::default();
    let admit = {
        let (rates, news) = (rates.clone(), news.clone());
        move || match rates.admit(0, now) {
            Ok(()) => true,
            Err(over) => {
                news.fetch_add(usize::from(over.is_news), Ordering::SeqCst);
                false
            }
        }
    };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (rates, admit) = (rates.clone(), admit.clone());
            spawn(move || {
                let has = admit();
                let gives_back = has && once_in(4);
                if gives_back {
                    rates.give_back(0);
                }
                u32::from(has) - u32::from(gives_back)
            })
        })
        .collect();
    let kept: u32 = threads.into_iter().map(|thread| thread.join().expect("an end")).sum();
    let more = (0..BURST + 1).filter(|_| admit()).count() as u32;
    assert_eq!(kept + more, BURST);
    assert_eq!(news.load(Ordering::SeqCst), 1);
}

/// Who waits for an answer is woken by it, or by its sender's end; it is there once.
fn answer() {
    let (sender, place) = AnswerSender::new();
    let is_sent = once_in(2);
    let sending = spawn(move || if is_sent { sender.send(7) } else { drop(sender) });
    assert_eq!(place.wait_until(far()), is_sent);
    assert_eq!(place.take(), is_sent.then_some(7));
    sending.join().expect("an end");
    assert_eq!(place.take(), None);
}

/// Each job that is taken is done once, without a further job or a stop coming; none after a stop.
fn threads_on_demand() {
    let done = Arc::new((Lock::new(Vec::new()), Signal::new()));
    let does = done.clone();
    let idle_max = if once_in(2) { Duration::ZERO } else { Duration::from_secs(1 << 20) };
    let names = vec![String::new(); if once_in(2) { 1 } else { 2 }];
    let threads = Arc::new(OnDemandThreads::new(names, 3, idle_max, move |job: usize| {
        does.0.lock().push(job);
        does.1.notify_all();
    }));
    let submitting: Vec<_> = (0..2)
        .map(|number| {
            let threads = threads.clone();
            spawn(move || {
                let jobs = [number, number + 2];
                jobs.into_iter().filter(|job| threads.submit(number, *job).is_ok()).collect()
            })
        })
        .collect();
    let mut taken: Vec<usize> = submitting
        .into_iter()
        .flat_map(|thread| -> Vec<_> { thread.join().expect("an end") })
        .collect();
    let mut did = done.1.wait_until(done.0.lock(), None, |done| done.len() >= taken.len()).clone();
    taken.sort_unstable();
    did.sort_unstable();
    assert_eq!(did, taken);
    threads.finish();
    assert_eq!(threads.submit(0, 9), Err(9));
}
