//! The queue in every interleaving that the memory model allows.

use loom::sync::Arc;
use loom::thread;

use super::*;

type Shared = Arc<(QueueIndices, Vec<AtomicU64>)>;

fn shared(capacity: usize) -> Shared {
    Arc::new((QueueIndices::default(), (0..capacity).map(|_| AtomicU64::new(0)).collect()))
}

fn queue(shared: &Shared) -> Queue<'_> {
    Queue::new(&shared.0, &shared.1)
}

/// Takes what is at the head, as one who is sure to be the only taker of its entry.
fn pop(queue: Queue<'_>) -> Option<usize> {
    let front = queue.front()?;
    queue.clear(front);
    Some(front.entry.index)
}

fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Two producers on a queue of two, and one consumer: each entry comes out once.
#[test]
fn what_two_push_one_takes_once_each() {
    bounded(|| {
        let shared = shared(2);
        let pushers: Vec<_> = (1..=2)
            .map(|n| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || queue(&shared).push(Entry::new(n, 0)).unwrap())
            })
            .collect();
        let mut seen: Vec<_> = pop(queue(&shared)).into_iter().collect();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        seen.extend(std::iter::from_fn(|| pop(queue(&shared))));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    });
}

/// One producer wraps round a queue of one while a consumer takes: in order, none twice.
#[test]
fn order_holds_over_laps() {
    bounded(|| {
        let shared = shared(1);
        let pusher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || (1..=2).filter(|n| queue(&shared).push(Entry::new(*n, 0)).is_ok()).count())
        };
        let mut seen: Vec<_> = (0..2).filter_map(|_| pop(queue(&shared))).collect();
        let pushed = pusher.join().unwrap();
        seen.extend(pop(queue(&shared)));
        assert_eq!(seen.len(), pushed);
        assert!(seen.is_sorted());
    });
}

/// Two consumers race for the same entry: what decides is the state of its message, here a word of its own. The loser's
/// `clear` must not empty the cell of the entry after.
#[test]
fn two_who_take_get_one_entry_each() {
    bounded(|| {
        let shared = shared(2);
        for n in 1..=2 {
            queue(&shared).push(Entry::new(n, 0)).unwrap();
        }
        let states = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let take = |shared: &Shared, states: &[AtomicU64; 2]| {
            for _ in 0..3 {
                let Some(front) = queue(shared).front() else { return None };
                let state = &states[front.entry.index - 1];
                let won = state.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
                queue(shared).clear(front);
                if won {
                    return Some(front.entry.index);
                }
            }
            None
        };
        let other = {
            let (shared, states) = (Arc::clone(&shared), Arc::clone(&states));
            thread::spawn(move || take(&shared, &states))
        };
        let mut taken: Vec<_> = take(&shared, &states).into_iter().chain(other.join().unwrap()).collect();
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        assert_eq!(pop(queue(&shared)), None);
    });
}

/// Who lost the race for an entry clears it late, when another is in its cell already: that one stays.
#[test]
fn a_late_clear_spares_the_next_lap() {
    bounded(|| {
        let shared = shared(1);
        queue(&shared).push(Entry::new(1, 0)).unwrap();
        let late = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let front = queue(&shared).front().filter(|front| front.entry.index == 1);
                front.inspect(|front| queue(&shared).clear(*front));
            })
        };
        assert_eq!(queue(&shared).front().map(|front| front.entry.index).unwrap_or(1), 1);
        pop(queue(&shared));
        let pushed = queue(&shared).push(Entry::new(2, 0)).is_ok();
        late.join().unwrap();
        assert_eq!(pop(queue(&shared)), pushed.then_some(2));
    });
}

/// What was written before a push is seen by who finds the entry.
#[test]
fn a_push_publishes() {
    bounded(|| {
        let shared = shared(2);
        let payload = Arc::new(AtomicU64::new(0));
        let finder = {
            let (shared, payload) = (Arc::clone(&shared), Arc::clone(&payload));
            thread::spawn(move || {
                let found = queue(&shared).front().is_some();
                assert!(!found || payload.load(Ordering::Relaxed) == 7);
            })
        };
        payload.store(7, Ordering::Relaxed);
        queue(&shared).push(Entry::new(1, 0)).unwrap();
        finder.join().unwrap();
    });
}
