//! The queue by itself.

use super::*;
use std::time::Duration;

fn queue(max_messages: usize, max_bytes: usize) -> OutQueue {
    OutQueue::new(Role::Server, max_messages, max_bytes)
}

fn push(queue: &OutQueue, len: usize) -> Result<(), SendError> {
    queue.push(FrameKind::Binary, Some(TenantId::Guild(1)), vec![7; len])
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// What the writer is to do, and the lengths of the payloads that it is to write.
fn take(queue: &OutQueue, until: Instant) -> (TakenFrames, Vec<usize>) {
    let mut batch = Batch::default();
    let taken = queue.take(until, &mut batch);
    (taken, lengths(&batch))
}

fn bytes(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    batch.frames.iter().for_each(|part| part.append_to(&mut bytes));
    bytes
}

fn lengths(batch: &Batch) -> Vec<usize> {
    let bytes = bytes(batch);
    let mut socket = tungstenite::protocol::frame::FrameSocket::new(&bytes[..]);
    std::iter::from_fn(|| socket.read(None).expect("whole frames"))
        .map(|frame| frame.payload().len())
        .collect()
}

#[test]
fn a_batch_is_all_that_waits_and_small_ones_share_a_buffer() {
    let queue = queue(8, 10 * JOINED_BYTES);
    for len in [1, 2, JOINED_BYTES + 1, 3, 4, JOINED_BYTES] {
        push(&queue, len).expect("room");
    }
    assert_eq!(queue.len(), (6, 2 * JOINED_BYTES + 11));
    let mut batch = Batch::default();
    assert_eq!(queue.take(soon(), &mut batch), TakenFrames::Batch);
    assert_eq!(lengths(&batch), [1, 2, JOINED_BYTES + 1, 3, 4, JOINED_BYTES]);
    assert_eq!((batch.frames.len(), batch.messages), (3, 6));
    assert_eq!(take(&queue, Instant::now()), (TakenFrames::Nothing, vec![]));
    assert_eq!(queue.len(), (0, 0));
}

#[test]
fn a_client_masks_what_it_sends_large_or_small() {
    let queue = OutQueue::new(Role::Client, 8, 10 * JOINED_BYTES);
    for len in [5, JOINED_BYTES + 5] {
        push(&queue, len).expect("room");
    }
    let mut batch = Batch::default();
    assert_eq!(queue.take(soon(), &mut batch), TakenFrames::Batch);
    let bytes = bytes(&batch);
    let mut socket = tungstenite::protocol::frame::FrameSocket::new(&bytes[..]);
    for len in [5, JOINED_BYTES + 5] {
        let frame = socket.read(None).expect("in order").expect("whole");
        let key = frame.header().mask.expect("a key");
        let payload = frame.payload().iter().zip(key.iter().cycle());
        assert_eq!(payload.map(|(byte, key)| byte ^ key).collect::<Vec<_>>(), vec![7; len]);
    }
}

#[test]
fn a_full_queue_refuses_at_once_by_messages_and_by_bytes() {
    let by_messages = queue(1, 100);
    push(&by_messages, 1).expect("room");
    assert_eq!(push(&by_messages, 1), Err(SendError::Full));
    by_messages
        .push(FrameKind::Binary, None, vec![7])
        .expect("what is no tenant's is not numbered");
    let by_bytes = queue(10, 8 * JOINED_BYTES);
    let large = JOINED_BYTES + 1;
    (0..3).for_each(|_| push(&by_bytes, large).expect("room"));
    assert_eq!(push(&by_bytes, large), Err(SendError::Full), "a half of it is left to the others");
}

#[test]
fn a_greedy_tenant_leaves_room_for_others_and_errors() {
    let queue = queue(1_000_000, 64 * JOINED_BYTES);
    let push = |owner, bytes| queue.push(FrameKind::Binary, owner, vec![7; bytes]);
    let fill = |owner, bytes| std::iter::from_fn(|| push(owner, bytes).ok()).count();
    // So many take all they can get, in large messages and in small ones.
    let tenants = || (0..100).map(|number| Some(TenantId::Guild(number)));
    assert_eq!(fill(Some(TenantId::Guild(0)), 2 * JOINED_BYTES), 16);
    assert!(tenants().map(|tenant| fill(tenant, JOINED_BYTES + 1)).sum::<usize>() > 20);
    let small: Vec<usize> = tenants().map(|tenant| fill(tenant, JOINED_BYTES / 16)).collect();
    assert!(small.iter().all(|number| *number < 300), "{small:?}");
    assert!(push(Some(TenantId::User(7)), 100).is_ok(), "{:?}", queue.len());
    assert!(fill(None, 200) > 1000, "{:?}", queue.len());
    assert!(queue.len().1 <= 96 * JOINED_BYTES);
}

#[test]
fn a_workers_small_answers_leave_before_its_large_ones() {
    let (large, small) = (LARGE_TOGETHER_BYTES, 7);
    let queue = OutQueue::new(Role::Client, 100, 100 * large);
    let push = |owner: Option<u64>, bytes| {
        queue.push(FrameKind::Binary, owner.map(TenantId::Guild), vec![7; bytes]).expect("room");
    };
    [
        (Some(1), large),
        (Some(1), large + 1),
        (Some(2), small),
        (Some(1), JOINED_BYTES + 1),
        (None, large),
    ]
    .into_iter()
    .for_each(|(owner, bytes)| push(owner, bytes));
    let mut batch = Batch::default();
    assert_eq!(queue.take(soon(), &mut batch), TakenFrames::Batch);
    assert_eq!((lengths(&batch), batch.messages), (vec![small, large, large], 3));
    assert_eq!(queue.len(), (2, large + JOINED_BYTES + 2));
    push(Some(2), small + 1);
    assert_eq!(take(&queue, soon()), (TakenFrames::Batch, vec![small + 1, large + 1]));
    push(Some(2), small);
    queue.close(1000);
    assert_eq!(take(&queue, soon()), (TakenFrames::Closing(1000), vec![small, JOINED_BYTES + 1]));
    assert_eq!(queue.len(), (0, 0));
}

#[test]
fn one_message_of_any_size_fits_an_empty_queue() {
    push(&queue(1, 10), 1000).expect("the only one");
    push(&OutQueue::new(Role::Client, 1, 10), JOINED_BYTES + 1).expect("the only one");
}

#[test]
fn replies_leave_first_and_are_bounded() {
    let queue = queue(8, 100);
    push(&queue, 3).expect("room");
    queue.push_replies(b"\x8a\x01x");
    assert_eq!(take(&queue, soon()), (TakenFrames::Batch, vec![1, 3]));
    queue.push_replies(&vec![0; REPLIES_BYTES + 1]);
    assert_eq!(take(&queue, Instant::now()), (TakenFrames::Nothing, vec![]));
    push(&queue, 3).expect("room");
    queue.push_replies(b"\x88\x00");
    queue.reader_done();
    assert_eq!(take(&queue, soon()), (TakenFrames::Finishing, vec![0]));
}

#[test]
fn closing_lets_what_waits_leave_and_aborting_does_not() {
    let queue = queue(8, 100);
    push(&queue, 1).expect("room");
    queue.close(1000);
    assert_eq!(push(&queue, 1), Err(SendError::Closed));
    assert_eq!(take(&queue, soon()), (TakenFrames::Closing(1000), vec![1]));
    queue.abort();
    assert_eq!(take(&queue, soon()), (TakenFrames::Aborted, vec![]));
}

#[test]
fn a_waiting_writer_is_woken_by_a_message_and_by_the_end() {
    let queue = std::sync::Arc::new(queue(8, 100));
    let writer_queue = queue.clone();
    let (taken_tx, taken_rx) = crossbeam_channel::unbounded();
    let writer = crate::base::thread::spawn("writer", move || {
        for _ in 0..2 {
            let until = Instant::now() + Duration::from_secs(60);
            taken_tx.send(take(&writer_queue, until)).expect("the test listens");
        }
    })
    .expect("spawn");
    push(&queue, 3).expect("room");
    let wait = Duration::from_secs(10);
    assert_eq!(taken_rx.recv_timeout(wait), Ok((TakenFrames::Batch, vec![3])));
    queue.reader_done();
    assert_eq!(taken_rx.recv_timeout(wait), Ok((TakenFrames::Finishing, vec![])));
    writer.join();
}

#[test]
fn a_callers_turn_is_for_one_and_only_on_an_empty_queue() {
    let queue = queue(8, 100);
    let turn = queue.callers_turn().expect("open").expect("free");
    assert!(queue.callers_turn().expect("open").is_none(), "another caller's");
    push(&queue, 1).expect("room");
    drop(turn);
    assert!(queue.callers_turn().expect("open").is_none(), "a message waits");
    assert_eq!(take(&queue, soon()), (TakenFrames::Batch, vec![1]));
    assert!(queue.callers_turn().expect("open").is_none(), "the writer's");
    assert_eq!(take(&queue, Instant::now()), (TakenFrames::Nothing, vec![]));
    assert!(
        queue.callers_turn().expect("open").is_none(),
        "the writer runs its pulse, and may write"
    );
    queue.close(1000);
    assert!(queue.callers_turn().is_err());
}

#[test]
fn the_writer_gets_what_a_caller_leaves_unwritten() {
    let queue = queue(8, 100);
    queue.callers_turn().expect("open").expect("free").leave_rest_to_writer();
    assert!(queue.callers_turn().expect("open").is_none(), "the rest goes first");
    assert_eq!(take(&queue, soon()), (TakenFrames::Batch, vec![]));
}

#[test]
fn a_writer_whose_pulse_is_due_goes_before_callers() {
    let queue = std::sync::Arc::new(queue(8, 100));
    let turn = queue.callers_turn().expect("open").expect("free");
    let writers_queue = queue.clone();
    let writer = crate::base::thread::spawn("writer", move || take(&writers_queue, Instant::now()))
        .expect("spawn");
    while !queue.state.lock().writer_wants_turn {
        std::thread::yield_now();
    }
    drop(turn);
    assert!(queue.callers_turn().expect("open").is_none(), "whether the writer has it yet or not");
    assert_eq!(writer.join(), Some((TakenFrames::Nothing, vec![])));
}

#[test]
fn a_writer_that_wants_its_turn_waits_for_the_end_of_a_callers() {
    let queue = std::sync::Arc::new(queue(8, 100));
    let turn = queue.callers_turn().expect("open").expect("free");
    let (taken_tx, taken_rx) = crossbeam_channel::unbounded();
    let writers_queue = queue.clone();
    let writer = crate::base::thread::spawn("writer", move || {
        taken_tx.send(take(&writers_queue, soon())).expect("the test listens");
    })
    .expect("spawn");
    while !queue.state.lock().writer_wants_turn {
        std::thread::yield_now();
    }
    push(&queue, 1).expect("room");
    queue.close(1000);
    assert!(taken_rx.try_recv().is_err(), "it does not write now");
    drop(turn);
    let taken = taken_rx.recv_timeout(Duration::from_secs(10));
    assert_eq!(taken, Ok((TakenFrames::Closing(1000), vec![1])));
    writer.join();
}

#[test]
fn a_pulse_that_is_wanted_at_once_runs_before_a_batch() {
    let queue = queue(8, 100);
    push(&queue, 1).expect("room");
    queue.beat_now();
    assert_eq!(take(&queue, soon()), (TakenFrames::Nothing, vec![]));
    assert_eq!(take(&queue, soon()), (TakenFrames::Batch, vec![1]));
}

#[test]
fn whose_messages_are_to_be_told_of_goes_with_their_batch() {
    let queue = queue(8, 10 * JOINED_BYTES);
    let (one, other) = (TenantId::Guild(1), TenantId::User(1));
    let tell = |tenant, len| {
        queue
            .push_told(FrameKind::Binary, Some(tenant), Some(tenant), vec![7; len].into())
            .expect("room");
    };
    tell(one, 1);
    push(&queue, 2).expect("room");
    tell(other, JOINED_BYTES + 1);
    tell(one, 3);
    let mut batch = Batch::default();
    assert_eq!(queue.take(soon(), &mut batch), TakenFrames::Batch);
    assert_eq!((batch.messages, batch.told), (4, vec![one, other, one]));
    let mut batch = Batch::default();
    push(&queue, 2).expect("room");
    assert_eq!(queue.take(soon(), &mut batch), TakenFrames::Batch);
    assert_eq!(batch.told, []);
}
