//! What a request to an xstream and its answer cost: `hop [SPIN_US]`.

use std::time::{Duration, Instant};

use daos_xstream::{Xstream, XstreamConfig, mailbox, oneshot};

const COUNT: usize = 20_000;

fn main() {
    let spin_us = std::env::args().nth(1).map_or(20, |text| text.parse().expect("microseconds"));
    let (mailbox, mut inbox) = mailbox::<oneshot::Sender<()>>(64);
    let config = XstreamConfig { spin_us, ..Default::default() };
    let server = Xstream::start(config, |_| async move {
        while let Some(reply) = inbox.recv().await {
            reply.send(());
        }
    })
    .unwrap();
    for (name, pause) in
        [("back to back", Duration::ZERO), ("after 1 ms of rest", Duration::from_millis(1))]
    {
        let count = if pause.is_zero() { COUNT } else { COUNT / 20 };
        let mut times = Vec::new();
        for _ in 0..count {
            std::thread::sleep(pause);
            let start = Instant::now();
            let (sender, answer) = oneshot::channel();
            mailbox.send(sender).map_err(drop).unwrap();
            answer.wait().unwrap();
            times.push(start.elapsed().as_nanos() as u64);
        }
        times.sort_unstable();
        let at = |percent: usize| times[count * percent / 100] as f64 / 1000.0;
        println!("{name}: p50 {:.1} us, p99 {:.1} us", at(50), at(99));
    }
    drop(mailbox);
    server.join().unwrap();

    let start = Instant::now();
    Xstream::run(&XstreamConfig::default(), |handle| async move {
        for _ in 0..1_000_000 {
            handle.spawn(async {}).await;
        }
    })
    .unwrap();
    println!("a task, spawned and awaited: {:.0} ns", start.elapsed().as_nanos() as f64 / 1e6);
}
