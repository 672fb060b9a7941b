//! The queue beside a `VecDeque`, and beside threads.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn cells(capacity: usize) -> Vec<AtomicU64> {
    (0..capacity).map(|_| AtomicU64::new(0)).collect()
}

/// What somebody does with the queue, wholly or up to the instruction where he is killed.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    /// The entry is in its cell, the tail was not moved.
    PushAndDie,
    Take,
    /// The message was taken, its cell not cleared.
    TakeAndDie,
    /// The cell was cleared, the head not moved.
    ClearAndDie,
    /// Who lost the race for the entry at the head clears its cell only after so many steps of others.
    ClearLate,
    /// A sweep: the tail is moved past an entry whose pusher is dead.
    CatchUp,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Push),
        2 => Just(Step::PushAndDie),
        6 => Just(Step::Take),
        2 => Just(Step::TakeAndDie),
        2 => Just(Step::ClearAndDie),
        2 => Just(Step::ClearLate),
        1 => Just(Step::CatchUp),
    ]
}

/// The queue with the model that it must behave as.
struct Twin<'a> {
    queue: Queue<'a>,
    capacity: usize,
    model: VecDeque<Entry>,
    /// The entry at the head whose message was taken by one who did not clear the cell.
    taken: Option<Entry>,
    late: Option<Front>,
    pushed: u32,
}

impl Twin<'_> {
    /// Clears what a dead taker left, as everybody does who comes by.
    fn pass_stale(&mut self) {
        let Some(stale) = self.taken.take() else { return };
        let front = self.queue.front().unwrap();
        assert_eq!(front.entry, stale);
        self.queue.clear(front);
    }

    fn push(&mut self) -> bool {
        let entry = Entry::new((self.pushed % 1000) as usize, self.pushed);
        self.pushed += 1;
        let pushed = self.queue.push(entry);
        let room = self.model.len() + usize::from(self.taken.is_some()) < self.capacity;
        assert_eq!(pushed.is_ok(), room);
        if room {
            self.model.push_back(entry);
        }
        room
    }

    fn front(&mut self) -> Option<Front> {
        self.pass_stale();
        let front = self.queue.front();
        assert_eq!(front.map(|front| front.entry), self.model.front().copied());
        front
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Push => drop(self.push()),
            Step::PushAndDie => {
                if self.push() {
                    self.queue.lag();
                }
            }
            Step::Take => {
                if let Some(front) = self.front() {
                    self.queue.clear(front);
                    self.model.pop_front();
                }
            }
            Step::TakeAndDie => {
                if self.front().is_some() {
                    self.taken = self.model.pop_front();
                }
            }
            Step::ClearAndDie => {
                if let Some(front) = self.front() {
                    self.queue.clear(front);
                    self.queue.indices.head.0.store(front.position, Ordering::Relaxed);
                    self.model.pop_front();
                }
            }
            Step::ClearLate => match self.late.take() {
                Some(late) if !self.is_at_the_head(late) => self.queue.clear(late),
                late => self.late = late.or_else(|| self.queue.front()),
            },
            Step::CatchUp => self.queue.catch_up(),
        }
    }

    /// Whether the entry is still there: who would clear it then took its message, which the model knows nothing of.
    fn is_at_the_head(&self, late: Front) -> bool {
        self.queue.front() == Some(late)
    }
}

/// So many cases, but few under Miri, which is slow.
fn cases(count: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 4 } else { count };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Whoever is killed wherever, and whoever comes late: the queue is a bounded first-in-first-out.
    #[test]
    fn behaves_as_a_bounded_deque(capacity in 0..5u32, steps in prop::collection::vec(step(), 0..200)) {
        let (indices, cells) = (QueueIndices::default(), cells(1 << capacity));
        let queue = Queue::new(&indices, &cells);
        let mut twin = Twin { queue, capacity: 1 << capacity, model: VecDeque::new(), taken: None, late: None, pushed: 0 };
        for step in steps {
            twin.act(step);
        }
        queue.catch_up();
        while twin.front().is_some() {
            twin.act(Step::Take);
        }
        twin.act(Step::Push);
        assert_eq!(queue.len(), 1);
    }

}

proptest! {
    #![proptest_config(cases(50))]

    /// Threads push and take as the scheduler lets them: each entry comes out once, and those of one producer in order.
    #[test]
    fn threads_lose_nothing_and_keep_each_others_order(capacity in 0..4u32, producers in 1..4usize, consumers in 1..4usize) {
        const EACH: usize = if cfg!(miri) { 10 } else { 200 };
        let (indices, cells) = (QueueIndices::default(), cells(1 << capacity));
        let queue = Queue::new(&indices, &cells);
        // Stands for the states of the messages: decides who takes.
        let taken: Vec<AtomicU64> = (0..producers * EACH).map(|_| AtomicU64::new(0)).collect();
        let left = AtomicU64::new((producers * EACH) as u64);
        let seen: Vec<Vec<usize>> = std::thread::scope(|scope| {
            for producer in 0..producers {
                scope.spawn(move || {
                    for n in 0..EACH {
                        while queue.push(Entry::new(producer * EACH + n, 0)).is_err() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let take = || {
                let mut seen = Vec::new();
                while left.load(Ordering::Acquire) > 0 {
                    let Some(front) = queue.front() else {
                        std::thread::yield_now();
                        continue;
                    };
                    let index = front.entry.index;
                    if taken[index].compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        seen.push(index);
                        left.fetch_sub(1, Ordering::AcqRel);
                    }
                    queue.clear(front);
                }
                seen
            };
            let consumers: Vec<_> = (0..consumers).map(|_| scope.spawn(take)).collect();
            consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
        });
        assert_eq!(seen.iter().map(Vec::len).sum::<usize>(), producers * EACH);
        for seen in seen {
            for producer in 0..producers {
                assert!(seen.iter().filter(|index| **index / EACH == producer).is_sorted());
            }
        }
    }
}

#[test]
fn lagging_indices_are_helped_along() {
    let (indices, cells) = (QueueIndices::default(), cells(4));
    let queue = Queue::new(&indices, &cells);
    for n in 0..3 {
        queue.push(Entry::new(n, 0)).unwrap();
    }
    queue.lag();
    queue.push(Entry::new(3, 0)).unwrap();
    assert_eq!(queue.push(Entry::new(4, 0)), Err(Full));
    let front = queue.front().unwrap();
    queue.clear(front);
    // As if the one who cleared had been killed before the head moved.
    indices.head.0.store(0, Ordering::Relaxed);
    assert_eq!(queue.front().unwrap().entry.index, 1);
}

#[test]
fn garbage_in_the_cells_ends_every_loop() {
    let (indices, cells) = (QueueIndices::default(), cells(4));
    let queue = Queue::new(&indices, &cells);
    for garbage in [u64::MAX, 1 << 32, 5 << 32 | 3, 0xFFFF] {
        for cell in &cells {
            cell.store(garbage, Ordering::Relaxed);
        }
        for index in [0, 3, 1 << 40, u64::MAX] {
            indices.head.0.store(index, Ordering::Relaxed);
            indices.tail.0.store(index, Ordering::Relaxed);
            let _full_or_not = queue.push(Entry::new(1, 1));
            if let Some(front) = queue.front() {
                queue.clear(front);
            }
        }
    }
}
