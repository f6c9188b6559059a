//! Runs tasks that need one another's results: each once, as early as its needs allow, on a bounded number of threads.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What a task mostly waits for; each class has threads of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// The network.
    Fetch,
    /// The processor.
    Build,
}

/// One task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) class: Class,
    /// Positions of the tasks whose results it needs; all smaller than its own position.
    pub(super) needs: Vec<usize>,
}

/// How many threads each class has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threads {
    pub(super) fetch: NonZeroUsize,
    pub(super) build: NonZeroUsize,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended<R> {
    /// It ran.
    Ran(R),
    /// It did not run, because the task at this position failed.
    NeedFailed(usize),
    /// It did not run, because another task failed and nothing new was to be begun.
    NotBegun,
}

/// Runs all tasks. `work` gives a task's result and whether that is a success; without `keep_going` no task begins after
/// the first failure, though running ones end.
pub(super) fn run<R: Send>(
    tasks: &[Task],
    threads: Threads,
    keep_going: bool,
    work: &(dyn Fn(usize) -> (R, bool) + Sync),
) -> Vec<Ended<R>> {
    let shared_state = Shared { state: Mutex::new(State::new(tasks)), changed: Condvar::new() };
    let count = |class: Class| tasks.iter().filter(|task| task.class == class).count();
    let shared = &shared_state;
    std::thread::scope(|scope| {
        for (class, limit) in [(Class::Fetch, threads.fetch), (Class::Build, threads.build)] {
            for _ in 0..limit.get().min(count(class)) {
                scope.spawn(move || worker(tasks, class, keep_going, work, shared));
            }
        }
    });
    let state = shared_state.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.ended.into_iter().map(|ended| ended.unwrap_or(Ended::NotBegun)).collect()
}

struct Shared<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
}

struct State<R> {
    /// Tasks whose needs are met, by class; the smallest position first.
    ready: BTreeSet<(Class, usize)>,
    /// How many needs each task still waits for.
    missing: Vec<usize>,
    /// The tasks that need each task.
    wanted_by: Vec<Vec<usize>>,
    ended: Vec<Option<Ended<R>>>,
    open: usize,
    stopped: bool,
}

impl<R> State<R> {
    fn new(tasks: &[Task]) -> Self {
        let missing: Vec<usize> = tasks.iter().map(|task| task.needs.len()).collect();
        let ready = (0..tasks.len()).filter(|task| missing[*task] == 0).map(|task| (tasks[task].class, task)).collect();
        let mut wanted_by = vec![Vec::new(); tasks.len()];
        for (task, needs) in tasks.iter().enumerate() {
            for need in &needs.needs {
                wanted_by[*need].push(task);
            }
        }
        let ended = tasks.iter().map(|_| None).collect();
        Self { ready, missing, wanted_by, ended, open: tasks.len(), stopped: false }
    }

    fn take(&mut self, class: Class) -> Option<usize> {
        let next = self.ready.range((class, 0)..=(class, usize::MAX)).next().copied()?;
        self.ready.remove(&next);
        Some(next.1)
    }

    fn succeed(&mut self, tasks: &[Task], task: usize, result: R) {
        self.ended[task] = Some(Ended::Ran(result));
        self.open -= 1;
        for later in std::mem::take(&mut self.wanted_by[task]) {
            self.missing[later] -= 1;
            if self.missing[later] == 0 && self.ended[later].is_none() {
                self.ready.insert((tasks[later].class, later));
            }
        }
    }

    /// Ends a failed task, and with it everything that needs it.
    fn fail(&mut self, task: usize, result: R) {
        self.ended[task] = Some(Ended::Ran(result));
        self.open -= 1;
        let mut reached = std::mem::take(&mut self.wanted_by[task]);
        while let Some(later) = reached.pop() {
            if self.ended[later].is_none() {
                self.ended[later] = Some(Ended::NeedFailed(task));
                self.open -= 1;
                reached.append(&mut self.wanted_by[later]);
            }
        }
    }
}

fn worker<R: Send>(
    tasks: &[Task],
    class: Class,
    keep_going: bool,
    work: &(dyn Fn(usize) -> (R, bool) + Sync),
    shared: &Shared<R>,
) {
    let mut state = lock(&shared.state);
    loop {
        if state.open == 0 || state.stopped {
            shared.changed.notify_all();
            return;
        }
        let Some(task) = state.take(class) else {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        let (result, success) = work(task);
        state = lock(&shared.state);
        if success {
            state.succeed(tasks, task, result);
        } else {
            state.fail(task, result);
            state.stopped |= !keep_going;
        }
        shared.changed.notify_all();
    }
}

fn lock<R>(state: &Mutex<State<R>>) -> MutexGuard<'_, State<R>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Threads = Threads { fetch: NonZeroUsize::MIN, build: NonZeroUsize::new(2).unwrap() };

    fn tasks(needs: &[&[usize]]) -> Vec<Task> {
        needs.iter().map(|needs| Task { class: Class::Build, needs: needs.to_vec() }).collect()
    }

    #[test]
    fn every_task_runs_once_after_its_needs() {
        let mut tasks = tasks(&[&[], &[], &[0, 1], &[2], &[2, 2], &[3, 4]]);
        tasks[1].class = Class::Fetch;
        let order = Mutex::new(Vec::new());
        let ended = run(&tasks, TWO, false, &|task| {
            order.lock().unwrap().push(task);
            (task, true)
        });
        assert_eq!(ended, (0..6).map(Ended::Ran).collect::<Vec<_>>());
        let order = order.into_inner().unwrap();
        for (position, task) in order.iter().enumerate() {
            assert!(tasks[*task].needs.iter().all(|need| order[..position].contains(need)), "{order:?}");
        }
    }

    #[test]
    fn a_failure_reaches_what_needs_it_and_nothing_else() {
        let tasks = tasks(&[&[], &[], &[0], &[1], &[2, 3], &[4]]);
        let ended = run(&tasks, TWO, true, &|task| (task, task != 0));
        let expected = [
            Ended::Ran(0),
            Ended::Ran(1),
            Ended::NeedFailed(0),
            Ended::Ran(3),
            Ended::NeedFailed(0),
            Ended::NeedFailed(0),
        ];
        assert_eq!(ended, expected);
    }

    #[test]
    fn nothing_begins_after_a_failure_unless_told_to_keep_going() {
        let tasks = tasks(&[&[], &[0], &[], &[], &[]]);
        let one = Threads { fetch: NonZeroUsize::MIN, build: NonZeroUsize::MIN };
        let ended = run(&tasks, one, false, &|task| ((), task != 0));
        assert_eq!(ended[..2], [Ended::Ran(()), Ended::NeedFailed(0)]);
        assert_eq!(ended[2..], [Ended::NotBegun, Ended::NotBegun, Ended::NotBegun]);
    }

    #[test]
    fn a_thousand_tasks_in_a_chain() {
        let tasks: Vec<Task> = (0..1000)
            .map(|task: usize| Task { class: Class::Build, needs: task.checked_sub(1).into_iter().collect() })
            .collect();
        assert!(run(&tasks, TWO, false, &|task| (task, true)).iter().all(|ended| matches!(ended, Ended::Ran(_))));
    }
}
