use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

const SHAPE: Shape = Shape { slots: 4, data_bytes: 8192 };

fn pair() -> (Server, Client) {
    let (server, memory) = Server::new(SHAPE).unwrap();
    let client = Client::new(memory.as_fd()).unwrap();
    (server, client)
}

/// Answers each body turned round, and its data with every byte one more, until `over`.
fn serve(server: &Server, rung: &Receiver<()>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        if !server.has_calls() && server.may_sleep() {
            // A wake that is lost shows as a call that takes so long.
            let _ = rung.recv_timeout(Duration::from_secs(20));
        }
        server.awake();
        server.take(|Taken { slot, len }, body| {
            let data = server.data(slot, 0, len * 8);
            let data: Vec<u8> = data.iter().map(|byte| byte.wrapping_add(1)).collect();
            server.put_data(slot, 0, &data);
            let turned: Vec<u8> = body.iter().rev().copied().collect();
            server.answer(slot, &turned);
        });
    }
}

fn call(client: &Client, bell: &Sender<()>, number: u32, patience: Option<&Patience>) {
    let mut slot = loop {
        match client.claim() {
            Some(slot) => break slot,
            None => thread::yield_now(),
        }
    };
    let body: Vec<u8> = (0..number % 900).map(|i| (i + number) as u8).collect();
    let data = vec![number as u8; body.len() * 8];
    slot.put_data(0, &data);
    let mut room = [0; BODY_BYTES_MAX];
    let len = slot.call(&body, &mut room, patience, || bell.send(()).unwrap(), || true).unwrap();
    assert!(room[..len].iter().rev().eq(&body));
    let mut back = vec![0; data.len()];
    slot.get_data(0, &mut back);
    assert!(back.iter().all(|byte| *byte == (number as u8).wrapping_add(1)));
}

#[test]
fn every_call_of_many_threads_is_answered_once_spinning_and_sleeping() {
    let (server, client) = pair();
    let over = AtomicBool::new(false);
    let (bell, rung) = mpsc::channel();
    let (begin, patience) = (Instant::now(), Patience::new());
    thread::scope(|scope| {
        let (server, over, patience) = (&server, &over, &patience);
        scope.spawn(move || serve(server, &rung, over));
        let callers: Vec<_> = (0..6)
            .map(|caller| {
                let (client, bell) = (&client, bell.clone());
                scope.spawn(move || {
                    for number in 0..2000 {
                        // Now and then both sides have gone to sleep.
                        if number % 500 == 499 {
                            thread::sleep(Duration::from_millis(30));
                        }
                        call(
                            client,
                            &bell,
                            number * 7 + caller,
                            [None, Some(patience)][number as usize % 2],
                        );
                    }
                })
            })
            .collect();
        let ended = callers.into_iter().map(|caller| caller.join());
        let failed = ended.filter(Result::is_err).count();
        over.store(true, Ordering::Relaxed);
        bell.send(()).unwrap();
        assert_eq!(failed, 0);
    });
    assert!(begin.elapsed() < Duration::from_secs(15), "a wake was lost");
}

#[test]
fn slots_are_credits() {
    let (_server, client) = pair();
    let all: Vec<_> = (0..SHAPE.slots).map(|_| client.claim().unwrap()).collect();
    assert!(client.claim().is_none());
    drop(all);
    assert!(client.claim().is_some());
}

#[test]
fn who_waits_for_a_server_that_goes_is_told_and_its_slot_stays_taken() {
    let (server, client) = pair();
    let begun = Arc::new(Barrier::new(2));
    thread::scope(|scope| {
        let waiting = begun.clone();
        let client = &client;
        let waiter = scope.spawn(move || {
            let mut slot = client.claim().unwrap();
            waiting.wait();
            slot.call(b"?", &mut [0; BODY_BYTES_MAX], None, || {}, || true)
        });
        begun.wait();
        thread::sleep(Duration::from_millis(20));
        drop(server);
        let begin = Instant::now();
        assert_eq!(waiter.join().unwrap(), Err(Lost));
        assert!(begin.elapsed() < Duration::from_secs(2));
    });
    assert!(client.claim().is_none(), "nobody is there to answer");
}

#[test]
fn a_server_that_was_killed_says_nothing_and_is_missed() {
    let (server, client) = pair();
    let mut slot = client.claim().unwrap();
    assert_eq!(
        slot.call(b"?", &mut [0; BODY_BYTES_MAX], Some(&Patience::new()), || {}, || false),
        Err(Lost)
    );
    drop(slot);
    server.take(|taken, _| server.answer(taken.slot, b"too late"));
    let other = client.claim().unwrap();
    assert_eq!(other.index, 1, "a late answer meets nobody's call");
}

#[test]
fn a_garbled_client_is_passed_over() {
    let (server, client) = pair();
    let region = &client.region;
    // Bits of slots that are not there, and of slots in no state to be served.
    region.long(layout::READY_AT).store(u64::MAX, Ordering::Relaxed);
    server.take(|taken, _| panic!("{taken:?}"));
    state(region, 1).store(REQUESTED | WAITING, Ordering::Relaxed);
    region.word(Shape::slot_at(1) + layout::BODY_LEN_AT).store(u32::MAX, Ordering::Relaxed);
    region.long(layout::READY_AT).store(u64::MAX, Ordering::Relaxed);
    let mut taken = Vec::new();
    server.take(|call, body| {
        assert_eq!(body.len(), BODY_BYTES_MAX);
        assert!(server.data(call.slot, usize::MAX, 9).is_empty());
        assert!(server.data(call.slot, 8000, 193).is_empty());
        assert_eq!(server.put_data(call.slot, 8000, &[1; 500]), 192);
        assert_eq!(server.put_data(call.slot, usize::MAX, &[1; 500]), 0);
        taken.push(call.slot);
    });
    assert_eq!(taken, [1]);
    // Twice is once.
    region.long(layout::READY_AT).store(2, Ordering::Relaxed);
    server.take(|taken, _| panic!("{taken:?} is being served"));
    // Also when the client says that it is not.
    state(region, 1).store(REQUESTED, Ordering::Relaxed);
    region.long(layout::READY_AT).store(2, Ordering::Relaxed);
    server.take(|taken, _| panic!("{taken:?} is being served"));
    server.answer(1, b"done");
    state(region, 1).store(REQUESTED, Ordering::Relaxed);
    region.long(layout::READY_AT).store(2, Ordering::Relaxed);
    let mut again = 0;
    server.take(|_, _| again += 1);
    assert_eq!(again, 1, "after its answer");
}
