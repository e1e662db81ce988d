//! An executor's inbox.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::config::OnBroken;
use super::mailbox::{Mailbox, MailboxMessage};
use super::ticker::Ticker;
use crate::base::primitives::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::base::primitives::once_in;
use crate::base::sync::{Lock, Signal};
use crate::check::{Model, far, spawn};
use crate::dispatch::{Answer, Cancelled, Job, RequestId};
use crate::wire::data::{EncodedValue, TenantId};

const TENANT: TenantId = TenantId::Guild(1);
const JOBS: u64 = 3;

pub fn models() -> Vec<Model> {
    vec![
        Model { name: "mailbox: jobs", run: jobs, is_tiny: false },
        Model { name: "mailbox: templates", run: templates, is_tiny: false },
    ]
}

fn mailbox() -> Arc<Mailbox> {
    let started = Ticker::start_watched("", 1, Duration::from_secs(1), &OnBroken);
    let (ticker, ticks) = started.expect("threads are there");
    ticker.stop();
    Arc::new(Mailbox::new(ticks[0].clone()))
}

/// What callers and their executor share.
#[derive(Default)]
struct Scene {
    is_stopping: AtomicBool,
    /// How often each job was answered.
    answered: Lock<HashMap<u64, usize>>,
    changed: Signal,
    cancelled: AtomicUsize,
}

/// Each job is answered once: by the executor, by the end of the inbox, or as one that came too
/// late. A cancellation that was taken comes behind its job.
fn jobs() {
    let (mailbox, scene) = (mailbox(), Arc::<Scene>::default());
    let (inbox, runs) = (mailbox.clone(), scene.clone());
    let executor = spawn(move || run_executor(&inbox, &runs));
    let callers: Vec<_> = [0..1, 1..JOBS]
        .into_iter()
        .map(|ids| {
            let (mailbox, scene) = (mailbox.clone(), scene.clone());
            spawn(move || ids.for_each(|id| submit(&mailbox, &scene, id)))
        })
        .collect();
    // A stop at any moment, or when everything was answered without one.
    if once_in(2) {
        let answered = scene.answered.lock();
        let all = JOBS as usize;
        drop(scene.changed.wait_until(answered, None, |answered| answered.len() == all));
    }
    scene.is_stopping.store(true, Ordering::SeqCst);
    mailbox.close();
    callers.into_iter().for_each(|caller| caller.join().expect("an end"));
    let cancelled = executor.join().expect("an end");
    assert!(cancelled <= scene.cancelled.load(Ordering::SeqCst));
    assert_eq!(mailbox.under_way(), 0);
    let answered = scene.answered.lock();
    assert!((0..JOBS).all(|id| answered.get(&id) == Some(&1)), "{:?}", *answered);
}

fn submit(mailbox: &Mailbox, scene: &Arc<Scene>, id: u64) {
    let told = scene.clone();
    let answer = Answer::callback(move |_| {
        *told.answered.lock().entry(id).or_default() += 1;
        told.changed.notify_all();
    });
    mailbox.submit(TENANT, RequestId(id), Job::DropTenant, answer);
    if once_in(3) && mailbox.cancel(TENANT, RequestId(id)) == Cancelled::Sent {
        scene.cancelled.fetch_add(1, Ordering::SeqCst);
    }
}

/// As an executor; returns how many cancellations it got.
fn run_executor(mailbox: &Mailbox, scene: &Scene) -> usize {
    let (mut inbox, mut answered) = (VecDeque::new(), Vec::new());
    let (mut running, mut seen, mut cancelled) = (HashMap::new(), Vec::new(), 0);
    while !scene.is_stopping.load(Ordering::SeqCst) {
        if running.is_empty() {
            let due = once_in(2).then(far);
            mailbox.wait(due, &mut inbox, &mut answered);
        } else {
            mailbox.take(&mut inbox, &mut answered);
        }
        for message in inbox.drain(..) {
            match message {
                MailboxMessage::Submit { request_id, answer, .. } => {
                    seen.push(request_id);
                    running.insert(request_id, answer);
                }
                MailboxMessage::Cancel { request_id, .. } => {
                    assert!(seen.contains(&request_id), "it comes behind its job");
                    cancelled += 1;
                }
                _ => panic!("nothing else is sent"),
            }
        }
        let next = running.keys().next().copied();
        if let Some((id, answer)) = next.and_then(|id| running.remove_entry(&id)) {
            answer.send(Ok(EncodedValue::null()));
            answered.push(id);
        }
    }
    // As when an executor ends: what it has is dropped, and what is left for it.
    mailbox.close();
    mailbox.take(&mut inbox, &mut Vec::new());
    cancelled
}

/// A busy executor that looks without waiting sees each change of each tenant's template, though
/// several that it has not looked at are told of once.
fn templates() {
    let (mailbox, versions) = (mailbox(), Arc::<[AtomicUsize; 2]>::default());
    let changing: Vec<_> = (0..2)
        .map(|tenant| {
            let (mailbox, versions) = (mailbox.clone(), versions.clone());
            spawn(move || {
                for _ in 0..2 {
                    versions[tenant].fetch_add(1, Ordering::SeqCst);
                    mailbox.template_changed(TenantId::Guild(tenant as u64));
                }
            })
        })
        .collect();
    let mut read = [0, 0];
    let mut look = || {
        let mut inbox = VecDeque::new();
        mailbox.take(&mut inbox, &mut Vec::new());
        for message in inbox {
            let MailboxMessage::Template { tenant } = message else {
                panic!("nothing else is sent")
            };
            let tenant = usize::from(tenant == TenantId::Guild(1));
            read[tenant] = versions[tenant].load(Ordering::SeqCst);
        }
        read
    };
    look();
    look();
    changing.into_iter().for_each(|thread| thread.join().expect("an end"));
    assert_eq!(look(), [2, 2]);
}
