//! The template: an instance of the inner service that is only cloned.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// An instance of the inner service that is never polled, so that its clones are not ready.
///
/// Three rules:
///
/// 1. `Clone` is user code: no lock is held while it runs. Two threads never clone the instance at
///    the same time, since it need not be [`Sync`]. So a caller takes the instance out, clones it
///    and puts it back.
/// 2. A caller that finds no instance registers its waker. One critical section puts the instance
///    back and takes the wakers, so that no wake-up is lost. All of them are woken: a dropped task
///    would not pass a wake-up on.
/// 3. A panic of the clone reaches its caller only. The instance is put back.
pub(crate) struct Template<S>(Mutex<State<S>>);

struct State<S> {
    /// `None` while a caller clones it.
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

    /// A clone, which must be polled ready before it is called. Pending while another thread clones
    /// the instance.
    pub(crate) fn poll_clone(&self, cx: &mut Context<'_>) -> Poll<S>
    where
        S: Clone,
    {
        self.poll_take(cx).map(|taken| taken.instance().clone())
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Taken<'_, S>> {
        let mut waker = None;
        loop {
            let mut state = self.lock();
            if let Some(instance) = state.instance.take() {
                return Poll::Ready(Taken {
                    template: self,
                    instance: Some(instance),
                });
            }
            // Registered under the lock that found no instance: rule 2.
            if let Some(waker) = waker.take() {
                state.waiters.push(waker);
                return Poll::Pending;
            }
            // The clone of a waker is user code, too.
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        // No user code runs under the lock, so no panic of a clone or a waker poisons it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instance while it is out of its template. Puts it back on drop.
struct Taken<'a, S> {
    template: &'a Template<S>,
    /// `Some` until the drop.
    instance: Option<S>,
}

impl<S> Taken<'_, S> {
    fn instance(&self) -> &S {
        self.instance
            .as_ref()
            .expect("the instance is put back on drop, not earlier")
    }
}

impl<S> Drop for Taken<'_, S> {
    fn drop(&mut self) {
        let waiters = {
            let mut state = self.template.lock();
            state.instance = self.instance.take();
            mem::take(&mut state.waiters)
        };
        for waiter in waiters {
            // A panic of another task's waker must not reach this caller.
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

    /// A waker that counts its wake-ups, and may panic.
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

    /// A service that runs a closure when it is cloned.
    struct Service<'a>(&'a dyn Fn());

    impl Clone for Service<'_> {
        fn clone(&self) -> Self {
            (self.0)();
            Self(self.0)
        }
    }

    #[test]
    fn case_64_clones_without_a_lock_while_a_second_caller_waits() {
        type Static = &'static Template<Service<'static>>;
        thread_local!(static TEMPLATE: Cell<Option<Static>> = const { Cell::new(None) });
        let (within, outside) = (Arc::new(Alarm::default()), Arc::new(Alarm::default()));
        let alarm = Arc::clone(&within);
        let make = move || {
            // Only the first clone asks for another one.
            if let Some(template) = TEMPLATE.take() {
                assert!(poll(template, &alarm).is_pending());
            }
        };
        let template: &'static _ =
            Box::leak(Box::new(Template::new(Service(Box::leak(Box::new(make))))));
        TEMPLATE.set(Some(template));
        assert!(poll(template, &outside).is_ready());
        assert_eq!((within.woken(), outside.woken()), (1, 0));
        assert!(poll(template, &within).is_ready());
        assert_eq!((within.woken(), outside.woken()), (1, 0));
    }

    #[test]
    fn case_64_a_panic_of_clone_puts_it_back_and_wakes_all_waiters() {
        let panics = Cell::new(true);
        let make = || assert!(!panics.replace(false), "a clone that panics");
        let template = Template::new(Service(&make));
        let alarms = [
            Arc::new(Alarm::default()),
            Alarm::of_panicking(),
            Arc::new(Alarm::default()),
        ];
        let taken = template.poll_take(&mut Context::from_waker(Waker::noop()));
        for alarm in &alarms {
            assert!(poll(&template, alarm).is_pending());
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Poll::Ready(taken) = taken else {
                panic!("the template is taken")
            };
            drop(taken.instance().clone());
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
