//! An instance of the inner service from which others are cloned.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// An instance of the inner service that is never polled: its clones have nothing of the readiness
/// of another.
///
/// Three rules:
///
/// 1. `Clone` is a user's code and may do anything: no lock is held while it runs. Nor may two
///    threads run it on the same instance, which need not be [`Sync`]. So the instance is checked
///    out, cloned and put back.
/// 2. A task that finds it checked out registers its waker. It is put back and the wakers are taken
///    under one lock, so that no wake-up is lost. All are woken: a task that was dropped meanwhile
///    passes nothing on.
/// 3. It is put back if the clone panics, too. The panic is that caller's alone.
pub(crate) struct Template<S>(Mutex<State<S>>);

struct State<S> {
    /// `None` while it is checked out.
    instance: Option<S>,
    waiters: Vec<Waker>,
}

impl<S> Template<S> {
    pub(crate) fn new(instance: S) -> Self {
        Self(Mutex::new(State {
            instance: Some(instance),
            waiters: Vec::new(),
        }))
    }

    /// An instance that must be polled ready before it is called. Pending while another thread
    /// clones.
    pub(crate) fn poll_clone(&self, cx: &mut Context<'_>) -> Poll<S>
    where
        S: Clone,
    {
        self.poll_check_out(cx)
            .map(|checked_out| checked_out.instance().clone())
    }

    fn poll_check_out(&self, cx: &mut Context<'_>) -> Poll<CheckedOut<'_, S>> {
        let mut waker = None;
        loop {
            let mut state = self.lock();
            if let Some(instance) = state.instance.take() {
                return Poll::Ready(CheckedOut {
                    template: self,
                    instance: Some(instance),
                });
            }
            if let Some(waker) = waker.take() {
                state.waiters.push(waker);
                return Poll::Pending;
            }
            // Wakers are a user's code, too.
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the instance back when it is dropped.
struct CheckedOut<'a, S> {
    template: &'a Template<S>,
    /// `None` from the drop on.
    instance: Option<S>,
}

impl<S> CheckedOut<'_, S> {
    fn instance(&self) -> &S {
        self.instance
            .as_ref()
            .expect("it is put back on drop, not earlier")
    }
}

impl<S> Drop for CheckedOut<'_, S> {
    fn drop(&mut self) {
        let waiters = {
            let mut state = self.template.lock();
            state.instance = self.instance.take();
            mem::take(&mut state.waiters)
        };
        for waiter in waiters {
            // A panic of another task's waker is not this caller's.
            let _ = catch_unwind(AssertUnwindSafe(|| waiter.wake()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
        thread,
    };

    use futures_util::future::poll_fn;

    use super::*;

    /// Counts how often it wakes, and may panic then.
    #[derive(Default)]
    struct Alarm {
        woken: AtomicUsize,
        panics: bool,
    }

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.woken.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics, "a waker that panics");
        }
    }

    impl Alarm {
        fn of_panicking() -> Arc<Self> {
            Arc::new(Self {
                panics: true,
                ..Self::default()
            })
        }

        fn woken(&self) -> usize {
            self.woken.load(Ordering::SeqCst)
        }
    }

    fn poll<S: Clone>(template: &Template<S>, alarm: &Arc<Alarm>) -> Poll<S> {
        let waker = Waker::from(Arc::clone(alarm));
        template.poll_clone(&mut Context::from_waker(&waker))
    }

    /// A service whose clones are made by a closure.
    struct Made<'a>(&'a dyn Fn());

    impl Clone for Made<'_> {
        fn clone(&self) -> Self {
            (self.0)();
            Self(self.0)
        }
    }

    #[test]
    fn case_64_no_lock_is_held_while_it_is_cloned_and_who_comes_then_waits() {
        thread_local!(static TEMPLATE: Cell<Option<&'static Template<Made<'static>>>> = const { Cell::new(None) });
        let (within, outside) = (Arc::new(Alarm::default()), Arc::new(Alarm::default()));
        let alarm = Arc::clone(&within);
        let make = move || {
            // Only the first clone looks for another one.
            if let Some(template) = TEMPLATE.take() {
                assert!(poll(template, &alarm).is_pending());
            }
        };
        let template: &'static _ =
            Box::leak(Box::new(Template::new(Made(Box::leak(Box::new(make))))));
        TEMPLATE.set(Some(template));
        assert!(poll(template, &outside).is_ready());
        assert_eq!((within.woken(), outside.woken()), (1, 0));
        assert!(poll(template, &within).is_ready());
        assert_eq!((within.woken(), outside.woken()), (1, 0));
    }

    #[test]
    fn case_64_a_clone_that_panics_puts_it_back_and_wakes_those_who_wait() {
        let panics = Cell::new(true);
        let make = || assert!(!panics.replace(false), "a clone that panics");
        let template = Template::new(Made(&make));
        let alarms = [
            Arc::new(Alarm::default()),
            Alarm::of_panicking(),
            Arc::new(Alarm::default()),
        ];
        let checked_out = template.poll_check_out(&mut Context::from_waker(Waker::noop()));
        for alarm in &alarms {
            assert!(poll(&template, alarm).is_pending());
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Poll::Ready(checked_out) = checked_out else {
                panic!("nobody else has it")
            };
            drop(checked_out.instance().clone());
        }));
        assert!(outcome.is_err());
        assert_eq!(alarms.each_ref().map(|alarm| alarm.woken()), [1, 1, 1]);
        assert!(poll(&template, &alarms[0]).is_ready());
        assert_eq!(alarms.each_ref().map(|alarm| alarm.woken()), [1, 1, 1]);
    }

    /// Not `Sync`, and slow to clone.
    struct Slow(Cell<()>);

    impl Clone for Slow {
        fn clone(&self) -> Self {
            thread::yield_now();
            Self(self.0.clone())
        }
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        let template = Arc::new(Template::new(Slow(Cell::new(()))));
        let threads = [(); 4].map(|()| {
            let template = Arc::clone(&template);
            let clones = async move {
                for _ in 0..5_000 {
                    poll_fn(|cx| template.poll_clone(cx)).await;
                }
            };
            thread::spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap()
                    .block_on(clones)
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
