//! Named places where a test may end the process, as a power cut would.
//!
//! Compiled into builds with debug assertions only, as the tests use; otherwise [`point`] is nothing.

/// Ends the process here if `COSTHELM_TEST_CRASH_AT` is `name` or `name:n`, at the n-th time.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let Ok(wanted) = std::env::var("COSTHELM_TEST_CRASH_AT") else {
        return;
    };
    let (wanted, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if wanted == name && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == nth.parse().unwrap_or(1) {
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
#[inline]
pub fn point(_name: &str) {}
