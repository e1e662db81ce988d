//! The load driver of everything asynchronous: so many tasks, each of which waits for its answer
//! before it asks again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::asked::{Kind, Load, Outcome};

/// Who is called.
pub trait Callee: Send + Sync + 'static {
    /// Sends the event of this number and waits for its answer.
    fn call(&self, number: u64) -> impl Future<Output = Result<(), String>> + Send;

    /// Sends it and does not wait.
    fn send(&self, _number: u64) -> impl Future<Output = Result<(), String>> + Send {
        async { Err("it cannot send without waiting".to_owned()) }
    }

    /// Sends an event that loops for ever and waits for its end.
    fn call_looping(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Does a turn.
pub async fn drive<C: Callee>(callee: Arc<C>, load: Load) -> Result<Outcome, String> {
    match load.kind {
        Kind::RoundTrip => flight(callee, Load { in_flight: 1, ..load }, true).await,
        Kind::Flight => flight(callee, load, false).await,
        Kind::Timed => flight(callee, load, true).await,
        Kind::Nowait => nowait(callee, load.lasting).await,
        Kind::Noisy => noisy(callee, load).await,
    }
}

async fn flight<C: Callee>(callee: Arc<C>, load: Load, is_timed: bool) -> Result<Outcome, String> {
    let numbers = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let until = begun + load.lasting;
    let mut tasks = JoinSet::new();
    for _ in 0..load.in_flight {
        let (callee, numbers) = (callee.clone(), numbers.clone());
        tasks.spawn(async move {
            let (mut done, mut times) = (0, Vec::new());
            let mut now = Instant::now();
            while now < until {
                callee.call(numbers.fetch_add(1, Ordering::Relaxed)).await?;
                let then = std::mem::replace(&mut now, Instant::now());
                done += 1;
                if is_timed {
                    times.push((now - then).as_nanos() as u64);
                }
            }
            Ok::<_, String>((done, times))
        });
    }
    collect(tasks, begun).await
}

async fn collect(
    mut tasks: JoinSet<Result<(u64, Vec<u64>), String>>,
    begun: Instant,
) -> Result<Outcome, String> {
    let (mut done, mut times) = (0, Vec::new());
    while let Some(task) = tasks.join_next().await {
        let (more, timed) = task.map_err(|error| error.to_string())??;
        done += more;
        times.extend(timed);
    }
    Ok(Outcome::new(done, begun.elapsed(), times))
}

/// The last event is waited for: it is behind all others.
async fn nowait<C: Callee>(callee: Arc<C>, lasting: Duration) -> Result<Outcome, String> {
    // In a task, because the thread that waits for it is none of the runtime's.
    let sending = tokio::spawn(async move {
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < lasting {
            callee.send(sent).await?;
            sent += 1;
        }
        callee.call(sent).await?;
        Ok(Outcome::new(sent + 1, begun.elapsed(), Vec::new()))
    });
    sending.await.map_err(|error| error.to_string())?
}

async fn noisy<C: Callee>(callee: Arc<C>, load: Load) -> Result<Outcome, String> {
    let looper = callee.clone();
    let looping = tokio::spawn(async move {
        loop {
            looper.call_looping().await;
        }
    });
    // The loop runs before anybody else comes.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let numbers = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let until = begun + load.lasting;
    let mut tasks = JoinSet::new();
    for _ in 0..load.in_flight {
        let (callee, numbers) = (callee.clone(), numbers.clone());
        tasks.spawn(async move {
            let (mut done, mut times) = (0, Vec::new());
            while Instant::now() < until {
                let then = Instant::now();
                let call = callee.call(numbers.fetch_add(1, Ordering::Relaxed));
                // Else it still waits: that is how long it took at least.
                if let Ok(answer) = tokio::time::timeout_at(until.into(), call).await {
                    answer?;
                    done += 1;
                }
                times.push(then.elapsed().as_nanos() as u64);
            }
            Ok((done, times))
        });
    }
    let outcome = collect(tasks, begun).await;
    looping.abort();
    outcome
}
