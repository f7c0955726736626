//! Memory and processor time of a process, read from `/proc` (Linux); elsewhere nothing is known
//! and the gauges stay absent.

use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;

use super::names;

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// User and system time since it started, in seconds.
    pub cpu_seconds: f64,
}

/// Usage of this process.
pub fn own_usage() -> Option<Usage> {
    read_usage("self")
}

/// Usage of another process; `None` where it has ended.
pub fn usage_of(process_id: u32) -> Option<Usage> {
    read_usage(&process_id.to_string())
}

/// User and system time of each thread of a process by its name (at most 15 bytes of it), in seconds;
/// empty where it has ended.
pub fn cpu_by_thread(process_id: u32) -> Vec<(String, f64)> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process_id}/task")) else {
        return Vec::new();
    };
    let read = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
        let name = stat.get(stat.find('(')? + 1..stat.rfind(')')?)?;
        Some((name.to_owned(), cpu_seconds(&stat)?))
    };
    threads.filter_map(|thread| read(thread.ok()?)).collect()
}

/// User and system time of a line of `stat`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The command's name may hold blanks and parentheses: fields are counted from its last one.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    // SAFETY: sysconf only reads constants of the system.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(ticks as f64 / ticks_per_second as f64)
}

fn read_usage(process: &str) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let memory = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let resident_pages: u64 = memory.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: sysconf only reads constants of the system.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page_bytes = u64::try_from(page_bytes).ok()?;
    Some(Usage {
        memory_bytes: resident_pages * page_bytes,
        cpu_seconds: cpu_seconds(&stat)?,
    })
}

/// Keeps the two process gauges fresh and the recorder's histograms drained, until dropped.
pub async fn sample_forever(handle: PrometheusHandle, every: Duration) {
    let mut last = own_usage().map(|usage| (usage, Instant::now()));
    let mut ticker = tokio::time::interval(every);
    loop {
        ticker.tick().await;
        handle.run_upkeep();
        let Some(usage) = own_usage() else { continue };
        let now = Instant::now();
        metrics::gauge!(names::ORCHESTRATION_MEMORY_BYTES).set(usage.memory_bytes as f64);
        let percent = last.map_or(0.0, |(before, at)| {
            let wall = now.duration_since(at).as_secs_f64();
            if wall > 0.0 {
                100.0 * (usage.cpu_seconds - before.cpu_seconds) / wall
            } else {
                0.0
            }
        });
        metrics::gauge!(names::ORCHESTRATION_CPU_PERCENT).set(percent);
        last = Some((usage, now));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let before = own_usage().unwrap();
        assert!(before.memory_bytes > 100_000);
        let mut sum = 0_u64;
        while own_usage().unwrap().cpu_seconds <= before.cpu_seconds {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert_eq!(
            usage_of(std::process::id()).map(|usage| usage.memory_bytes > 0),
            Some(true)
        );
    }

    #[test]
    fn threads_are_told_apart_by_their_names() {
        let spin = || {
            let mine = || {
                let threads = cpu_by_thread(std::process::id());
                let mut times = threads.iter().filter(|(name, _)| name == "spinning (1)");
                times.next().map_or(0.0, |(_, seconds)| *seconds)
            };
            while mine() == 0.0 {}
        };
        let thread = std::thread::Builder::new().name("spinning (1)".to_owned());
        thread.spawn(spin).unwrap().join().unwrap();
    }

    #[test]
    fn a_process_that_is_gone_has_no_usage() {
        assert_eq!(usage_of(u32::MAX), None);
        assert_eq!(cpu_by_thread(u32::MAX), []);
    }
}
