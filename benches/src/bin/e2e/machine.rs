//! Processor time and memory, from Linux's `/proc`: of a process, of its threads, of this thread, of the whole machine.
//!
//! Machines are shared and noisy. A rate per second of wall time says what a user gets on this machine now; a rate per second
//! of processor time says what the code costs, whoever else is running.

use std::fs;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

/// `USER_HZ`, which Linux has fixed at 100 for what it shows in `/proc`.
const TICKS_PER_S: f64 = 100.0;

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Failure(format!("{path}: {error}")))
}

/// Name and processor seconds (user and system) of a `stat` file.
fn stat(text: &str) -> Option<(String, f64)> {
    let name = text.get(text.find('(')? + 1..text.rfind(')')?)?;
    // Fields 14 and 15; the name, which may hold spaces, is the second.
    let mut after = text.get(text.rfind(')')? + 2..)?.split_ascii_whitespace().skip(11);
    let user: f64 = after.next()?.parse().ok()?;
    let system: f64 = after.next()?.parse().ok()?;
    Some((name.to_owned(), (user + system) / TICKS_PER_S))
}

/// Processor seconds of a process so far.
pub fn process_cpu_s(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    stat(&read(&path)?).map(|(_, seconds)| seconds).ok_or_else(|| Failure(format!("{path} is not as expected")))
}

/// Processor seconds of each living thread, the busiest first.
pub fn threads_cpu_s(pid: u32) -> Result<Vec<(String, f64)>> {
    let path = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&path).map_err(|error| Failure(format!("{path}: {error}")))?;
    // A thread may end while we look.
    let texts = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let mut threads: Vec<_> = texts.filter_map(|text| stat(&text)).collect();
    threads.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(threads)
}

/// The most memory a process has had, bytes.
pub fn peak_memory_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = read(&path)?;
    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_ascii_whitespace().next()?.parse().ok());
    peak.map(|kib: u64| kib * 1024).ok_or_else(|| Failure(format!("{path} has no VmHWM")))
}

/// Processor seconds of this thread so far.
pub fn this_thread_cpu_s() -> Result<f64> {
    let path = "/proc/thread-self/schedstat";
    let nanos = read(path)?.split_ascii_whitespace().next().and_then(|text| text.parse::<u64>().ok());
    nanos.map(|nanos| nanos as f64 / 1e9).ok_or_else(|| Failure(format!("{path} is not as expected")))
}

/// Processor seconds that all processors together have been busy since the start of the machine.
fn machine_busy_s() -> Result<f64> {
    let path = "/proc/stat";
    let text = read(path)?;
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let [user, nice, system, _, _, irq, softirq, steal, ..] = fields[..] else {
        return Err(Failure(format!("{path} is not as expected")));
    };
    Ok((user + nice + system + irq + softirq + steal) / TICKS_PER_S)
}

pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How busy the whole machine was over a stretch of time.
pub struct Stretch {
    began: Instant,
    busy_s: f64,
}

impl Stretch {
    pub fn begin() -> Result<Stretch> {
        Ok(Stretch { began: Instant::now(), busy_s: machine_busy_s()? })
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Processor seconds, of everybody.
    pub fn busy_s(&self) -> Result<f64> {
        Ok(machine_busy_s()? - self.busy_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_with_spaces_and_brackets_in_its_name_is_read() {
        let text = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 99";
        assert_eq!(stat(text), Some(("a) b (c".to_owned(), 2.0)));
    }

    #[test]
    fn this_process_has_memory_and_processor_time() {
        let pid = std::process::id();
        assert!(peak_memory_bytes(pid).unwrap() > 100_000);
        assert!(!threads_cpu_s(pid).unwrap().is_empty());
        // A thread's time is brought up to date at the scheduler's ticks.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(100) {
            std::hint::black_box(began.elapsed());
        }
        assert!(this_thread_cpu_s().unwrap() > 0.0);
    }
}
